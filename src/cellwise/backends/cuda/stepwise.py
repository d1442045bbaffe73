"""The stepwise layout: at every step a product by cuBLAS, then a launch for the equations that follow it.

It holds nothing in registers or shared memory, and so takes any H, any batch and rows of two widths (proj_size). What
is multiplied lies in memory of the layout's own, at addresses that never change: a CUDA graph of some steps is recorded
once and serves every call. All else of a call is in a table on the device, which the first launch of a call fills.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cellwise.backends.cuda.frame import KERNEL, SUMS, Frame
from cellwise.backends.cuda.layout import Form, Layout
from cellwise.backends.cuda.products import Product
from cellwise.backends.cuda.reads import Read, slots_read
from cellwise.backends.cuda.text import c_name
from cellwise.graph import Node
from cellwise.plan.program import Program, Slot, Stage, StorageClass, Width

# What a launch does, where it is not a number of `Stepwise.actions`.
SETUP, ADVANCE, FINISH = -1, -2, -3
NOTHING = -4


@dataclass(frozen=True)
class Room:
    """Memory of the layout's own, (B, columns * width). wide: in float32, whatever is multiplied."""

    name: str
    columns: int
    width: int
    wide: bool


@dataclass(frozen=True)
class Action:
    """Part of a step: a launch of the kernel with this number, or the k-th product of stage s."""

    launch: int | None = None
    product: tuple[int, int] | None = None


class Stepwise(Frame):
    """The text of the kernel, whose launches differ in a number, and what comes of a step in which order."""

    cells = 1

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(program, form, layout)
        self.rooms: dict[str, Room] = {}
        self.actions: list[Action] = []
        read = {key for stage in program.stages for key in slots_read(program, stage)}
        self.crossing = {key: variable for key, variable in self.crossing.items() if key in read}
        self._last = len(program.stages) - 1
        self.waiting: dict[str, Width] = {}  # states that are made before the last stage
        self._loaded: dict[str, str] = {}
        self._now = Width.HIDDEN  # of the values of the stage that is being written
        self.widths = {buffer.name: buffer.width for buffer in program.buffers}

    @property
    def shared_bytes(self) -> int:
        return 0

    def size_of(self, width: Width) -> tuple[int, int]:
        """How many numbers a row has, and how far apart rows are."""
        form = self.form
        return (
            (form.projected, form.projected_width) if width is Width.PROJECTED else (form.hidden, form.width)
        )

    @property
    def widest(self) -> int:
        return max(self.form.width, self.form.projected_width)

    @property
    def across(self) -> int:
        """Blocks that share the units of a row."""
        return -(-self.widest // self.layout.threads)

    def groups(self) -> list[list[int]]:
        """The numbers of the stages whose equations are one launch."""
        return [[s] for s in range(len(self.program.stages))]

    def begin(self) -> None:
        """What a kernel begins with."""
        self.line(f"const int tid = threadIdx.x, unit = blockIdx.x * {self.layout.threads} + tid;")

    def begin_row(self) -> None:
        """What a launch begins each row with."""
        self.line("const int p = 0, row[1] = {r};")
        self.line("(void)p; (void)row;")

    def unit(self, p: str = "p") -> str:
        return "0"

    # --- the kernel -----------------------------------------------------------------------------------------------

    def source(self) -> str:
        self.scalars()
        launches = self._launches()
        finish = self.captured(self._finish)
        setup = self.captured(self._setup)
        bounds = f"__launch_bounds__({self.layout.threads})"
        head = f'extern "C" __global__ void {bounds} {KERNEL}({", ".join(self.declarations)}) {{'
        number = self.number.name
        macros = [
            f"#define VALUE(name) {number}_f(name)",
            f"#define SEEN(v) {number}_f(f_{number}(v))",
            f"typedef {'u16' if self.number.bytes == 2 else 'u32'} Element;",
        ]
        self.lines = []
        self._body(setup, launches, finish)
        return "\n".join([self.prelude, *macros, head, *self.lines, "}"]) + "\n"

    def _body(self, setup: list[str], launches: list[list[str]], finish: list[str]) -> None:  # type: ignore[override]
        done = len(self.arguments)
        self.begin()
        with self.block(f"if (what == {SETUP})"):
            with self.block("if (tid == 0 && blockIdx.x == 0 && blockIdx.y == 0)"):
                for place, name in enumerate(self._names()):
                    self.line(f"table[{place}] = (i64){name};")
                self.line(f"table[{done}] = 0;")
            self.lines += setup
            self.line("return;")
        with self.block(f"if (what == {ADVANCE})"):
            self.line(f"if (tid == 0 && blockIdx.x == 0 && blockIdx.y == 0) table[{done}] += step;")
            self.line("return;")
        for place, declaration in enumerate(self.arguments.values()):
            kind, name = _plain(declaration).rsplit(" ", 1)
            self.line(f"{name} = ({kind})table[{place}];")
        with self.block(f"if (what == {FINISH})"):
            self.lines += finish
            self.line("return;")
        self.line("const int last = end;")
        # What ends a step and what begins the next one are one launch where no product stands between them.
        with self.block(f"for (; what != {NOTHING}; what = then, then = {NOTHING}, ++step)"):
            self.line(f"const int i = (int)table[{done}] + step;")
            self.times("i")
            with self.block("for (int r = blockIdx.y; r < count; r += gridDim.y)"):
                self.begin_row()
                self.marks()
                for number, lines in enumerate(launches):
                    with self.block(f"if (what == {number})"):
                        self.lines += lines

    @property
    def declarations(self) -> tuple[str, ...]:
        """What a call gives, memory of the layout's own, the table, and what a launch is to do."""
        given = [_plain(each) for each in self.arguments.values()]
        rooms = [f"{'float' if room.wide else 'void'}* {name}" for name, room in self.rooms.items()]
        return (*given, *rooms, "i64* table", "int what", "int step", "int then")

    def _names(self) -> list[str]:
        return [declaration.rsplit(" ", 1)[1] for declaration in self.arguments.values()]

    @contextmanager
    def _of_width(self, width: Width) -> Iterator[None]:
        """Code for the units of rows of this width."""
        self._now, self._loaded = width, {}
        with self.block(f"if (unit < {self.size_of(width)[1]})"):
            yield

    # --- what launches do -----------------------------------------------------------------------------------------

    def _launches(self) -> list[list[str]]:
        """The text of each launch of a step; `actions` says when it comes."""
        found: list[list[str]] = []
        self._depth += 3
        for group in self.groups():
            given = [line for s in group for line in self.captured(self._gather, s)]
            if given:
                self.actions.append(Action(launch=len(found)))
                found.append(given)
            self.actions += [Action(product=(s, k)) for s in group for k in range(len(self.products[s]))]
            self.actions.append(Action(launch=len(found)))
            found.append(self.captured(self._group, group))
        self._depth -= 3
        return found

    def _group(self, group: list[int]) -> None:
        for s in group:
            self._stage(s, self.program.stages[s])

    def _gather(self, s: int) -> None:
        """Rows to multiply that lay in memory before."""
        for product in self.products[s]:
            for place, column in enumerate(product.columns):
                if (product.buffer.name, column) not in self.posted:
                    with self._of_width(product.buffer.width):
                        value = self._load(self.read(Slot(product.buffer, column)), product.buffer.width)
                        self.line(f"{self._operand(product, place)} = {value};")

    def _operand(self, product: Product, place: int) -> str:
        """This thread's number of a row to multiply."""
        width = self.size_of(product.buffer.width)[1]
        columns = len(product.columns)
        room = self.room(operand_name(product), columns, width, False)
        return f"((Element*){room})[(i64)row[p] * {columns * width} + {place * width} + unit]"

    def _stage(self, s: int, stage: Stage) -> None:
        with self._of_width(stage.width):
            starts = self.starts(s, stage)
            known: dict[Node, str] = {}
            for a, node in enumerate(stage.accumulators):
                terms = [starts[a]]
                for k, product in enumerate(self.products[s]):
                    if a in product.accumulators:
                        width, count = self.size_of(stage.width)[1], len(product.accumulators)
                        room = self.room(f"product{s}_{k}", count, width, True)
                        own = product.accumulators.index(a) * width
                        terms.append(f"{room}[(i64)row[p] * {count * width} + {own} + unit]")
                self.line(f"const float a{s}_{a} = {' + '.join(terms)};")
                known[node] = f"a{s}_{a}"
            for node in stage.nodes:
                self.compute(node, known)
            self._add_up(stage, known)
            values = [(self.expression(node, known), node, slot) for node, slot in stage.writes]
            for value, node, slot in values:
                self._write(s, value, slot, self.number_of(node, slot))
        if s == self._last:
            self._next_states()

    def _add_up(self, stage: Stage, known: dict[Node, str]) -> None:
        """What all units of a row give together."""

    def _write(self, s: int, value: str, slot: Slot, number: str) -> None:
        buffer, name = slot.buffer, slot.buffer.name
        if buffer.storage is StorageClass.REDUCTION:
            if name == SUMS:
                columns, width = buffer.columns, self.form.width
                self.argument("float* sums", "sums")
                self.line(f"sums[(i64)row[p] * {columns * width} + {slot.column * width} + unit] += {value};")
            return
        value = self._real(value)
        if buffer.storage is StorageClass.CARRY_OUT:
            value = f"cut[p] ? 0.f : {value}" if self.form.resets else value
            before = self.before[name]
            self.line(f"const float n_{c_name(name)} = {value};")
            value = f"n_{c_name(name)}"
            if s == self._last:
                self._go_on_with(before, value)
            else:  # later stages, and their products, want the states as they were before the step
                self.waiting[before] = buffer.width
                self.line(f"{self._carried('next', before)} = {value};")
        elif (name, slot.column) in self.crossing:
            self.line(f"{self._crossed(name, slot.column)} = {value};")
        if (name, slot.column) in self.posted and buffer.storage is not StorageClass.CARRY_OUT:
            for product, place in self._readers(name, slot.column):
                self.line(f"{self._operand(product, place)} = f_{self.number.name}({value});")
        kept = self.kept(slot)
        if kept is not None:
            pointer, step, _ = kept
            width = self.size_of(buffer.width)[1]
            where = f"((i64){step} + row[p]) * {buffer.columns * width} + {slot.column * width} + unit"
            self.line(f"((Element*){pointer})[{where}] = f_{number}({value});")

    def _readers(self, name: str, column: int) -> list[tuple[Product, int]]:
        """The operands that hold a column, each once."""
        found = {
            operand_name(product): (product, product.columns.index(column))
            for products in self.products
            for product in products
            if product.buffer.name == name and column in product.columns
        }
        return list(found.values())

    def _next_states(self) -> None:
        """At the end of a step, those that earlier stages made."""
        for name, width in self.waiting.items():
            with self._of_width(width):
                self._go_on_with(name, self._carried("next", name))

    def _go_on_with(self, name: str, value: str) -> None:
        """A state of the next step, to be read and to be multiplied."""
        self.line(f"{self._carried('state', name)} = {value};")
        for product, place in self._readers(name, 0):
            self.line(f"{self._operand(product, place)} = f_{self.number.name}({value});")

    def kept(self, slot: Slot) -> tuple[str, str, str] | None:
        buffer = slot.buffer
        if buffer.storage is StorageClass.CARRY_OUT and self.before[buffer.name] not in self.form.histories:
            return None
        return None if buffer.storage is StorageClass.SCRATCH else super().kept(slot)

    def _real(self, value: str) -> str:
        size, width = self.size_of(self._now)
        return value if size == width else f"(unit < {size} ? {value} : 0.f)"

    # --- the first and the last launch ----------------------------------------------------------------------------

    def _setup(self) -> None:
        with self._rows():
            for before, _ in self.program.states:
                pointer, width = self.first_of(before.name), self.size_of(before.width)[1]
                with self._of_width(before.width):
                    self.line(f"const Element v = ((const Element*){pointer})[(i64)row[p] * {width} + unit];")
                    self.line(f"{self._carried('state', before.name)} = VALUE(v);")
                    for product, place in self._readers(before.name, 0):
                        self.line(f"{self._operand(product, place)} = v;")

    def _finish(self) -> None:
        """What the steps leave where no history has it, in both halves: either may be looked at."""
        with self._rows():
            for before, _ in self.program.states:
                name, width = before.name, self.size_of(before.width)[1]
                if name in self.form.histories:
                    continue
                pointer = f"last_{c_name(name)}"
                self.argument(f"void* {pointer}", "last", name)
                self.argument("int halves", "halves")
                with self._of_width(before.width):
                    self.line(f"Element* const to = (Element*){pointer} + (i64)row[p] * {width} + unit;")
                    self.line(f"const u32 v = f_{self.number.name}({self._carried('state', name)});")
                    self.line("to[0] = v;")
                    self.line(f"if (halves == 2) to[(i64)B * {width}] = v;")

    @contextmanager
    def _rows(self) -> Iterator[None]:
        with self.block("for (int r = blockIdx.y; r < B; r += gridDim.y)"):
            self.begin_row()
            yield

    # --- values ---------------------------------------------------------------------------------------------------

    def room(self, name: str, columns: int, width: int, wide: bool) -> str:
        """The pointer to memory of the layout's own."""
        made = Room(name, columns, width, wide)
        assert self.rooms.setdefault(f"own_{c_name(name)}", made) == made
        return f"own_{c_name(name)}"

    def _carried(self, kind: str, name: str) -> str:
        width = self.size_of(self.widths[name])[1]
        return f"{self.room(f'{kind} {name}', 1, width, True)}[(i64)row[p] * {width} + unit]"

    def _crossed(self, name: str, column: int) -> str:
        width = self.size_of(self.widths[name])[1]
        return f"{self.room(f'{name} {column}', 1, width, True)}[(i64)row[p] * {width} + unit]"

    def _once(self, key: str, expression: str) -> str:
        """A variable with a value from memory, read where it is first wanted."""
        if key not in self._loaded:
            self._loaded[key] = f"l{len(self._loaded)}"
            self.line(f"const float {self._loaded[key]} = {expression};")
        return self._loaded[key]

    def leaf(self, node: Node) -> str:
        slot = self.program.reads[node]
        buffer = slot.buffer
        if buffer.width is Width.ROW:
            return self.number_of_row(slot)
        if buffer.name in self.own:
            return self._once(buffer.name, self._carried("state", buffer.name))
        if (buffer.name, slot.column) in self.crossing:
            return self._once(f"{buffer.name} {slot.column}", self._crossed(buffer.name, slot.column))
        if buffer.storage in (StorageClass.PER_UNIT, StorageClass.SCALAR):
            by_unit = buffer.storage is StorageClass.PER_UNIT
            key = buffer.name.removeprefix("own ")
            pointer = f"given_{c_name(key)}"
            self.argument(f"const void* {pointer}", "own", key)
            return self._once(
                buffer.name, f"VALUE(((const Element*){pointer})[{'unit' if by_unit else '0'}])"
            )
        return self.value_of(self.read(slot, self.number_of(node, slot)), buffer.width)

    def value_of(self, read: Read, width: Width = Width.HIDDEN) -> str:
        return self._once(read.name, f"{read.number}_f({self._load(read, width)})")

    def bias_of(self, s: int, a: int, biases: Sequence[tuple[str, int]]) -> str:
        found = []
        for stem, block in biases:
            self.argument(f"const void* {stem}", "bias", stem)
            value = f"VALUE(((const Element*){stem})[{block * self.form.width} + unit])"
            found.append(self._once(f"{stem} {block}", value))
        return " + ".join(found)

    def _load(self, read: Read, width: Width) -> str:
        size = self.size_of(width)[1]
        row = read.columns * size if read.form is None else read.row
        column, unit = read.column * size, read.units("unit")
        element = f"((const Element*){read.pointer})"
        if read.first is None:
            return f"{element}[((i64){read.step} + row[p]) * {row} + {column} + {unit}]"
        there = f"{element}[((i64)at_beyond + row[p]) * {row} + {column} + unit]"
        return (
            f"(row[p] < had_beyond ? {there} : ((const Element*){read.first})[(i64)row[p] * {size} + unit])"
        )


def _plain(declaration: str) -> str:
    return declaration.replace("__restrict__ ", "")


def operand_name(product: Product) -> str:
    return f"{product.buffer.name} {' '.join(map(str, product.columns))} rows"
