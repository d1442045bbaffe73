"""The cells that ship, against their papers' equations in plain torch, and the one file that a new cell takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from papers import OPTIONS, STEPS, Parameters, Step
from torch import Tensor

import cellwise
from cellwise import Recurrent, cells
from cellwise.errors import CellDefinitionError, CellOptionError
from cellwise.plan import state_sizes


def test_every_shipped_cell_has_its_papers_equations() -> None:
    assert set(STEPS) == set(cells.names())


def _everything(layer: Recurrent, results: Sequence[Tensor], read: Sequence[Tensor]) -> dict[str, Tensor]:
    """Results, and the gradient of each number that was read, for a loss that tells all results apart."""
    generator = torch.Generator().manual_seed(7)
    drawn = (torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in results)
    loss = sum((each * wanted).sum() for each, wanted in zip(results, drawn, strict=True))
    names = [f"result {number}" for number in range(len(results))]
    sources = {f"read {number}": each for number, each in enumerate(read)} | dict(layer.named_parameters())
    gradients = torch.autograd.grad(loss, list(sources.values()))
    return dict(zip([*names, *sources], [*results, *gradients], strict=True))


def check_with_paper(cell: cellwise.Cell, step: Step, hidden_size: int = 3) -> None:
    """Compare results and every gradient of a layer, by the kernels for the CPU, with a step in plain torch."""
    torch.manual_seed(3)
    width = len(cell.graph.input_parts) * hidden_size or 2
    # By the cell's own equations: "auto" would take torch's operator where it has one.
    layer = Recurrent(cell, width, hidden_size, backend="cpu", dtype=torch.float64).eval()
    with torch.no_grad():  # away from numbers at which parameters are alike
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    x = torch.randn(3, 2, width, dtype=torch.float64, requires_grad=True)
    sizes = state_sizes(cell.graph, hidden_size)
    states = [torch.rand(1, 2, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    beside = {each: torch.rand(3, 2, dtype=torch.float64, requires_grad=True) for each in cell.inputs}
    output, final = layer(x, tuple(states) if len(states) > 1 else states[0], **beside)
    finals = [state[0] for state in (final if isinstance(final, tuple) else (final,))]
    read = [x, *states, *beside.values()]
    found = _everything(layer, [*output, *finals], read)

    parameters = Parameters(layer)
    carried, outputs = tuple(state[0] for state in states), []
    for at, parameters.input in enumerate(x):
        parameters.beside = {each: rows[at, :, None] for each, rows in beside.items()}
        made = step(parameters, *carried)
        outputs.append(made[0])
        carried = made[1:] if cell.output else made
    wanted = _everything(layer, [*outputs, *carried], read)
    for what, value in wanted.items():
        torch.testing.assert_close(
            found[what], value, rtol=1e-9, atol=1e-12, msg=lambda m, w=what: f"{w}: {m}"
        )


@pytest.mark.parametrize("name", cells.names())
def test_a_cell_computes_what_its_paper_says(name: str) -> None:
    check_with_paper(cells.get(name), STEPS[name])


@pytest.mark.parametrize("cell", OPTIONS, ids=repr)
def test_a_cell_with_options_computes_what_its_paper_says(cell: cellwise.Cell) -> None:
    check_with_paper(cell, OPTIONS[cell], hidden_size=4)


def test_gates_that_follow_from_an_option() -> None:
    assert cells.RHN(depth=2).gates == ("h1", "t1", "h2", "t2")
    for depth in (0, 33, 10**12):  # said before there are so many names
        with pytest.raises(CellOptionError, match="it takes 1 to 32"):
            cells.RHN(depth=depth)

    class Levels(cellwise.Cell):
        count: int = 2

        @property
        def gates(self):
            return tuple(f"n {level}" for level in range(self.count))

        def step(self, x, h):
            return x.n + h.n

    with pytest.raises(CellDefinitionError, match="'n 0'"):
        Levels()
    assert Levels(count=0).gates == ()


def test_a_relu_network_is_an_option_of_the_plain_one() -> None:
    layer = Recurrent(cells.RNN(nonlinearity="relu"), 2, 3, dtype=torch.float64)
    parameters = Parameters(layer)
    x = torch.randn(1, 4, 2, dtype=torch.float64)
    parameters.input, zero = x[0], torch.zeros(4, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0][0], parameters.both("n", zero).relu())


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
from cellwise.testing import cases_of, check_cell
print(check_cell("brake", backend="reference"))
assert all(case.cell.name == "brake" for case in cases_of("brake"))
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
