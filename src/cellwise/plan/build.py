"""From a StepGraph to its SequencePlan."""

from __future__ import annotations

from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import PROJECT, STATE
from cellwise.plan.sequence_plan import Product, SequencePlan, Stage


@lru_cache(maxsize=512)
def plan_of(graph: StepGraph) -> SequencePlan:
    """Sort the nodes by when they can run: before the loop, or in the stage after as many products as they need."""
    level: dict[Node, int] = {}  # -1: before the loop; k: after k products in a row
    for node in graph.nodes:
        own = 0 if node.op is STATE else -1
        level[node] = max([own, *(level[i] for i in node.inputs)])
        if node.op is PROJECT:
            # The product runs at the head of the next stage even where its operand needs no state.
            level[node] = max(level[node], 0) + 1
    stages = []
    for stage in range(max(level.values(), default=-1) + 1):
        here = [node for node in graph.nodes if level[node] == stage and node.inputs]
        pointwise = tuple(node for node in here if node.op is not PROJECT)
        products = _products(graph, [node for node in here if node.op is PROJECT])
        if products or pointwise:
            stages.append(Stage(products, pointwise))
    return SequencePlan(graph, tuple(node for node in graph.nodes if level[node] == -1), tuple(stages))


def _products(graph: StepGraph, projections: list[Node]) -> tuple[Product, ...]:
    """Projections of one operand are one product, its gates in the order of the weight's rows."""
    by_operand: dict[Node, list[Node]] = {}
    for node in projections:
        by_operand.setdefault(node.inputs[0], []).append(node)
    return tuple(
        Product(operand, tuple(str(node.attribute) for node in ordered), tuple(ordered))
        for operand, nodes in by_operand.items()
        for ordered in [sorted(nodes, key=lambda node: graph.gates.index(str(node.attribute)))]
    )
