"""What the layouts share of a kernel's text: its arguments, the loop over steps, reads, equations.

A kernel runs all steps of one layer in one direction, with the states in registers. Its names: `i` counts the steps of
the launch, `t` is the time; `p` counts the numbers that a thread computes, of the row row[p] of the batch; s_STATE are
states before a step, n_STATE after it, x_BUFFER values within a step.

A little longer than other files: it is one class, whose parts the layouts put in other orders or replace.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellwise.backends.cuda.expressions import literal, lowered
from cellwise.backends.cuda.layout import BY_CUBLAS, Form, Layout, knows_rows
from cellwise.backends.cuda.numbers import BF16, F16, finer_values
from cellwise.backends.cuda.products import INPUT, inputs_of, products_of
from cellwise.backends.cuda.reads import INPUT_PRODUCTS, Read
from cellwise.backends.cuda.reductions import HELPERS, Reductions
from cellwise.backends.cuda.text import Text, c_name
from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT
from cellwise.plan.program import Buffer, Program, Slot, Stage, StorageClass, Width

PRELUDE = (Path(__file__).parent / "prelude.cuh").read_text()
KERNEL = "cellwise_kernel"

# What the host gives for an argument: a word, and a name or a number where there are several of it.
Key = tuple[str, ...]

_CROSSING = (StorageClass.SCRATCH, StorageClass.PER_CHUNK)
_OWN = (StorageClass.PER_UNIT, StorageClass.SCALAR)
SUMS, BIAS_SUMS, TAPE = "sums", "bias sums", "tape"


class Frame(Text):
    """The text of a kernel, from what a layout says of it."""

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(depth=1)
        self.program, self.form, self.layout, self.number = program, form, layout, form.number
        self.products = [products_of(stage) for stage in program.stages]
        self.input_gates = inputs_of(program)
        self.own = {before.name: before for before, _ in program.states}
        self.before = {after.name: before.name for before, after in program.states}
        self.written = {slot.buffer.name for stage in program.stages for _, slot in stage.writes}
        operands = {(each.buffer.name, c) for stage in self.products for each in stage for c in each.columns}
        # What is multiplied and made within the loop: each step waits for it.
        self.posted = {key for key in operands if key[0] in self.written or key[0] in self.own}
        self.arguments: dict[Key, str] = {}
        self.reads: dict[tuple[str, int], Read] = {}
        self.parameters: dict[
            str, tuple[str, bool]
        ] = {}  # its variable, and whether it has a number for each unit
        self.crossing: dict[tuple[str, int], str] = {}
        self.sums: dict[int, str] = {}
        self.bases: dict[str, str] = {}
        self.values = 0
        self.finer = finer_values(program.graph) if form.number is BF16 else frozenset()
        for stage in program.stages:
            for _, slot in stage.writes:
                self._cross(slot)

    def _cross(self, slot: Slot) -> None:
        name, storage = slot.buffer.name, slot.buffer.storage
        if storage in _CROSSING:
            self.crossing[name, slot.column] = f"x_{c_name(name)}_{slot.column}"
        elif storage is StorageClass.REDUCTION and name == SUMS:
            self.sums[slot.column] = f"sum_{slot.column}"

    @property
    def prelude(self) -> str:
        """What the text calls."""
        return PRELUDE + HELPERS if knows_rows(self.program) else PRELUDE

    # --- what a layout says ---------------------------------------------------------------------------------------

    cells: int  # numbers that a thread computes in a step
    together: Reductions  # where a program knows rows as a whole

    @property
    def shared_bytes(self) -> int:
        """Of shared memory, for a block."""
        raise NotImplementedError

    def threads_and_rows(self) -> None:
        """Which units and rows a thread has."""
        raise NotImplementedError

    def unit(self, p: str = "p") -> str:
        """The unit of a number, less the variable `unit`."""
        raise NotImplementedError

    def weights(self, s: int, k: int) -> None:
        raise NotImplementedError

    def steps(self) -> None:
        """The loop over steps, with all that comes before it for a group of rows."""
        raise NotImplementedError

    # --- arguments ------------------------------------------------------------------------------------------------

    def argument(self, declaration: str, *key: str) -> None:
        self.arguments.setdefault(key, declaration)

    def rows_of(self, buffer: Buffer | str, read_only: bool = False) -> str:
        """The pointer to a buffer's rows."""
        name = buffer if isinstance(buffer, str) else buffer.name
        pointer = f"rows_{c_name(name)}"
        self.argument(f"{'const ' if read_only else ''}void* __restrict__ {pointer}", "rows", name)
        return pointer

    def history_of(self, name: str) -> str:
        pointer = f"history_{c_name(name)}"
        self.argument(f"{'const ' if name not in self.own else ''}void* {pointer}", "history", name)
        return pointer

    def first_of(self, name: str) -> str:
        pointer = f"first_{c_name(name)}"
        self.argument(f"const void* __restrict__ {pointer}", "first", name)
        return pointer

    @property
    def declarations(self) -> tuple[str, ...]:
        """The kernel's parameters."""
        return tuple(self.arguments.values())

    # --- the kernel -----------------------------------------------------------------------------------------------

    def source(self) -> str:
        """The whole text."""
        self.scalars()
        body = self._body()
        form, threads = self.form, self.layout.threads
        padded = (
            form.hidden != form.width
        )  # units that are not there stay zero, whatever equations make of them
        real = f"unit + ({self.unit()}) < {form.hidden} ? (v) : 0.f" if padded else "v"
        macros = [
            f"#define WIDTH {form.width}",
            f"#define REAL(p, v) ({real})",
            f"#define SEEN(v) {self.number.name}_f(f_{self.number.name}(v))",
            *self.macros(),
        ]
        head = f'extern "C" __global__ void __launch_bounds__({threads}, 1) {KERNEL}({", ".join(self.declarations)}) {{'
        return "\n".join([self.prelude, *macros, head, *body, "}"]) + "\n"

    def scalars(self) -> None:
        """What of a call all kernels are told: sizes and steps."""
        for name, kind in (
            ("T", "int"),
            ("B", "int"),
            ("begin", "int"),
            ("end", "int"),
            ("backwards", "int"),
        ):
            self.argument(f"{kind} {name}", name)
        if self.layout.kind not in BY_CUBLAS:  # nobody waits there
            self.argument("int* late", "late")
        self.argument("int base", "base")
        if not self.form.dense:
            self.argument("const int* __restrict__ offsets", "offsets")
        if self.form.resets:
            self.argument("const u8* __restrict__ resets", "resets")

    def macros(self) -> list[str]:
        return []

    def _body(self) -> list[str]:
        """The steps are written first: they say what is read, and so what the head declares."""
        self.steps()
        loop, self.lines = self.lines, []
        self.line("SHARED_MEMORY;")
        self.line("(void)shared; (void)base;")
        self.threads_and_rows()
        for s, products in enumerate(self.products):
            for k in range(len(products)):
                self.weights(s, k)
        self._constants()
        return self.lines + loop

    def _constants(self) -> None:
        """Biases and the cell's own parameters, in registers."""
        units = 1 if self.layout.kind in ("wide", "lanes") else 2
        element, convert = "u16" if self.number.bytes == 2 else "u32", f"{self.number.name}_f"
        for s, stage in enumerate(self.program.stages):
            for a, pairs in enumerate(stage.biases):
                biases = self._biases(pairs)
                for stem, _ in biases:
                    self.argument(f"const {element}* __restrict__ {stem}", "bias", stem)
                if biases:
                    values = [f"{convert}({stem}[{block} * WIDTH + unit + j])" for stem, block in biases]
                    self.line(f"float b{s}_{a}[{units}];")
                    self.each(units, f"b{s}_{a}[j] = {' + '.join(values)};", "j")
        for name, (variable, by_unit) in self.parameters.items():
            self.argument(f"const {element}* __restrict__ {variable}_given", "own", name)
            if by_unit:
                self.line(f"float {variable}[{units}];")
                self.each(units, f"{variable}[j] = {convert}({variable}_given[unit + j]);", "j")
            else:
                self.line(f"const float {variable} = {convert}({variable}_given[0]);")

    def _biases(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
        """Of an accumulator: the layer's weights, and the block of each that is its gate's."""
        graph = self.program.graph
        gates = {"bias_ih": graph.input_gates, "bias_hh": graph.state_gates}
        return [(stem, gates[stem].index(gate)) for stem, gate in pairs if stem in self.form.biases]

    # --- steps ----------------------------------------------------------------------------------------------------

    def last_step(self) -> None:
        """Rows of this group may all end before the last step: steps without any of them are left out."""
        self.line("int last = end;")
        if not self.form.dense:
            self.line("while (last > begin && offsets[last] - offsets[last - 1] <= row0) --last;")
        self.line("const int steps = last - begin;")

    def times(self, i: str) -> None:
        """Where the rows of step `i` lie, and those of the steps before it, in this run and in one the other way."""
        self.line(f"const int t = backwards ? last - 1 - ({i}) : begin + ({i});")
        self.line("const int t_before = backwards ? t + 1 : t - 1, t_beyond = backwards ? t - 1 : t + 1;")
        if self.form.dense:
            self.line("const int at = t * B, count = B;")
        else:
            self.line("const int at = offsets[t], count = offsets[t + 1] - at;")
        for name in ("before", "beyond"):
            time = f"t_{name}"
            inside = f"{time} >= 0 && {time} < T"
            if self.form.dense:
                self.line(
                    f"const int had_{name} = {inside} ? B : 0, at_{name} = had_{name} ? {time} * B : 0;"
                )
            else:
                self.line(f"const int had_{name} = {inside} ? offsets[{time} + 1] - offsets[{time}] : 0;")
                self.line(f"const int at_{name} = {inside} ? offsets[{time}] : 0;")
        self.line("(void)had_before; (void)at_before; (void)had_beyond; (void)at_beyond;")

    def marks(self) -> None:
        """cut[p]: whether a boundary follows this step, in its direction, for the row of a number."""
        if self.form.resets:
            # A boundary stands before a step of its row, so forwards it is the mark of the time after this one.
            self.line(
                "const int marked = backwards ? at : at_beyond, limit = backwards ? count : had_beyond;"
            )
            self.line(f"bool cut[{self.cells}];")
            self.each(self.cells, "cut[p] = row[p] < limit && resets[marked + row[p]];")

    def first_states(self) -> None:
        for name in self.own:
            n, pointer = c_name(name), self.first_of(name)
            self.line(f"float s_{n}[{self.cells}], n_{n}[{self.cells}];")
            element = f"(({'const u16' if self.number.bytes == 2 else 'const u32'}*){pointer})"
            where = f"(i64)row[p] * WIDTH + unit + ({self.unit()})"
            self.each(self.cells, f"s_{n}[p] = row[p] < B ? {self.number.name}_f({element}[{where}]) : 0.f;")
        for variable in self.sums.values():
            self.line(f"float {variable}[{self.cells}];")
            self.each(self.cells, f"{variable}[p] = 0.f;")
        for variable in self.crossing.values():
            self.line(f"float {variable}[{self.cells}];")

    def next_states(self) -> None:
        for name in self.own:
            self.each(self.cells, f"s_{c_name(name)}[p] = n_{c_name(name)}[p];")

    def last_states(self) -> None:
        """What the steps leave, where no history has it in both halves: either may be looked at."""
        for name in self.own:
            if name in self.form.histories and not self.form.lasts:
                continue
            pointer, kind = f"last_{c_name(name)}", "u16" if self.number.bytes == 2 else "u32"
            self.argument(f"void* __restrict__ {pointer}", "last", name)
            self.argument("int halves", "halves")
            with self.unrolled("p", self.cells), self.block("if (row[p] < B)"):
                self.line(
                    f"{kind}* const to = ({kind}*){pointer} + (i64)row[p] * WIDTH + unit + ({self.unit()});"
                )
                self.line(f"const u32 v = f_{self.number.name}(s_{c_name(name)}[p]);")
                self.line("to[0] = v;")
                self.line("if (halves == 2) to[(i64)B * WIDTH] = v;")

    def last_sums(self, first_row: str = "") -> None:
        """What the steps of a row add up to, each row's by itself."""
        columns = max((b.columns for b in self.program.buffers if b.name == SUMS), default=0)
        for column, variable in self.sums.items():
            self.argument("float* __restrict__ sums", "sums")
            where = f"((i64)({first_row}row[p]) * {columns} + {column}) * WIDTH + unit + ({self.unit()})"
            self.each(self.cells, f"if (row[p] < B) sums[{where}] = {variable}[p];")

    # --- values ---------------------------------------------------------------------------------------------------

    def leaf(self, node: Node) -> str:
        slot = self.program.reads[node]
        buffer, storage = slot.buffer, slot.buffer.storage
        if buffer.width is Width.ROW:
            return self.number_of_row(slot)
        if buffer.name in self.own:
            return f"s_{c_name(buffer.name)}[p]"
        if storage in _CROSSING:
            return f"{self.crossing[buffer.name, slot.column]}[p]"
        if storage in _OWN:
            by_unit = storage is StorageClass.PER_UNIT
            name = buffer.name.removeprefix("own ")
            variable, _ = self.parameters.setdefault(name, (f"own{len(self.parameters)}", by_unit))
            return f"{variable}[{self.unit()}]" if by_unit else variable
        return self.value_of(self.read(slot, self.number_of(node, slot)))

    def number_of_row(self, slot: Slot) -> str:
        """A number of each row, where equations of its units want it."""
        return self.together.number(slot)

    def number_of(self, node: Node, slot: Slot) -> str:
        """How a value lies in memory: on the tape in as many bits as elsewhere, but maybe with more digits."""
        return F16.name if node in self.finer and slot.buffer.name == TAPE else self.number.name

    def read(self, slot: Slot, number: str | None = None) -> Read:
        """A read of rows that lie in memory before the kernel runs."""
        buffer, key = slot.buffer, (slot.buffer.name, slot.column)
        if key not in self.reads:
            form = None
            if buffer.storage is StorageClass.CARRY_IN:
                pointer, first = self.history_of(buffer.name), self.first_of(buffer.name)
            else:
                pointer, first = self.rows_of(buffer, read_only=True), None
            if buffer.storage is StorageClass.BESIDE:
                form = c_name(buffer.name)
                self.argument(f"int row_{form}", "row", buffer.name)
                self.argument(f"int unit_{form}", "unit", buffer.name)
            name = f"m{len(self.reads)}"
            self.reads[key] = Read(name, pointer, slot, first, number or self.number.name, form)
        return self.reads[key]

    def expression(self, node: Node, known: dict[Node, str]) -> str:
        if node in known:
            return known[node]
        if node.op is CONSTANT:
            return literal(float(node.attribute))  # type: ignore[arg-type]
        if node in self.program.rows:
            return self.number_of_row(self.program.rows[node])
        if node in self.program.reads:
            return self.leaf(node)
        return lowered(node, [self.expression(each, known) for each in node.inputs], self.number)

    def compute(self, node: Node, known: dict[Node, str]) -> None:
        if node.is_mask:
            return  # an expression where it is used
        self.values += 1
        name = f"v{self.values}"
        self.line(
            f"const float {name} = {lowered(node, [self.expression(e, known) for e in node.inputs], self.number)};"
        )
        known[node] = name

    def starts(self, s: int, stage: Stage) -> list[str]:
        """What each accumulator begins with: products of the input, biases."""
        found = []
        for a, pairs in enumerate(stage.biases):
            terms = []
            for term in stage.terms:
                if term.weight.stem == INPUT and a in term.accumulators:
                    gate = term.weight.gates[term.accumulators.index(a)]
                    buffer = Buffer(INPUT_PRODUCTS, StorageClass.PER_STEP, len(self.input_gates))
                    terms.append(self.value_of(self.read(Slot(buffer, self.input_gates.index(gate)))))
            biases = self._biases(pairs)
            if biases:
                terms.append(self.bias_of(s, a, biases))
            found.append(" + ".join(terms) or "0.f")
        return found

    def value_of(self, read: Read) -> str:
        """A number that was read."""
        own = read.number == self.number.name
        return f"VALUE({read.name})" if own else f"{read.number}_f(BITS({read.name}))"

    def bias_of(self, s: int, a: int, biases: Sequence[tuple[str, int]]) -> str:
        """The sum of the biases that an accumulator begins with."""
        return f"b{s}_{a}[{self.unit()}]"

    def next_state(self, name: str, value: str) -> None:
        value = f"cut[p] ? 0.f : REAL(p, {value})" if self.form.resets else f"REAL(p, {value})"
        self.line(f"n_{c_name(name)}[p] = row[p] < count ? ({value}) : s_{c_name(name)}[p];")

    def kept(self, slot: Slot) -> tuple[str, str, str] | None:
        """Where a written value goes in memory: the pointer, the first row of this step, and the key of what waits."""
        buffer = slot.buffer
        if buffer.storage is StorageClass.CARRY_OUT:
            name = self.before[buffer.name]
            waited = (name, 0) in self.posted
            return (self.history_of(name), "at", name) if waited or name in self.form.histories else None
        if buffer.storage is StorageClass.PER_STEP:
            if buffer.name == "output" and self.form.output_is_state:
                return None
            return self.rows_of(buffer), "at", buffer.name
        if buffer.storage is StorageClass.PER_CHUNK:
            return self.rows_of(buffer), "(at - base)", buffer.name
        if buffer.storage is StorageClass.SCRATCH and (buffer.name, slot.column) in self.posted:
            return self.rows_of(buffer), "(at - base)", buffer.name
        return None

    def base(self, pointer: str, row: str, unit: str = "unit") -> str:
        """This thread's first number in an array: rows and columns lie at constant distances from it."""
        self.bases[pointer] = f"(i64)row[0] * {row} + {unit}"
        return f"base_{pointer}"

    def base_lines(self) -> None:
        kind = "u16" if self.number.bytes == 2 else "u32"
        for pointer, place in self.bases.items():
            self.line(f"{kind}* const base_{pointer} = ({kind}*){pointer} + {place};")
