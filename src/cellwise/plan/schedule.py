"""Sorting nodes into the stages of a program, whichever direction it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cellwise.graph import Node
from cellwise.plan.program import Array, Place, ProgramStage, Ref, Segment

Wanted = Sequence[tuple[Node, Ref]]
Accumulate = Callable[[list[Node]], tuple[list[Node], list[tuple[tuple[str, str], ...]], list[Segment]]]


def stages_of(nodes: Sequence[Node], is_product: Callable[[Node], bool], wanted: Wanted) -> dict[Node, int]:
    """The stage of each node: after as many products in a row as it needs; what needs none, where it is first used."""
    level: dict[Node, int] = {}
    for node in nodes:
        inputs = [level.get(i, -1) for i in node.inputs]
        level[node] = max([0, *inputs]) + 1 if is_product(node) else max([-1, *inputs])
    users: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for i in node.inputs:
            if i in users:
                users[i].append(node)
    roots = {node for node, _ in wanted}
    for node in reversed(nodes):
        if level[node] == -1:
            # A product reads its operand from memory: it must be there one stage before.
            uses = [level[user] - is_product(user) for user in users[node]]
            level[node] = max(0, min(uses, default=0)) if uses or node in roots else 0
    return level


def lay_out(
    nodes: Sequence[Node],
    level: dict[Node, int],
    wanted: Wanted,
    in_memory: dict[Node, Ref],
    accumulate: Accumulate,
    is_product: Callable[[Node], bool],
) -> tuple[tuple[ProgramStage, ...], tuple[Array, ...]]:
    """The stages; values that cross from one to a later are written to the array "between".

    Args:
        in_memory: leaves, and nodes that `wanted` writes where a later stage can read them.
        accumulate: the accumulators, their biases and segments for the product nodes of a stage.
    """
    count = max(level.values(), default=0) + 1
    crossing = _crossing(nodes, level, in_memory)
    between = Array("between", Place.ROWS, max(1, len(crossing)))
    for column, node in enumerate(crossing):
        in_memory[node] = Ref(between, column)
    stages = []
    for stage in range(count):
        here = [node for node in nodes if level[node] == stage]
        accumulators, biases, segments = accumulate(here)
        hidden = set(accumulators)
        # What is written as it was read goes with the last stage, which no later one makes wait.
        writes = [(node, ref) for node, ref in wanted if level.get(node, count - 1) == stage]
        writes += [(node, in_memory[node]) for node in crossing if level[node] == stage]
        pointwise = tuple(n for n in here if n.inputs and n not in hidden and not is_product(n))
        if accumulators or writes:
            stages.append(
                ProgramStage(tuple(accumulators), tuple(biases), tuple(segments), pointwise, tuple(writes))
            )
    return tuple(stages), ((between,) if crossing else ())


def _crossing(nodes: Sequence[Node], level: dict[Node, int], in_memory: dict[Node, Ref]) -> list[Node]:
    """Values that a later stage reads. A comparison is no number: its operands cross, and it is made again there."""
    found: dict[Node, None] = {}

    def read(operand: Node, at: int) -> None:
        if operand.is_mask:
            for each in operand.inputs:
                read(each, at)
        elif operand in level and operand not in in_memory and level[operand] < at:
            found[operand] = None

    for node in nodes:
        for operand in node.inputs:
            read(operand, level[node])
    return list(found)
