"""The rowwise layout: stepwise, for cells that add up over the units of a row.

A block of threads has rows whole, so all equations between two products are one launch: what units give together goes
through shared memory, what one stage makes for another stays in registers. Only what a later launch wants lies in
memory, numbers of a row among it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cellwise.backends.cuda.layout import Form, Layout
from cellwise.backends.cuda.reads import slots_read
from cellwise.backends.cuda.reductions import Reductions, numbers_made, numbers_read
from cellwise.backends.cuda.stepwise import Stepwise
from cellwise.graph import Node
from cellwise.plan.program import Program, Slot, Stage, StorageClass, Width


class Rowwise(Stepwise):
    across = 1

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        super().__init__(program, form, layout)
        self.together = Reductions(self, 1, "0", (1, 16), "tid == 0", "true")
        group_of = {s: g for g, group in enumerate(self.groups()) for s in group}
        made = {
            (slot.buffer.name, slot.column): group_of[s]
            for s, stage in enumerate(program.stages)
            for _, slot in stage.writes
        }
        # What crosses stages within one launch, and stays in registers.
        self._near = set(self.crossing)
        for s, stage in enumerate(program.stages):
            self._near -= {key for key in slots_read(program, stage) if made.get(key) != group_of[s]}

    def groups(self) -> list[list[int]]:
        """A product waits for the launch that makes its operand, and equations for their product."""
        found: list[list[int]] = []
        made: set[tuple[str, int]] = set()
        for s, stage in enumerate(self.program.stages):
            if not found or any((p.buffer.name, c) in made for p in self.products[s] for c in p.columns):
                found.append([])
                made = set()
            found[-1].append(s)
            made |= {(slot.buffer.name, slot.column) for _, slot in stage.writes}
        return found

    @property
    def shared_bytes(self) -> int:
        return 4 * self.together.columns * self.layout.warps

    @contextmanager
    def _of_width(self, width: Width) -> Iterator[None]:
        self._now, self._loaded = width, {}
        threads = self.layout.threads
        unit = f"const int unit = tid + u * {threads}; unit < {self.size_of(width)[1]}"
        with self.unrolled("u", -(-self.widest // threads)), self.block(f"if ({unit})"):
            yield

    def begin(self) -> None:
        self.line("SHARED_MEMORY;")
        self.line("float* const partial = (float*)shared;")
        self.line("const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;")
        self.line("(void)partial; (void)lane; (void)warp;")

    def begin_row(self) -> None:
        super().begin_row()
        self.line("__syncthreads();")  # what is shared may still be read for the row before

    # --- a launch -------------------------------------------------------------------------------------------------

    def _group(self, group: list[int]) -> None:
        stages = [self.program.stages[s] for s in group]
        made = numbers_made(stages)
        later = numbers_read(self.program, self.program.stages[group[-1] + 1 :])
        for key, variable in self.crossing.items():
            if key in self._near and any(
                key == (w.buffer.name, w.column) for g in stages for _, w in g.writes
            ):
                self.line(f"float {variable}[{-(-self.widest // self.layout.threads)}];")
        for slot in numbers_read(self.program, stages):
            if slot.buffer.storage is StorageClass.PER_STEP:
                self.line(f"float {self.together.variable(slot)}[1];")
                self.together.load(slot)
            elif slot not in made:
                self.line(f"const float {self.together.variable(slot)}[1] = {{{self._left(slot)}}};")
        super()._group(group)
        for slot in made:
            if slot in later:
                self.line(f"if (tid == 0) {self._left(slot)} = {self.together.variable(slot)}[0];")

    def _left(self, slot: Slot) -> str:
        """Where a number of the row is left for a later launch."""
        columns = slot.buffer.columns
        room = self.room(slot.buffer.name, columns, 1, True)
        return f"{room}[(i64)row[p] * {columns} + {slot.column}]"

    def _stage(self, s: int, stage: Stage) -> None:
        self._loaded = {}
        self.together.compute(stage)
        self.together.clear(stage)
        if stage.has_units or s == len(self.program.stages) - 1:
            super()._stage(s, stage)
        self.together.finish(stage, "partial", self.layout.warps, "0", 1)

    def _add_up(self, stage: Stage, known: dict[Node, str]) -> None:
        form = self.form
        self.together.add(stage, known, f"unit < {form.hidden}" if form.hidden != form.width else None)

    def _crossed(self, name: str, column: int) -> str:
        near = (name, column) in self._near
        return f"{self.crossing[name, column]}[u]" if near else super()._crossed(name, column)
