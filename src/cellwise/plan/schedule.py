"""Sorting nodes into the stages of a program, whichever direction it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellwise.graph import Node
from cellwise.graph.ops import Kind
from cellwise.plan.program import Buffer, MatmulTerm, Slot, Stage, StorageClass

# What a step computes for others, and where it is written.
Outputs = Sequence[tuple[Node, Slot]]


@dataclass(frozen=True)
class Sums:
    """The accumulators of a stage, the (stem, gate) pairs of biases that each starts from, and what adds to them."""

    accumulators: tuple[Node, ...] = ()
    biases: tuple[tuple[tuple[str, str], ...], ...] = ()
    terms: tuple[MatmulTerm, ...] = ()


def assign_stages(nodes: Sequence[Node]) -> dict[Node, int]:
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


def build_stages(
    nodes: Sequence[Node],
    level: dict[Node, int],
    outputs: Outputs,
    in_memory: dict[Node, Slot],
    sums_of: Callable[[Sequence[Node]], Sums],
) -> tuple[tuple[Stage, ...], tuple[Buffer, ...]]:
    """The stages. Values that are live across stages are written to the buffer "between".

    Args:
        in_memory: leaves, and nodes that `outputs` writes where a later stage can read them.
        sums_of: the accumulators for the product nodes of a stage.
    """
    count = max(level.values(), default=0) + 1
    live = _live_across(nodes, level, in_memory)
    between = Buffer("between", StorageClass.SCRATCH, max(1, len(live)))
    in_memory |= {node: Slot(between, column) for column, node in enumerate(live)}
    stages = []
    for stage in range(count):
        stage_nodes = [node for node in nodes if level[node] == stage]
        sums = sums_of(stage_nodes)
        # Values that need no computation are stored in the last stage.
        writes = [(node, slot) for node, slot in outputs if level.get(node, count - 1) == stage]
        writes += [(node, in_memory[node]) for node in live if level[node] == stage]
        summed = set(sums.accumulators)
        pointwise = tuple(n for n in stage_nodes if n.inputs and n not in summed and not is_product(n))
        if summed or writes:
            stages.append(Stage(sums.accumulators, sums.biases, sums.terms, pointwise, tuple(writes)))
    return tuple(stages), ((between,) if live else ())


def is_product(node: Node) -> bool:
    """Whether a node is a product of an operand that must be in memory before its stage begins."""
    return node.op.kind is Kind.MATMUL


def _live_across(nodes: Sequence[Node], level: dict[Node, int], in_memory: dict[Node, Slot]) -> list[Node]:
    """Values that a later stage reads. A comparison is not stored: its operands are, and it is computed again."""
    live: dict[Node, None] = {}

    def read(operand: Node, at: int) -> None:
        if operand.is_mask:
            for compared in operand.inputs:
                read(compared, at)
        elif operand in level and operand not in in_memory and level[operand] < at:
            live[operand] = None

    for node in nodes:
        for operand in node.inputs:
            read(operand, level[node])
    return list(live)
