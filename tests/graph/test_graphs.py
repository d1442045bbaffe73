"""Tracing, fingerprints, the verifier and the interpreter."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given

from cellwise import Cell, Scalar, Vector, cells, sigmoid, tanh, where
from cellwise.graph import StepGraph, evaluate, verify
from cellwise.graph.expr import Node
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, STATE, Kind, Op, constant_tensor
from cellwise.graph.verify import GraphError
from cellwise.testing.strategies import cells as random_cells


def make(step: Any, gates: tuple[str, ...] = ("n",), **body: Any) -> Cell:
    made: Cell = type("Mine", (Cell,), {"gates": gates, "step": step, **body})()
    return made


def test_equal_expressions_are_one_node() -> None:
    graph = make(lambda self, x, h: (x.n + h) * (x.n + h)).graph
    product = graph.new_states[0]
    assert product.inputs[0] is product.inputs[1]
    assert len(graph.nodes) == 4


def test_zero_and_minus_zero_are_two_numbers() -> None:
    graph = make(lambda self, x, h: x.n * 0.0 + h * -0.0).graph
    assert [math.copysign(1, node.attribute) for node in graph.of(CONSTANT)] == [1, -1]


def test_what_does_not_matter_is_not_in_the_graph() -> None:
    def step(self, x, h):
        _ = tanh(h.n)
        return x.n + h

    graph = make(step).graph
    assert not graph.of(PROJECT)
    assert graph.state_gates == ()


def test_gates_stand_in_the_order_of_the_class() -> None:
    graph = make(lambda self, x, h: x.c + h.b + x.b + h.a, gates=("a", "b", "c")).graph
    assert graph.input_gates == ("b", "c")
    assert graph.state_gates == ("a", "b")


def test_reflected_operators_keep_their_order() -> None:
    graph = make(lambda self, x, h: (1 - x.n) / (2 / h)).graph
    values = {graph.of(INPUT)[0]: torch.tensor(0.25), graph.of(STATE)[0]: torch.tensor(4.0)}
    for node in graph.of(CONSTANT):
        values[node] = constant_tensor(node.attribute, torch.zeros(()))
    evaluate(graph.nodes, values)
    assert float(values[graph.new_states[0]]) == (1 - 0.25) / (2 / 4.0)


def test_greater_is_less_turned_round() -> None:
    greater = make(lambda self, x, h: where(h > x.n, h, x.n)).graph
    less = make(lambda self, x, h: where(x.n < h, h, x.n)).graph
    assert greater.fingerprint == less.fingerprint


def test_a_node_knows_the_users_line() -> None:
    graph = cells.get("gru").graph
    assert graph.new_states[0].source is not None
    assert graph.new_states[0].source.text == "return (1 - z) * n + z * h"
    assert graph.new_states[0].source.file.endswith("gru.py")


def unrolled(count: int) -> StepGraph:
    def step(self, x, h):
        for _ in range(count):
            h = tanh(h * h + h)
        return h + x.n

    return make(step).graph


def test_deep_and_shared_expressions_stay_small() -> None:
    graph = unrolled(3000)
    assert len(graph.fingerprint) == 64
    assert len(make(lambda self, x, h: x.n + h).graph.fingerprint) == 64
    assert len(graph.nodes) == 3 * 3000 + 3


# --- fingerprint ------------------------------------------------------------------------------------------------


def test_a_fingerprint_ignores_all_names() -> None:
    class Other(Cell):
        gates = ("a", "b", "c")
        states = ("state",)

        def step(self, x, state):
            second = sigmoid(state.b + x.b)
            first = sigmoid(x.a + state.a)
            candidate = tanh(first * state.c + x.c)
            return second * state + candidate * (1 - second)

    assert Other().graph.fingerprint == cells.get("gru").graph.fingerprint


CHANGES: dict[str, Any] = {
    "gates-exchanged": lambda self, x, h: (
        (1 - sigmoid(x.r + h.r)) * tanh(x.n + sigmoid(x.z + h.z) * h.n) + sigmoid(x.r + h.r) * h
    ),
    "sign": lambda self, x, h: (
        (1 + sigmoid(x.z + h.z)) * tanh(x.n + sigmoid(x.r + h.r) * h.n) + sigmoid(x.z + h.z) * h
    ),
    "order-of-a-difference": lambda self, x, h: (
        (sigmoid(x.z + h.z) - 1) * tanh(x.n + sigmoid(x.r + h.r) * h.n) + sigmoid(x.z + h.z) * h
    ),
    "another-number": lambda self, x, h: (
        (2 - sigmoid(x.z + h.z)) * tanh(x.n + sigmoid(x.r + h.r) * h.n) + sigmoid(x.z + h.z) * h
    ),
    "another-function": lambda self, x, h: (
        (1 - sigmoid(x.z + h.z)) * sigmoid(x.n + sigmoid(x.r + h.r) * h.n) + sigmoid(x.z + h.z) * h
    ),
    "reset-before": lambda self, x, h: (
        (1 - sigmoid(x.z + h.z)) * tanh(x.n + (sigmoid(x.r + h.r) * h).n) + sigmoid(x.z + h.z) * h
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fingerprint_sees_every_change_of_the_equations(name: str) -> None:
    changed = make(CHANGES[name], gates=("r", "z", "n"))
    assert changed.graph.fingerprint != cells.get("gru").graph.fingerprint


def test_a_fingerprint_sees_the_order_of_gates_and_states() -> None:
    turned = type("Turned", (cells.GRU,), {"gates": ("z", "r", "n")})()
    assert turned.graph.fingerprint != cells.get("gru").graph.fingerprint
    one = make(lambda self, x, h, c: (x.n + c, h), states=("h", "c"))
    other = make(lambda self, x, h, c: (h, x.n + c), states=("h", "c"))
    assert one.graph.fingerprint != other.graph.fingerprint
    with_output = make(lambda self, x, h: (h, x.n + h), output="y")
    without = make(lambda self, x, h: x.n + h)
    assert with_output.graph.fingerprint != without.graph.fingerprint


def test_all_shipped_cells_have_fingerprints_of_their_own() -> None:
    graphs = [cells.get(name).training_graph for name in cells.names()]
    graphs.append(cells.RNN(nonlinearity="relu").graph)
    assert len({graph.fingerprint for graph in graphs}) == len(graphs)


# --- verifier ---------------------------------------------------------------------------------------------------

X, H = Node(INPUT, (), "n"), Node(STATE, (), "h")


def graph_of(new: Node, **fields: Any) -> StepGraph:
    given: dict[str, Any] = {
        "name": "Mine",
        "gates": ("n",),
        "states": ("h",),
        "vectors": (),
        "scalars": (),
        "output": new,
        "new_states": (new,),
    }
    return StepGraph(**(given | fields))


def test_a_well_formed_graph_passes() -> None:
    graph = graph_of(Node(OPS["add"], (X, H)))
    assert verify(graph) is graph


_LESS = Node(OPS["less"], (X, H))
MALFORMED: dict[str, tuple[StepGraph, str]] = {
    "operands": (graph_of(Node(OPS["add"], (X,))), "takes 2 operands, has 1"),
    "foreign-op": (graph_of(Node(Op("add", Kind.SIMPLE, 2, "{0}+{1}"), (X, H))), "not an op of the table"),
    "unknown-gate": (graph_of(Node(OPS["add"], (Node(INPUT, (), "q"), H))), "none of the gates"),
    "unknown-projection": (graph_of(Node(PROJECT, (H,), "q")), "none of the gates"),
    "unknown-state": (graph_of(Node(STATE, (), "c")), "none of the states"),
    "equal-nodes-twice": (graph_of(Node(OPS["add"], (H, Node(STATE, (), "h")))), "stands twice"),
    "mask-as-value": (graph_of(Node(OPS["add"], (_LESS, H))), "mask"),
    "where-without-mask": (graph_of(Node(OPS["where"], (H, X, H))), "mask"),
    "mask-as-state": (graph_of(_LESS), "real value"),
    "number-as-state": (graph_of(Node(CONSTANT, (), 1.0)), "real value"),
    "constant-not-a-float": (graph_of(Node(OPS["add"], (H, Node(CONSTANT, (), 1)))), "carries a float"),
    "number-projected": (
        graph_of(Node(OPS["add"], (H, Node(PROJECT, (Node(CONSTANT, (), 1.0),), "n")))),
        "not of shape",
    ),
    "states-missing": (graph_of(Node(OPS["add"], (X, H)), states=("h", "c")), "2 states, 1 new"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_graph_is_refused(name: str) -> None:
    graph, says = MALFORMED[name]
    with pytest.raises(GraphError, match=says):
        verify(graph)


@given(cell=random_cells(gradient=False))
def test_random_cells_are_well_formed(cell: Cell) -> None:
    verify(cell.graph)
    assert set(cell.graph.vectors) == {node.attribute for node in cell.graph.of(OPS["vector"])}
    again = dataclasses.replace(cell.graph, name="Other", names=())
    assert again.fingerprint == cell.graph.fingerprint


# --- the meaning of each op -------------------------------------------------------------------------------------


def test_parameters_start_as_they_say() -> None:
    from cellwise import Recurrent

    class Own(Cell):
        gates = ("n",)
        fixed = Vector(0.25)
        drawn = Vector((2.0, 3.0))
        usual = Vector()
        one = Scalar(1.5)

        def step(self, x, h):
            return tanh(x.n + self.fixed * h + self.drawn + self.usual * self.one)

    layer = Recurrent(Own, 3, 64, num_layers=2)
    assert (layer.fixed_l1 == 0.25).all()
    assert ((layer.drawn_l1 >= 2) & (layer.drawn_l1 <= 3)).all()
    assert layer.drawn_l1.std() > 0.1
    assert layer.usual_l0.abs().max() <= 1 / 8
    assert layer.one_l0.shape == ()
    assert layer.one_l0.item() == 1.5
