"""One step at a time: every address known beforehand, of which a step writes two, and calls.

Few rows read weights where they lie (`in_place.py`), so that a step sees whatever was written to them. More rows read
packed ones, and look for changes (docs/decisions/0017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.base import LayerSpec, Stepper
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import Sizes
from cellwise.backends.compiled.memory import Memory
from cellwise.backends.compiled.rows import in_rows
from cellwise.backends.compiled.saved import make_sizes
from cellwise.backends.cpu.blocks import second_level_cache
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.copy_rows import COPY, copy_rows, table_of
from cellwise.backends.cpu.digest import digest
from cellwise.backends.cpu.few_rows import most_in_place
from cellwise.backends.cpu.in_place import can_be_in_place
from cellwise.backends.cpu.launch import PACKED, Packs
from cellwise.backends.cpu.target import Target
from cellwise.plan.buffers import beside_buffer
from cellwise.plan.program import StorageClass, Width

if TYPE_CHECKING:
    from cellwise.backends.cpu.follower import CpuFollower

# Multiply-adds of a step during which other Python threads may as well wait, about 20 us.
_MOMENT = 500_000
# Rows up to which weights are read where they lie, if they fit into the second cache. A step of one or two rows takes
# 0.84 to 1.0 of the time then; of four 0.87 to 1.08; with weights of 2 MiB 0.98 to 1.04, of 8 MiB up to 1.3.
_IN_PLACE = 2


class CpuStepper(Stepper):
    """The layers of a stack for a fixed batch, with states of its own, zero at first."""

    def __init__(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Sequence[Tensor]],
        batch: int,
        watched: Sequence[Tensor],
    ) -> None:
        self._kept = [each.detach() for each in watched]  # so that the memory stays theirs
        reads_in_place = _reads_in_place(kernels, stack, weights, batch, watched)
        self._memory = Memory([] if reads_in_place else self._kept, digest())
        self._layers: list[_Layer] = []
        self._tables: list[Any] = []  # the first link of a step's chain, which looks at the weights
        below, graph, padded = 0, kernels.graph, kernels.padded(stack.hidden_size)
        parts = [beside_buffer(name).name for name in graph.input_parts]
        own = [beside_buffer(name).name for name in graph.asked_inputs]
        own = [name for name in own if name not in parts]
        self._beside = torch.zeros(len(own), batch, padded, dtype=kernels.dtype, device="cpu")
        self._values = [rows[:, : stack.hidden_size] for rows in self._beside]
        beside = {name: (rows.data_ptr(), padded) for name, rows in zip(own, self._beside, strict=True)}
        # Parts of x that equations take as they are: where they lie, if in whole vectors; else in rows of their own.
        self._copied: np.ndarray | None = None
        if parts and padded != stack.hidden_size:
            self._rows_of_x = torch.zeros(len(parts), batch, padded, dtype=kernels.dtype, device="cpu")
            places = [(rows.data_ptr(), padded) for rows in self._rows_of_x]
            sizes = (stack.input_size, batch, stack.hidden_size, padded)
            self._copied = table_of(*((start, padded, 0, *sizes) for start, _ in places))
        else:
            places = [(0, stack.input_size)] * len(parts)
        for number, each in enumerate(weights):
            # Behind the weights there are names of what is given beside x.
            named = dict(zip(kernels.stems[stack.bias], each, strict=False))
            width = stack.input_size if number == 0 else stack.proj_size or stack.hidden_size
            given = beside | dict(zip(parts, places, strict=True))
            layer = _Layer(kernels, stack, named, batch, width, below, given, reads_in_place)
            self._layers.append(layer)
            below = layer.above.data_ptr()
            # A layer above takes one part, the first output.
            places = [(layer.output.data_ptr(), layer.output.shape[1])] * len(parts)
        self._first, self._last = self._layers[0], self._layers[-1]
        self._size, self._batch = stack.proj_size or stack.hidden_size, batch
        compiler: Any = kernels.compiler
        self.target: Target = compiler.target
        self._x, self._y = self._first.x, self._last.y
        # Where the addresses of the parts of x are written, and how many bytes behind its beginning they are.
        size = stack.hidden_size * kernels.dtype.itemsize
        self._parts_of_x = [
            (self._first.beside[name], number * size)
            for number, name in enumerate(parts)
            if self._copied is None and name in self._first.beside
        ]
        if self._copied is not None:
            first = 1 + COPY.index("from")
            self._parts_of_x = [(first + number * len(COPY), number * size) for number in range(len(parts))]
        self._itemsize = kernels.dtype.itemsize
        outputs = 1 + len(kernels.graph.others)
        several = self._last.output.unflatten(1, (outputs, -1))
        self._result = several[..., : self._size]
        # Outputs that are no whole vectors are copied to where the caller wants them.
        self._given: np.ndarray | None = None
        if self._result.shape != several.shape:
            wide, rows = several.shape[2], batch * outputs
            start = self._last.output.data_ptr()
            self._given = table_of((0, self._size, start, wide, rows, self._size, self._size))
            self._y = 1 + COPY.index("to")
        work = sum(weight.numel() for each in weights for weight in each) * batch
        self._digest = np.zeros(1, np.int64)
        self._seen = self._digest.data
        # Two buffers for the states, which change places with every step.
        self._turns = tuple(self._step(turn, work <= _MOMENT) for turn in (0, 1))
        self.turn = 0
        self._parts, self._part = self._memory.parts, 0
        self.reads_all = len(self._parts) == 1
        self._look_at(0)

    def _step(self, turn: int, keeps_lock: bool) -> tuple[Any, Any, Any, Callable[[], None]]:
        """Where the addresses of x, of its parts and of y are written for a step from the one buffer of the states to
        the other, and what runs it: one chain, which first looks at a part of the weights.
        """
        # Of weights that are read in every step this is a look at nothing.
        links: list[tuple[Any, int, int]] = [(digest(), 0, self._digest.ctypes.data)]
        links += self._copies(self._copied)
        for layer in self._layers:
            links.append((layer.call, layer.pointers[turn].ctypes.data, layer.numbers.ctypes.data))
            if layer is not self._last:
                links += self._copies(layer.cut)
        links += self._copies(self._given)
        chain = Chain(links, keeps_lock)
        self._tables.append(chain.links)
        inputs, outputs = (each.pointers[turn] for each in (self._first, self._last))
        parts = inputs if self._copied is None else self._copied
        given = outputs if self._given is None else self._given
        return inputs.data, parts.data, given.data, chain.run

    def _copies(self, table: np.ndarray | None) -> list[tuple[Any, int, int]]:
        if table is None:
            return []
        return [(copy_rows(self._itemsize, self.target), table.ctypes.data, 0)]

    def keep_output(self) -> None:
        """Let the steps by `links` put their output where `output` is."""
        for pointers in self._last.pointers:
            pointers[self._last.y] = self.output.data_ptr()

    def links(self, turn: int) -> tuple[int, list[tuple[Any, int, int]]]:
        """Where the address of x is written for a step from one buffer of the states, and what runs it."""
        links = [
            (layer.call, layer.pointers[turn].ctypes.data, layer.numbers.ctypes.data)
            for layer in self._layers
        ]
        return self._first.pointers[turn][self._x :].ctypes.data, links

    def holds(self) -> bool:
        return not self._memory.has_changed_anywhere()

    def follower(self, table: Tensor, weight: Tensor, most: int) -> CpuFollower | None:
        from cellwise.backends.cpu.follower import CpuFollower

        is_one = self._batch == self._result.shape[1] == 1 and not self._first.beside
        return CpuFollower(self, table, weight, most) if is_one else None

    def _look_at(self, part: int) -> None:
        """Say which part of the weights is looked at from now on."""
        self._part = part if part < len(self._parts) else 0
        table, self._held = self._parts[self._part]
        for links in self._tables:
            links[1] = table

    def step(self, x: Tensor, y: Tensor) -> bool:
        inputs, parts, outputs, run = self._turns[self.turn]
        inputs[self._x] = start = x.data_ptr()
        for place, behind in self._parts_of_x:
            parts[place] = start + behind
        outputs[self._y] = y.data_ptr()
        run()
        if self._seen[0] != self._held:
            return False
        self.turn = 1 - self.turn
        if len(self._parts) > 1:
            self._look_at(self._part + 1)
        return True

    def give(self, beside: Sequence[Any]) -> None:
        for rows, value in zip(self._values, beside, strict=True):
            if isinstance(value, Tensor):
                rows.copy_(value.reshape(self._batch, -1))
            else:
                rows.fill_(value)

    @property
    def output(self) -> Tensor:
        """(B, H or more) where the last layer puts its output if it is given no other place."""
        return self._last.output

    @property
    def states(self) -> tuple[Tensor, ...]:
        """Copies, (L, B, size) for each state."""
        sizes = [self._size, *[self._first.hidden] * (len(self._first.states[0]) - 1)]
        return tuple(
            torch.stack([layer.states[self.turn][place][:, :size] for layer in self._layers])
            for place, size in enumerate(sizes)
        )

    @states.setter
    def states(self, given: Sequence[Tensor]) -> None:
        for place, state in enumerate(given):
            for layer, mine in zip(self._layers, state, strict=True):
                layer.states[self.turn][place][:, : mine.shape[1]] = mine


def _reads_in_place(
    kernels: CellKernels,
    stack: LayerSpec,
    weights: Sequence[Sequence[Tensor]],
    batch: int,
    watched: Sequence[Tensor],
) -> bool:
    """Whether steps read the weights where they lie: of so few rows, and if these are the parameters themselves."""
    kernel: Any = kernels.inference
    places = {each.data_ptr() for each in watched}
    size = min(stack.hidden_size, stack.proj_size or stack.hidden_size)
    return (
        batch <= min(_IN_PLACE, most_in_place(min(stack.input_size, size), size, kernel.lanes))
        and sum(each.nbytes for own in weights for each in own) <= second_level_cache()
        and not (kernels.graph.vectors or kernels.graph.scalars)  # which are copied
        and can_be_in_place(kernel.program)
        and all(each.is_contiguous() and each.data_ptr() in places for own in weights for each in own)
    )


class _Layer:
    """One layer's kernel with its arguments: `pointers` for either turn, of which only x and y change."""

    def __init__(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Mapping[str, Tensor],
        batch: int,
        width: int,
        x: int,
        beside: Mapping[str, tuple[int, int]],
        reads_in_place: bool,
    ) -> None:
        # beside: of what stands beside x, where it begins, and how many numbers its rows are apart.
        kernel: Any = kernels.inference
        kernel = kernel.in_place if reads_in_place else kernel
        self.call = kernel.call
        self.hidden = stack.hidden_size
        sizes = make_sizes(kernels, width, stack.hidden_size, stack.proj_size)
        wide = {Width.HIDDEN: sizes.padded, Width.PROJECTED: sizes.padded_projected, Width.INPUT: width}
        wide |= {Width.ROW: 1, Width.PARTIAL: kernel.lanes}
        count = sizes.outputs * sizes.padded_output
        self.output = torch.zeros(batch, count, dtype=kernels.dtype, device="cpu")
        # The layer above reads rows of the first output, without padding.
        self.above = self.output
        self.cut: np.ndarray | None = None
        if batch > 1 and count != sizes.output:
            self.above = torch.zeros(batch, sizes.output, dtype=kernels.dtype, device="cpu")
            copied = (sizes.output, self.output.data_ptr(), count, batch, sizes.output, sizes.output)
            self.cut = table_of((self.above.data_ptr(), *copied))
        self.states = [
            [
                torch.zeros(batch, wide[before.width], dtype=kernels.dtype, device="cpu")
                for before, _ in kernel.program.states
            ]
            for _ in (0, 1)
        ]
        self._held: list[object] = []
        packed = self._weights(kernel, sizes, weights)
        nothing, offsets = np.zeros(1, np.int64), np.array([0, batch], np.int64)
        forms = {name: np.array([stride, 1], np.int64) for name, (_, stride) in beside.items()}
        room = np.empty(kernel.room_bytes(sizes) * batch, np.uint8)
        rows = {
            buffer.name: torch.empty(
                batch, buffer.columns, wide[buffer.width], dtype=kernels.dtype, device="cpu"
            )
            for buffer in kernel.program.buffers
            if buffer.storage is StorageClass.SCRATCH
        }
        self._held += [nothing, offsets, forms, room, rows]
        own = self._own(kernels, weights, wide)
        pairs = kernel.program.states
        position = {buffer.name: place for place, pair in enumerate(pairs) for buffer in pair}
        self.pointers = []
        self.beside: dict[str, int] = {}  # where among the pointers
        for turn in (0, 1):
            taken: list[int] = []
            for buffer in kernel.program.buffers:
                if buffer.name == "x":
                    self.x = len(taken)
                    taken.append(x)
                elif buffer.name == "output":
                    self.y = len(taken)
                    taken.append(self.output.data_ptr())
                elif buffer.storage is StorageClass.CARRY_IN:
                    here = self.states[turn][position[buffer.name]].data_ptr()
                    taken += [here, here, nothing.ctypes.data, nothing.ctypes.data]
                elif buffer.storage is StorageClass.CARRY_OUT:
                    there = self.states[1 - turn][position[buffer.name]].data_ptr()
                    taken += [there, nothing.ctypes.data]
                elif buffer.storage is StorageClass.SCRATCH:
                    taken.append(rows[buffer.name].data_ptr())
                elif buffer.storage is StorageClass.BESIDE:
                    self.beside[buffer.name] = len(taken)
                    taken += [beside[buffer.name][0], forms[buffer.name].ctypes.data]
                else:
                    taken.append(own[buffer.name])
            taken += [*packed, room.ctypes.data, offsets.ctypes.data, 0]
            if all(buffer.name != "x" for buffer in kernel.program.buffers):
                self.x = len(taken)  # where no kernel looks
                taken.append(x)
            self.pointers.append(np.array(taken, np.int64))
        numbers = (0, 1, *sizes[:3], sizes.padded, sizes.padded_projected, 0, batch, 0, 0, 0)
        self.numbers = np.array(numbers, np.int64)

    def _weights(self, kernel: Any, sizes: Sizes, weights: Mapping[str, Tensor]) -> list[int]:
        """The addresses of weights where they lie; or of their parts in memory of their own, at a multiple of 64 bytes,
        where they are packed.
        """
        given = {stem: each.detach() for stem, each in weights.items() if stem.startswith(PACKED)}
        if not given:
            return []
        packing = kernel.packing(sizes, tuple(given))
        if kernel.reads_in_place:
            places = [each.data_ptr() for each in given.values()]
            return [0 if number is None else places[number] for number in packing.as_they_are]
        memory = np.empty(packing.elements * kernel.dtype.itemsize + 64, np.uint8)
        self._held.append(memory)
        start: int = memory.ctypes.data + -memory.ctypes.data % 64
        Packs(kernel, packing, len(given), 1).run(start, [each.contiguous() for each in given.values()])
        return [start + place for place in packing.places]

    def _own(
        self, kernels: CellKernels, weights: Mapping[str, Tensor], wide: Mapping[Width, int]
    ) -> dict[str, int]:
        found = {}
        for name in (*kernels.graph.vectors, *kernels.graph.scalars):
            value = weights[name].detach().clone()
            value = value if value.dim() == 0 else in_rows(value, wide[Width.HIDDEN])
            self._held.append(value)
            found[f"own {name}"] = value.data_ptr()
        return found
