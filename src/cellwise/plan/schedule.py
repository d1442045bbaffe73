"""Sorting nodes into the stages of a program, whichever direction it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellwise.graph import Node, Shape
from cellwise.graph.ops import Kind
from cellwise.plan.program import Buffer, MatmulTerm, Slot, Stage, StorageClass, Width

# What a step computes for others, and where it is written.
Outputs = Sequence[tuple[Node, Slot]]


@dataclass(frozen=True)
class Sums:
    """The accumulators of a stage, the (stem, gate) pairs of biases that each starts from, and what adds to them."""

    accumulators: tuple[Node, ...] = ()
    biases: tuple[tuple[tuple[str, str], ...], ...] = ()
    terms: tuple[MatmulTerm, ...] = ()


def assign_stages(nodes: Sequence[Node]) -> dict[Node, int]:
    """The stage of each node: after as many products and reductions in a row as it needs; what needs none, where it is
    first used.
    """
    level: dict[Node, int] = {}
    for node in nodes:
        inputs = [level.get(i, -1) for i in node.inputs]
        level[node] = max([0, *inputs]) + 1 if _begins_stage(node) else max([-1, *inputs])
    users: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for i in node.inputs:
            if i in users:
                users[i].append(node)
    for node in reversed(nodes):
        if level[node] == -1:
            # A product reads its operand from memory: it must be there one stage before. So must all units of a row.
            uses = [level[user] - _begins_stage(user) for user in users[node]]
            level[node] = max(0, min(uses, default=0))
    return level


def build_stages(
    nodes: Sequence[Node],
    level: dict[Node, int],
    outputs: Outputs,
    in_memory: dict[Node, Slot],
    sums_of: Callable[[Sequence[Node]], Sums],
) -> tuple[tuple[Stage, ...], tuple[Buffer, ...]]:
    """The stages, and buffers of their own: values that are live across stages are written to the buffer "between".

    Args:
        in_memory: leaves, and nodes that `outputs` writes where a later stage can read them.
        sums_of: the accumulators for the product nodes of a stage.
    """
    count = max(level.values(), default=0) + 1
    live, remade = _live_across(nodes, level, in_memory)
    between = Buffer("between", StorageClass.SCRATCH, max(1, len(live)))
    in_memory |= {node: Slot(between, column) for column, node in enumerate(live)}
    rows = [node for node in nodes if _is_row(node) and not node.is_mask]
    row_of = _columns("row values", rows, Width.ROW)
    partial_of = _columns("partial", [node for node in rows if _is_reduction(node)], Width.PARTIAL)
    stages = []
    for stage in range(count):
        stage_nodes = [node for node in nodes if level[node] == stage]
        sums = sums_of(stage_nodes)
        # Values that need no computation are stored in the last stage.
        stored = [(node, slot) for node, slot in outputs if level.get(node, count - 1) == stage]
        writes = [(node, slot) for node, slot in stored if slot.buffer.width is not Width.ROW]
        writes += [(node, in_memory[node]) for node in live if level[node] == stage]
        summed = set(sums.accumulators)
        pointwise = [n for n in stage_nodes if n.inputs and n not in summed and not is_product(n)]
        mine = [node for node in rows if level[node] == stage]
        made = Stage(
            sums.accumulators,
            sums.biases,
            sums.terms,
            (*remade.get(stage, ()), *(node for node in pointwise if not _is_row(node))),
            tuple(writes),
            row_nodes=tuple(mine),
            row_writes=(
                *((node, row_of[node]) for node in mine),
                *((node, slot) for node, slot in stored if slot.buffer.width is Width.ROW),
            ),
            reductions=tuple((node, slot) for node, slot in partial_of.items() if level[node] == stage + 1),
        )
        if made.has_units or made.row_writes:
            stages.append(made)
    own = [between] if live else []
    own += [slots[0].buffer for slots in (list(row_of.values()), list(partial_of.values())) if slots]
    return tuple(stages), tuple(own)


def _columns(name: str, nodes: Sequence[Node], width: Width) -> dict[Node, Slot]:
    """A column within a step for each of some numbers of a row."""
    buffer = Buffer(name, StorageClass.SCRATCH, max(1, len(nodes)), width)
    return {node: Slot(buffer, column) for column, node in enumerate(nodes)}


def is_product(node: Node) -> bool:
    """Whether a node is a product of an operand that must be in memory before its stage begins."""
    return node.op.kind is Kind.MATMUL


def _is_reduction(node: Node) -> bool:
    return node.op.kind is Kind.REDUCTION


def _begins_stage(node: Node) -> bool:
    """Whether a node is to be had only when all units of its operand are there."""
    return is_product(node) or _is_reduction(node)


def _is_row(node: Node) -> bool:
    """Whether a node is one number of each row."""
    return node.shape is Shape.ROWS


def _live_across(
    nodes: Sequence[Node], level: dict[Node, int], in_memory: dict[Node, Slot]
) -> tuple[list[Node], dict[int, dict[Node, None]]]:
    """Values that a later stage reads; and by stage those that it makes again.

    A comparison is not stored: its operands are, and it is computed again. So is what is made by an instruction of a
    number of the row and one other value, v - mean(v). Numbers of a row are always stored.
    """
    live: dict[Node, None] = {}
    remade: dict[int, dict[Node, None]] = {}

    def read(operand: Node, at: int, may_remake: bool) -> None:
        if operand.is_mask:
            for compared in operand.inputs:
                read(compared, at, may_remake)
        elif operand in in_memory or _is_row(operand) or level.get(operand, at) >= at:
            return
        elif may_remake and operand.op.kind is Kind.SIMPLE and any(map(_is_row, operand.inputs)):
            remade.setdefault(at, {})[operand] = None
            for other in operand.inputs:
                read(other, at, may_remake=False)
        else:
            live[operand] = None

    for node in nodes:
        # What belongs to no unit computes again what it reads, if that belongs to none either.
        for operand in node.inputs if not _is_row(node) or _is_reduction(node) else ():
            read(operand, level[node] - _is_reduction(node), may_remake=not is_product(node))
    return list(live), {
        at: {node: None for node in nodes if node not in live} for at, nodes in remade.items()
    }
