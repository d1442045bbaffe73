"""The wide layout: a block owns some units and some rows, and gets the rest of each row to multiply from other blocks.

No flag, counter or barrier stands between blocks: memory that is waited for is filled with ABSENT before, has a place
for every step, and is read again until all its words are there (docs/decisions/0039).
"""

from __future__ import annotations

from itertools import pairwise

from cellwise.backends.cuda.frame import Frame
from cellwise.backends.cuda.layout import Form, Layout, chunks_of, loads_of, sums_of, tiles_of, words_of
from cellwise.backends.cuda.products import Product
from cellwise.backends.cuda.reads import Read
from cellwise.backends.cuda.text import c_name
from cellwise.graph import Node
from cellwise.plan.program import Program, Slot, Stage, StorageClass


class Wide(Frame):
    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(program, form, layout)
        self.cells = layout.tiles // layout.at_once
        # Where a thread has one number for each step, the next step's are read while it waits for this one's product.
        self.prefetches = self.cells == 1
        self.last_product = max((s for s, found in enumerate(self.products) if found), default=0)
        self.used: dict[tuple[str, int], None] = {}
        # One size for all stages: what one writes while another is still read must lie beside it.
        self.part = max(sum(sums_of(each, layout) for each in found) for found in self.products)

    @property
    def shared_bytes(self) -> int:
        return 4 * 2 * self.part

    def unit(self, p: str = "p") -> str:
        return "0"

    def macros(self) -> list[str]:
        return ["#define BITS(name) name[p]", f"#define VALUE(name) {self.number.name}_f(BITS(name))"]

    def threads_and_rows(self) -> None:
        layout = self.layout
        self.line(
            "const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3;"
        )
        self.line(f"const int u = tid % {layout.units}, r = tid / {layout.units};")
        self.line(f"const int unit0 = blockIdx.x * {layout.units}, unit = unit0 + u;")
        self.line(f"const bool worker = tid < {layout.units * 8 * layout.at_once};")
        self.line("int part = 0; long long since = 0; (void)since; (void)g; (void)q; (void)warp;")

    def weights(self, s: int, k: int) -> None:
        """Those of a product, in the order of the matrix product's fragments; four lanes read 16 bytes each, in which
        they find what two products of 32 bytes want, so the inner dimension is taken in another order than it lies in.
        """
        product, layout, form = self.products[s][k], self.layout, self.form
        tiles, loads, words = (
            tiles_of(product, layout),
            loads_of(product, form, layout),
            words_of(product, form),
        )
        rows = len(product.accumulators) * layout.units
        self.argument(f"const u32* __restrict__ w{s}_{k}_given", "weights", str(s), str(k))
        self.line(f"u32 w{s}_{k}[{tiles}][{2 * loads}][4];")
        with self.unrolled("m", tiles), self.unrolled("l", 2 * loads), self.unrolled("j", 4):
            self.line("const int row = m * 16 + g + 8 * (j & 1);")
            self.line(f"const int chunk = warp * {loads} + (l >> 1);")
            self.line(
                f"const i64 from = (i64)(row / {layout.units} * WIDTH + unit0 + row % {layout.units}) * {words};"
            )
            inside = [f"chunk < {chunks_of(product, form)}"] if self._overhangs(product) else []
            if rows % 16:  # of the last tile half is padding, for which no registers are spent
                inside.append(f"m * 16 + 8 * (j & 1) < {rows}")
            value = f"w{s}_{k}_given[from + chunk * 16 + q * 4 + (l & 1) * 2 + (j >> 1)]"
            guarded = f"{' && '.join(inside)} ? {value} : 0u" if inside else value
            self.line(f"w{s}_{k}[m][l][j] = {guarded};")

    def _overhangs(self, product: Product) -> bool:
        """Whether the last warp has a smaller part of the inner dimension."""
        return loads_of(product, self.form, self.layout) * self.layout.warps != chunks_of(product, self.form)

    # --- steps ----------------------------------------------------------------------------------------------------

    def steps(self) -> None:
        rows = self.layout.rows
        self._depth += 2
        step = self.captured(self._step)
        self._depth -= 2
        with self.block(f"for (int row0 = blockIdx.y * {rows}; row0 < B; row0 += gridDim.y * {rows})"):
            self.line(f"int row[{self.cells}];")
            self.each(self.cells, f"row[p] = worker ? row0 + p * {8 * self.layout.at_once} + r : 0x7fffffff;")
            self.last_step()
            self.base_lines()
            self.first_states()
            for read in self.reads.values():
                self.line(f"u32 {read.name}[{self.cells}], next_{read.name}[{self.cells}];")
            if self.prefetches and self.reads:
                for read in self.reads.values():  # whoever has no number reads none
                    self.each(self.cells, f"{read.name}[p] = next_{read.name}[p] = 0;")
                with self.block("if (steps > 0)"):
                    self.times("0")
                    self._load_all("")
            with self.block("for (int i = 0; i < steps; ++i)"):
                self.lines += step
            self.last_states()
            self.last_sums()

    def _step(self) -> None:
        self.times("i")
        self.marks()
        marks: list[int] = []
        for s, stage in enumerate(self.program.stages):
            if s == self.last_product:
                marks.append(len(self.lines))
            for p in range(self.cells):
                with self.block():
                    self.line(f"const int p = {p};")
                    self._stage(s, stage)
        if self.prefetches and self.reads:
            rest, self.lines = self.lines[marks[0] :], self.lines[: marks[0]]
            with self.block("if (i + 1 < steps)"):
                self.times("i + 1")
                self._load_all("next_")
            self.lines += rest
            for read in self.reads.values():
                self.each(self.cells, f"{read.name}[p] = next_{read.name}[p];")
        self.next_states()

    def _load_all(self, prefix: str) -> None:
        for read in self.reads.values():
            self.line("#pragma unroll")
            self.line(f"for (int p = 0; p < {self.cells}; ++p) {self._load(read, prefix)}")

    def _load(self, read: Read, prefix: str) -> str:
        load = "load_u16" if self.number.bytes == 2 else "load_u32"
        row = read.row
        base = self.base(read.pointer, row, read.units("unit"))
        column = f"{read.column} * WIDTH + p * {8 * self.layout.at_once} * {row}"
        if read.first is None:
            there = f"{load}({base} + (i64){read.step} * {row} + {column})"
            return f"{prefix}{read.name}[p] = row[p] < count ? {there} : 0;"
        there = f"{load}({base} + (i64)at_beyond * {row} + {column})"
        begun = f"{load}({self.base(read.first, '1 * WIDTH')} + p * {8 * self.layout.at_once} * WIDTH)"
        return f"{prefix}{read.name}[p] = row[p] < had_beyond ? {there} : row[p] < count ? {begun} : 0;"

    # --- a stage --------------------------------------------------------------------------------------------------

    def _stage(self, s: int, stage: Stage) -> None:
        products = self.products[s]
        starts = self.starts(s, stage)
        place = 0
        offsets = []
        for k, product in enumerate(products):
            offsets.append(place)
            self._product(s, k, product, place)
            place += sums_of(product, self.layout)
        if products:
            self.line("__syncthreads();")
        with self.block("if (worker)"):
            self._equations(s, stage, starts, offsets)
        waited = any(self._is_waited_for(slot.buffer.name, slot.column) for _, slot in stage.writes)
        if self.layout.hold and self.cells == 1 and waited:
            if self.layout.threads > self.layout.units * 8 * self.layout.at_once:
                self.line("__syncthreads();")  # nobody counts from before the last post of this block
            self.line("since = clock64();")
        if products:
            self.line("part ^= 1;")

    def _is_waited_for(self, name: str, column: int) -> bool:
        return (self.before.get(name, name), column) in self.posted

    def _product(self, s: int, k: int, product: Product, place: int) -> None:
        """The part of each warp of a product, into shared memory."""
        layout, form = self.layout, self.form
        tiles, loads = tiles_of(product, layout), loads_of(product, form, layout)
        chunk = min(layout.chunk or loads, loads)
        turns = -(-loads // chunk)
        held = min(2, turns)
        chains = min(max(1, 4 // (tiles * layout.at_once)), 2 * chunk)
        both = layout.at_once
        waits = self._is_waited_for(product.buffer.name, product.columns[0])
        with self.block():
            self.line(
                f"Quad v[{held}][{both}][{chunk}]; const u8* from[{both}]; bool there[{both}], wait[{both}];"
            )
            with self.unrolled("n", both):
                self._source(product, waits)
            if layout.hold and self.cells == 1 and waits:
                self.line(f"while (clock64() - since < {layout.hold});")
            self._issue(product, "0", chunk, loads, held)
            self.line(f"float sum[{both}][{tiles}][{chains}][4] = {{}};")
            with self.unrolled("c", turns):
                if turns > 1:
                    with self.block(f"if (c + 1 < {turns})"):
                        self._issue(product, "(c + 1)", chunk, loads, held)
                if waits:
                    self._await(product, chunk, loads, held)
                with self.unrolled("l", 2 * chunk), self.unrolled("n", both), self.unrolled("m", tiles):
                    guard = f"if (c * {chunk} + (l >> 1) < {loads}) " if loads % chunk else ""
                    self.line(f"const Quad& b = v[c & {held - 1}][n][l >> 1];")
                    weights = f"w{s}_{k}[m][c * {2 * chunk} + l]"
                    words = "b.w[2 * (l & 1)], b.w[2 * (l & 1) + 1]"
                    self.line(f"{guard}{self.number.product}(sum[n][m][l % {chains}], {weights}, {words});")
            self._partial_sums(tiles, chains, place)

    def _source(self, product: Product, waits: bool) -> None:
        """from: the row that this lane reads; there: whether it has one; wait: whether it is posted in this launch."""
        buffer, element = product.buffer, self.number.bytes
        self.line(f"const int rw = row0 + (p * {self.layout.at_once} + n) * 8 + g;")
        self.line("there[n] = rw < count;")
        if buffer.storage is StorageClass.CARRY_IN:
            which = "before" if buffer.name in self.own else "beyond"
            history, first = self.history_of(buffer.name), self.first_of(buffer.name)
            self.line(f"const bool had = rw < had_{which};")
            self.line(f"wait[n] = there[n] && had && {str(waits).lower()};")
            where = f"(const u8*)(had ? {history} : {first}) + (i64)(had ? at_{which} + rw : rw) * WIDTH * {element}"
        else:
            step = "at" if buffer.storage is StorageClass.PER_STEP else "(at - base)"
            self.line(f"wait[n] = there[n] && {str(waits).lower()};")
            pointer = self.rows_of(buffer)
            where = f"(const u8*){pointer} + (i64)({step} + rw) * {buffer.columns} * WIDTH * {element}"
        self.line(f"from[n] = {where} + q * 16;")

    def _word(self, product: Product, turn: str, chunk: int, loads: int) -> None:
        """Which 16 bytes of the row the l-th read takes."""
        self.line(f"const int piece = {turn} * {chunk} + l, chunk = warp * {loads} + piece, k = chunk * 16;")
        words, columns = self.form.width * self.number.bytes // 4, product.columns
        byte = f"k * 4 + {columns[0] * words * 4}"
        for place, (one, other) in enumerate(pairwise(columns)):
            if other != one + 1:
                byte += f" + (k >= {(place + 1) * words} ? {(other - one - 1) * words * 4} : 0)"
        self.line(f"const int byte = {byte}; (void)piece; (void)byte;")

    def _inside(self, product: Product, chunk: int, loads: int) -> str:
        inside = f" && chunk < {chunks_of(product, self.form)}" if self._overhangs(product) else ""
        return inside + (f" && piece < {loads}" if loads % chunk else "")

    def _issue(self, product: Product, turn: str, chunk: int, loads: int, held: int) -> None:
        with self.unrolled("n", self.layout.at_once), self.unrolled("l", chunk):
            self._word(product, turn, chunk, loads)
            self.line(f"Quad& to = v[{turn} & {held - 1}][n][l];")
            self.line(f"if (there[n]{self._inside(product, chunk, loads)}) to = load_posted(from[n] + byte);")
            self.line("else to.w[0] = to.w[1] = to.w[2] = to.w[3] = 0u;")

    def _await(self, product: Product, chunk: int, loads: int, held: int) -> None:
        """Read again what was not there yet."""
        with self.block("for (int looks = 0;; ++looks)"):
            self.line("bool missing = false;")
            with self.unrolled("n", self.layout.at_once), self.unrolled("l", chunk):
                self._word(product, "c", chunk, loads)
                self.line(f"Quad& to = v[c & {held - 1}][n][l];")
                with self.block("if (wait[n] && has_absent(to))"):
                    self.line("missing = true;")
                    self.line("to = load_posted(from[n] + byte);")
            self.line("if (!__any_sync(0xffffffffu, missing)) break;")
            self.line("if (looks > MOST_LOOKS) GIVE_UP;")

    def _partial_sums(self, tiles: int, chains: int, place: int) -> None:
        both = self.layout.at_once
        self.line(
            f"float* sums_of = (float*)shared + part * {self.part} + {place} + warp * {both * tiles * 128};"
        )
        with self.unrolled("n", both), self.unrolled("m", tiles), self.unrolled("h", 2):
            self.line("const int at_row = m * 16 + g + 8 * h;")
            self.line(
                f"float* to = sums_of + n * {tiles * 128} + at_row * 8 + ((2 * q) ^ {self._swizzle('at_row')});"
            )
            for j in range(2):
                self.line(
                    f"to[{j}] = {' + '.join(f'sum[n][m][{chain}][2 * h + {j}]' for chain in range(chains))};"
                )

    def _swizzle(self, row: str) -> str:
        """Turns the rows of a tile, so that neither those who write nor those who read meet in a bank."""
        return f"(({row} >> 2 & 3) << 1)" if self.layout.units == 16 else f"(({row} >> 2 & 1) << 2)"

    def _equations(self, s: int, stage: Stage, starts: list[str], offsets: list[int]) -> None:
        outer, self.lines = self.lines, []
        self.used = {}
        known: dict[Node, str] = {}
        layout = self.layout
        for a, node in enumerate(stage.accumulators):
            self.line(f"float a{s}_{a} = {starts[a]};")
            known[node] = f"a{s}_{a}"
            for k, product in enumerate(self.products[s]):
                if a in product.accumulators:
                    tiles, own = tiles_of(product, layout), product.accumulators.index(a)
                    tile = f"(w * {layout.at_once} + r / 8) * {tiles * 128}"
                    number = f"({own * layout.units} + u) * 8 + ((r & 7) ^ {self._swizzle('u')})"
                    from_warp = f"part * {self.part} + {offsets[k]} + {tile} + {number}"
                    self.each(layout.warps, f"a{s}_{a} += ((const float*)shared)[{from_warp}];", "w")
        for node in stage.nodes:
            self.compute(node, known)
        self._writes(stage, known)
        body, self.lines = self.lines, outer
        if not self.prefetches:
            text = "\n".join(body)
            for read in self.reads.values():
                if f"({read.name})" in text:
                    self.line(self._load(read, ""))
        self.lines += body

    def _writes(self, stage: Stage, known: dict[Node, str]) -> None:
        """What others wait for goes first."""
        pending = []
        for node, slot in stage.writes:
            buffer, value = slot.buffer, self.expression(node, known)
            if buffer.storage is StorageClass.REDUCTION:
                if slot.column in self.sums and buffer.name == "sums":
                    self.line(f"if (row[p] < count) {self.sums[slot.column]}[p] += {value};")
                continue
            if buffer.storage is StorageClass.CARRY_OUT:
                self.next_state(self.before[buffer.name], value)
                value = f"n_{c_name(self.before[buffer.name])}[p]"
            elif (buffer.name, slot.column) in self.crossing:
                variable = self.crossing[buffer.name, slot.column]
                self.line(f"{variable}[p] = REAL(p, {value});")
                value = f"{variable}[p]"
            else:
                value = f"REAL(p, {value})"
            kept = self.kept(slot)
            if kept is not None:
                number = self.number_of(node, slot)
                pending.append((self._is_waited_for(kept[2], slot.column), kept, slot, value, number))
        for waited, (pointer, step, _), slot, value, number in sorted(pending, key=lambda each: not each[0]):
            self._store(waited, pointer, step, slot, f"f_{number}", value)

    def _store(self, waited: bool, pointer: str, step: str, slot: Slot, convert: str, value: str) -> None:
        columns, column = slot.buffer.columns, slot.column
        row = f"{columns} * WIDTH"
        base = self.base(pointer, row)
        place = f"{base} + (i64){step} * {row} + {column} * WIDTH + p * {8 * self.layout.at_once} * {row}"
        if not waited:
            self.line(f"if (row[p] < count) *({place}) = {convert}({value});")
        elif self.number.bytes == 4:
            self.line(f"if (row[p] < count) post({place}, {convert}({value}));")
        else:  # two units are one word
            with self.block():
                self.line(
                    f"const u32 mine = {convert}({value}), other = __shfl_xor_sync(0xffffffffu, mine, 1);"
                )
                self.line(f"if (row[p] < count && !(tid & 1)) post({place}, mine | other << 16);")
