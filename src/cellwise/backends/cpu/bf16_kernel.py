"""The kernel of a program whose buffers hold bfloat16 numbers and whose equations are computed in float32.

What a step leaves for the next one is kept in float32 too: a sum that grows over a thousand steps would stand still in
eight bits. So are values that pass from stage to stage of a step. Operands of products are read as bfloat16, from where
they lie:

    x, tape, gates, histories   bfloat16
    states carried over steps   bfloat16 in their history, and float32 in two rows that change places with each step
    scratch rows                float32 numbers, and behind them the same as bfloat16 where a product reads them
"""

from __future__ import annotations

from dataclasses import replace

from llvmlite import ir

from cellwise.backends.cpu.amx_kernel import TiledEmitter
from cellwise.backends.cpu.bf16 import WORD, Bf16Memory
from cellwise.backends.cpu.bf16_products import Bf16Products, bf16_routine_name
from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.kernel import _Rows, widths_of
from cellwise.backends.cpu.target import Target
from cellwise.plan.program import Buffer, Program, Slot, StorageClass

# Numbers of 16 bits that a number of a scratch row takes: one in float32, one in bfloat16.
_PARTS = 3
_FLOAT = 2  # of these, the one in float32
SCRATCH_BYTES = 2 * _PARTS


def with_wide_states(program: Program) -> Program:
    """The program with room in float32 for the states that equations read: before and after a step."""
    wide = tuple(_wide(before) for before, _ in _carried(program))
    return replace(program, buffers=(*program.buffers, *wide))


def _wide(state: Buffer) -> Buffer:
    return Buffer(f"{state.name} in float32", StorageClass.SCRATCH, 2, state.width)


def _carried(program: Program) -> list[tuple[Buffer, Buffer]]:
    """The states that equations read, before and after a step; of the others products read what they round anyway."""
    read = _read(program)
    return [(before, after) for before, after in program.states if Slot(before) in read]


def _read(program: Program) -> set[Slot]:
    """What equations read, beside what products do."""
    found: set[Slot] = set()
    for stage in program.stages:
        nodes = [*stage.nodes, *(node for node, _ in (*stage.writes, *stage.reductions))]
        for node in nodes:
            operands = [*node.inputs, *(i for mask in node.inputs if mask.is_mask for i in mask.inputs)]
            found |= {program.reads[each] for each in (node, *operands) if each in program.reads}
        found |= {slot for _, slot in stage.reductions}
    return found


class Bf16Emitter(Bf16Memory, TiledEmitter):
    """Emits the kernel of a program that has room for wide states."""

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, WORD, target)
        self.v.rough, self.v.reciprocal = True, target.dots
        self.before = {before: _wide(before) for before, _ in _carried(program)}
        self.after = {after: _wide(before) for before, after in _carried(program)}
        self.scratch = {slot for slot in _read(program) if slot.buffer.storage is StorageClass.SCRATCH}
        self.operands = {term.operand for stage in program.stages for term in stage.terms}

    @property
    def vectors_are_lines(self) -> bool:
        return False  # they are half as long in memory

    def products_name(self, width: int) -> str:
        return bf16_routine_name(width, self.target)

    def _rows(self, buffer: Buffer, t: Value) -> _Rows:
        rows = super()._rows(buffer, t)
        if buffer.storage is not StorageClass.SCRATCH:
            return rows
        # Those that products read: behind the numbers in float32.
        b = self.b
        start = self.at(rows.start, b.mul(rows.stride, self.whole(_FLOAT)))
        return _Rows(start, b.mul(rows.stride, self.whole(_PARTS)), start)

    def _find_rows(self, t: Value) -> None:
        super()._find_rows(t)
        b = self.b
        self.turn = b.and_(t, self.whole(1))
        for before in self.before:
            self._begin(before)

    def _begin(self, state: Buffer) -> None:
        """Rows that have no step before this one begin with the state that was given."""
        b = self.b
        limit = self.rows[state.name].limit
        assert limit is not None, "a state is carried into a step"
        first = b.select(b.icmp_signed(">", limit, self.whole(0)), limit, self.whole(0))
        with (
            self.loop("first", self.active, first=first) as row,
            self.loop("unit", self.padded(state.width), step=self.v.lanes) as unit,
        ):
            self._store_wide(super().read(Slot(state), row, unit), self._wide_row(state, row, unit))

    def read(self, slot: Slot, row: Value, unit: Value) -> Value:
        if slot.buffer in self.before:
            return self._load_wide(self._wide_row(slot.buffer, row, unit))
        if slot.buffer.storage is StorageClass.SCRATCH:
            assert slot in self.scratch, "what equations read of scratch rows is there in float32"
            return self._load_wide(self._scratch(slot, row, unit))
        return super().read(slot, row, unit)

    def write(self, value: Value, slot: Slot, row: Value, unit: Value) -> None:
        is_scratch = slot.buffer.storage is StorageClass.SCRATCH
        if not is_scratch or slot in self.operands:
            super().write(value, slot, row, unit)
        if slot in self.scratch:
            self._store_wide(value, self._scratch(slot, row, unit))
        if slot.buffer in self.before or slot.buffer in self.after:
            self._store_wide(value, self._wide_row(slot.buffer, row, unit))

    def read_number(self, slot: Slot, row: Value) -> Value:
        if slot.buffer.storage is not StorageClass.SCRATCH:
            return super().read_number(slot, row)
        address = self._scratch(slot, row, self.whole(0))
        return self.v.splat(self.b.load(address, typ=self.v.element, align=2))

    def write_number(self, value: Value, slot: Slot, row: Value) -> None:
        if slot.buffer.storage is not StorageClass.SCRATCH:
            super().write_number(value, slot, row)
        else:
            self._store_wide(self.v.first(value), self._scratch(slot, row, self.whole(0)))

    def _wide_row(self, state: Buffer, row: Value, unit: Value) -> Value:
        """Where a state before or after this step is in float32."""
        b = self.b
        own = self.turn if state in self.before else b.sub(self.whole(1), self.turn)
        wide = self.before.get(state) or self.after[state]
        place = b.add(b.mul(own, self.padded(wide.width)), unit)
        return self._float(wide, row, place)

    def _scratch(self, slot: Slot, row: Value, unit: Value) -> Value:
        b = self.b
        place = b.add(b.mul(self.whole(slot.column), self.padded(slot.buffer.width)), unit)
        return self._float(slot.buffer, row, place)

    def _float(self, buffer: Buffer, row: Value, place: Value) -> Value:
        """A number in float32 of a scratch row, whose rows are known by where their bfloat16 numbers begin."""
        b, rows = self.b, self.rows[buffer.name]
        behind = b.mul(self.padded(buffer.width), self.whole(buffer.columns * _FLOAT))
        start = b.sub(b.mul(row, rows.stride), behind)
        return self.at(rows.start, b.add(start, b.mul(place, self.whole(_FLOAT))))

    def _load_wide(self, pointer: Value) -> Value:
        return self.b.load(pointer, typ=self.v.vector, align=2)

    def _store_wide(self, value: Value, pointer: Value) -> None:
        self.b.store(value, pointer, align=2)


def emit_bf16(program: Program, target: Target, whole: bool = False) -> ir.Module:
    """The kernel of a program with room for wide states; if `whole`, with the routines that it calls."""
    module = Bf16Emitter(program, target).emit()
    for width in widths_of(program, target) if whole else ():
        Bf16Products(width, target, module).emit()
    return module
