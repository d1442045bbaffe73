"""From a program to LLVM: one function that runs steps of time one after the other for some of the batch's rows.

    void kernel(void **pointers, int64 *sizes)

`pointers` are the program's buffers in order (`ADDRESSES` says how many each has), then per stage and group of
accumulators its packed weights, one per term, and its packed biases, then room for accumulators, the steps' offsets
and the resets. `sizes` are `SIZES`, and `BLOCK_SIZES` of a program whose inputs are multiplied for a block of steps at
once (`ahead.py`), and `TAPE_SIZES` of one that keeps a tape.

A row of what stands beside x has a number for each unit, or one that stands for all, in a whole vector: its form says
how far apart rows are, and by how much a unit moves on in them, by one or not at all.

A row of a state is found by its step: in `first` if the step is the row's first, else in `history`, from row `rows[t]`
on. `rows[t]` and `limits[t]`, how many rows of the batch have a step before this one, are buffers over time.

A stage goes through pairs of tiles of units. For each pair the routine of `products` sums the rows' products, and then
the pointwise equations run on the sums row by row, while they are in the nearest cache. Rows of units are padded to
whole tiles, so that there are no remainders in them; padding is never read as an operand. The last pair may be a tile.

A tape is read when the backward pass has come to its step. Where all of it is more than caches hold, whole lines of it
go past them: the stores read no memory first, and leave what the next step reads where it is. 64 rows of an LSTM of 128
units over 784 steps, 128 MB: 84 ms for 95, 75 without a tape.

What is summed over rows (the gradients of biases and of a cell's own parameters) is summed for `SUMMED` rows at a time
and then in float64, so that its error does not grow with the length and the batch.

Longer than other files: the parts of one function that share its addresses and its loop over steps. What can be told
apart (products, packing, blocks of inputs, two rows at once, reductions, expressions) is in files of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from llvmlite import ir

from cellwise.backends.cpu.ahead import Ahead
from cellwise.backends.cpu.code import I8, I64, POINTER, Code, Value
from cellwise.backends.cpu.denormals import flush_denormals, may_flush
from cellwise.backends.cpu.halves import row_by_row
from cellwise.backends.cpu.products import CALL, LINE, TERM, Products, routine_name, run_of
from cellwise.backends.cpu.reductions import SUMMED, Reductions
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group, groups_of
from cellwise.backends.cpu.vectors import LOWERINGS
from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT
from cellwise.plan.buffers import TAPE
from cellwise.plan.listing import equation_of
from cellwise.plan.program import Buffer, MatmulTerm, Program, Slot, Stage, StorageClass, Width

SIZES = (
    "first step",
    "steps",
    "D",
    "H",
    "P",
    "padded H",
    "padded P",
    "first row",
    "rows",
    "backwards",
    "zero before",
    "zero after",
)
# What rows are as long as that a call gives; others are no operands of products.
LENGTHS = (Width.INPUT, Width.HIDDEN, Width.PROJECTED)
BLOCK_SIZES = ("block steps", "block rows")
TAPE_SIZES = ("past caches",)

# What a kernel is told of a buffer; of any other storage class only where it begins.
ADDRESSES = {
    StorageClass.CARRY_IN: ("first", "history", "rows", "limits"),
    StorageClass.CARRY_OUT: ("history", "rows"),
    StorageClass.AHEAD: ("sums", "operands"),
    StorageClass.BESIDE: ("rows", "form"),
}


def size_names(program: Program) -> tuple[str, ...]:
    """What the kernel of a program is told of sizes, in order."""
    names = SIZES + BLOCK_SIZES if program.before_loop else SIZES
    return names + TAPE_SIZES if keeps_tape(program) else names


def keeps_tape(program: Program) -> bool:
    return any(slot.buffer.name == TAPE for stage in program.stages for _, slot in stage.writes)


@dataclass(frozen=True)
class _Rows:
    """An buffer's rows at this step: number i is i strides behind `start`, from `limit` on behind `first`.

    `by_unit`: how far a unit moves on in a row, if that is not always by one.
    """

    start: Value
    stride: Value
    first: Value
    limit: Value | None = None
    by_unit: Value | None = None


class Emitter(Code):
    """Emits the kernel of one program for one element type and target."""

    products_of_a_term = 1

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program.name, element_bytes, target)
        self.program = program
        self.groups = {stage: groups_of(stage, target) for stage in program.all_stages}
        self.reductions = Reductions(self)
        self.ahead = Ahead(self, program.before_loop[0]) if program.before_loop else None

    def emit(self) -> ir.Module:
        b = self.b
        pointers, sizes = self.function.args
        named = self.sizes
        names = [name.replace(" ", "_") for name in named]
        self.size = {name: self.load_whole(sizes, i, names[i]) for i, name in enumerate(named)}
        self._take(pointers)
        self.span = self.load_whole(self.offsets, self.size["first step"])
        self.runs = {width: run_of(self, self.size[width.value]) for width in LENGTHS}
        self._routines()
        restore = flush_denormals(self) if may_flush(self.program) else None
        if self.ahead is None:
            self._steps(self.whole(0), self.size["steps"])
        else:
            with self.ahead.blocks() as (first, end):
                self._steps(first, end)
        if restore is not None:
            restore()
        self._end()
        if keeps_tape(self.program) and self.vectors_are_lines:
            b.fence("seq_cst")  # what went past caches is there for other threads too
        b.ret_void()
        return self.module

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of the words of `sizes`."""
        return size_names(self.program)

    def _steps(self, first: Value, end: Value) -> None:
        """The steps of these numbers, in the order in which they run."""
        with self.loop("step", end, first=first) as count:
            self._step(self.time(count))

    def _end(self) -> None:
        """What is left to do when all steps are done."""

    def time(self, count: Value) -> Value:
        """The time of the step of a number."""
        b = self.b
        last = b.sub(b.sub(self.size["steps"], self.whole(1)), count)
        t = b.select(b.icmp_signed("!=", self.size["backwards"], self.whole(0)), last, count)
        return b.add(self.size["first step"], t)

    def _take(self, pointers: Value) -> None:
        """What the kernel is given, by what it is of."""
        take = iter(range(1_000_000))

        def pointer(name: str) -> Value:
            return self.load_pointer(pointers, next(take), name.replace(" ", "_"))

        self.buffers: dict[str, Value] = {}
        self.addresses: dict[tuple[str, str], Value] = {}
        for buffer in self.program.buffers:
            for part in ADDRESSES.get(buffer.storage, ("",)):
                value = pointer(f"{buffer.name} {part}".strip())
                if part:
                    self.addresses[buffer.name, part] = value
                else:
                    self.buffers[buffer.name] = value
        self.weights: dict[tuple[Group, MatmulTerm], Value] = {}
        self.biases: dict[Group, Value] = {}
        self._take_weights(pointer)
        self.room, self.offsets, self.resets = pointer("room"), pointer("offsets"), pointer("resets")

    def _take_weights(self, pointer: Callable[[str], Value]) -> None:
        """Where packed weights and biases are."""
        for stage in self.program.all_stages:
            for group in self.groups[stage]:
                for term in group.terms:
                    self.weights[group, term] = pointer("weights")
                self.biases[group] = pointer("biases")

    def _routines(self) -> None:
        """The routines of products, and for each group room for the descriptor of its routine."""
        self.routines: dict[int, ir.Function] = {}
        self.calls: dict[Group, Value] = {}
        for group in (group for groups in self.groups.values() for group in groups):
            self.routines[group.width] = self.declared(self.products_name(group.width), Products.kinds)
            words = len(CALL) + len(TERM) * len(group.terms) * self.products_of_a_term
            self.calls[group] = self.b.alloca(POINTER, words, name="call")

    def products_name(self, width: int) -> str:
        """The routine for panels of so many vectors."""
        return routine_name(width, self.element_bytes, self.target)

    def padded(self, width: Width) -> Value:
        """The length of a row in memory."""
        if width in (Width.ROW, Width.PARTIAL):
            return self.whole(1 if width is Width.ROW else self.v.lanes)
        return self.size["D" if width is Width.INPUT else f"padded {width.value}"]

    def rows_at(self, t: Value) -> tuple[Value, Value]:
        """This thread's first row among all steps' rows at a time, and how many it has."""
        b = self.b
        offset = self.load_whole(self.offsets, t)
        after = self.load_whole(self.offsets, b.add(t, self.whole(1)))
        here = b.sub(b.sub(after, offset), self.size["first row"])
        here = b.select(b.icmp_signed("<", here, self.whole(0)), self.whole(0), here)
        count = b.select(b.icmp_signed("<", here, self.size["rows"]), here, self.size["rows"])
        return b.add(offset, self.size["first row"]), count

    def _step(self, t: Value) -> None:
        b = self.b
        self.first, self.active = self.rows_at(t)
        with b.if_then(b.icmp_signed(">", self.active, self.whole(0))):
            self._find_rows(t)
            before, after = zip(*self.program.states, strict=True)
            self._zero("zero before", before)
            self.block = self.whole(0), self.active
            if self.program.rows:
                self.reductions.stages()
            else:
                for number, stage in enumerate(self.program.stages):
                    self.part(f"s{number}", partial(self.stage, number, stage))
            self._zero("zero after", after)
            if self.ahead is not None:
                self.ahead.step_is_done()

    def _find_rows(self, t: Value) -> None:
        """Where the rows of each buffer begin at this step, and which have a step before it."""
        self.rows = {
            buffer.name: self._rows(buffer, t)
            for buffer in self.program.buffers
            if buffer.storage is not StorageClass.AHEAD
        }

    def _rows(self, buffer: Buffer, t: Value) -> _Rows:
        b = self.b
        if buffer.storage in (StorageClass.PER_UNIT, StorageClass.REDUCTION, StorageClass.SCALAR):
            start = self.buffers[buffer.name]
            return _Rows(start, self.padded(buffer.width), start)
        if buffer.storage is StorageClass.BESIDE:
            form = self.addresses[buffer.name, "form"]
            stride, by_unit = (self.load_whole(form, i) for i in range(2))
            start = self.at(self.addresses[buffer.name, "rows"], b.mul(self.first, stride))
            return _Rows(start, stride, start, by_unit=by_unit)
        if buffer.storage not in ADDRESSES:
            stride = b.mul(self.padded(buffer.width), self.whole(buffer.columns))
            start = self.buffers[buffer.name]
            if buffer.storage is not StorageClass.SCRATCH:
                before = self.first
                if buffer.storage is StorageClass.PER_CHUNK:
                    before = b.sub(self.first, self.span)
                elif buffer.storage is StorageClass.PER_SEQUENCE:
                    before = self.size["first row"]
                start = self.at(start, b.mul(before, stride))
            return _Rows(start, stride, start)
        stride, number = self.padded(buffer.width), self.size["first row"]
        before = self.load_whole(self.addresses[buffer.name, "rows"], t)
        start = self.at(self.addresses[buffer.name, "history"], b.mul(b.add(before, number), stride))
        if buffer.storage is StorageClass.CARRY_OUT:
            return _Rows(start, stride, start)
        first = self.at(self.addresses[buffer.name, "first"], b.mul(number, stride))
        limit = b.sub(self.load_whole(self.addresses[buffer.name, "limits"], t), number)
        return _Rows(start, stride, first, limit)

    def _zero(self, when: str, states: Sequence[Buffer]) -> None:
        b = self.b
        with (
            b.if_then(b.icmp_signed("!=", self.size[when], self.whole(0))),
            self.loop(when.replace(" ", "_"), self.active) as row,
        ):
            mark = b.load(self.at(self.resets, b.add(self.first, row), I8), typ=I8)
            with b.if_then(b.icmp_signed("!=", mark, ir.Constant(I8, 0)), likely=False):
                for state in states:
                    with self.loop("unit", self.padded(state.width), step=self.v.lanes) as unit:
                        self.write(self.v.number(0.0), Slot(state), row, unit)

    def row(self, slot: Slot, row: Value) -> Value:
        """The address of a row of an buffer at this step."""
        b, rows = self.b, self.rows[slot.buffer.name]
        base = self._column(slot, rows.start)
        if slot.buffer.storage is StorageClass.PER_UNIT:
            return base
        if rows.limit is not None:
            base = b.select(b.icmp_signed("<", row, rows.limit), base, rows.first)
        return self.at(base, b.mul(row, rows.stride))

    def read(self, slot: Slot, row: Value, unit: Value) -> Value:
        """The numbers of a row from a unit on, a vector."""
        by_unit = self.rows[slot.buffer.name].by_unit
        unit = unit if by_unit is None else self.b.mul(unit, by_unit)
        return self.load(self.at(self.row(slot, row), unit))

    def write(self, value: Value, slot: Slot, row: Value, unit: Value) -> None:
        """Put a vector into a row, from a unit on."""
        self.store(value, self.at(self.row(slot, row), unit))

    def read_number(self, slot: Slot, row: Value) -> Value:
        """A number of a row, or of all rows, in each lane."""
        if slot.buffer.storage is StorageClass.SCALAR:
            return self.v.splat(self.load_one(self.buffers[slot.buffer.name]))
        return self.v.splat(self.load_one(self.row(slot, row)))

    def write_number(self, value: Value, slot: Slot, row: Value) -> None:
        """Put what is in each lane into a row of one number."""
        self.store_one(value, self.row(slot, row))

    def place(self, node: Node) -> Slot:
        """Where a value lies that is read."""
        return self.program.rows.get(node) or self.program.reads[node]

    def _column(self, slot: Slot, start: Value) -> Value:
        if slot.column == 0:
            return start
        return self.at(start, self.b.mul(self.whole(slot.column), self.padded(slot.buffer.width)))

    def stage(self, number: int, stage: Stage) -> None:
        """A stage for the rows of the block, which are all unless `Reductions` says otherwise."""
        b = self.b
        tiles = b.sdiv(self.padded(stage.width), self.whole(self.v.lanes))
        start, end = self.share(tiles)
        if not stage.accumulators:
            with self.loop(f"s{number}.tile", end, first=start) as tile:
                self._pointwise(number, stage, tile, self.whole(0))
            return
        for group in self.groups[stage]:
            self._write_descriptor(stage, group, tiles)
        with self.loop(f"s{number}.pair", end, first=start, step=TILES) as first:
            pair = b.sdiv(first, self.whole(TILES))
            for group in self.groups[stage]:
                self.products(stage, group, pair)
            left = b.sub(tiles, first)
            here = b.select(b.icmp_signed("<", left, self.whole(TILES)), left, self.whole(TILES))
            with self.loop(f"s{number}.tile", here) as u:
                self._pointwise(number, stage, b.add(first, u), u)

    def share(self, tiles: Value) -> tuple[Value, Value]:
        """The tiles of a stage that this thread does, from and to: all of them."""
        return self.whole(0), tiles

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Work for the tiles of `share`, whose results what follows reads."""
        work()

    def comment(self, node: Node) -> None:
        """The equation that the code from here on computes."""
        self.b.comment(equation_of(self.program, node, self.program.graph))

    def _write_descriptor(self, stage: Stage, group: Group, tiles: Value) -> None:
        """Write down what the routine of a group's products is to do at this step."""
        b, rows = self.b, self.size["rows"]
        for accumulator in group.accumulators:
            self.comment(stage.accumulators[accumulator])
        room = self.at(self.room, b.mul(self.whole(group.first * self.v.lanes), rows), self.v.element)
        terms = [self._term(group, term) for term in group.terms]
        self.describe(group, tiles, {"rows": self.active, "stride": rows, "room": room}, terms)

    def describe(
        self, group: Group, tiles: Value, given: dict[str, Value], terms: Sequence[dict[str, Value]]
    ) -> None:
        """Write the descriptor of a group: `given` are its words about rows and room, `terms` those of each term."""
        b = self.b
        b.comment(f"descriptor: {', '.join(CALL)}; for each term {', '.join(TERM)}")
        words = given | {
            "panels": self.whole(group.panels),
            # No pair has this number where the last one is whole.
            "last": b.select(b.trunc(tiles, ir.IntType(1)), b.sdiv(tiles, self.whole(TILES)), self.whole(-1)),
            "of last": self.whole(group.panels // TILES if group.by_tile else group.panels),
            "biases": self.biases[group],
            "terms": self.whole(len(terms)),
        }
        descriptor = [words[name] for name in CALL]
        for term in terms:
            descriptor += [term[name] for name in TERM]
        for place, word in enumerate(descriptor):
            b.store(word, self.at(self.calls[group], self.whole(place), I64))

    def _term(self, group: Group, term: MatmulTerm) -> dict[str, Value]:
        run = self.runs[term.operand.buffer.width]
        return {**self._operand(term), "run": run, "weights": self.weights[group, term]}

    def _operand(self, term: MatmulTerm) -> dict[str, Value]:
        buffer = term.operand.buffer
        rows = self.rows[buffer.name]
        return {
            "operand": self._column(term.operand, rows.start),
            "first": rows.first,
            "limit": self.active if rows.limit is None else rows.limit,
            "row": rows.stride,
            "length": self.size[buffer.width.value],
        }

    def products(self, stage: Stage, group: Group, pair: Value) -> None:
        for accumulator in group.accumulators:
            self.comment(stage.accumulators[accumulator])
        self.b.call(self.routines[group.width], [self.calls[group], pair])

    def _sum_address(self, group: Group, accumulator: int, u: Value, row: Value) -> Value:
        """Where `Products` put the sum of an accumulator for a row and the first or second tile of the pair."""
        b = self.b
        q, v = self.place_of(group, accumulator, u)
        place = b.add(b.mul(b.add(b.mul(q, self.size["rows"]), row), self.whole(group.width)), v)
        place = b.add(place, b.mul(self.whole(group.first), self.size["rows"]))
        return self.at(self.room, b.mul(place, self.whole(self.v.lanes)), self.v.element)

    def place_of(self, group: Group, accumulator: int, u: Value) -> tuple[Value, Value]:
        """The panel of an accumulator, and the vector in it, for the first or second tile of a pair."""
        b = self.b
        panel, vector = group.place(accumulator, 0)
        next_panel, next_vector = group.place(accumulator, 1)
        q = b.add(self.whole(panel), b.mul(u, self.whole(next_panel - panel)))
        return q, b.add(self.whole(vector), b.mul(u, self.whole(next_vector - vector)))

    def _pointwise(self, number: int, stage: Stage, tile: Value, u: Value) -> None:
        """The equations of a stage for one tile of units, row by row; sums over rows stay in registers for a while."""
        b, v = self.b, self.v
        start, end_of_rows = self.block
        if self.ahead is not None:
            self.ahead.find(tile)
        unit = b.mul(tile, self.whole(v.lanes))
        self.reductions.tile(stage, unit)
        sums = [(node, slot) for node, slot in stage.writes if slot.buffer.storage is StorageClass.REDUCTION]
        if not sums:
            row_by_row(self, number, stage, (start, end_of_rows), unit, u, [])
            return
        with self.loop(f"s{number}.rows", end_of_rows, first=start, step=SUMMED) as first:
            end = b.add(first, self.whole(SUMMED))
            end = b.select(b.icmp_signed("<", end, end_of_rows), end, end_of_rows)
            totals: list[Value] = [v.number(0.0) for _ in sums]
            row_by_row(self, number, stage, (first, end), unit, u, totals)
            for total, (_, slot) in zip(totals, sums, strict=True):
                self._add_to_sum(total, slot, unit)

    def equations(
        self,
        stage: Stage,
        row: Value,
        unit: Value,
        u: Value,
        done: frozenset[Node] = frozenset(),
        given: Mapping[Node, Value] | None = None,
    ) -> Callable[[Node], Value]:
        """Compute and write what a stage has for a row and a tile; returns the value of any of its nodes.

        done: nodes that were computed before; `given` has the values of those that are read.
        """
        value_of = self.values(stage, row, unit, u, given)
        for node in stage.nodes:
            if node not in done:
                value_of(node)
        kept = []
        for node, slot in stage.writes:
            if slot.buffer.name == TAPE and self.vectors_are_lines:
                kept.append((value_of(node), self.at(self.row(slot, row), unit)))
            elif slot.buffer.storage is not StorageClass.REDUCTION:
                self.write(value_of(node), slot, row, unit)
        if kept:
            self._keep(kept)
        return value_of

    def _keep(self, kept: Sequence[tuple[Value, Value]]) -> None:
        """Put vectors of the tape at their addresses, past the caches if so asked."""
        b = self.b
        with b.if_else(b.icmp_signed("!=", self.size["past caches"], self.whole(0))) as (past, into):
            with past:
                for value, address in kept:
                    store = b.store(value, address, align=LINE)
                    one = self.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
                    store.set_metadata("nontemporal", one)
            with into:
                for value, address in kept:
                    self.store(value, address)

    @property
    def vectors_are_lines(self) -> bool:
        """Whether a vector is a line of the cache in memory: part of one must not go past it."""
        return self.v.lanes * self.element_bytes == LINE

    def _add_to_sum(self, total: Value, slot: Slot, unit: Value) -> None:
        """Add a vector of numbers to one of float64 in memory."""
        b, double = self.b, ir.DoubleType()
        wide = ir.VectorType(double, self.v.lanes)
        first = b.mul(self.whole(slot.column), self.padded(slot.buffer.width))
        address = self.at(self.buffers[slot.buffer.name], b.add(first, unit), double)
        widened = total if self.v.double else b.fpext(total, wide)
        b.store(b.fadd(b.load(address, typ=wide, align=8), widened), address, align=8)

    def values(
        self, stage: Stage, row: Value, unit: Value, u: Value, given: Mapping[Node, Value] | None = None
    ) -> Callable[[Node], Value]:
        """The value of any node in the present row and tile: given, summed, computed, read or a number, each once."""
        v = self.v
        inside = set(stage.nodes)
        sums = {node: place for place, node in enumerate(stage.accumulators)}
        group_of = {place: group for group in self.groups[stage] for place in group.accumulators}

        @cache
        def value_of(node: Node) -> Value:
            if given and node in given:
                return given[node]
            if node.op is CONSTANT:
                assert isinstance(node.attribute, float)
                return v.number(node.attribute)
            if node in sums:
                place = sums[node]
                address = self._sum_address(group_of[place], place, u, row)
                return self.b.load(address, typ=v.vector, align=self.element_bytes)
            if node in inside or node.is_mask:
                operands = [value_of(i) for i in node.inputs]
                self.comment(node)
                return LOWERINGS[node.op.name](v, *operands)
            slot = self.place(node)
            if slot.buffer.storage is StorageClass.AHEAD:
                assert self.ahead is not None
                return self.load(self.ahead.address(slot.column, row))
            if slot.buffer.storage is StorageClass.SCALAR or slot.buffer.width is Width.ROW:
                return self.read_number(slot, row)
            return self.read(slot, row, unit)

        return value_of


def emit(program: Program, element_bytes: int, target: Target, whole: bool = False) -> ir.Module:
    """The kernel of a program as an LLVM module; if `whole`, with the routines that it calls."""
    module = Emitter(program, element_bytes, target).emit()
    for width in widths_of(program, target) if whole else ():
        Products(width, element_bytes, target, module).emit()
    return module


def widths_of(program: Program, target: Target) -> list[int]:
    """The widths of the panels of a program."""
    return sorted({group.width for stage in program.all_stages for group in groups_of(stage, target)})
