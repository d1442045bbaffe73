"""Install a built wheel as a stranger would, and run the README's examples with it, outside the checkout.

    python tools/try_wheel.py dist/cellwise-0.5.0-py3-none-any.whl

First the wheel is compared with the checkout: it holds every file below src/cellwise that git tracks, and nothing else.
Then a fresh virtual environment in a temporary folder gets torch (pinned: an open range brings gigabytes of CUDA
packages), the wheel and its extras for users, and runs the README: its Python as a doctest, its commands line by line.
Takes two or three minutes, most of it pip. Exits 1 at the first thing that fails.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import venv
import wave
import zipfile
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TORCH = "torch==2.13.0"
EXTRAS = "forecast,bench,tune,excel,holidays,subwords,ppmd,translate,speech"
# Commands of the README that train for minutes or fetch data, or whose argument another one makes: not run here.
SKIPPED = ("gradients", "memory", "reproduce", "bench", "trace")
SMALL = ["--epochs", "1", "--hidden-size", "8"]
BRIEF = {
    "fit": SMALL,
    "backtest": SMALL,
    "tune": [*SMALL, "--trials", "2"],
    "compare": [*SMALL, "--seeds", "1"],
    "demo": ["--epochs", "1"],
}  # of two equal options the last counts


def fenced(text: str) -> list[str]:
    """The code blocks of a Markdown text, without their fences."""
    return re.findall(r"^```[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The README's `cellwise` command lines as words, those that are not skipped.

    >>> commands("```\\ncellwise show gru   # its equations\\ncellwise memory\\n```")
    [['show', 'gru']]
    """
    lines = [line for block in fenced(text) for line in block.splitlines() if line.startswith("cellwise ")]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [
        each + BRIEF.get(each[1] if len(each) > 1 else "", []) for each in words if each[0] not in SKIPPED
    ]


def own_cells(text: str) -> str:
    """my_cells.py, the file that the README's commands name: its first class, without the prompts."""
    prompts = re.search(r"^>>> class (?:.*\n)(?:\.\.\..*\n)*", text, flags=re.MULTILINE)
    assert prompts is not None, "the README defines no cell"
    body = re.sub(r"^(>>>|\.\.\.) ?", "", prompts[0], flags=re.MULTILINE)
    return f"from cellwise import Cell, sigmoid, tanh\n\n\n{body}"


def check_content(wheel: Path) -> None:
    """Raise AssertionError unless the wheel holds what git tracks of the package, the licence, and nothing else."""
    tracked = subprocess.run(
        ["git", "ls-files", "src/cellwise"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {name.removeprefix("src/") for name in tracked if (ROOT / name).exists()}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("cellwise/")}
    assert package == wanted, f"missing: {sorted(wanted - package)}, too many: {sorted(package - wanted)}"
    rest = {name.partition("/")[2] for name in names - package}
    assert {"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"} <= rest, (
        f"beside the package: {rest}"
    )


def write_sales(path: Path, days: int) -> None:
    """So many daily values with a week in them, in the columns that the README names."""
    dates = [date(2024, 1, 1) + timedelta(i) for i in range(days)]
    rows = [f"shop,{day},{100 + 20 * (i % 7 == 5) + i % 5}" for i, day in enumerate(dates)]
    path.write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")


def write_samples(folder: Path) -> None:
    """The files of the README's tasks beside forecasts, as small as they may be."""
    rows = [f"{'a fine' if i % 2 else 'a dull'} film {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    sentence = "the\tDET\n{noun}\tNOUN\nsings\tVERB\n\n"
    for name, count in (("train", 40), ("dev", 10)):
        text = "".join(sentence.format(noun=f"bird{i}") for i in range(count))
        (folder / f"{name}.conll").write_text(text)
    (folder / "novel.txt").write_text("It was the best of times, it was the worst of times. " * 100)
    (folder / "ratings.csv").write_text(
        "text,label\n" + "\n".join(f"film {i},{i / 40}" for i in range(40)) + "\n"
    )
    pairs = [f"the number {i}\tel número {i}" for i in range(40)]
    (folder / "en-es.tsv").write_text("\n".join(pairs) + "\n", encoding="utf8")
    for i in range(40):
        with wave.open(str(folder / f"{i}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            steps = (int(9000 * math.sin(step / (3 + i % 2))) for step in range(3000 + 50 * i))
            sound.writeframes(b"".join(struct.pack("<h", step) for step in steps))
    table = [f"{i}.wav,{('high', 'low')[i % 2]}" for i in range(40)]
    (folder / "recordings.csv").write_text("path,text\n" + "\n".join(table) + "\n")


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout and give what it printed; say all of it and leave where it fails."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env["CELLWISE_CACHE"] = str(cwd / "cache")
    print("$", *(Path(command[0]).name, *command[1:]), flush=True)
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with {done.returncode}")
    return done.stdout


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel in it; the folder of its programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    call(*pip, TORCH, cwd=folder)
    call(*pip, f"{wheel.resolve()}[{EXTRAS}]", cwd=folder)
    return programs


def main() -> None:
    """Check, install and try the wheel that is named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    wheel: Path = parser.parse_args().wheel
    check_content(wheel)
    text = README.read_text(encoding="utf8")
    with tempfile.TemporaryDirectory(prefix="cellwise-wheel-") as temporary:
        folder = Path(temporary)
        programs = install(wheel, folder / "env")
        python, cellwise = programs / "python", programs / "cellwise"
        where = call(python, "-c", "import cellwise; print(cellwise.__file__)", cwd=folder).strip()
        assert Path(where).is_relative_to(folder.resolve()), f"{where} is not the wheel's"
        assert call(cellwise, "--version", cwd=folder).split()[-1] == wheel.name.split("-")[1]
        (folder / "README.md").write_text(text, encoding="utf8")
        call(python, "-m", "doctest", "README.md", cwd=folder)
        (folder / "my_cells.py").write_text(own_cells(text), encoding="utf8")
        write_sales(folder / "sales.csv", 336)
        write_samples(folder)
        write_sales(folder / "newer.csv", 400)
        for words in commands(text):
            call(cellwise, *words, cwd=folder)
        assert (folder / "runs" / "sales-gru" / "report.html").exists()
    print(f"{wheel.name} installs and runs the README's examples")


if __name__ == "__main__":
    main()
