"""Sorting nodes into the stages of a program, whichever direction it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellwise.graph import Node
from cellwise.graph.ops import Kind
from cellwise.plan.program import Array, Place, ProgramStage, Ref, Segment

# What a step leaves, and where.
Wanted = Sequence[tuple[Node, Ref]]


@dataclass(frozen=True)
class Sums:
    """The accumulators of a stage, the (stem, gate) pairs of biases that each starts from, and what adds to them."""

    accumulators: tuple[Node, ...] = ()
    biases: tuple[tuple[tuple[str, str], ...], ...] = ()
    segments: tuple[Segment, ...] = ()


def stages_of(nodes: Sequence[Node]) -> dict[Node, int]:
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
    for node in reversed(nodes):
        if level[node] == -1:
            # A product reads its operand from memory: it must be there one stage before.
            uses = [level[user] - is_product(user) for user in users[node]]
            level[node] = max(0, min(uses, default=0))
    return level


def lay_out(
    nodes: Sequence[Node],
    level: dict[Node, int],
    wanted: Wanted,
    in_memory: dict[Node, Ref],
    sums_of: Callable[[Sequence[Node]], Sums],
) -> tuple[tuple[ProgramStage, ...], tuple[Array, ...]]:
    """The stages; values that cross from one to a later are written to the array "between".

    Args:
        in_memory: leaves, and nodes that `wanted` writes where a later stage can read them.
        sums_of: the accumulators for the product nodes of a stage.
    """
    count = max(level.values(), default=0) + 1
    crossing = _crossing(nodes, level, in_memory)
    between = Array("between", Place.ROWS, max(1, len(crossing)))
    in_memory |= {node: Ref(between, column) for column, node in enumerate(crossing)}
    stages = []
    for stage in range(count):
        here = [node for node in nodes if level[node] == stage]
        sums = sums_of(here)
        # What is written as it was read goes with the last stage, which no later one makes wait.
        writes = [(node, ref) for node, ref in wanted if level.get(node, count - 1) == stage]
        writes += [(node, in_memory[node]) for node in crossing if level[node] == stage]
        summed = set(sums.accumulators)
        pointwise = tuple(n for n in here if n.inputs and n not in summed and not is_product(n))
        if summed or writes:
            stages.append(
                ProgramStage(sums.accumulators, sums.biases, sums.segments, pointwise, tuple(writes))
            )
    return tuple(stages), ((between,) if crossing else ())


def is_product(node: Node) -> bool:
    """Whether a node is a product of an operand that must be in memory before its stage begins."""
    return node.op.kind is Kind.MATMUL


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
