"""The command `complexity` as a person types it."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cellwise
from cellwise import cells
from cellwise.backends.cpu.target import host

OWN = """
from cellwise import Cell, Scalar, Vector, tanh


class Mine(Cell):
    gates = ("n", "m")
    u = Vector()
    k = Scalar(1.0)

    def step(self, x, h):
        return tanh(x.n + h.n + self.k * h.m) + self.u * h
"""


@pytest.fixture
def run(run: Any) -> Any:
    return partial(run, "complexity")


def row(out: str, name: str, place: int = -1) -> list[str]:
    """The cells of a row, of the last table that has it or of another."""
    lines = [line for line in out.splitlines() if line.strip().startswith(name)]
    return re.split(r"\s{2,}", lines[place].strip())[1:]


def test_the_familiar_cells_stand_side_by_side(run: Any) -> None:
    code, out, _ = run()
    assert code == 0
    heads = [line.split() for line in out.splitlines() if "lstm-peephole" in line]
    assert heads == [list(cells.FAMILIAR)] * 2
    real = [
        sum(p.numel() for p in cellwise.Recurrent(name, 128, 256).parameters()) for name in cells.FAMILIAR
    ]
    assert [int(each.replace(",", "")) for each in row(out, "parameters")] == real


def test_formulas_and_numbers_of_the_classic_three(run: Any) -> None:
    _, out, _ = run(
        "rnn", "lstm", "gru", "--input-size", "3", "--hidden-size", "4", "--batch", "2", "--length", "10"
    )
    assert row(out, "parameters", 0) == ["h(d + h + 2)", "4h(d + h + 2)", "3h(d + h + 2)"]
    assert row(out, "parameters") == ["36", "144", "108"]
    assert row(out, "recurrent weights") == ["16", "64", "48"]
    assert row(out, "forward, products") == ["1,120", "4,480", "3,360"]
    assert row(out, "backward, products") == ["2,240", "8,960", "6,720"]
    assert row(out, "depth, forward", 0) == ["3t", "7t", "8t"]
    assert row(out, "depth, forward") == ["30", "70", "80"]
    # Six rows of h numbers at each of 20 steps, four bytes each; a row fills whole vectors.
    lanes = host().lanes(4)
    assert row(out, "of this, kept")[1] == f"{6 * -(-4 // lanes) * lanes * 20 * 4 / 1024:.3g} KiB"
    assert (f"in vectors of {lanes}:" in out) == (lanes > 4)


def test_a_cell_of_ones_own(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    code, out, _ = run(f"{file}:Mine", "--layers", "2")
    assert code == 0
    # One gate of the input, two of the state, a vector and a number in each layer.
    assert row(out, "parameters", 0) == ["h(d + 5h + 8) + 2"]
    assert "Formulas for 2 layers" in out


def test_what_a_cell_of_heads_computes_at_these_sizes_is_told(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("from cellwise import cells\nclass Mine(cells.SLSTM):\n    heads: int = 4\n")
    for size, said in (
        ("512", "a CPU's kernels run it as 4 layers of 128 units."),
        ("64", "kernels run it as 2 layers of 32 units, 2 times the products with the state."),
        ("32", "kernels multiply by the whole matrices, 4 times the products with the state."),
    ):
        code, out, _ = run(f"{file}:Mine", "slstm", "--hidden-size", size)
        assert code == 0
        assert "mine has 4 heads" in out.splitlines()[-1]
        assert out.rstrip().endswith(said)


def test_what_computing_steps_again_saves_and_costs(run: Any) -> None:
    _, kept, _ = run("lstm", "gru")
    code, again, _ = run("lstm", "gru", "--recompute")
    assert code == 0
    assert row(kept, "of this, kept", 0) == ["6bth", "4bth"]
    assert row(again, "of this, kept", 0) == ["bth", "0"], "the states that are not the output"
    assert row(kept, "backward, products", 0) == ["16bth(d + h)", "12bth(d + h)"]
    assert row(again, "backward, products", 0) == ["24bth(d + h)", "18bth(d + h)"]


def test_measured_beside_counted(run: Any, tmp_path: Path) -> None:
    figure = tmp_path / "growth.svg"
    sizes = ("--input-size", "3", "--hidden-size", "8", "--batch", "8", "--length", "8")
    code, out, err = run("gru", "mingru", *sizes, "--measure", "--repeats", "2", "--out", str(figure))
    assert code == 0
    assert "repeat 2 of 2" in err
    measured = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if " 1 to 8 " in line]
    assert [(line[0], line[1], line[2]) for line in measured] == [
        (cell, work, letter)
        for cell in ("gru", "mingru")
        for work in ("forward", "training step")
        for letter in "tbh"
    ]
    assert {line[5] for line in measured if line[2] != "h"} == {"1.00"}, "by the count all is linear"
    assert all(line[7] in ("yes", "no", "unsure") for line in measured if line[2] != "h")
    crossings = out[out.index("The square in h takes over") :]
    # 18 d + 41 of the GRU beside 18 h² in training, for 6 d + 17 beside 6 h² forward; no square in one layer of minGRU.
    assert row(crossings, "gru", 0)[1] == str(round((6 * 3 + 17) / 6))
    assert row(crossings, "mingru", 0)[1] == "never"
    assert figure.read_text(encoding="utf8").count("<svg") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lsmt",), "did you mean 'lstm'?"),
        (("gru", "--hidden-size", "0"), "hidden size must be at least 1; got 0"),
        (("gru", "--input-size", "0"), "input size must be at least 1; got 0"),
        (("gru", "--layers", "0"), "layers must be at least 1; got 0"),
        (("gru", "--length", "-1"), "length must be at least 1; got -1"),
        (("gru", "--batch", "0"), "batch must be at least 1; got 0"),
        (("gru", "--measure", "--length", "4"), "largest length must be at least 8; got 4"),
        (("gru", "--measure", "--batch", "1"), "largest batch must be at least 8; got 1"),
        (("gru", "--measure", "--repeats", "0"), "Invalid value for '--repeats'"),
        (("gru", "--out", "figure.png"), "add --measure"),
        (("gru", "--measure", "--recompute"), "leave out --recompute"),
        (("gru", "--measure", "--out", "figure.txt"), "must end in one of .png, .svg, .pdf"),
        (("nowhere.py:Mine",), "nowhere.py, which does not exist"),
        (("gru", "--length", "many"), "Invalid value for '--length'"),
    ],
)
def test_a_wrong_word_gets_one_clear_sentence(run: Any, words: tuple[str, ...], said: str) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert said in re.sub(r"\s+", " ", err)
    assert "Traceback" not in err
    assert out == "", "what is wrong is said before anything is printed"


def test_without_matplotlib_nothing_is_measured_in_vain(run: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("rnn", "--measure", "--out", str(tmp_path / "figure.png"))
    assert (code, out) == (2, "")
    assert "needs matplotlib, which is not installed: pip install matplotlib" in err
