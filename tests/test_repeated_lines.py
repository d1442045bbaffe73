"""No task is a copy of another: what two of them need stands once, in tasks/data, tasks/training, tasks/report,
tasks/tuning or tasks/comparing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cellwise.tasks

TASKS = Path(cellwise.tasks.__file__).parent
SHARED = {"comparing", "data", "report", "training", "tuning"}
RUN = 6


def telling_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that says something: no imports, comments, blank lines or lone punctuation."""
    source = path.read_text(encoding="utf8")
    imports = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for number, line in enumerate(source.splitlines(), 1):
        text = line.strip()
        if number not in imports and not text.startswith("#") and any(each.isalnum() for each in text):
            yield number, text


def repeated(folders: list[Path]) -> list[str]:
    """Where RUN telling lines of one folder stand in another too, each run once."""
    homes: dict[tuple[str, ...], tuple[Path, str]] = {}
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            lines = list(telling_lines(path))
            for start in range(len(lines) - RUN + 1):
                run = tuple(text for _, text in lines[start : start + RUN])
                where = f"{path.relative_to(folder.parent)}:{lines[start][0]}"
                home, first = homes.setdefault(run, (folder, where))
                if home != folder:
                    found.append(f"{where} is {first}")
    return found


def test_no_six_lines_stand_in_two_tasks() -> None:
    folders = sorted(path for path in TASKS.iterdir() if (path / "__init__.py").exists())
    tasks = [folder for folder in folders if folder.name not in SHARED]
    assert {"forecasting", "text"} <= {folder.name for folder in tasks}
    assert {folder.name for folder in folders} >= SHARED
    assert repeated(tasks) == []


def test_a_copy_is_found(tmp_path: Path) -> None:
    body = "\n".join(f"    value_{i} = {i}  # line" for i in range(5))
    for name, extra in (("one", "import os\n\n\n"), ("two", "# a comment\n"), ("three", "")):
        (tmp_path / name).mkdir()
        last = "    return 1" if name != "three" else "    return 2"
        (tmp_path / name / "code.py").write_text(f"{extra}def f():\n{body}\n{last}\n")
    folders = [tmp_path / name for name in ("one", "two", "three")]
    assert repeated(folders) == [
        "two/code.py:2 is one/code.py:4",
        "two/code.py:3 is one/code.py:5",
        "three/code.py:1 is one/code.py:4",
    ]
    assert repeated(folders[:1]) == []
