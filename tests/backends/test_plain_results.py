"""Cells whose results are gates or states as they are: the gradient at a gate is then the arriving one itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellwise import Cell, Vector, stop_gradient, tanh
from cellwise.backends.cpu import run
from cellwise.testing import cases_of
from cellwise.testing.checks import check_case


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
    cell: type[Cell], recompute: bool, span: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if span is not None:
        monkeypatch.setattr(run, "span_rows", lambda *_: span)
    wanted = ("plain", "no-bias", "two-layers", "ragged-both-ways", "resets-ragged-both-ways")
    for case in cases_of(cell):
        if case.situation in wanted:
            check_case(replace(case, recompute=recompute), "cpu")
