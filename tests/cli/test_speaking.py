"""How the command line speaks: quickly, in tables that fit, as JSON, without noise when it is cut short."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import click
import pytest

import cellwise
from cellwise.cli import app
from cellwise.cli.output import OutputError, check_file, table

COMMAND = [sys.executable, "-m", "cellwise"]


@pytest.mark.parametrize(
    "words",
    [
        "--help", "-h", "--version", "cells", "cells --json", "show --help", "show gru", "complexity -h", "demo -h",
        "forecast -h", "forecast fit -h", "forecast predict -h", "forecast backtest -h", "trace -h", "gradients -h",
        "memory -h", "bench -h", "reproduce -h", "shwo gru", "show gru --uot x", "forecast fit", "show lsmt",
    ],
)  # fmt: skip
def test_what_computes_nothing_loads_no_torch(words):
    code = (
        "import sys\nfrom cellwise.cli import main\n"
        f"sys.argv = ['cellwise', *{words.split()!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'llvmlite', 'polars', 'matplotlib', 'rich.table'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_torch_knows_the_operators_whichever_is_imported_first():
    for first, second in (("torch", "cellwise"), ("cellwise", "torch")):
        code = f"import importlib.util, {first}\nimportlib.util.find_spec('torch')\nimport {second}\nimport torch\n"
        code += "assert torch.ops.cellwise.within; assert torch.__spec__.loader is torch.__loader__"
        subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_no_other():
    for name in cellwise.__all__:
        assert getattr(cellwise, name) is not None
    assert set(cellwise.__all__) <= set(dir(cellwise))
    with pytest.raises(AttributeError, match="module 'cellwise' has no attribute 'GUR'"):
        _ = cellwise.GUR


def _commands():
    yield from _commands_of(app)
    for name, group in _commands_of(app):
        if isinstance(group, click.Group):
            yield from ((f"{name} {inner}", command) for inner, command in _commands_of(group))


def _commands_of(group):
    context = click.Context(group)
    return [(name, group.get_command(context, name)) for name in group.list_commands(context)]


def _examples(command):
    _, _, lines = (command.epilog or "").partition("Examples:")
    return [line.strip() for line in lines.splitlines() if line.strip()]


def test_every_command_shows_examples_that_can_be_typed():
    known = dict(_commands())
    for words, shown in known.items():
        assert _examples(shown), words
        for line in _examples(shown):
            program, *given = shlex.split(line.rpartition("|")[2])  # after what may be piped into it
            assert program == "cellwise"
            command = known[given.pop(0)]
            while isinstance(command, click.Group):
                command = command.get_command(click.Context(command), given.pop(0))
            command.make_context(words, given, resilient_parsing=False)


def test_commands_are_listed_in_the_order_in_which_one_meets_them(run):
    out = run("--help")[1]
    places = [out.index(f"\n  {name} ") for name in ("cells", "show", "demo", "forecast", "trace", "bench")]
    assert places == sorted(places)
    assert "..." not in out.partition("Commands:")[2], "no summary is cut"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("shwo",), "Did you mean 'show'?"),
        (("show", "gru", "--uot", "x.svg"), "--out"),
        (("show", "gur"), "did you mean 'gru'?"),
        (("show", "gru", "--as", "sgv"), "did you mean 'svg'?"),
        (("show", "gru", "--stage", "lvm"), "did you mean 'llvm'?"),
        (("show", "gru", "--stage", "plan", "--pass", "forwrad"), "did you mean 'forward'?"),
        (("reproduce", "m3-montly"), "did you mean 'm3-monthly'?"),
        (("forecast", "fti"), "Did you mean 'fit'?"),
        (("export", "runs/demo"), "There is 'forecast export'."),
        (("generate", "runs/novel"), "There is 'text generate'."),
        (("show", "gru", "--as", "latex", "--out", "gru.png"), "A .png holds the diagram"),
        (("show", "gru", "--stage", "asm", "--out", "gru.pdf"), "A .pdf holds the diagram, and asm is text"),
        (("show", "gru", "--out", "gru.jpg"), "Nothing can be written into a .jpg"),
        (("show", "gru", "--as", "latex", "--out", "gru.eps"), "Nothing can be written into a .eps"),
        (("show", "gru", "--out", "gru.xyz"), "Nothing can be written into a .xyz"),
        (("gradients", "--out", "x.jpg"), "must end in one of .png, .svg, .pdf"),
        (("memory", "--out", "x.txt"), "must end in one of .png, .svg, .pdf"),
        (("complexity", "gru", "--measure", "--json"), "give one of them"),
        (("forecast", "fit", "us-births", "-H", "3", "--cell", "nowhere.py:A"), "which does not exist"),
        (("trace", "--demo", "--cell", "gur"), "did you mean 'gru'?"),
        (("gradients", "--no-train", "--length", "1" + 17 * "0"), "GiB at once, and there is not so much"),
        (
            ("demo", "rnn", "--hidden-size", 10 * "1"),
            "GiB at once, and there is not so much; take smaller sizes",
        ),
    ],
)
def test_a_wrong_word_gets_a_hint_and_nothing_is_written(run, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert says in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg")])
@pytest.mark.parametrize("unrolled", [(), ("--unrolled", "3")])
def test_a_picture_is_what_its_ending_says(run, tmp_path, ending, begins, unrolled):
    for cell in ("gru", "lstm-peephole"):
        file = tmp_path / f"{cell}.{ending}"
        assert run("show", cell, "--out", str(file), *unrolled)[0] == 0
        content = file.read_bytes()
        assert content.startswith(begins)
        assert run("show", cell, "--as", "svg", "--out", str(file), *unrolled)[0] == 0
        assert file.read_bytes() == content, "equal pictures are equal bytes"


def test_cells_can_be_drawn_on_paper(tmp_path):
    from cellwise.understand.views import save_picture

    for name in (*cellwise.cells.FAMILIAR, "lru", "lstm-nested"):
        save_picture(name, tmp_path / f"{name}.png")


def test_json_is_one_value(run):
    cells = json.loads(run("cells", "--json")[1])
    assert [each["name"] for each in cells] == list(cellwise.cells.names())
    assert next(each for each in cells if each["name"] == "indrnn")["vectors"] == ["u"]
    cost = json.loads(run("complexity", "gru", "--hidden-size", "8", "--input-size", "4", "--json")[1])
    layer = cellwise.GRU(4, 8)
    assert cost["cells"]["gru"]["parameters"]["value"] == sum(p.numel() for p in layer.parameters())
    assert cost["cells"]["gru"]["parameters"]["formula"] == "3h(d + h + 2)"
    assert cost["sizes"]["hidden_size"] == 8


@pytest.mark.parametrize("words", [("cells",), ("complexity",)])
@pytest.mark.parametrize("columns", ["40", "60", "80", "200"])
def test_tables_fit_a_terminal_and_lose_nothing(run, monkeypatch, words, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = run(*words)[1]
    monkeypatch.setenv("COLUMNS", columns)
    out = run(*words)[1]
    around = ("An operation", "Formulas for", "At d =", "D is the")  # sentences, which a terminal wraps
    assert all(len(line) <= int(columns) for line in out.splitlines() if not line.startswith(around))
    assert "\x1b" not in out
    assert "…" not in out.replace("t + …", "")
    _, _, body = wide.partition("\n")  # a narrow list has no titles
    for word in body.replace("-", " ").split():
        assert word in out


def test_a_table_in_several_parts_keeps_every_figure():
    titles = ["cell", *(f"column {i}" for i in range(9))]
    rows = [[f"row {i}", *(str(10**6 * i + j) for j in range(9))] for i in range(3)]
    out = table(titles, rows, width=30)
    assert max(map(len, out.splitlines())) <= 30
    for row in rows:
        for text in row:
            assert text in out


def test_a_file_that_could_not_be_written_is_refused(tmp_path):
    check_file(tmp_path / "new.png", (".png",))
    check_file(tmp_path / "no" / "such" / "new.png")
    (tmp_path / "file").write_text("")
    for path, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.png", "is not a folder"),
        (tmp_path / "x.doc", "must end in one of"),
    ):
        with pytest.raises(OutputError, match=says):
            check_file(path, (".png",) if path.suffix == ".doc" else ())
    with pytest.raises(OutputError, match="is not a folder"):
        check_file(tmp_path / "file" / "deeper" / "x.png")


def test_a_reader_that_has_seen_enough_is_no_error():
    for words in ("cells", "show gru", "complexity"):
        shell = f"set -o pipefail; {' '.join(COMMAND)} {words} | head -n 1"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_ctrl_c_is_one_line_and_130():
    words = [*COMMAND, "gradients", "--no-train", "--length", "3000", "--hidden-size", "128", "--seeds", "50"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(8)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "cellwise: interrupted"
    assert "Traceback" not in err


def test_on_a_terminal_a_table_is_as_wide_as_that():
    main_end, other_end = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "NO_COLOR": "1"}
    done = subprocess.Popen([*COMMAND, "cells"], stdout=other_end, env=environment)
    os.close(other_end)
    found = b""
    while True:
        try:
            part = os.read(main_end, 4096)
        except OSError:
            break
        if not part:
            break
        found += part
    done.wait()
    lines = found.decode().replace("\r", "").splitlines()
    assert "gru-reset-before" in found.decode()
    assert max(len(line) for line in lines if not line.startswith("D is the")) <= 60
