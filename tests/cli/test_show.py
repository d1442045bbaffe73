"""`cellwise show`: views on the terminal and in files, right and wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cellwise.cli import main
from cellwise.understand.views import VIEWS, view

OWN = '''
from cellwise import Cell, sigmoid, tanh


class MGU(Cell):
    """Minimal gated unit (Zhou et al. 2016)."""

    gates = ("f", "n")

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        n = tanh(x.n + (f * h).n)
        return (1 - f) * h + f * n
'''


@pytest.fixture
def show(monkeypatch, capsys):
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellwise", "show", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_is_printed(show, name: str) -> None:
    status, out, err = show("gru", "--as", name)
    assert (status, err) == (0, "")
    assert out.rstrip("\n") == view("gru", name).rstrip("\n")


def test_without_a_view_an_overview_is_printed(show) -> None:
    status, out, _ = show("gru")
    assert status == 0
    assert [line for line in out.splitlines() if line and line[0] not in " "][1:] == [
        "Equations",
        "Symbols",
        "Parameters of a layer",
        "Graph, one value a line, with its shape and the line it comes from",
    ]


@pytest.mark.parametrize("name", VIEWS)
def test_a_cell_of_ones_own_in_each_view(show, tmp_path: Path, name: str) -> None:
    file = tmp_path / "own_cells.py"
    file.write_text(OWN, encoding="utf8")
    status, out, err = show(f"{file}:MGU", "--as", name)
    assert (status, err) == (0, "")
    assert "MGU" in out or "W_" in out


def test_a_file_is_written_and_its_ending_chooses_the_view(show, tmp_path: Path) -> None:
    file = tmp_path / "its" / "folder" / "gru.svg"
    assert show("gru", "--unrolled", 2, "--out", file) == (0, f"svg: {file}\n", "")
    assert file.read_text(encoding="utf8") == view("gru", "svg", unrolled=2)
    other = tmp_path / "gru.txt"
    assert show("gru", "--out", other)[0] == 0
    assert other.read_text(encoding="utf8") == show("gru")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--as", "picture"), "There is no view called 'picture'; the views are: " + ", ".join(VIEWS) + "."),
        (("--as", "latex", "--unrolled", "2"), "The view latex shows one step and cannot be unrolled; "),
        (
            ("--unrolled", "2"),
            "--unrolled needs --as mermaid or --as svg.",
        ),
        (("--as", "svg", "--unrolled", "0"), "A network is unrolled over 1 to 1,000 steps, not 0."),
        (
            ("--as", "svg", "--unrolled", "100000"),
            "A network is unrolled over 1 to 1,000 steps, not 100,000.",
        ),
        (("--as", "svg", "--out", "."), "--out . is a folder; give a file name."),
    ],
)
def test_mistakes_are_one_sentence(show, words: tuple[str, ...], says: str) -> None:
    status, out, err = show("gru", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"cellwise: {says}")


def test_a_cell_that_says_nothing_of_itself_is_not_described_by_another(show, tmp_path: Path) -> None:
    file = tmp_path / "own_cells.py"
    file.write_text(OWN.replace('    """Minimal gated unit (Zhou et al. 2016)."""\n', ""), encoding="utf8")
    _, out, _ = show(f"{file}:MGU")
    assert out.startswith("mgu\n\nEquations\n")
