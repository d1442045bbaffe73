"""The stages of a forward program, which parameters a cell has, and what derivations cost: read from its equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellwise
from cellwise import Cell, Scalar, Vector, cells, tanh
from cellwise.backends.compiled.cell_kernels import _backward_plan, kernels_for
from cellwise.graph import StepGraph
from cellwise.graph.ops import OPS
from cellwise.nn import plain
from cellwise.passes import differentiate
from cellwise.plan import parameter_layout, state_sizes
from cellwise.plan.backward import backward_plan, projects
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program
from cellwise.runtime import dispatch


def graph_of(name: str) -> StepGraph:
    return cells.get(name).graph


def graph_for(step: Any, gates: tuple[str, ...], **body: Any) -> StepGraph:
    made: Cell = type("Mine", (Cell,), {"gates": gates, "step": step, **body})()
    return made.graph


def recurrent(program: Program) -> list[list[tuple[str, ...]]]:
    """The gates of the products with weight_hh, of each stage that has some."""
    found = [
        [term.weight.gates for term in stage.terms if term.weight.stem == "weight_hh"]
        for stage in program.stages
    ]
    return [gates for gates in found if gates]


STAGES = {
    "rnn": [[("n",)]],
    "lstm": [[("i", "f", "g", "o")]],
    "gru": [[("r", "z", "n")]],
    "gru-reset-before": [[("r", "z")], [("n",)]],
    "lstm-peephole": [[("i", "f", "g", "o")]],
    "mingru": [],
    "indrnn": [],
}


@pytest.mark.parametrize("name", STAGES)
def test_products_of_shipped_cells(name: str) -> None:
    found = recurrent(forward_program(graph_of(name), None))
    assert [[tuple(sorted(gates)) for gates in stage] for stage in found] == [
        [tuple(sorted(gates)) for gates in stage] for stage in STAGES[name]
    ]


def test_the_reset_before_gru_multiplies_its_own_product_second() -> None:
    program = forward_program(graph_of("gru-reset-before"), None)
    first, second = program.stages
    (own,) = [term for term in second.terms if term.weight.stem == "weight_hh"]
    (written,) = [node for node, slot in first.writes if slot == own.operand]
    assert written.op is OPS["mul"] and written in first.nodes


def test_layout_of_the_lstm_is_that_of_torch() -> None:
    layout = parameter_layout(graph_of("lstm"), 5, 3, bias=True, proj_size=2)
    assert [(spec.stem, spec.shape) for spec in layout] == [
        ("weight_ih", (12, 5)),
        ("weight_hh", (12, 2)),
        ("bias_ih", (12,)),
        ("bias_hh", (12,)),
        ("weight_hr", (2, 3)),
    ]
    assert layout[0].name(1, True) == "weight_ih_l1_reverse"
    assert state_sizes(graph_of("lstm"), 3, 2) == (2, 3)


def test_layout_has_only_what_the_equations_ask_for() -> None:
    assert [spec.stem for spec in parameter_layout(graph_of("mingru"), 5, 3, bias=True)] == [
        "weight_ih",
        "bias_ih",
    ]
    indrnn = parameter_layout(graph_of("indrnn"), 5, 3, bias=False)
    assert [(spec.stem, spec.shape) for spec in indrnn] == [("weight_ih", (3, 5)), ("u", (3,))]

    def step(self, x, h):
        return tanh(x.a + h.b) * self.q + self.u

    mixed = graph_for(step, ("a", "b"), q=Scalar(), u=Vector())
    assert [(spec.stem, spec.shape) for spec in parameter_layout(mixed, 5, 3, bias=True)] == [
        ("weight_ih", (3, 5)),
        ("weight_hh", (3, 3)),
        ("bias_ih", (3,)),
        ("bias_hh", (3,)),
        ("u", (3,)),
        ("q", ()),
    ]


def test_derivations_are_shared() -> None:
    """By all layers of a cell, and all backends."""
    graph = graph_of("gru")
    assert graph is graph_of("gru")
    assert differentiate(graph) is differentiate(graph)
    plan = backward_plan(graph)
    assert plan is backward_plan(graph) is not backward_plan(graph, recompute=True)
    assert forward_program(graph, None) is forward_program(graph, None)
    assert forward_program(graph, plan.tape) is forward_program(graph, plan.tape)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_inference_differentiates_nothing(backend: str, proj_size: int) -> None:
    # An engine keeps its plan; layers that were called before, their engine.
    plain._ROUTES.clear()
    for remembered in (differentiate, backward_plan, _backward_plan, kernels_for, dispatch._dispatch_id):
        remembered.cache_clear()
    layer = cellwise.LSTM(3, 4, proj_size=proj_size, backend=backend)
    with torch.no_grad():
        layer(torch.randn(5, 2, 3))
    assert differentiate.cache_info().misses == 0
    layer(torch.randn(5, 2, 3))
    assert differentiate.cache_info().misses == (1 if backend == "cpu" else 0), "what training asks for"


class _Second(Cell):
    """A gate of another value than the first state, which a projected weight has no room for."""

    gates = ("a", "b")
    states = ("h",)

    def step(self, x, h):
        return tanh(x.a + h.a + tanh(x.b).b)


def test_only_cells_that_ask_the_first_state_alone_for_gates_can_be_projected() -> None:
    assert projects(cells.get("lstm").graph) and projects(cells.get("rnn").graph)
    assert not projects(_Second().graph)
    assert not projects(cells.get("gru").graph)  # it is read unit by unit
