"""A kernel for one shape of call: its arguments, and the launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.backends.compiled.compiler import (
    Carried,
    KernelRun,
    RunShape,
    Sizes,
    carried_buffers,
    given_buffers,
)
from cellwise.backends.cuda.choice import chosen, with_room, written
from cellwise.backends.cuda.frame import BIAS_SUMS, SUMS, Frame, Key
from cellwise.backends.cuda.layout import Form, Layout, is_together, stretches_of, tried
from cellwise.backends.cuda.machine import Launcher, Machine, RefusedError
from cellwise.backends.cuda.numbers import Number, number_of
from cellwise.backends.cuda.products import BIASES, INPUT, RECURRENT, pack
from cellwise.backends.cuda.reads import INPUT_PRODUCTS
from cellwise.backends.cuda.scan import ALL, SUMMARY, WHOLE, Scan
from cellwise.backends.cuda.stepwise import Stepwise
from cellwise.backends.cuda.stepwise_run import Memory, own_memory, run_steps
from cellwise.backends.cuda.tuned import call_of, changes
from cellwise.errors import InputError
from cellwise.plan.program import Program, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.cuda.compiler import CudaKernel

MOST_ROWS = 10**9  # so that the number of each, and of those that a grid would take next, is an int
READ = 16  # bytes that a kernel reads at once, of what it multiplies; of other rows it reads four


@dataclass(frozen=True, eq=False)
class Built:
    """A kernel as it is launched."""

    frame: Frame
    layout: Layout
    launcher: Launcher

    @cached_property
    def posted(self) -> tuple[str, ...]:
        """The buffers in which blocks wait for what others post."""
        return tuple(sorted({name for name, _ in self.frame.posted})) if self.layout.kind == "wide" else ()

    @cached_property
    def is_together(self) -> bool:
        """Whether all blocks of a launch are to run at once."""
        return is_together(self.layout) and bool(self.frame.posted)

    @cached_property
    def weights(self) -> tuple[Key, ...]:
        """The arguments that are weights."""
        return tuple(key for key in self.frame.arguments if key[0] in ("weights", "bias", "own"))


@lru_cache(maxsize=512)
def _built(program: Program, form: Form, layout: Layout, machine: Machine) -> Built:
    layout = with_room(program, form, layout, machine.device) or layout
    frame, source = written(program, form, layout)
    launcher = machine.build(source, frame.shared_bytes, frame.declarations)
    return Built(frame, layout, launcher)


class CudaRun(KernelRun):
    def __init__(self, kernel: CudaKernel, shape: RunShape, machine: Machine) -> None:
        self.program, self.dtype, self.shape, self.machine = kernel.program, kernel.dtype, shape, machine
        schedule, program, self._device = shape.schedule, kernel.program, number_of_device(shape.device)
        if schedule.rows > MOST_ROWS:
            raise InputError(
                f"A call of T={schedule.steps} and B={schedule.batch} has {schedule.rows:,} rows; these kernels "
                f"count up to {MOST_ROWS:,}. Call it with fewer sequences, or with some of the steps at a time, each "
                "from the state before."
            )
        self.offsets = schedule.offsets.tolist()
        self.ways = {a.name: way for a, way in zip(carried_buffers(program), shape.carried, strict=True)}
        self.given = [buffer.name for buffer in given_buffers(program)]
        self.beside = [each.name for each in program.buffers if each.storage is StorageClass.BESIDE]
        self.own = [before.name for before, _ in program.states]
        self.columns = {buffer.name: buffer for buffer in program.buffers}
        self.written = {
            slot.buffer.name for stage in program.stages for _, slot in (*stage.writes, *stage.row_writes)
        }
        self.times = None
        # The weights of a product that reads those of the layer where they lie, and of one that wants them transposed.
        self._as_they_are = tuple(((gate, False),) for gate in program.graph.state_gates)
        self._transposed = (tuple((gate, True) for gate in program.graph.state_gates),)
        self.leaves_lasts = False  # of the states whose history is kept
        self.copies_output = False  # where it is the first state's history
        # Whether what a stepwise kernel works in is this run's alone, always with the weights of one layer.
        self.keeps_memory = False
        self._memory: dict[Built, Memory] = {}
        self._variants: dict[tuple[str, object, int, int], Built] = {}
        if not schedule.is_dense:
            self.times = torch.tensor(self.offsets, dtype=torch.int32).to(shape.device)
        own = program.graph.vectors or program.graph.scalars
        wanted = {SUMS: bool(own), BIAS_SUMS: any("bias" in stem for stem in shape.stems)}
        self.summed = [b for b in program.buffers if wanted.get(b.name)]
        self.bias_columns = _bias_columns(program) if wanted[BIAS_SUMS] else []

    def form(self, number: Number) -> Form:
        """What the kernel's text depends on."""
        shape, graph = self.shape, self.program.graph
        return Form(
            number,
            shape.sizes.hidden,
            shape.sizes.padded,
            shape.schedule.is_dense,
            shape.resets,
            frozenset(stem for stem in shape.stems if stem in BIASES),
            graph.output_is_history and not shape.resets and not self.copies_output,
            frozenset(name for name, way in self.ways.items() if way is not Carried.PAIR),
            shape.sizes.projected,
            shape.sizes.padded_projected,
            lasts=self.leaves_lasts,
        )

    def layout(self, number: Number) -> Layout:
        """How its work lies on the device, in this precision."""
        schedule = self.shape.schedule
        return chosen(self.program, self.form(number), schedule.batch, self.machine, schedule.steps).layout

    def build(self, layout: Layout) -> Built:
        """The kernel in the precision of now, in some layout."""
        return _built(self.program, self.form(number_of(self.dtype)), layout, self.machine)

    def variant(self) -> Built:
        """The kernel in the precision of now, which may change from call to call, and the layout that is tried."""
        number = number_of(self.dtype)
        key = number.product, tried(), changes(), len(self.machine.refused)
        if key not in self._variants:
            self._variants[key] = self.build(self.layout(number))
        return self._variants[key]

    def refuse(self, built: Built, error: RefusedError) -> None:
        """From now on such calls have no such layout here."""
        call = call_of(self.program, self.form(built.frame.number), self.shape.schedule.batch)
        self.machine.refused[call, built.layout] = str(error)

    def bind(
        self,
        buffers: Sequence[Tensor],
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
    ) -> None:
        self.machine.check()
        shape = self.shape
        self.weights = dict(zip(shape.stems, weights, strict=True))
        check_devices(shape.device, self._device, firsts, self.weights)
        if self.times is not None:
            self.machine.lend([self.times])
        self.built = self.variant()
        self.rows = dict(zip(self.given, buffers, strict=True))
        self.like = firsts[0]
        self.launches = 0
        values: dict[Key, Tensor | int] = {
            ("rows", name): each for name, each in self.readable(self.rows).items()
        }
        values |= self.forms(self.rows)
        for name, first, history in zip(self.ways, firsts, histories, strict=True):
            values["first", name] = aligned(first)
            if self.ways[name] is Carried.PAIR:
                values["last", name] = history
                values["halves",] = len(history) // max(1, shape.schedule.batch)
            else:
                values["history", name] = history if name in self.own else aligned(history)
        values |= {("T",): shape.schedule.steps, ("B",): shape.schedule.batch}
        values |= {("backwards",): int(shape.schedule.backwards), ("late",): self.machine.late}
        if self.times is not None:
            values["offsets",] = self.times
        if resets is not None:
            values["resets",] = resets
        self._values = values
        self.values = {**values, **self.packed(self.built, self.weights)}
        self.total: dict[str, Tensor] = {}

    def readable(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same by name, where a kernel can read them; what it writes lies so already."""
        return {name: each if name in self.written else aligned(each) for name, each in rows.items()}

    def forms(self, rows: Mapping[str, Tensor]) -> dict[Key, Tensor | int]:
        """Of what a call gives beside x how far apart its rows are, and by how much a unit moves on in one."""
        found: dict[Key, Tensor | int] = {}
        for name in self.beside:  # rows of one number are narrower, where not all rows are
            width = rows[name].shape[1]
            found |= {("row", name): width, ("unit", name): int(width == self.shape.sizes.padded)}
        return found

    def packed(self, built: Built, weights: Mapping[str, Tensor]) -> dict[Key, Tensor]:
        """The weights, by stem, as a kernel reads them."""
        hidden, width = self.shape.sizes.hidden, self.shape.sizes.padded
        found: dict[Key, Tensor] = {}
        for key in built.weights:
            if key[0] == "weights":
                product = built.frame.products[int(key[1])][int(key[2])]
                if hidden == width and product.weights == self._as_they_are:
                    found[key] = aligned(weights[RECURRENT])
                    continue
                if hidden == width and product.weights == self._transposed:
                    found[key] = weights[RECURRENT].t().contiguous()
                    continue
                gates = self.program.graph.state_gates
                found[key] = aligned(pack(product, gates, weights[RECURRENT], hidden, width))
            elif key[0] == "bias":
                bias = weights[key[1]]
                found[key] = bias if hidden == width else _padded(bias.view(-1, hidden), width)
            else:
                value = weights[key[1]]
                found[key] = _padded(value, width) if value.dim() else value
        return found

    def input_products(self, frame: Frame, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """W_i x of rows of x, (..., gates * width). The kernel adds the bias, which would be rounded with them here."""
        sizes, weight = self.shape.sizes, weights[INPUT]
        if sizes.padded != sizes.hidden:
            weight = padded_gates(weight, len(frame.input_gates), sizes)
        return F.linear(x, weight)

    def launch(self, first: int, end: int) -> None:
        start, stop = self.offsets[first], self.offsets[end]
        if start == stop:
            return
        frame, values, shape = self.built.frame, dict(self.values), self.shape
        is_scan, batch = isinstance(frame, Scan), shape.schedule.batch
        if self.launches:  # the states are where the steps before left them
            for name in self.own:
                left: Tensor = self.values["last", name][:batch]  # type: ignore[index]
                # Some blocks may read what they begin with when others have ended, and left other states there.
                values["first", name] = left.clone() if is_scan or self.built.is_together else left
        self.launches += 1
        count = stretches_of(end - first, batch, shape.sizes.padded, self.machine.device) if is_scan else 1
        values |= {
            ("begin",): first,
            ("end",): end,
            ("base",): start,
            ("stretches",): count,
            ("what",): WHOLE,
        }
        for key in frame.arguments:
            if key not in values:
                values[key] = self._made(key, start, stop, count)
                if key[0] == "history":  # where the steps of a later launch find those before them
                    self.values[key] = values[key]
        if isinstance(frame, Stepwise):
            run_steps(self.built, self.machine, shape, self.weights, values, end - first, self._own_memory())
        else:
            for name in self.built.posted:
                self._mark(name, values, start, stop)
            try:
                self._launch(values, count)
            except RefusedError as error:
                self._go_on_step_by_step(error)
                self.launch(first, end)
                return
        self._add(values, stop - start)

    def _own_memory(self) -> Memory | None:
        if self.keeps_memory and self.built not in self._memory:
            made = self.machine.lasting(partial(own_memory, self.built, self.machine, self.shape))
            self.machine.lend(made.tensors)
            self._memory[self.built] = made
        return self._memory.get(self.built)

    @property
    def memory(self) -> list[Tensor]:
        """What it keeps from call to call."""
        return [each for memory in self._memory.values() for each in memory.tensors]

    def _go_on_step_by_step(self, error: RefusedError) -> None:
        """The kernel of now was not started."""
        self.refuse(self.built, error)
        self.built, self.launches = self.variant(), self.launches - 1
        self.values = {**self._values, **self.packed(self.built, self.weights)}

    def _launch(self, values: dict[Key, Tensor | int], stretches: int) -> None:
        built = self.built
        across, down = self.grid(built)
        for what in (SUMMARY, ALL) if stretches > 1 else (WHOLE,):
            values["what",] = what
            arguments = [values[key] for key in built.frame.arguments]
            grid = across * stretches, down
            built.launcher.launch(grid, built.layout.threads, arguments, built.is_together)

    def _made(self, key: Key, start: int, stop: int, stretches: int) -> Tensor:
        """Memory that is the run's own."""
        width, shape = self.shape.sizes.padded, self.shape
        if key == ("rows", INPUT_PRODUCTS):
            return self.input_products(self.built.frame, self.rows["x"][start:stop], self.weights)
        if key[0] == "history":
            return self.like.new_empty(shape.schedule.rows, width)
        if key[0] == "rows":
            return self.like.new_empty(stop - start, self.columns[key[1]].columns * width)
        batch = stretches * shape.schedule.batch
        if key == ("stretched",):  # slopes, and where they lead
            rows = 2 * len(self.own) * batch if stretches > 1 else 1
            return torch.empty(rows, width, dtype=torch.float32, device=shape.device)
        size = batch, self.columns[SUMS].columns * width
        return torch.zeros(size, dtype=torch.float32, device=shape.device)

    def _mark(self, name: str, values: dict[Key, Tensor | int], start: int, stop: int) -> None:
        """Mark the places that blocks wait for as empty."""
        rows = values["history", name] if name in self.own else values["rows", name]
        storage = self.columns[name].storage
        whole = storage in (StorageClass.PER_STEP, StorageClass.CARRY_IN)
        self.machine.mark(rows[start:stop] if whole else rows[: stop - start])  # type: ignore[index]

    def grid(self, built: Built) -> tuple[int, int]:
        """Blocks of a launch: those that share the units of a group of rows, and groups at once."""
        layout, shape = built.layout, self.shape
        groups = -(-shape.schedule.batch // layout.rows)
        if layout.kind != "wide":
            return groups, shape.sizes.padded // (layout.units_of_warp * layout.warps)
        blocks = shape.sizes.padded // layout.units
        # One at least: a device that does not start so many blocks says so.
        most = max(1, self.machine.device.multiprocessors // blocks) if built.is_together else 2**15
        return blocks, min(groups, most)

    def _add(self, values: dict[Key, Tensor | int], rows: int) -> None:
        if ("sums",) in values:
            self._add_to(SUMS, values["sums",].sum(0, dtype=torch.float64))  # type: ignore[union-attr]
        if self.bias_columns:
            gates = self.rows["gates"][:rows]
            # Of 16 bits torch adds in float32 as they are; for float64 it would make a copy of them all.
            found = gates.sum(0, dtype=torch.float32 if gates.dtype.itemsize == 2 else torch.float64).double()
            width = self.shape.sizes.padded
            if self.bias_columns != list(range(len(found) // width)):
                found = found.view(-1, width)[self.bias_columns].flatten()
            self._add_to(BIAS_SUMS, found)

    def _add_to(self, name: str, found: Tensor) -> None:
        self.total[name] = self.total[name] + found if name in self.total else found

    def sums(self) -> dict[str, Tensor]:
        for buffer in self.summed:
            if buffer.name not in self.total:
                size = buffer.columns * self.shape.sizes.padded
                self.total[buffer.name] = torch.zeros(size, dtype=torch.float64, device=self.shape.device)
        return self.total

    def release(self) -> None:
        del self.rows, self.weights, self.values, self._values, self.like, self.total


def aligned(given: Tensor) -> Tensor:
    """The same numbers where a kernel can read 16 bytes at once: a view may begin anywhere."""
    return given.clone() if given.data_ptr() % READ else given


def number_of_device(device: torch.device) -> int:
    """What `Tensor.get_device` says of tensors there."""
    return -1 if device.index is None else device.index


def check_devices(
    device: torch.device, number: int, states: Sequence[Tensor], weights: Mapping[str, Tensor]
) -> None:
    """Raise InputError for a state or weight on another GPU than the input, whose memory a kernel cannot read. Calls
    that were decided before come here without another look.
    """
    for state in states:
        if state.get_device() != number:
            raise InputError(
                f"The input is on {device} and a state on {state.device}. Move them to one device."
            )
    for stem, weight in weights.items():
        if weight.get_device() != number:
            raise InputError(
                f"The input is on {device} and {stem} on {weight.device}. Move them to one device."
            )


def padded_gates(weight: Tensor, gates: int, sizes: Sizes) -> Tensor:
    """Rows of gates (gates * H, K) at the distance that they have in memory, (gates * width, K), zero in between."""
    blocks = weight.view(gates, sizes.hidden, -1)
    return F.pad(blocks, (0, 0, 0, sizes.padded - sizes.hidden)).flatten(0, 1)


def _padded(rows: Tensor, width: int) -> Tensor:
    return rows if rows.shape[-1] == width else F.pad(rows, (0, width - rows.shape[-1]))


def _bias_columns(program: Program) -> list[int]:
    """For each column of the sums at biases the column of the gradients at gates that it is the sum of."""
    found: dict[int, int] = {}
    for stage in program.stages:
        columns = {node: slot.column for node, slot in stage.writes if slot.buffer.name == "gates"}
        found |= {s.column: columns[node] for node, s in stage.writes if s.buffer.name == BIAS_SUMS}
    return [found[column] for column in sorted(found)]
