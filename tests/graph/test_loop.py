"""What of a step can be computed before the loop over time, what must wait in it, and its matrix products."""

from __future__ import annotations

from typing import Any

import pytest

from cellwise import Cell, Scalar, cells, sigmoid, tanh
from cellwise.graph import StepGraph
from cellwise.graph.ops import OPS


def graph_for(step: Any, gates: tuple[str, ...], **body: Any) -> StepGraph:
    made: Cell = type("Mine", (Cell,), {"gates": gates, "step": step, **body})()
    return made.graph


def ops(nodes: tuple[Any, ...]) -> list[str]:
    return [node.op.name for node in nodes]


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_every_node_runs_once_and_after_its_operands(name: str) -> None:
    graph = cells.get(name).graph
    seen = set(graph.of(OPS["state"]))
    for node in (*graph.before_loop, *graph.in_loop):
        assert node not in seen and all(each in seen for each in node.inputs)
        seen.add(node)
    assert seen == set(graph.nodes)


def test_what_sees_no_state_is_before_the_loop() -> None:
    def step(self, x, h):
        z = sigmoid(x.z) * self.q
        return z * h + tanh(x.n)

    graph = graph_for(step, ("z", "n"), q=Scalar())
    assert {"sigmoid", "tanh"} <= set(ops(graph.before_loop))
    assert ops(graph.in_loop) == ["mul", "add"]
    assert ops(graph.into_loop) == ["mul", "tanh"], "only what the loop reads"


def test_a_result_that_sees_no_state_is_read_by_the_loop() -> None:
    graph = graph_for(lambda self, x, h, c: (tanh(x.a), h + c), ("a",), states=("h", "c"))
    assert ops(graph.into_loop) == ["tanh"]


def test_mingru_has_all_that_the_input_decides_before_the_loop() -> None:
    graph = cells.get("mingru").graph
    assert set(ops(graph.before_loop)) == {"input", "sigmoid", "constant", "sub", "mul"}
    assert ops(graph.in_loop) == ["mul", "add"]
    assert graph.products == {}


def test_a_projection_of_the_input_alone_is_a_product_in_the_loop() -> None:
    graph = graph_for(lambda self, x, h: tanh(x.n).m + h, ("n", "m"))
    ((operand, nodes),) = graph.products.items()
    assert operand in graph.before_loop and operand in graph.into_loop
    assert [node.attribute for node in nodes] == ["m"] and nodes[0] in graph.in_loop


def test_one_product_per_operand() -> None:
    graph = graph_for(lambda self, x, h, c: (h.b + h.a + c.a + x.a, c), ("a", "b"), states=("h", "c"))
    gates = {
        operand.attribute: tuple(node.attribute for node in nodes)
        for operand, nodes in graph.products.items()
    }
    assert gates == {"h": ("a", "b"), "c": ("a",)}
