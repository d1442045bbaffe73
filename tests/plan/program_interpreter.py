"""A program as its words say, on plain tensors: the meaning of `cellwise.plan.program`, apart from every backend.

Sequences are dense, (T, B, ...), and every buffer holds its rows as (columns, B, width), per step where it has steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cellwise.graph import Node, Shape
from cellwise.graph.ops import CONSTANT, Kind
from cellwise.passes.differentiate import SHARE
from cellwise.plan.program import (
    Buffer,
    MatmulTerm,
    Program,
    Slot,
    Stage,
    StorageClass,
    WeightBlock,
    Width,
)

PER_STEP = (StorageClass.PER_STEP, StorageClass.PER_CHUNK, StorageClass.AHEAD)


class Interpreter:
    """One run of a program over a batch.

    Args:
        weights: by stem. gates: the row blocks of each stem.
        given: by name, what is in memory before the first step: per-step buffers (T, columns, B, width), a state that
            is only read (T, 1, B, H), own parameters.
        initial: the carried states before the first step, (B, width) each.
    """

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, Tensor],
        gates: Mapping[str, tuple[str, ...]],
        given: Mapping[str, Tensor],
        initial: tuple[Tensor, ...],
        steps: int,
        widths: Mapping[Width, int],
    ) -> None:
        self.program, self.weights, self.gates, self.steps = program, weights, gates, steps
        self.batch, self.widths = len(initial[0]), widths
        self.memory = dict(given)
        self.per_step: dict[str, list[dict[int, Tensor]]] = {}
        self.sums: dict[tuple[str, int], Tensor] = {}
        self.states = {before.name: state for (before, _), state in zip(program.states, initial, strict=True)}

    def run(self, reverse: bool = False) -> tuple[Tensor, ...]:
        """The final states. What was written per step is then found by `written`, sums over steps and rows in `sums`,
        each state as the steps found it, one after the other, in `history`.
        """
        times = range(self.steps)
        for stage in self.program.before_loop:
            for self.t in times:
                self._stage(stage, {})
        entered: list[tuple[Tensor, ...]] = []
        for t in reversed(times) if reverse else times:
            entered.append(tuple(self.states.values()))
            self.t, self.scratch, after = t, dict[Slot, Tensor](), dict[str, Tensor]()
            self.reduced: dict[Node, Tensor] = {}
            for stage in self.program.stages:
                self._stage(stage, after)
            self.states = {
                before.name: after.get(later.name, self.states[before.name])
                for before, later in self.program.states
            }
        self.history = tuple(torch.stack(each) for each in zip(*entered, strict=True))
        return tuple(self.states.values())

    def written(self, name: str) -> Tensor:
        """A per-step buffer that the program wrote, (T, columns, B, width)."""
        columns = self.program.buffer(name).columns
        return torch.stack([torch.stack([step[i] for i in range(columns)]) for step in self.per_step[name]])

    def _stage(self, stage: Stage, after: dict[str, Tensor]) -> None:
        values: dict[Node, Tensor] = {}
        for node in stage.row_nodes:
            values[node] = self._number(node, values)
        for node, slot in stage.row_writes:
            self._write(slot, self._value(node, values), after)
        for number, node in enumerate(stage.accumulators):
            terms = [
                self._term(s, s.accumulators.index(number)) for s in stage.terms if number in s.accumulators
            ]
            terms += [self._rows(WeightBlock(stem, (gate,))) for stem, gate in stage.biases[number]]
            values[node] = sum(terms[1:], terms[0])
        for node in stage.nodes:
            values[node] = self._computed(node, values)
        for node, slot in stage.writes:
            self._write(slot, self._value(node, values), after)
        for node, _ in stage.reductions:
            operand = self._value(node.inputs[0], values).expand(self.batch, self.widths[stage.width])
            assert node.op.torch is not None
            self.reduced[node] = node.op.torch(operand)

    def _number(self, node: Node, values: dict[Node, Tensor]) -> Tensor:
        """A number of each row: what the stage before added up, or what follows from such and from parameters."""
        if node.op.kind is Kind.REDUCTION:
            return self.reduced[node]
        if node.op is SHARE:
            return self._value(node.inputs[0], values) / self.widths[Width.HIDDEN]
        for each in node.inputs:
            if each.shape is Shape.NUMBER and each.inputs:
                values[each] = self._number(each, values)
        return self._computed(node, values)

    def _term(self, term: MatmulTerm, place: int) -> Tensor:
        block = term.weight
        weight = self._rows(WeightBlock(block.stem, (block.gates[place],)))
        return self._read(term.operand) @ (weight if block.transposed else weight.T)

    def _rows(self, block: WeightBlock) -> Tensor:
        blocks = self.weights[block.stem].chunk(len(self.gates[block.stem]))
        return blocks[self.gates[block.stem].index(block.gates[0])]

    def _value(self, node: Node, values: dict[Node, Tensor]) -> Tensor:
        if node in values:
            return values[node]
        if node.op is CONSTANT:
            return torch.tensor(node.attribute, dtype=torch.float64)
        if node.is_mask:  # no number, so never in memory: it is computed where it is used
            return self._computed(node, values)
        return self._read(self.program.rows.get(node) or self.program.reads[node])

    def _computed(self, node: Node, values: dict[Node, Tensor]) -> Tensor:
        assert node.op.torch is not None
        return node.op.torch(*(self._value(i, values) for i in node.inputs))

    def _read(self, slot: Slot) -> Tensor:
        buffer = slot.buffer
        if buffer.name in self.states:
            return self.states[buffer.name]
        if buffer.storage is StorageClass.SCRATCH:
            return self.scratch[slot]
        if buffer.storage in (StorageClass.PER_UNIT, StorageClass.SCALAR):
            return self.memory[buffer.name]
        if buffer.name in self.per_step and slot.column in self.per_step[buffer.name][self.t]:
            return self.per_step[buffer.name][self.t][slot.column]
        return self.memory[buffer.name][self.t, slot.column]

    def _write(self, slot: Slot, value: Tensor, after: dict[str, Tensor]) -> None:
        buffer = slot.buffer
        # What is made of parameters alone is a row like any other where it is written.
        value = value.expand(self.batch, 1 if buffer.width is Width.ROW else self.widths[buffer.width])
        if buffer.storage is StorageClass.CARRY_OUT:
            after[buffer.name] = value
        elif buffer.storage is StorageClass.SCRATCH:
            self.scratch[slot] = value
        elif buffer.storage is StorageClass.REDUCTION:
            key = (buffer.name, slot.column)
            self.sums[key] = self.sums.get(key, torch.zeros(())) + value.sum(0)
        else:
            assert buffer.storage in PER_STEP
            self._per_step(buffer)[self.t][slot.column] = value

    def _per_step(self, buffer: Buffer) -> list[dict[int, Tensor]]:
        return self.per_step.setdefault(buffer.name, [{} for _ in range(self.steps)])
