"""Which programs are affine in their states, number by number, and by which slopes."""

from __future__ import annotations

import pytest

from cellwise import Cell, Vector, cells, sigmoid, where
from cellwise.graph.text import short
from cellwise.plan.affine import slopes_of
from cellwise.plan.backward import backward_plan
from cellwise.plan.forward import forward_program


class Branch(Cell):
    """A branch, a quotient and a difference, none of which knows a state in the wrong place."""

    gates = ("a",)
    states = ("h", "c")
    u = Vector()

    def step(self, x, h, c):
        a = sigmoid(x.a)
        return where(a < 0.5, self.u, a) * h / (1 + a) - (x.a - h), c + a


class Coupled(Cell):
    gates = ("a",)
    states = ("h", "c")

    def step(self, x, h, c):
        return h + c, c * x.a


class Square(Cell):
    gates = ("a",)
    states = ("h",)

    def step(self, x, h):
        return x.a * h * h


def _forward(cell: str | type[Cell]) -> dict[str, str] | None:
    found = slopes_of(forward_program(cells.get(cell).graph, None))
    return None if found is None else {name: short(slope) for name, slope in found.items()}


def test_slopes_are_what_multiplies_a_state() -> None:
    assert _forward("mingru") == {"h before": "1 − σ(W_iz x + b_iz)"}
    gate = "σ(W_ia x + b_ia)"
    slope = f"(u if {gate} < 0.5 else {gate}) / (1 + {gate}) + (−−1)"
    assert _forward(Branch) == {"h before": slope, "c before": "1"}


@pytest.mark.parametrize("cell", ["lstm", "gru", "indrnn", Coupled, Square])
def test_what_is_not_affine_in_itself_has_none(cell: str | type[Cell]) -> None:
    assert _forward(cell) is None


def test_backward_every_cell_without_products_in_time_is_affine() -> None:
    for cell in ("mingru", "indrnn", Square):
        assert slopes_of(backward_plan(cells.get(cell).graph).program) is not None
    assert slopes_of(backward_plan(cells.get("lstm").graph).program) is None
