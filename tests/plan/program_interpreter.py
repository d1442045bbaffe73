"""A program as its words say, on plain tensors: the meaning of `cellwise.plan.program`, apart from every backend.

Sequences are dense, (T, B, ...), and every array holds its rows as (columns, B, width), per step where it has steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT
from cellwise.plan.program import (
    Array,
    HoistedProduct,
    Place,
    Program,
    ProgramStage,
    Ref,
    Segment,
    WeightBlock,
    Width,
)

PER_STEP = (Place.STEPS, Place.SPAN)


class Interpreter:
    """One run of a program over a batch.

    Args:
        weights: by stem. gates: the row blocks of each stem.
        given: by name, what is in memory before the first step: per-step arrays (T, columns, B, width), a state that is
            only read (T, 1, B, H), own parameters.
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
        for product in self.program.before_loop:
            self._hoist(product)
        times = range(self.steps)
        entered: list[tuple[Tensor, ...]] = []
        for t in reversed(times) if reverse else times:
            entered.append(tuple(self.states.values()))
            self.t, self.scratch, after = t, dict[Ref, Tensor](), dict[str, Tensor]()
            for stage in self.program.stages:
                self._stage(stage, after)
            self.states = {
                before.name: after.get(later.name, self.states[before.name])
                for before, later in self.program.states
            }
        self.history = tuple(torch.stack(each) for each in zip(*entered, strict=True))
        return tuple(self.states.values())

    def written(self, name: str) -> Tensor:
        """A per-step array that the program wrote, (T, columns, B, width)."""
        columns = self.program.array(name).columns
        return torch.stack([torch.stack([step[i] for i in range(columns)]) for step in self.per_step[name]])

    def _hoist(self, product: HoistedProduct) -> None:
        assert product.weight.gates == self.gates[product.weight.stem], "the whole parameter, as it lies"
        rows = self.memory[product.operand.name][:, 0]
        found = rows @ self.weights[product.weight.stem].T + self.weights[product.bias]
        self.memory[product.result.name] = torch.stack(found.chunk(product.result.columns, dim=-1), dim=1)

    def _stage(self, stage: ProgramStage, after: dict[str, Tensor]) -> None:
        values: dict[Node, Tensor] = {}
        for number, node in enumerate(stage.accumulators):
            terms = [
                self._term(s, s.accumulators.index(number))
                for s in stage.segments
                if number in s.accumulators
            ]
            terms += [self._rows(WeightBlock(stem, (gate,))) for stem, gate in stage.biases[number]]
            values[node] = sum(terms[1:], terms[0])
        for node in stage.nodes:
            values[node] = self._computed(node, values)
        for node, ref in stage.writes:
            self._write(ref, self._value(node, values), after)

    def _term(self, segment: Segment, place: int) -> Tensor:
        block = segment.weight
        weight = self._rows(WeightBlock(block.stem, (block.gates[place],)))
        return self._read(segment.operand) @ (weight if block.transposed else weight.T)

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
        return self._read(self.program.reads[node])

    def _computed(self, node: Node, values: dict[Node, Tensor]) -> Tensor:
        assert node.op.torch is not None
        return node.op.torch(*(self._value(i, values) for i in node.inputs))

    def _read(self, ref: Ref) -> Tensor:
        array = ref.array
        if array.name in self.states:
            return self.states[array.name]
        if array.place is Place.ROWS:
            return self.scratch[ref]
        if array.place in (Place.UNITS, Place.NUMBER):
            return self.memory[array.name]
        if array.name in self.per_step and ref.column in self.per_step[array.name][self.t]:
            return self.per_step[array.name][self.t][ref.column]
        return self.memory[array.name][self.t, ref.column]

    def _write(self, ref: Ref, value: Tensor, after: dict[str, Tensor]) -> None:
        array = ref.array
        # What is made of parameters alone is a row like any other where it is written.
        value = value.expand(self.batch, self.widths[array.width])
        if array.place is Place.AFTER:
            after[array.name] = value
        elif array.place is Place.ROWS:
            self.scratch[ref] = value
        elif array.place is Place.SUM:
            key = (array.name, ref.column)
            self.sums[key] = self.sums.get(key, torch.zeros(())) + value.sum(0)
        else:
            assert array.place in PER_STEP
            self._per_step(array)[self.t][ref.column] = value

    def _per_step(self, array: Array) -> list[dict[int, Tensor]]:
        return self.per_step.setdefault(array.name, [{} for _ in range(self.steps)])
