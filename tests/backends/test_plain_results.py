"""Cells whose results are gates or states as they are: the gradient at a gate is then the arriving one itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spans import spans_of

from cellwise import Cell, Recurrent, Scalar, Vector, stop_gradient, tanh
from cellwise.testing import Arguments, assert_close, cases_of, results
from cellwise.testing.checks import check_case, naive_call


class BareGate(Cell):
    gates = ("a", "b")
    states = ("h", "s")

    def step(self, x, h, s):
        return tanh(x.a + s), x.b


class BareProduct(Cell):
    gates = ("a", "b")
    states = ("h", "s")

    def step(self, x, h, s):
        return tanh(x.a + s), h.b


class Elman(Cell):
    gates = ("n", "o")
    states = ("h",)
    output = "y"

    def step(self, x, h):
        new = tanh(x.n + h.n)
        return new.o, new


class LeakySum(Cell):
    gates = ("a", "b")
    states = ("h", "s")

    def step(self, x, h, s):
        return tanh(x.a + s), 0.9 * s + x.b


class Linear(Cell):
    gates = ("n",)
    states = ("h",)

    def step(self, x, h):
        return x.n + h.n


class Delay(Cell):
    gates = ("n",)
    states = ("h", "s")

    def step(self, x, h, s):
        return s, x.n


class Decay(Cell):
    gates = ()
    states = ("h",)
    v = Vector()

    def step(self, x, h):
        return self.v * h


class Frozen(Cell):
    gates = ("a",)
    states = ("h",)

    def step(self, x, h):
        return 0.5 * h + stop_gradient(tanh(x.a))


@pytest.mark.parametrize("span", [None, 4])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cell", [BareGate, BareProduct, Elman, LeakySum, Linear, Delay, Decay, Frozen])
def test_results_that_are_gates_or_states_have_the_right_gradients(
    cell: type[Cell], recompute: bool, span: int | None
) -> None:
    wanted = ("plain", "no-bias", "two-layers", "ragged-both-ways", "resets-ragged-both-ways")
    with spans_of(span):
        for case in cases_of(cell):
            if case.situation in wanted:
                check_case(replace(case, recompute=recompute), "cpu")


class Projected(Recurrent):
    """Any cell with the projection that torch.nn has for LSTMs."""

    proj_size = 2


class Memoryless(Cell):
    gates = ("a",)
    states = ("h",)
    q = Scalar(0.7)

    def step(self, x, h):
        return tanh(x.a) + self.q


class LinearState(Cell):
    gates = ("a",)
    states = ("h",)

    def step(self, x, h):
        return h.a + tanh(x.a)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cell", [Linear, LinearState, Memoryless])
def test_they_can_be_projected(cell: type[Cell], recompute: bool) -> None:
    layer = Projected(cell, 3, 5, num_layers=2, bidirectional=True, backend="cpu", dtype=torch.float64)
    layer.recompute = recompute
    x, state = torch.randn(7, 4, 3, dtype=torch.float64), torch.randn(4, 4, 2, dtype=torch.float64)
    arguments = Arguments(x, state, torch.tensor([7, 0, 3, 5]))
    assert_close(results(layer, arguments), results(layer, arguments, naive_call))
