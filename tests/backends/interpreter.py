"""A second compiler: it compiles nothing and interprets the program with torch's operators, on any device.

Rows are as far apart as no vectors are, and all memory that it makes reads as NaN until it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import (
    Carried,
    CompiledKernel,
    KernelCompiler,
    KernelRun,
    RunShape,
    carried_buffers,
    given_buffers,
)
from cellwise.graph import Node, Shape
from cellwise.graph.ops import CONSTANT, Kind, constant_tensor
from cellwise.passes.differentiate import SHARE
from cellwise.plan.program import MatmulTerm, Program, Slot, Stage, StorageClass, Width

APART = 5  # rows begin at multiples of so many numbers


class Interpreter(KernelCompiler):
    device_type = "cpu"
    dtypes = (torch.float32, torch.float64)
    layout = "fives"

    def row_width(self, size: int, dtype: torch.dtype) -> int:
        return -(-size // APART) * APART

    def compile(self, program: Program, dtype: torch.dtype) -> CompiledKernel:
        return Interpreted(program)

    def empty(self, rows: int, width: int, like: Tensor, scratch: bool) -> Tensor:
        return like.new_full((rows, width), float("nan"))


@dataclass(frozen=True, eq=False)
class Interpreted(CompiledKernel):
    program: Program

    def open(self, shape: RunShape) -> KernelRun:
        return Run(self.program, shape)


class Run(KernelRun):
    def __init__(self, program: Program, shape: RunShape) -> None:
        self.program, self.shape, self.schedule = program, shape, shape.schedule
        sizes = shape.sizes
        self.size = {Width.INPUT: sizes.input, Width.HIDDEN: sizes.hidden, Width.PROJECTED: sizes.projected}
        self.size[Width.ROW] = 1
        self.width = {
            Width.INPUT: sizes.input,
            Width.HIDDEN: sizes.padded,
            Width.PROJECTED: sizes.padded_projected,
            Width.ROW: 1,
        }
        self.state_of = {after.name: before.name for before, after in program.states}
        self.way = {a.name: way for a, way in zip(carried_buffers(program), shape.carried, strict=True)}

    def bind(
        self,
        buffers: Sequence[Tensor],
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
    ) -> None:
        assert all(each.is_contiguous() for each in (*buffers, *firsts, *histories))
        program = self.program
        self.buffers = {a.name: each for a, each in zip(given_buffers(program), buffers, strict=True)}
        self.first = dict(zip(self.way, firsts, strict=True))
        self.history = dict(zip(self.way, histories, strict=True))
        self.weights = dict(zip(self.shape.stems, weights, strict=True))
        self.resets = resets
        self.total = {
            buffer.name: torch.zeros(
                buffer.columns, self.width[buffer.width], dtype=torch.float64, device=self.shape.device
            )
            for buffer in program.buffers
            if buffer.storage is StorageClass.REDUCTION
        }

    def launch(self, first: int, end: int) -> None:
        times = range(first, end)
        for t in reversed(times) if self.schedule.backwards else times:
            start, stop = (int(each) for each in self.schedule.offsets[t : t + 2])
            if start < stop:
                Step(self, t, start, stop, int(self.schedule.offsets[first])).run()

    def release(self) -> None:
        del self.buffers, self.first, self.history, self.weights, self.resets, self.total

    def sums(self) -> dict[str, Tensor]:
        return {name: total.flatten() for name, total in self.total.items()}


class Step:
    """One step of time, of the rows of data from `start` to `stop`; a span of steps begins at the row `span`."""

    def __init__(self, run: Run, t: int, start: int, stop: int, span: int) -> None:
        self.call, self.t, self.count = run, t, stop - start
        self.rows = {
            StorageClass.PER_STEP: slice(start, stop),
            StorageClass.PER_CHUNK: slice(start - span, stop - span),
            StorageClass.BESIDE: slice(start, stop),
            StorageClass.PER_SEQUENCE: slice(stop - start),
        }
        self.within: dict[str, Tensor] = {}
        self.reduced: dict[Node, Tensor] = {}
        marks = None if run.resets is None else run.resets[start:stop].bool()
        self.marked = [] if marks is None else marks.nonzero().flatten().tolist()

    def run(self) -> None:
        call, names = self.call, [before.name for before, _ in self.call.program.states]
        if not call.schedule.backwards:
            for row in self.marked:
                for name in names:
                    self._before(name, row).zero_()
        for stage in call.program.stages:
            self._stage(stage)
        if call.schedule.backwards:
            for row in self.marked:
                for name in names:
                    call.history[name][self._place(name, "after") + row].zero_()

    def _place(self, name: str, which: str) -> int:
        """The row of a history where a step finds or leaves its states."""
        way, schedule = self.call.way[name], self.call.schedule
        kind = f"pair_{which}" if way is Carried.PAIR else which
        return int(getattr(schedule.reversed if way is Carried.OPPOSITE else schedule, kind)[self.t])

    def _before(self, name: str, row: int) -> Tensor:
        schedule = (
            self.call.schedule.reversed if self.call.way[name] is Carried.OPPOSITE else self.call.schedule
        )
        if row < schedule.limits[self.t]:
            return self.call.history[name][self._place(name, "before") + row]
        return self.call.first[name][row]

    def _read(self, slot: Slot) -> Tensor:
        buffer, call = slot.buffer, self.call
        size = call.size[buffer.width]
        if buffer.storage in (StorageClass.PER_UNIT, StorageClass.SCALAR):
            return call.weights[buffer.name.removeprefix("own ")]
        if buffer.storage is StorageClass.CARRY_IN:
            return torch.stack([self._before(buffer.name, row)[:size] for row in range(self.count)])
        return self._memory(slot)[:, :size]

    def _memory(self, slot: Slot) -> Tensor:
        """The rows of a column of an buffer at this step."""
        buffer, call = slot.buffer, self.call
        width = call.width[buffer.width]
        if buffer.storage is StorageClass.SCRATCH:
            like = next(iter(call.first.values()))
            empty = like.new_full((self.count, buffer.columns, width), float("nan"))
            return self.within.setdefault(buffer.name, empty)[:, slot.column]
        rows = call.buffers[buffer.name]
        if buffer.storage is StorageClass.BESIDE and rows.shape[1] != width:  # one number for all units
            return rows[self.rows[buffer.storage], :1].expand(-1, width)
        return rows.view(len(rows), buffer.columns, width)[self.rows[buffer.storage], slot.column]

    def _write(self, value: Tensor, slot: Slot) -> None:
        buffer, call = slot.buffer, self.call
        size = call.size[buffer.width]
        value = value.expand(self.count, size)
        if buffer.storage is StorageClass.REDUCTION:
            call.total[buffer.name][slot.column, :size] += value.sum(0, dtype=torch.float64)
        elif buffer.storage is StorageClass.CARRY_OUT:
            state = call.state_of[buffer.name]
            start = self._place(state, "after")
            call.history[state][start : start + self.count, :size] = value
        else:
            self._memory(slot)[:, :size] = value

    def _stage(self, stage: Stage) -> None:
        value_of = self._values(stage)
        for node, slot in stage.row_writes:
            self._write(value_of(node), slot)
        for node in stage.nodes:
            value_of(node)
        for node, slot in stage.writes:
            self._write(value_of(node), slot)
        for node, _ in stage.reductions:
            size = self.call.size[stage.width]
            assert node.op.torch is not None
            self.reduced[node] = node.op.torch(value_of(node.inputs[0]).expand(self.count, size))

    def _values(self, stage: Stage) -> Callable[[Node], Tensor]:
        known = {node: self._sum(stage, place) for place, node in enumerate(stage.accumulators)}
        like = next(iter(self.call.first.values()))

        def value_of(node: Node) -> Tensor:
            if node not in known:
                if node.op is CONSTANT:
                    known[node] = constant_tensor(node.attribute, like)
                elif node in stage.row_nodes and node.op.kind is Kind.REDUCTION:
                    known[node] = self.reduced[node]
                elif node in stage.row_nodes and node.op is SHARE:
                    known[node] = value_of(node.inputs[0]) / self.call.size[Width.HIDDEN]
                elif node in (*stage.nodes, *stage.row_nodes) or node.is_mask or _is_number(node):
                    assert node.op.torch is not None
                    known[node] = node.op.torch(*[value_of(each) for each in node.inputs])
                else:
                    program = self.call.program
                    known[node] = self._read(program.rows.get(node) or program.reads[node])
            return known[node]

        return value_of

    def _sum(self, stage: Stage, place: int) -> Tensor:
        """The biases and products of an accumulator."""
        like = next(iter(self.call.first.values()))
        total = like.new_zeros(self.count, self.call.size[stage.width])
        for stem, gate in stage.biases[place]:
            if stem in self.call.weights:
                total = total + self._block(stem, gate)
        for term in stage.terms:
            if place in term.accumulators:
                total = total + self._product(term, place)
        return total

    def _product(self, term: MatmulTerm, place: int) -> Tensor:
        weight = term.weight
        block = self._block(weight.stem, weight.gates[term.accumulators.index(place)])
        return self._read(term.operand) @ (block if weight.transposed else block.t())

    def _block(self, stem: str, gate: str) -> Tensor:
        """The rows of a weight or bias that belong to a gate."""
        graph, weight = self.call.program.graph, self.call.weights[stem]
        if not gate:
            return weight
        gates = graph.input_gates if stem.endswith("_ih") else graph.state_gates
        return weight.chunk(len(gates))[gates.index(gate)]


def _is_number(node: Node) -> bool:
    """Whether a value is made of numbers alone, as those of a row may be computed with."""
    return node.shape is Shape.NUMBER and bool(node.inputs)


class InterpreterBackend(Compiled):
    name = "interpreter"
    summary = "interprets the program of the kernels"
    device_type = "cpu"
    dtypes = Interpreter.dtypes
    _made = Interpreter()

    def compiler(self) -> KernelCompiler:
        return self._made
