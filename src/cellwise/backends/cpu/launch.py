"""A kernel's runs on batches of one form: the pointers that it takes, with all of them filled in that never change."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from cellwise.backends.cpu.arguments import layout_of
from cellwise.backends.cpu.engine import Kernel
from cellwise.backends.cpu.scratch import SCRATCH
from cellwise.backends.cpu.walk import Steps
from cellwise.plan.program import Place, Width

_ALIGNED = 64
# Memory for runs moves when it grows, and each thread has its own: pointers for so many places are remembered.
_MOST_PLACES = 8


class Zeros:
    """Memory that holds zeros, and that kernels only read: initial states and gradients that nobody gave."""

    def __init__(self) -> None:
        self._blocks = [np.zeros(0, np.uint8)]  # an address that was given stays good

    def address(self, size: int) -> int:
        """Where there are at least so many bytes of it, at a multiple of 64."""
        if len(self._blocks[-1]) < size + _ALIGNED:
            self._blocks.append(np.zeros(2 * size + _ALIGNED, np.uint8))
        start: int = self._blocks[-1].ctypes.data
        return start + -start % _ALIGNED


ZEROS = Zeros()


class Launch:
    """A kernel on the same steps, sizes and stems every time, by one thread and in one span.

    `slots` has the place of each array's first pointer. Packed weights, rows within a step and, if `pairs`, each
    state's pair of buffers lie in memory for runs. A run is `begin`, the addresses of its own, and `run`.
    """

    def __init__(
        self, kernel: Kernel, steps: Steps, lengths: tuple[int, int, int], stems: Sequence[str], pairs: bool
    ) -> None:
        self.kernel, self.steps = kernel, steps
        engine, layout = kernel.engine, layout_of(kernel, lengths)
        self.slots, self.arrays = layout.places, layout.arrays
        self.bytes = 0  # of memory for runs
        self._engine, self._relative, self._fixed = engine, list[tuple[int, int]](), [0] * layout.pointers
        for array in layout.arrays.values():
            if array.place is Place.ROWS:
                size = steps.batch * array.columns * layout.padded[array.width]
                self._relative.append((self.slots[array.name], self._take(size)))
        self.pairs: dict[str, int] = {}  # where a state's two buffers begin, in bytes
        for before, after in kernel.program.states if pairs else ():
            self.pairs[before.name] = start = self._take(2 * steps.batch * layout.padded[before.width])
            self._relative += [(self.slots[before.name] + 1, start), (self.slots[after.name], start)]
        self._plan_packing(lengths, tuple(stem for stem in stems if stem.startswith(("weight_", "bias_"))))
        room = self._take(kernel.vectors * steps.batch * engine.lanes)
        self._relative.append((len(self._fixed), room))
        self._fixed += [0, steps.walk.addresses["offsets"], 0]  # room, offsets, no resets
        sizes = (0, steps.count, *lengths, layout.padded[Width.HIDDEN], layout.padded[Width.PROJECTED])
        numbers = (*sizes, 0, steps.batch, steps.backwards, 0, 0)
        self._sizes = struct.pack(f"{len(numbers)}q", *numbers)
        self._pointers = struct.Struct(f"{len(self._fixed)}q").pack
        self._placed: dict[int, list[int]] = {}

    def _plan_packing(self, lengths: tuple[int, int, int], stems: tuple[str, ...]) -> None:
        self._packed, self._start = len(stems), self.bytes
        self._jobs = self._count = 0
        self._given = struct.Struct(f"{3 + len(stems)}q").pack
        if stems:
            packing = self.kernel.packing(lengths, stems)
            self._take(packing.elements)
            self._jobs, self._count = packing.address, len(packing.jobs)
            for place in packing.places:
                self._relative.append((len(self._fixed), self._start + place))
                self._fixed.append(0)

    def _take(self, count: int) -> int:
        """Room for so many numbers in memory for runs; the bytes before it."""
        start = self.bytes
        self.bytes += -(-count * self._engine.element_bytes // _ALIGNED) * _ALIGNED
        return start

    def fix(self, slot: int, *addresses: int) -> None:
        """Set pointers that are the same in every run, before the first."""
        self._fixed[slot : slot + len(addresses)] = addresses

    def begin(self) -> tuple[list[int], int]:
        """The pointers of a run that begins now, to be filled in, and where its memory is."""
        engine = self._engine
        SCRATCH.begin()
        base = SCRATCH.address(self.bytes // engine.element_bytes, engine.dtype)
        known = self._placed.get(base)
        if known is None:
            known = self._fixed.copy()
            for slot, start in self._relative:
                known[slot] = base + start
            if len(self._placed) >= _MOST_PLACES:
                self._placed.clear()
            self._placed[base] = known
        return known.copy(), base

    def run(self, pointers: list[int], weights: Sequence[Tensor], base: int) -> None:
        """Pack the weights, given in the order of the stems, and run all steps."""
        if self._packed:
            addresses = [weight.data_ptr() for weight in weights[: self._packed]]
            self._engine.pack(self._jobs, self._given(0, self._count, base + self._start, *addresses))
        self.kernel.call(self._pointers(*pointers), self._sizes)
