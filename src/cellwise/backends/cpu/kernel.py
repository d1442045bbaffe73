"""From a program to LLVM: one function that runs steps of time one after the other for some of the batch's rows.

    void kernel(void **pointers, int64 *sizes)

`pointers` are the program's arrays in order (`ADDRESSES` says how many each has), then per stage and group of
accumulators its packed weights, one per segment, and its packed biases, then room for accumulators, the steps' offsets
and the resets. `sizes` are `SIZES`.

A row of a state is found by its step: in `first` if the step is the row's first, else in `history`, from row `rows[t]`
on. `rows[t]` and `limits[t]`, how many rows of the batch have a step before this one, are arrays over time.

A stage goes through pairs of tiles of units. For each pair the rows' products are summed in registers (`products`),
and then the pointwise equations run on the sums row by row, while they are in the nearest cache. Rows of units are
padded to whole pairs, so that there are no remainders in them; padding is never read as an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from cellwise.backends.cpu.code import I8, I64, Code, Value
from cellwise.backends.cpu.denormals import flush_denormals, may_flush
from cellwise.backends.cpu.products import FEW_ROWS, Products
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group, groups_of
from cellwise.backends.cpu.vectors import LOWERINGS
from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT
from cellwise.plan.listing import equation_of
from cellwise.plan.program import Array, Place, Program, ProgramStage, Ref, Segment, Width

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

# What a kernel is told of an array; of any other place only where it begins.
ADDRESSES = {Place.BEFORE: ("first", "history", "rows", "limits"), Place.AFTER: ("history", "rows")}


class Emitter(Code):
    """Emits the kernel of one program for one element type and target."""

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program.name, element_bytes, target)
        self.program = program
        self.groups = {stage: groups_of(stage, target) for stage in program.stages}

    def emit(self) -> ir.Module:
        b = self.b
        pointers, sizes = self.function.args
        names = [name.replace(" ", "_") for name in SIZES]
        self.size = {name: self.load_whole(sizes, i, names[i]) for i, name in enumerate(SIZES)}
        take = iter(range(1_000_000))

        def pointer(name: str) -> Value:
            return self.load_pointer(pointers, next(take), name.replace(" ", "_"))

        self.arrays: dict[str, Value] = {}
        self.addresses: dict[tuple[str, str], Value] = {}
        for array in self.program.arrays:
            for part in ADDRESSES.get(array.place, ("",)):
                value = pointer(f"{array.name} {part}".strip())
                if part:
                    self.addresses[array.name, part] = value
                else:
                    self.arrays[array.name] = value
        self.weights: dict[tuple[Group, Segment], Value] = {}
        self.biases: dict[Group, Value] = {}
        for stage in self.program.stages:
            for group in self.groups[stage]:
                for segment in group.segments:
                    self.weights[group, segment] = pointer("weights")
                self.biases[group] = pointer("biases")
        self.room, self.offsets, self.resets = pointer("room"), pointer("offsets"), pointer("resets")
        self.span = self.load_whole(self.offsets, self.size["first step"])
        restore = flush_denormals(self) if may_flush(self.program) else None
        with self.loop("step", self.size["steps"]) as count:
            last = b.sub(b.sub(self.size["steps"], self.whole(1)), count)
            t = b.select(b.icmp_signed("!=", self.size["backwards"], self.whole(0)), last, count)
            self._step(b.add(self.size["first step"], t))
        if restore is not None:
            restore()
        b.ret_void()
        return self.module

    def padded(self, width: Width) -> Value:
        """The length of a row in memory."""
        return self.size["D" if width is Width.INPUT else f"padded {width.value}"]

    def _step(self, t: Value) -> None:
        b = self.b
        offset = self.load_whole(self.offsets, t)
        after = self.load_whole(self.offsets, b.add(t, self.whole(1)))
        here = b.sub(b.sub(after, offset), self.size["first row"])
        here = b.select(b.icmp_signed("<", here, self.whole(0)), self.whole(0), here)
        self.active = b.select(b.icmp_signed("<", here, self.size["rows"]), here, self.size["rows"])
        self.first = b.add(offset, self.size["first row"])  # this thread's first row among all steps' rows
        with b.if_then(b.icmp_signed(">", self.active, self.whole(0))):
            rows = {group.rows for groups in self.groups.values() for group in groups}
            self.blocks = {most: self._blocks(most) for most in sorted(rows)}
            self._find_states(t)
            before, after = zip(*self.program.states, strict=True)
            self._zero("zero before", before)
            for number, stage in enumerate(self.program.stages):
                self._stage(number, stage)
            self._zero("zero after", after)

    def _find_states(self, t: Value) -> None:
        """Where the rows of BEFORE and AFTER begin at this step, and which have a step before it."""
        b = self.b
        self.limits: dict[str, Value] = {}
        for array in self.program.arrays:
            if array.place in ADDRESSES:
                row = self.load_whole(self.addresses[array.name, "rows"], t)
                start = self.addresses[array.name, "history"]
                self.arrays[array.name] = self.at(start, b.mul(row, self.padded(array.width)))
            if array.place is Place.BEFORE:
                self.limits[array.name] = self.load_whole(self.addresses[array.name, "limits"], t)

    def _blocks(self, most: int) -> list[tuple[int, Value, Value]]:
        """The active rows in as few blocks of at most so many rows as can be, about equal: size, first row, end."""
        b = self.b
        count = b.sdiv(b.add(self.active, self.whole(most - 1)), self.whole(most))
        small = b.sdiv(self.active, count)
        larger = b.sub(self.active, b.mul(small, count))
        blocks = []
        done: Value = self.whole(0)
        for size in range(FEW_ROWS + 1, most + 1):
            is_small = b.icmp_signed("==", small, self.whole(size))
            is_larger = b.icmp_signed("==", small, self.whole(size - 1))
            here = b.select(is_small, b.sub(count, larger), b.select(is_larger, larger, self.whole(0)))
            end = b.add(done, b.mul(here, self.whole(size)))
            blocks.append((size, done, end))
            done = end
        return blocks

    def _zero(self, when: str, states: Sequence[Array]) -> None:
        b = self.b
        with (
            b.if_then(b.icmp_signed("!=", self.size[when], self.whole(0))),
            self.loop(when.replace(" ", "_"), self.active) as row,
        ):
            mark = b.load(self.at(self.resets, b.add(self.first, row), I8), typ=I8)
            with b.if_then(b.icmp_signed("!=", mark, ir.Constant(I8, 0)), likely=False):
                for state in states:
                    with self.loop("unit", self.padded(state.width), step=self.v.lanes) as unit:
                        self.store(self.v.number(0.0), self.at(self.row(Ref(state), row), unit))

    def row(self, ref: Ref, row: Value) -> Value:
        """The address of a row of an array at this step."""
        b, array = self.b, ref.array
        base = self.arrays[array.name]
        if array.place is Place.UNITS:
            return base
        if array.place is Place.SUM:
            number: Value = self.whole(ref.column)
        elif array.place in ADDRESSES:
            number = b.add(self.size["first row"], row)
            if array.place is Place.BEFORE:
                has_step = b.icmp_signed("<", number, self.limits[array.name])
                base = b.select(has_step, base, self.addresses[array.name, "first"])
        else:
            number = row if array.place is Place.ROWS else b.add(self.first, row)
            if array.place is Place.SPAN:
                number = b.sub(number, self.span)
            if array.columns > 1:
                number = b.add(b.mul(number, self.whole(array.columns)), self.whole(ref.column))
        return self.at(base, b.mul(number, self.padded(array.width)))

    def _stage(self, number: int, stage: ProgramStage) -> None:
        b = self.b
        tiles = b.sdiv(self.padded(stage.width), self.whole(self.v.lanes))
        if not stage.accumulators:
            with self.loop(f"s{number}.tile", tiles) as tile:
                self._pointwise(number, stage, tile, self.whole(0))
            return
        with self.loop(f"s{number}.pair", b.sdiv(tiles, self.whole(TILES))) as pair:
            for group in self.groups[stage]:
                self._products(stage, group, pair)
            with self.loop(f"s{number}.tile", self.whole(TILES)) as u:
                self._pointwise(number, stage, b.add(b.mul(pair, self.whole(TILES)), u), u)

    def _comment(self, node: Node) -> None:
        """The equation that the code from here on computes."""
        self.b.comment(equation_of(self.program, node, self.program.graph))

    def _products(self, stage: ProgramStage, group: Group, pair: Value) -> None:
        for accumulator in group.accumulators:
            self._comment(stage.accumulators[accumulator])
        before = self.b.mul(self.whole(group.first * self.v.lanes), self.size["rows"])
        Products(
            self,
            group,
            row_of=self.row,
            length_of=lambda segment: self.size[segment.operand.array.width.value],
            weights_of=lambda segment: self.weights[group, segment],
            biases=self.biases[group],
            room=self.at(self.room, before),
            stride=self.size["rows"],
        ).emit(pair, self.active, self.blocks[group.rows])

    def _sum_address(self, group: Group, accumulator: int, u: Value, row: Value) -> Value:
        """Where `Products` put the sum of an accumulator for a row and the first or second tile of the pair."""
        b = self.b
        panel, vector = group.place(accumulator, 0)
        next_panel, next_vector = group.place(accumulator, 1)
        q = b.add(self.whole(panel), b.mul(u, self.whole(next_panel - panel)))
        v = b.add(self.whole(vector), b.mul(u, self.whole(next_vector - vector)))
        place = b.add(b.mul(b.add(b.mul(q, self.size["rows"]), row), self.whole(group.width)), v)
        place = b.add(place, b.mul(self.whole(group.first), self.size["rows"]))
        return self.at(self.room, b.mul(place, self.whole(self.v.lanes)))

    def _pointwise(self, number: int, stage: ProgramStage, tile: Value, u: Value) -> None:
        """The equations of a stage for one tile of units, row by row; sums over rows stay in registers."""
        b, v = self.b, self.v
        unit = b.mul(tile, self.whole(v.lanes))
        sums = [(node, ref) for node, ref in stage.writes if ref.array.place is Place.SUM]
        start = b.block
        head, body, after = (
            b.append_basic_block(f"s{number}.pointwise.{x}") for x in ("head", "body", "after")
        )
        addresses = [self.at(self.row(ref, self.whole(0)), unit) for _, ref in sums]
        before = [self.load(address) for address in addresses]
        b.branch(head)
        b.position_at_end(head)
        row = b.phi(I64)
        row.add_incoming(self.whole(0), start)
        totals = [b.phi(v.vector) for _ in sums]
        for total, value in zip(totals, before, strict=True):
            total.add_incoming(value, start)
        b.cbranch(b.icmp_signed("<", row, self.active), body, after)
        b.position_at_end(body)
        value_of = self._values(stage, row, unit, u)
        for node in stage.nodes:
            value_of(node)
        for node, ref in stage.writes:
            if ref.array.place is not Place.SUM:
                self.store(value_of(node), self.at(self.row(ref, row), unit))
        added = [b.fadd(total, value_of(node)) for total, (node, _) in zip(totals, sums, strict=True)]
        row.add_incoming(b.add(row, self.whole(1)), b.block)
        for total, value in zip(totals, added, strict=True):
            total.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        for total, address in zip(totals, addresses, strict=True):
            self.store(total, address)

    def _values(self, stage: ProgramStage, row: Value, unit: Value, u: Value) -> Callable[[Node], Value]:
        """The value of any node in the present row and tile: summed, computed, read or a number, each once."""
        v = self.v
        known: dict[Node, Value] = {}
        inside = set(stage.nodes)
        sums = {node: place for place, node in enumerate(stage.accumulators)}
        group_of = {place: group for group in self.groups[stage] for place in group.accumulators}

        def value_of(node: Node) -> Value:
            if node not in known:
                known[node] = find(node)
            return known[node]

        def find(node: Node) -> Value:
            if node.op is CONSTANT:
                assert isinstance(node.attribute, float)
                return v.number(node.attribute)
            if node in sums:
                place = sums[node]
                return self.load(self._sum_address(group_of[place], place, u, row))
            if node in inside or node.is_mask:
                operands = [value_of(i) for i in node.inputs]
                self._comment(node)
                return LOWERINGS[node.op.name](v, *operands)
            ref = self.program.reads[node]
            if ref.array.place is Place.NUMBER:
                return v.splat(self.load_one(self.arrays[ref.array.name]))
            return self.load(self.at(self.row(ref, row), unit))

        return value_of


def emit(program: Program, element_bytes: int, target: Target) -> ir.Module:
    """The kernel of a program as an LLVM module."""
    return Emitter(program, element_bytes, target).emit()
