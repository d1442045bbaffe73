"""The scan layout: units that know only themselves, affine in their state, run in many stretches of time at once.

A first launch finds for every stretch the product of its slopes, and where it leads from zero. In a second one every
block begins with the state that the stretches before its own lead to, and runs all else as the narrow layout does. All
steps are read twice, by many times as many threads: worth it where rows are few and steps are many.
"""

from __future__ import annotations

from dataclasses import replace

from cellwise.backends.cuda.layout import Form, Layout
from cellwise.backends.cuda.reads import Read
from cellwise.backends.cuda.solo import Kept, Solo
from cellwise.backends.cuda.text import c_name
from cellwise.graph import Node
from cellwise.graph.expr import postorder
from cellwise.plan.affine import slopes_of
from cellwise.plan.program import Program, Stage, StorageClass

# What a launch does: the first of two, the second, the only one.
SUMMARY, ALL, WHOLE = 0, 1, 2


class Scan(Solo):
    first_step, end_step = "from", "to"

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(program, form, layout)
        found = slopes_of(program)
        assert found is not None and not form.resets
        self._slopes = found
        self._summarizes = False

    def steps(self) -> None:
        for name, kind in (("what", "int"), ("stretches", "int")):
            self.argument(f"{kind} {name}", name)
        self.argument("float* stretched", "stretched")
        rows = self.layout.rows
        self._depth += 2
        summary, read_first = self._summary()
        step = self.captured(self._step)
        self._depth -= 2
        count = f"for (int row0 = blockIdx.x / stretches * {rows}; row0 < B; row0 += gridDim.x / stretches * {rows})"
        with self.block(count):
            self.line(f"int row[{self.cells}];")
            self.each(self.cells, "row[p] = row0 + q;")
            self.last_step()
            self.line(
                "const int stretch = blockIdx.x % stretches, each = (steps + stretches - 1) / stretches;"
            )
            self.line("const int from = stretch * each < steps ? stretch * each : steps;")
            self.line("const int to = from + each < steps ? from + each : steps;")
            self.base_lines()
            self.first_states()
            every, self.reads = self.reads, read_first
            with self.block(f"if (what == {SUMMARY})"):
                self._begin_summary()
                self._loop(summary)
                self._end_summary()
                self.line("continue;")
            self.reads = every
            self._go_on()
            self._loop(step)
            with self.block("if (stretch == stretches - 1)"):
                self.last_states()
            self.last_sums("stretch * B + ")

    # --- the first launch -----------------------------------------------------------------------------------------

    def _summary(self) -> tuple[list[str], dict[tuple[str, int], Read]]:
        """A step of it, and what that reads: the states alone, and their slopes."""
        whole, self._summarizes = self.program, True
        self.program = replace(whole, stages=(self._of_states(whole.stages[0]),))
        step = self.captured(self._step)
        read, self.reads = self.reads, {}
        self.program, self._summarizes = whole, False
        return step, read

    def _of_states(self, stage: Stage) -> Stage:
        writes = tuple((n, s) for n, s in stage.writes if s.buffer.storage is StorageClass.CARRY_OUT)
        wanted: set[Node] = set()
        left = [*(node for node, _ in writes), *self._slopes.values()]
        while left:
            node = left.pop()
            if node not in wanted:
                wanted.add(node)
                left += [] if node in self.program.reads else node.inputs
        return replace(stage, nodes=tuple(node for node in stage.nodes if node in wanted), writes=writes)

    def _values(self, stage: Stage, known: dict[Node, str]) -> None:
        super()._values(stage, known)
        if self._summarizes:
            for name, slope in self._slopes.items():
                for node in postorder([slope], {*known, *self.program.reads}):
                    if node.inputs:
                        self.compute(node, known)
                product = f"slope_{c_name(name)}[p] * ({self.expression(slope, known)})"
                self.line(f"if (row[p] < count) slope_{c_name(name)}[p] = REAL(p, {product});")

    def _kept_in_registers(self, stage: Stage) -> list[Kept]:
        return [] if self._summarizes else super()._kept_in_registers(stage)

    def _begin_summary(self) -> None:
        for name in self.own:
            n = c_name(name)
            self.line(f"float slope_{n}[{self.cells}];")
            self.each(self.cells, f"slope_{n}[p] = 1.f, s_{n}[p] = 0.f;")

    def _end_summary(self) -> None:
        for k, name in enumerate(self.own):
            n = c_name(name)
            for place, value in enumerate((f"slope_{n}", f"s_{n}")):
                to = self._stretched("stretch", 2 * k + place)
                self.each(self.cells, f"if (row[p] < B) {to} = {value}[p];")

    def _stretched(self, stretch: str, place: int) -> str:
        columns = 2 * len(self.own)
        return f"stretched[(((i64){stretch} * {columns} + {place}) * B + row[p]) * WIDTH + unit + ({self.unit()})]"

    def _go_on(self) -> None:
        """From the states that the stretches before this one lead to."""
        with self.block(f"if (what == {ALL})"):
            self.line("#pragma unroll 4")
            with self.block("for (int k = 0; k < stretch; ++k)"):
                for k, name in enumerate(self.own):
                    state = f"s_{c_name(name)}[p]"
                    slope, rest = self._stretched("k", 2 * k), self._stretched("k", 2 * k + 1)
                    self.each(self.cells, f"if (row[p] < B) {state} = {slope} * {state} + {rest};")
