"""The solo and narrow layouts: a block owns a few rows and all units; what is multiplied goes through shared memory."""

from __future__ import annotations

from typing import NamedTuple

from cellwise.backends.cuda.frame import Frame
from cellwise.backends.cuda.layout import Form, Layout, loads_of, tiles_of, words_of
from cellwise.backends.cuda.products import Product
from cellwise.backends.cuda.reductions import Reductions
from cellwise.backends.cuda.text import c_name
from cellwise.graph import Node
from cellwise.plan.program import Program, Slot, Stage, StorageClass

Place = tuple[int, int]  # the first word in shared memory, and how far apart rows lie


class Kept(NamedTuple):
    """A value of every number that outlives its stage: its variable, and where it goes.

    stored: the pointer and first row in memory. shared: its place in shared memory, which of so many columns it is.
    """

    variable: str
    slot: Slot
    stored: tuple[str, str] | None
    shared: tuple[Place, int, int] | None
    is_state: bool
    number: str


class Solo(Frame):
    # The steps of a block.
    first_step, end_step = "0", "steps"
    # Rows that a shared buffer has room for, and how many units a thread computes.
    shared_rows, units = 8, 2

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(program, form, layout)
        self.narrow = layout.kind != "solo"
        self.pairs = 1 if self.narrow else 2  # rows of a thread
        self.cells = self.units * self.pairs
        self.raws = self.pairs if form.number.bytes == 2 else self.cells
        self.places, self.words = self._places()
        place = "0" if self.narrow else "p & 1"
        self.together = Reductions(self, self.pairs, place, (4, 16), "unit == 0", "row[e] < count")
        # What is added up lies behind these, in two buffers that change places.
        # Lanes without a row have a place there as well.
        self._added_rows = max(4, layout.rows)
        self._added_at, self._added = self.words, self.together.columns * layout.warps * self._added_rows
        self.words += 2 * self._added

    def _places(self) -> tuple[dict[tuple[str, tuple[int, ...]], Place], int]:
        """Where in shared memory the rows to multiply lie: two buffers for each product's operand."""
        at, places = 0, {}
        for products in self.products:
            for product in products:
                key = product.buffer.name, product.columns
                if key not in places:
                    words = words_of(product, self.form)
                    pitch = words + (16 - words % 32) % 32  # loads meet no bank twice
                    places[key] = at, pitch
                    at += 2 * self.shared_rows * pitch
        return places, at

    @property
    def shared_bytes(self) -> int:
        return 4 * (self.words + self.layout.ahead * len(self.reads) * self.raws * self.layout.threads)

    def unit(self, p: str = "p") -> str:
        return p if self.narrow else f"(({p}) >> 1)"

    def macros(self) -> list[str]:
        word = "0" if self.narrow else "p & 1"
        half = f"(name[{word}] >> (16 * {self.unit()}) & 0xffffu)"
        bits = "name[p]" if self.number.bytes == 4 else half
        return [f"#define BITS(name) {bits}", f"#define VALUE(name) {self.number.name}_f(BITS(name))"]

    def threads_and_rows(self) -> None:
        self.line(
            "const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3;"
        )
        # Without products blocks may share the units, too.
        own, first = self.units, f"(blockIdx.y * {self.layout.warps} + warp) * {self.layout.units_of_warp}"
        self.line(f"const int unit0 = {first}, unit = unit0 + {own} * g;")

    def weights(self, s: int, k: int) -> None:
        product = self.products[s][k]
        words, loads = words_of(product, self.form), loads_of(product, self.form, self.layout)
        self.argument(f"const u32* __restrict__ w{s}_{k}_given", "weights", str(s), str(k))
        self.line(f"u32 w{s}_{k}[{len(product.accumulators)}][{2 * loads}][4];")
        with (
            self.unrolled("m", len(product.accumulators)),
            self.unrolled("l", 2 * loads),
            self.unrolled("j", 4),
        ):
            word = "(l >> 1) * 16 + q * 4 + (l & 1) * 2 + (j >> 1)"
            row = "(i64)(m * WIDTH + unit0 + 2 * g + (j & 1))"
            self.line(f"w{s}_{k}[m][l][j] = w{s}_{k}_given[{row} * {words} + {word}];")

    # --- steps ----------------------------------------------------------------------------------------------------

    def steps(self) -> None:
        self._depth += 2
        step = self.captured(self._step)
        self._depth -= 2
        rows = self.layout.rows
        with self.block(f"for (int row0 = blockIdx.x * {rows}; row0 < B; row0 += gridDim.x * {rows})"):
            self.line(f"int row[{self.cells}];")
            self.each(self.cells, f"row[p] = {self.row_of_cell()};")
            self.line("__syncthreads();")  # the rows before may still be read
            self.last_step()
            self.base_lines()
            self.first_states()
            for name in self.own:
                for (array, columns), place in self.places.items():
                    if array == name:
                        self._share(f"s_{c_name(name)}", place, 0, "0", len(columns))
            self._loop(step)
            self.last_states()
            self.last_sums()

    def row_of_cell(self) -> str:
        """The row of a number that a thread computes."""
        return "row0 + q" if self.narrow else "row0 + 2 * q + (p & 1)"

    def _loop(self, step: list[str]) -> None:
        self._begin_reads()
        if self.together.read:
            for slot in self.together.read:
                self.line(f"float next_{self.together.variable(slot)}[{self.pairs}];")
            with self.block("if (steps > 0)"):
                self.times("0")
                self._load_numbers()
        with self.block(f"for (int i = {self.first_step}; i < {self.end_step}; ++i)"):
            self.lines += step
        if self.reads:
            self.line("wait_until_left<0>();")

    def _begin_reads(self) -> None:
        """A ring in shared memory, each thread for itself, so that reads are under way some steps before their own."""
        if not self.reads:
            return
        for read in self.reads.values():
            self.line(f"u32 {read.name}[{self.raws}];")
        self.line(f"u32* const ring = (u32*)shared + {self.words} + tid;")
        first = self.first_step
        until = f"{first} + {self.layout.ahead - 1}" if first != "0" else f"{self.layout.ahead - 1}"
        with self.block(f"for (int s = {first}; s < {until}; ++s)"):
            with self.block(f"if (s < {self.end_step})"):
                self.times("s")
                self._read_ahead("s")
            self.line("end_group();")

    def _slot(self, step: str, k: int) -> str:
        each = len(self.reads) * self.raws
        return f"ring[(({step} & {self.layout.ahead - 1}) * {each} + {k * self.raws} + j) * {self.layout.threads}]"

    def _read_ahead(self, step: str) -> None:
        for k, read in enumerate(self.reads.values()):
            row = read.row
            extra = f" + {read.units(self.unit('j'))}" if self.number.bytes == 4 else ""
            rows = "0" if self.narrow else "(j & 1)"
            base = self.base(read.pointer, row, read.units("unit"))
            first_row = read.step if read.first is None else "at_beyond"
            place = f"{base} + (i64){first_row} * {row} + {read.column} * WIDTH + {rows} * {row}{extra}"
            there = "row[j] < count"
            if read.first is not None:
                first = f"{self.base(read.first, '1 * WIDTH')} + {rows} * WIDTH{extra}"
                place = f"(row[j] < had_beyond ? {place} : {first})"
            self.each(self.raws, f"copy_ahead(&{self._slot(step, k)}, {place}, {there});", "j")

    def _load_numbers(self) -> None:
        for slot in self.together.read:
            self.together.load(slot, "next_")

    def _numbers(self) -> None:
        """The numbers of rows that were kept of this step, and a look at those of the next one."""
        for slot in self.together.read:
            name = self.together.variable(slot)
            self.line(f"float {name}[{self.pairs}];")
            self.each(self.pairs, f"{name}[e] = next_{name}[e];", "e")
        if self.together.read:
            with self.block("if (i + 1 < steps)"):
                self.times("i + 1")
                self._load_numbers()

    def _step(self) -> None:
        last = max((s for s, found in enumerate(self.products) if found), default=0)
        self.times("i")
        self.marks()
        if self._overtakes():
            self.line("__syncthreads();")
        self._numbers()
        start, cut = len(self.lines), len(self.lines)
        for s, stage in enumerate(self.program.stages):
            if s == last:
                cut = len(self.lines)
            self._stage(s, stage)
        self.next_states()
        if not self.reads:
            return
        # Only now is it known what is read: first of all of this step, before the last product for one to come.
        body, self.lines = self.lines, []
        self.line(f"wait_until_left<{self.layout.ahead - 2}>();")
        for k, read in enumerate(self.reads.values()):
            self.each(self.raws, f"{read.name}[j] = {self._slot('i', k)};", "j")
        head, self.lines = self.lines, []
        with self.block(f"if (i + {self.layout.ahead - 1} < {self.end_step})"):
            self.times(f"i + {self.layout.ahead - 1}")
            self._read_ahead(f"(i + {self.layout.ahead - 1})")
        self.line("end_group();")
        self.lines = body[:start] + head + body[start:cut] + self.lines + body[cut:]

    def _overtakes(self) -> bool:
        """Whether a step makes a state before its first product, and only its last one multiplies by that of before:
        a warp that is fast would write the state after next where another still reads. All else has a product's
        barrier in between.
        """
        multiplying = [s for s, found in enumerate(self.products) if found]
        if not multiplying:
            return False
        early = {
            self.before.get(slot.buffer.name)
            for stage in self.program.stages[: multiplying[0]]
            for _, slot in stage.writes
        }
        return any(product.buffer.name in early for product in self.products[multiplying[-1]])

    def kept(self, slot: Slot) -> tuple[str, str, str] | None:
        buffer = slot.buffer
        state = self.before.get(buffer.name)
        if buffer.storage is StorageClass.SCRATCH or (state and state not in self.form.histories):
            return None  # shared memory is all that wants it
        return super().kept(slot)

    # --- a stage --------------------------------------------------------------------------------------------------

    def _stage(self, s: int, stage: Stage) -> None:
        starts, products = self.starts(s, stage), self.products[s]
        self.together.compute(stage)
        self.together.clear(stage)
        earlier = {(each.buffer.name, each.columns) for found in self.products[:s] for each in found}
        for key, product in {(each.buffer.name, each.columns): each for each in products}.items():
            if key not in earlier:  # what lies there may still be read
                self._share_given(product)
        if products:
            self.line("__syncthreads();")
        for k, product in enumerate(products):
            self._product(s, k, product)
        kept = self._kept_in_registers(stage)
        for variable in dict.fromkeys(each.variable for each in kept if each.variable.startswith("k_")):
            self.line(f"float {variable}[{self.cells}];")
        with self.unrolled("p", self.cells):
            known: dict[Node, str] = {}
            for a, node in enumerate(stage.accumulators):
                terms = [starts[a], *self._terms(s, a)]
                self.line(f"const float a{s}_{a} = {' + '.join(terms)};")
                known[node] = f"a{s}_{a}"
            for node in stage.nodes:
                self.compute(node, known)
            self._add_up(stage, known)
            self._values(stage, known)
        self._finish(stage)
        for each in kept:
            if each.shared is not None:
                place, part, columns = each.shared
                self._share(
                    each.variable, place, part, "((i + 1) & 1)" if each.is_state else "(i & 1)", columns
                )
            if each.stored is not None:
                self._store(each.variable, each.stored, each.slot, f"f_{each.number}")

    def _add_up(self, stage: Stage, known: dict[Node, str]) -> None:
        form = self.form
        is_unit = f"unit + ({self.unit()}) < {form.hidden}" if form.hidden != form.width else None
        self.together.add(stage, known, is_unit)

    def _finish(self, stage: Stage) -> None:
        shared = f"((float*)shared + {self._added_at} + (i & 1) * {self._added})"
        row = "q" if self.narrow else "(2 * q + e)"
        self.together.finish(stage, shared, self.layout.warps, row, self._added_rows)

    def _share_given(self, product: Product) -> None:
        """Rows to multiply that lay in memory before: those of states that a backward pass computes a step from."""
        buffer = product.buffer
        at, pitch = self.places[buffer.name, product.columns]
        for part, column in enumerate(product.columns):
            if (buffer.name, column) in self.posted:
                continue
            name = self.read(Slot(buffer, column)).name
            first = f"{at + part * self.form.width * self.number.bytes // 4} + (i & 1) * {self.shared_rows * pitch}"
            if self.number.bytes == 2:
                self.each(
                    self.raws, f"((u32*)shared)[{first} + (2 * q + p) * {pitch} + unit / 2] = {name}[p];"
                )
            else:
                self._share_word(first, pitch, f"{name}[p]")

    def _chains(self, product: Product) -> int:
        loads = loads_of(product, self.form, self.layout)
        return max(1, min(2 * loads, 4 // tiles_of(product, self.layout)))

    def _product(self, s: int, k: int, product: Product) -> None:
        accumulators, loads = len(product.accumulators), loads_of(product, self.form, self.layout)
        at, pitch = self.places[product.buffer.name, product.columns]
        chains = self._chains(product)
        self.line(f"float c{s}_{k}[{accumulators}][{chains}][4] = {{}};")
        with self.unrolled("l", loads):
            where = f"{at} + (i & 1) * {self.shared_rows * pitch} + g * {pitch} + l * 16 + q * 4"
            self.line(f"const Quad v = *(const Quad*)((const u32*)shared + {where});")
            with self.unrolled("h", 2), self.unrolled("m", accumulators):
                into = f"c{s}_{k}[m][(2 * l + h) % {chains}]"
                self.line(
                    f"{self.number.product}({into}, w{s}_{k}[m][2 * l + h], v.w[2 * h], v.w[2 * h + 1]);"
                )

    def _terms(self, s: int, a: int) -> list[str]:
        terms = []
        for k, product in enumerate(self.products[s]):
            if a in product.accumulators:
                own = product.accumulators.index(a)
                number = "2 * p" if self.narrow else "p"
                terms += [f"c{s}_{k}[{own}][{chain}][{number}]" for chain in range(self._chains(product))]
        return terms

    def _values(self, stage: Stage, known: dict[Node, str]) -> None:
        """What a stage makes, into registers that outlive it."""
        for node, slot in stage.writes:
            buffer, value = slot.buffer, self.expression(node, known)
            if buffer.storage is StorageClass.REDUCTION:
                if buffer.name == "sums":
                    self.line(f"if (row[p] < count) {self.sums[slot.column]}[p] += {value};")
            elif buffer.storage is StorageClass.CARRY_OUT:
                self.next_state(self.before[buffer.name], value)
            elif (buffer.name, slot.column) in self.crossing:
                self.line(f"{self.crossing[buffer.name, slot.column]}[p] = REAL(p, {value});")
            elif self.kept(slot) is not None:
                self.line(f"k_{c_name(buffer.name)}_{slot.column}[p] = REAL(p, {value});")

    def _kept_in_registers(self, stage: Stage) -> list[Kept]:
        """What of a stage's values outlives it, what others wait for first."""
        shared: list[Kept] = []
        stored: list[Kept] = []
        for node, slot in stage.writes:
            buffer, column = slot.buffer, slot.column
            if buffer.storage is StorageClass.REDUCTION:
                continue
            number = self.number_of(node, slot)
            name = self.before.get(buffer.name, buffer.name)
            is_state = buffer.storage is StorageClass.CARRY_OUT
            variable = f"n_{c_name(name)}"
            if not is_state:
                variable = self.crossing.get((buffer.name, column), f"k_{c_name(buffer.name)}_{column}")
            for (array, columns), place in self.places.items():
                if array == name and column in columns:
                    where = place, columns.index(column), len(columns)
                    shared.append(Kept(variable, slot, None, where, is_state, number))
            kept = self.kept(slot)
            if kept is not None:
                stored.append(Kept(variable, slot, kept[:2], None, is_state, number))
        return shared + stored

    def _share(self, variable: str, place: Place, part: int, parity: str, columns: int) -> None:
        """A value of every unit, into the rows that warps multiply next."""
        at, pitch = place
        first = part * self.form.width * self.number.bytes // 4
        where = f"{at + first} + {parity} * {self.shared_rows * pitch}"
        convert = f"f_{self.number.name}"
        if self.number.bytes == 2:
            both = f"{convert}({variable}[p]) | {convert}({variable}[p + {self.pairs}]) << 16"
            self.each(self.pairs, f"((u32*)shared)[{where} + (2 * q + p) * {pitch} + unit / 2] = {both};")
        else:
            self._share_word(where, pitch, f"{convert}({variable}[p])")

    def _share_word(self, first: str, pitch: int, word: str) -> None:
        """32 bits of every number, from a place in shared memory on."""
        row = "2 * q" if self.narrow else "(2 * q + (p & 1))"
        self.each(self.cells, f"((u32*)shared)[{first} + {row} * {pitch} + unit + {self.unit()}] = {word};")

    def _store(self, variable: str, kept: tuple[str, str], slot: Slot, convert: str) -> None:
        (pointer, step), columns, column = kept, slot.buffer.columns, slot.column
        row = f"{columns} * WIDTH"
        rows = "0" if self.narrow else "(p & 1)"
        place = f"{self.base(pointer, row)} + (i64){step} * {row} + {column} * WIDTH + {rows} * {row}"
        if self.number.bytes == 2:
            both = f"{convert}({variable}[p]) | {convert}({variable}[p + {self.pairs}]) << 16"
            self.each(self.pairs, f"if (row[p] < count) *(u32*)({place}) = {both};")
        else:
            self.each(
                self.cells, f"if (row[p] < count) *({place} + {self.unit()}) = {convert}({variable}[p]);"
            )
