"""The equations of a stage in two halves, so that a core works on two rows at once.

A function of another one's result, tanh(f c + i g) say, is a chain of some 160 cycles, in which a core that computes a
row after the other has 190 instructions to do; it sees no further than to the next row or two, and waits for most of
that time. So the first half of a row's equations is computed beside the second half of the row before, of which nothing
depends on it: an LSTM's equations take 0.7 times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cellwise.backends.cpu.code import Value
from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT, Kind
from cellwise.plan.program import Stage, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.cpu.kernel import Emitter

# How long the result of a function is waited for, in that of a sum or a product. Two that follow each other are split.
_FUNCTION = 16
_LEAST = 2 * _FUNCTION


class Halves(NamedTuple):
    """early: what the first half computes. kept: what of that the second half reads, in order."""

    early: frozenset[Node]
    kept: tuple[Node, ...]


def halves_of(stage: Stage) -> Halves | None:
    """The halves of a stage; None where they would gain nothing, or where units of a row are taken together."""
    if stage.reductions:
        return None
    inside = {node for node in stage.nodes if not node.is_mask}
    depth: dict[Node, int] = {}
    for node in stage.nodes:  # each behind what it reads
        if node in inside:
            own = _FUNCTION if node.op.kind is Kind.FUNCTION else 1
            depth[node] = own + max([depth.get(each, 0) for each in _values(node)], default=0)
    longest = max(depth.values(), default=0)
    if longest < _LEAST:
        return None
    early = frozenset(node for node in inside if depth[node] <= longest // 2)
    late = [node for node in stage.nodes if node in inside and node not in early]
    read = [each for node in late for each in _values(node)] + [node for node, _ in stage.writes]
    return Halves(early, tuple(dict.fromkeys(node for node in read if node in early)))


def _values(node: Node) -> list[Node]:
    """What a node reads; of a mask, which is computed where it is read, what that reads."""
    found: list[Node] = []
    for each in node.inputs:
        found += _values(each) if each.is_mask else [] if each.op is CONSTANT else [each]
    return found


def row_by_row(
    kernel: Emitter,
    number: int,
    stage: Stage,
    rows: tuple[Value, Value],
    unit: Value,
    u: Value,
    totals: list[Value],
) -> None:
    """The equations of a stage for a tile of units of some rows, from and to.

    Args:
        unit: the first of the tile, which is tile number `u` of its pair.
        totals: what the sums over rows are so far; then those with these rows.
    """
    k, b, one = kernel, kernel.b, kernel.whole(1)
    first, end = rows
    summed = [node for node, slot in stage.writes if slot.buffer.storage is StorageClass.REDUCTION]
    halves = halves_of(stage)
    early, kept = halves or Halves(frozenset(), ())

    def begin(row: Value) -> list[Value]:
        value_of = k.values(stage, row, unit, u)
        for node in stage.nodes:
            if node in early:
                value_of(node)
        return [value_of(node) for node in kept]

    def finish(row: Value, given: dict[Node, Value], before: list[Value]) -> list[Value]:
        value_of = k.equations(stage, row, unit, u, early, given)
        k.reductions.add(stage, row, value_of)
        return [b.fadd(total, value_of(node)) for total, node in zip(before, summed, strict=True)]

    if halves is None:
        with k.summing(f"s{number}.pointwise", end, totals, first) as (row, running, following):
            following += finish(row, {}, running)
        return
    # The second half of each row comes a round after its first.
    nothing: list[Value] = [k.v.number(0.0) for _ in kept]
    carried = [*nothing, *totals]
    with k.summing(f"s{number}.pointwise", b.add(end, one), carried, first) as (row, running, following):
        begun, before = running[: len(kept)], running[len(kept) :]
        is_there, has_begun = b.icmp_signed("<", row, end), b.icmp_signed(">", row, first)
        following += k.changed_if(is_there, nothing, lambda _: begin(row), likely=True)
        given = dict(zip(kept, begun, strict=True))
        following += k.changed_if(
            has_begun, before, lambda sums: finish(b.sub(row, one), given, sums), likely=True
        )
    totals[:] = carried[len(kept) :]
