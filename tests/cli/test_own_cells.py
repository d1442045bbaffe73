"""Cells from a file of one's own: whatever the file is called, and whatever else is wrong in it."""

import subprocess
import sys

import pytest

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.cli import main
from cellwise.cli.cell_argument import cell_argument, cell_of
from cellwise.errors import CellwiseError

FILE = '''
from __future__ import annotations
from cellwise import Cell, sigmoid, tanh
from beside_it import gate

print("the file prints")


class Bad(Cell):
    gates = "n"

    def step(self, x, h):
        return h


class Worse(Bad):
    pass


class Undefined(Cell):
    gates = NOT_THERE


class Good(Cell):
    """A good one."""

    gates = ("n",)
    rate: float = 0.5

    def step(self, x, h):
        print("its step prints")
        return gate(x.n + self.rate * h)


class Wrong(Cell):
    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n) + self.w


fast = Good(rate=2.0)
slow = Good(rat=2.0)


class Plain:
    pass


number = 3
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_it.py").write_text("from cellwise import tanh as gate\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_one_broken_class_does_not_take_the_others_with_it(file, capsys):
    assert cell_of("mine.py:Good").equations == "h' = tanh(W_in x + b_in + 0.5 · h)"
    printed = capsys.readouterr()
    assert printed.out == "", "what a file prints is no result"
    assert "the file prints" in printed.err
    assert "its step prints" in printed.err


def test_an_instance_is_a_cell_too(file):
    assert cell_of("mine.py:fast").options == {"rate": 2.0}
    assert cell_of(f"{file}:fast") == cell_of("mine.py:fast"), "a file is run once"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py:Bad", "gates is a tuple of names"),
        ("mine.py:Worse", "Bad has gates = 'n'"),
        (
            "mine.py:Undefined",
            "NameError: name 'NOT_THERE' is not defined.\n  mine.py:21:  gates = NOT_THERE",
        ),
        ("mine.py:Wrong", "If it is learned, write w = Vector()"),
        ("mine.py:slow", "Good cannot take the option 'rat'"),
        (
            "mine.py:Plain",
            "Plain in mine.py is a class, but no cellwise.Cell; the cells in it are: Good, Wrong, ",
        ),
        ("mine.py:number", "of type int"),
        ("mine.py:Goood", "did you mean Good?"),
        ("mine.py:", "holds several cells; name one, as in mine.py:Good"),
        ("mine.py", "holds several cells"),
        ("mine:Good", "did you mean mine.py:Good?"),
        ("a:b", "one of your own is FILE.py:Class"),
        ("nowhere.py:Mine", "nowhere.py, which does not exist"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence(file, name, says):
    with pytest.raises(CellwiseError) as raised:
        cell_of(name)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"class X(:\n", "is not Python: invalid syntax.\n  it.py:1:  class X(:"),
        (b"x = (\n", "is not Python"),
        (b"\0\0", "is not Python"),
        (b"\xff\xfe bad", "is not Python"),
        (b"(" * 5000, "is not Python"),
        (
            b"import not_there\n",
            "it.py cannot be run: ModuleNotFoundError: No module named 'not_there'.\n  it.py:1:",
        ),
        (b"from . import x\n", "it.py cannot be run: ImportError"),
        (b"1 / 0\n", "ZeroDivisionError: division by zero.\n  it.py:1:  1 / 0"),
        (b"raise SystemExit(3)\n", "it leaves Python, with status 3"),
        (b"x = 1\n", "it.py holds no cell"),
        (b"", "it.py holds no cell"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_sentence_and_status_2(file, monkeypatch, capsys, content, says):
    (file.parent / "it.py").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["cellwise", "show", "it.py"])
    with pytest.raises(SystemExit, match="2"):
        main()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert max(map(len, printed.err.splitlines())) < 300


def test_the_only_cell_needs_no_name(file):
    (file.parent / "one.py").write_text(
        "from cellwise import Cell\nclass Only(Cell):\n    gates = ('n',)\n"
        "    def step(self, x, h):\n        return x.n + h\n"
    )
    assert type(cell_of("one.py")).__name__ == "Only"


RATED = """
from cellwise import Cell

class Rated(Cell):
    gates = ("n",)
    rate: float = 0.5
    slow: bool = False

    def step(self, x, h):
        return self.rate * h + x.n

fast = Rated(rate=0.9)
"""


def test_estimators_get_names_of_known_cells_and_ones_own_cells_themselves(file):
    assert cell_argument("GRU") == "gru"
    assert isinstance(cell_argument("mine.py:Good"), Cell)


def test_options_stand_in_brackets_behind_a_name(file):
    assert cell_of("rhn(depth=2)") == cells.RHN(depth=2)
    assert cell_of("hyper-lstm(hyper='H / 4', embedding=3)") == cells.HyperLSTM(hyper="H / 4", embedding=3)
    (file.parent / "rated.py").write_text(RATED)
    assert cell_of("rated.py:Rated(rate=0.25)").equations == "h' = 0.25 · h + W_in x + b_in"
    assert cell_of("rated.py:fast(slow=True)").options == {"rate": 0.9, "slow": True}
    # Of what has options an estimator is given the cell, since its name does not say them.
    assert cell_argument("rhn(depth=2)") == cells.RHN(depth=2)
    assert cell_argument("gru+rhn(depth=2)") == (cells.GRU(), cells.RHN(depth=2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rhn(2)", r"'rhn\(2\)' names no cell: in brackets stand its options, as in rhn\(rate=0.5\)"),
        ("rhn(depth=__import__('os').getpid())", "in brackets stand its options"),
        ("rhn(**{'depth': 2})", "in brackets stand its options"),
        ("rhn()()", "in brackets stand its options"),
        ("rhn(depth=2) + rhn()", "in brackets stand its options"),
        ("rhn(depht=2)", r"RHN cannot take the option 'depht' \(its options: depth\)"),
        ("fastgrn(rank=2)", "No cell is called 'fastgrn'; did you mean 'fastgrnn'?"),
        ("rhn(depth=2", r"No cell is called 'rhn\(depth=2'"),
    ],
)
def test_options_that_are_none_are_one_sentence(text, says):
    with pytest.raises(CellwiseError, match=says):
        cell_of(text)


@pytest.mark.parametrize("called", ["torch.py", "numpy.py", "cellwise.py", "typing.py"])
@pytest.mark.parametrize("command", ["module", "script"])
def test_a_file_called_like_a_module_stands_for_no_module(file, called, command):
    if (called, command) in {("cellwise.py", "module"), ("typing.py", "module")}:
        pytest.skip("python -m looks for these where one stands before any of our code runs")
    checks = "import torch, numpy, cellwise\nassert torch.nn and numpy.ndarray and cellwise.Cell\n"
    (file.parent / called).write_text(FILE.replace("import annotations", f"import annotations\n{checks}"))
    start = (
        ["-m", "cellwise"] if command == "module" else ["-P", "-c", "from cellwise.cli import main; main()"]
    )
    words = [sys.executable, *start, "show", f"{called}:Good", "--as", "equations"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=file.parent)
    assert (done.returncode, done.stdout) == (0, "h' = tanh(W_in x + b_in + 0.5 · h)\n"), done.stderr
