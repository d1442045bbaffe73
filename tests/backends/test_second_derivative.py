"""Derivatives of the kernels' derivatives, against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cellwise import Recurrent, cells
from cellwise.cells.base import Cell
from cellwise.testing import Case

SHIPPED = [*(cells.get(name) for name in cells.FAMILIAR), cells.RNN(nonlinearity="relu")]
SITUATIONS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": (2, 1)},
    "resets": {"resets": True},
}


def as_function(case: Case) -> tuple[Any, list[Tensor]]:
    """The layer as a function of x, initial states and all parameters, and a place to differentiate it at."""
    layer, arguments = case.layer("cpu"), case.arguments()
    names, count = [name for name, _ in layer.named_parameters()], len(arguments.states)
    options = {"lengths": arguments.lengths, "resets": arguments.resets}

    def run(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        states, weights = others[:count], dict(zip(names, others[count:], strict=True))
        state = states[0] if count == 1 else states
        output, final = torch.func.functional_call(layer, weights, (x, state), options)
        return output, *(final if isinstance(final, tuple) else (final,))

    inputs = [arguments.x, *arguments.states, *layer.parameters()]
    return run, [each.detach().clone().requires_grad_() for each in inputs]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("cell", SHIPPED, ids=lambda cell: f"{cell.name}{cell.options or ''}")
def test_second_derivatives_of_every_input(cell: Cell, situation: str) -> None:
    case = Case(cell, 2, 2, 2, 2, bidirectional=True, initial=True, **SITUATIONS[situation])
    run, inputs = as_function(case)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_second_derivatives_one_by_one() -> None:
    run, inputs = as_function(Case(cells.get("lstm-peephole"), 2, 1, 1, 2, initial=True))
    assert torch.autograd.gradgradcheck(run, inputs)


def test_a_third_derivative_and_gradients_that_depend_on_the_input() -> None:
    found = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(1)
        layer = Recurrent("gru", 2, 3, backend=backend, dtype=torch.float64)
        x = torch.randn(3, 2, 2, dtype=torch.float64).requires_grad_()
        value = (layer(x)[0].sin() * x.sum()).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = gradient.square().sum()
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1])
