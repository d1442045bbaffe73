"""The cells that ship, against their papers' formulas written out by hand, and the one file that a new cell takes."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import Recurrent, cells

W = dict[str, Tensor]


def affine(w: W, gate: int, x: Tensor, kind: str = "ih") -> Tensor:
    rows = slice(3 * gate, 3 * gate + 3)
    return w[f"weight_{kind}_l0"][rows] @ x + w[f"bias_{kind}_l0"][rows]


def rnn(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (torch.tanh(affine(w, 0, x) + affine(w, 0, h, "hh")),)


def rnn_relu(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return ((affine(w, 0, x) + affine(w, 0, h, "hh")).clamp(min=0),)


def lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (affine(w, k, x) + affine(w, k, h, "hh") for k in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    r = torch.sigmoid(affine(w, 0, x) + affine(w, 0, h, "hh"))
    z = torch.sigmoid(affine(w, 1, x) + affine(w, 1, h, "hh"))
    n = torch.tanh(affine(w, 2, x) + r * affine(w, 2, h, "hh"))
    return (n - z * n + z * h,)


def gru_reset_before(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    r = torch.sigmoid(affine(w, 0, x) + affine(w, 0, h, "hh"))
    z = torch.sigmoid(affine(w, 1, x) + affine(w, 1, h, "hh"))
    n = torch.tanh(affine(w, 2, x) + affine(w, 2, r * h, "hh"))
    return (n - z * n + z * h,)


def lstm_peephole(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (affine(w, k, x) + affine(w, k, h, "hh") for k in range(4))
    new = torch.sigmoid(f + w["p_f_l0"] * c) * c + torch.sigmoid(i + w["p_i_l0"] * c) * torch.tanh(g)
    return torch.sigmoid(o + w["p_o_l0"] * new) * torch.tanh(new), new


def mingru(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z = torch.sigmoid(affine(w, 0, x))
    return (h + z * (affine(w, 1, x) - h),)


def indrnn(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return ((affine(w, 0, x) + w["u_l0"] * h).clamp(min=0),)


def layernorm(w: W, gains: str, gates: str, first: int, value: Tensor, kind: str) -> tuple[Tensor, ...]:
    """Some gates as one row."""
    row = torch.cat([affine(w, first + k, value, kind) for k in range(len(gates))])
    gain = torch.cat([w[f"gain_{gains}{gate}_l0"] for gate in gates])
    return torch.nn.functional.layer_norm(row, row.shape, gain).chunk(len(gates))


def layernorm_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    both = zip(layernorm(w, "x", "ifgo", 0, x, "ih"), layernorm(w, "h", "ifgo", 0, h, "hh"), strict=True)
    i, f, g, o = (a + b + w[f"shift_{gate}_l0"] for gate, (a, b) in zip("ifgo", both, strict=True))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    out = torch.nn.functional.layer_norm(c, c.shape, w["gain_c_l0"], w["shift_c_l0"])
    return torch.sigmoid(o) * torch.tanh(out), c


def layernorm_gru(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    both = zip(layernorm(w, "x", "rz", 0, x, "ih"), layernorm(w, "h", "rz", 0, h, "hh"), strict=True)
    r, z = (torch.sigmoid(a + b + w[f"shift_{gate}_l0"]) for gate, (a, b) in zip("rz", both, strict=True))
    (of_x,), (of_h,) = layernorm(w, "x", "n", 2, x, "ih"), layernorm(w, "h", "n", 2, h, "hh")
    n = torch.tanh(of_x + w["shift_xn_l0"] + r * (of_h + w["shift_hn_l0"]))
    return ((1 - z) * n + z * h,)


def zoneout_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """In evaluation: what is to be expected of it."""
    new_h, new_c = lstm(w, x, h, c)
    return 0.05 * h + 0.95 * new_h, (c + new_c) / 2


def time_aware_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """One unit of time after the step before."""
    short = torch.tanh(affine(w, 4, c, "hh"))
    return lstm(w, x, h, c - short + short / math.log(math.e + 1))


FORMULAS: dict[str, tuple[cells.Cell, Callable[..., tuple[Tensor, ...]]]] = {
    "rnn": (cells.RNN(), rnn),
    "rnn-relu": (cells.RNN(nonlinearity="relu"), rnn_relu),
    "lstm": (cells.LSTM(), lstm),
    "gru": (cells.GRU(), gru),
    "gru-reset-before": (cells.ResetBeforeGRU(), gru_reset_before),
    "lstm-peephole": (cells.PeepholeLSTM(), lstm_peephole),
    "mingru": (cells.MinGRU(), mingru),
    "indrnn": (cells.IndRNN(), indrnn),
    "layernorm-lstm": (cells.LayerNormLSTM(), layernorm_lstm),
    "layernorm-gru": (cells.LayerNormGRU(), layernorm_gru),
    "zoneout-lstm": (cells.ZoneoutLSTM(), zoneout_lstm),
    "recurrent-dropout-lstm": (cells.RecurrentDropoutLSTM(), lstm),
    "variational-lstm": (cells.VariationalLSTM(), lstm),
    "time-aware-lstm": (cells.TimeAwareLSTM(), time_aware_lstm),
}


def test_every_shipped_cell_has_its_formula_here() -> None:
    assert {cell.name for cell, _ in FORMULAS.values()} == set(cells.names())


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_cell_computes_the_formula_of_its_paper(name: str, backend: str) -> None:
    cell, formula = FORMULAS[name]
    layer = Recurrent(cell, 2, 3, backend=backend, dtype=torch.float64).eval()
    w = {key: value.detach() for key, value in layer.named_parameters()}
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    states = tuple(torch.randn(1, 1, 3, dtype=torch.float64) for _ in cell.states)
    output, final = layer(x, states if len(states) > 1 else states[0])
    carried = tuple(state[0, 0] for state in states)
    for t in range(4):
        carried = formula(w, x[t, 0], *carried)
        torch.testing.assert_close(output[t, 0], carried[0], rtol=1e-12, atol=1e-14)
    finals = final if isinstance(final, tuple) else (final,)
    for found, wanted in zip(finals, carried, strict=True):
        torch.testing.assert_close(found[0, 0], wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", cells.names())
def test_a_shipped_cell_names_its_paper(name: str) -> None:
    text = type(cells.get(name)).__doc__ or ""
    assert any(str(year) in text for year in range(1985, 2030)), "the docstring has authors and year"


def test_names_are_found_in_any_spelling() -> None:
    assert cells.get("GRU_reset_before") == cells.get("gru-reset-before") == cells.ResetBeforeGRU()


def test_a_registered_cell_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_CELLS", dict(cells._CELLS))

    @cells.register
    class Mine(cellwise.Cell):
        name = "my_own"
        gates = ("n",)

        def step(self, x, h):
            return cellwise.tanh(x.n + h.n)

    assert "my-own" in cells.names()
    assert Recurrent("my-own", 2, 3)(torch.zeros(4, 1, 2))[0].shape == (4, 1, 3)


NEW_CELL = '''\
from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import softplus, tanh


class Brake(Cell):
    """A cell that nothing but this file knows (nobody 2026)."""

    gates = ("n",)
    u = Vector(0.5)

    def step(self, x, h):
        return tanh(x.n + h.n) - self.u * softplus(h)
'''

USE_IT = """\
import torch, cellwise
assert cellwise.__file__.startswith({root!r}), cellwise.__file__
assert "brake" in cellwise.cells.names()
assert cellwise.cells.Brake is type(cellwise.cells.get("brake"))
from cellwise.testing import CASES, check_cell
print(check_cell("brake", backend="reference"))
assert any(case.cell.name == "brake" for case in CASES)
layer = cellwise.Recurrent("brake", 2, 3, num_layers=2, bidirectional=True)
assert sorted(name for name, _ in layer.named_parameters() if name.startswith("u_"))[0] == "u_l0"
output, state = layer(torch.zeros(4, 5, 2), lengths=[4, 0, 1, 2, 3])
output.sum().backward()
print(cellwise.cells.get("brake").equations)
"""


def test_adding_a_cell_touches_one_file(tmp_path: Path) -> None:
    package = Path(cellwise.__file__).parent
    shutil.copytree(
        package, tmp_path / "cellwise", ignore=shutil.ignore_patterns("__pycache__", "data", "tasks")
    )
    (tmp_path / "cellwise" / "cells" / "brake.py").write_text(NEW_CELL)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + USE_IT.format(root=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Brake on reference: gradients, agreement, stream, ragged, resets",
        "h' = tanh(W_in x + b_in + W_hn h + b_hn) − u ⊙ softplus(h)",
    ]
