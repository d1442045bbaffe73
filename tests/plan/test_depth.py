"""The longest chain against a walk through every value of every step."""

from __future__ import annotations

from typing import Any

import pytest
from costly import EVERY, cost
from hypothesis import given
from hypothesis import strategies as st

from cellwise import Cell, cells, tanh
from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import INPUT, STATE
from cellwise.passes import differentiate
from cellwise.passes.differentiate import GRADIENT, OUTPUT
from cellwise.plan.backward import backward_plan
from cellwise.plan.depth import Depth, forward_step
from cellwise.testing.strategies import cells as drawn_cells


def walk(graph: StepGraph, length: int, layers: int) -> int:
    """The longest chain, by giving each value of each step the time at which it can be had."""
    now = [dict.fromkeys(graph.states, 0) for _ in range(layers)]
    latest = 0
    for _ in range(length):
        below = 0
        for states in now:
            had: dict[Node, int] = {}
            for node in graph.nodes:
                if node.op is STATE:
                    had[node] = states[str(node.attribute)]
                elif node.op is INPUT:
                    had[node] = below + 1
                elif node in graph.part_nodes:
                    had[node] = below
                else:
                    had[node] = max((had[i] for i in node.inputs), default=0)
                    had[node] += bool(node.inputs) and node.op.name != "stop_gradient"
            states.update({s: had[node] for s, node in zip(graph.states, graph.new_states, strict=True)})
            below = had[graph.output]
            latest = max(latest, below, *(had[node] for node in graph.others), *states.values())
    return latest


def walk_back(graph: StepGraph, length: int, layers: int) -> int:
    derivative, kept = differentiate(graph), set(backward_plan(graph).saved)
    now = [dict.fromkeys(graph.states, 0) for _ in range(layers)]
    latest = 0

    for _ in range(length):
        above = 0
        for states in now:
            had: dict[Node, int] = {}

            def when(node: Node, had: dict[Node, int] = had, states: Any = states, above: int = above) -> int:
                if node not in had:
                    if node in kept or not (node.inputs or node.op is GRADIENT):
                        had[node] = 0
                    elif node.op is GRADIENT:
                        name = str(node.attribute)
                        had[node] = above if name == OUTPUT else states.get(name, 0)  # 0 at other outputs
                    else:
                        links = node.op.name != "stop_gradient"
                        had[node] = links + max(when(i, had, states, above) for i in node.inputs)
                return had[node]

            parts = [when(each) for node, each in derivative.beside.items() if node in graph.part_nodes]
            beside = {n: each for n, each in derivative.beside.items() if n not in graph.part_nodes}
            ends = (derivative.products, derivative.parameters, beside)
            below = 1 + max(map(when, derivative.inputs.values()), default=-1)
            # The gradient at a part of the input is added to that product, if there is one.
            below = max(below, *parts) + bool(derivative.inputs) if parts else below
            new = {s: when(derivative.states[s]) if s in derivative.states else 0 for s in graph.states}
            latest = max(
                latest, below, *new.values(), *(1 + when(node) for end in ends for node in end.values())
            )
            states.update(new)
            above = below
    return latest


def check_depth(cell: Any, layers: int) -> None:
    graph, counted = cells.get(cell).graph, cost(cell, layers)
    for length in (0, 1, 2, 3, 7, 20):
        assert counted.forward_depth.at(length) == walk(graph, length, layers)
        assert counted.backward_depth.at(length) == walk_back(graph, length, layers)
    for depth in (counted.forward_depth, counted.backward_depth):
        if depth.formula is not None:
            assert [depth.formula.at(t=length) for length in (1, 9)] == [depth.at(1), depth.at(9)]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", EVERY)
def test_depth_is_the_longest_path(cell: Any, layers: int) -> None:
    check_depth(cell, layers)


@given(cell=drawn_cells(gradient=False), layers=st.integers(1, 3))
def test_depth_of_any_cell_is_the_longest_path(cell: Cell, layers: int) -> None:
    check_depth(cell, layers)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_gradient_at_an_input_beside_x_ends_a_chain(layers: int) -> None:
    class Doubled(Cell):
        gates = ("a",)
        states = ("h",)
        inputs = ("d",)

        def step(self, x, h, d):
            return tanh(x.a) + tanh(d + d) + tanh(h)

    check_depth(Doubled(), layers)


def test_only_what_lies_between_states_adds_up_over_time() -> None:
    # minGRU: product, sigmoid, 1 - z, times h, sum at the first step; later two, a product and a sum.
    assert str(cost("mingru").forward_depth) == "2t + 3"
    assert str(cost("rnn").forward_depth) == "3t"

    class Swap(Cell):
        gates = ("n",)
        states = ("h", "s")

        def step(self, x, h, s):
            return s, tanh(x.n + h.n)

    depth = Depth(forward_step(Swap().graph))
    assert depth.formula is None, "a state that feeds itself every other step grows by halves"
    assert str(depth) == "3/2t + …"
    assert depth.at(10) == walk(Swap().graph, 10, 1)
