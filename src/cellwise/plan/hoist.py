"""A program whose inputs are multiplied for many steps at once.

Within a step the input's weights meet the rows of that step alone. Multiplied for many steps at once they meet the rows
of all of these, and are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from cellwise.graph import Node
from cellwise.graph.ops import INPUT
from cellwise.plan.buffers import X
from cellwise.plan.program import Buffer, MatmulTerm, Program, Slot, Stage, StorageClass, WeightBlock

_BIAS = "bias_ih"


@lru_cache(maxsize=512)
def hoisted(program: Program) -> Program:
    """The same program with the products of its input before the steps; the program itself if it has none.

    What the input adds to a sum, W_i x + b_i, is then read as any other value is, and added to the rest. All else stays
    as it was, so that a call gives both programs the same buffers.
    """
    nodes = [part for stage in program.stages for _, part in _inputs_of(stage)]
    if not nodes:
        return program
    result = Buffer("input products", StorageClass.AHEAD, len(nodes))
    slots = {node: Slot(result, column) for column, node in enumerate(nodes)}
    gates = tuple(str(node.attribute) for node in nodes)
    before = Stage(
        tuple(nodes),
        tuple(((_BIAS, gate),) for gate in gates),
        (MatmulTerm(X, WeightBlock("weight_ih", gates), tuple(range(len(gates)))),),
        (),
        tuple(slots.items()),
    )
    operands = {term.operand for stage in program.stages for term in stage.terms}
    stages = [_without_inputs(stage, slots, operands) for stage in program.stages]
    return replace(
        program,
        name=f"{program.name}_hoisted",
        buffers=(*program.buffers, result),
        stages=tuple(stage for stage in stages if stage.has_units or stage.row_writes),
        reads=program.reads | slots,
        before_loop=(before,),
    )


def _inputs_of(stage: Stage) -> Sequence[tuple[int, Node]]:
    """The accumulators that the input adds to, by their numbers, and what it adds: itself, or a part of a sum."""
    fed = sorted({number for term in stage.terms if term.operand == X for number in term.accumulators})
    found = []
    for number in fed:
        node = stage.accumulators[number]
        found.append((number, node if node.op is INPUT else next(i for i in node.inputs if i.op is INPUT)))
    return found


def _without_inputs(stage: Stage, slots: dict[Node, Slot], operands: set[Slot]) -> Stage:
    """A stage that reads what its input adds.

    Args:
        slots: where the input's products lie.
        operands: what products read row by row; a copy of an input's product that is for these is still made.
    """
    parts = dict(_inputs_of(stage))
    rest: dict[int, Node] = {}  # the accumulators that are left, by their old numbers
    for number, node in enumerate(stage.accumulators):
        if number not in parts:
            rest[number] = node
        elif node is not parts[number]:
            rest[number] = next(i for i in node.inputs if i is not parts[number])
    place = {number: new for new, number in enumerate(rest)}
    terms = tuple(
        replace(term, accumulators=tuple(place[number] for number in term.accumulators))
        for term in stage.terms
        if term.operand != X
    )
    biases = tuple(
        tuple(bias for bias in stage.biases[number] if number not in parts or bias[0] != _BIAS)
        for number in rest
    )
    sums = tuple(stage.accumulators[number] for number in parts if number in rest)
    writes = tuple(
        (node, slot)
        for node, slot in stage.writes
        if node not in slots or slot.buffer.storage is not StorageClass.SCRATCH or slot in operands
    )
    return replace(
        stage,
        accumulators=tuple(rest.values()),
        biases=biases,
        terms=terms,
        nodes=(*sums, *stage.nodes),
        writes=writes,
    )
