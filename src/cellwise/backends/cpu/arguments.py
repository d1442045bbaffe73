"""The arrays of one run of a kernel, as the addresses it takes; and the run, in as many threads as it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.cpu.engine import NUMPY, Kernel
from cellwise.backends.cpu.scratch import SCRATCH
from cellwise.backends.cpu.threads import Steps, row_shares, threads_for, together
from cellwise.plan.program import Array, Place, Width

# Numbers that a core packs in the time that it takes to hand work to another thread.
_PACKED_MEANWHILE = 100_000


class Arguments:
    """Collects arrays by name, makes the others, and runs the kernel."""

    def __init__(self, kernel: Kernel, steps: Steps, lengths: tuple[int, int, int]) -> None:
        self.kernel, self.steps, self.lengths = kernel, steps, lengths
        self.engine = kernel.engine
        width, hidden, projected = lengths
        self.padded = {
            Width.INPUT: width,
            Width.HIDDEN: self.engine.padded(hidden),
            Width.PROJECTED: self.engine.padded(projected),
        }
        graph = self.engine.graph
        # The pointwise work of a unit costs about as much as this many multiply-adds.
        work = hidden * (len(graph.input_gates) * width + len(graph.state_gates) * (projected or hidden) + 20)
        self.shares = row_shares(steps, threads_for(int(steps.offsets[-1]) * work))
        self.arrays: dict[str, Tensor] = {}
        SCRATCH.begin()

    def give(self, name: str, tensor: Tensor) -> None:
        assert tensor.is_contiguous(), f"the array {name} must be contiguous"
        self.arrays[name] = tensor

    def scratch(self, *shape: int) -> Tensor:
        """Memory for this run."""
        return SCRATCH.tensor(*shape, dtype=self.engine.dtype)

    def run(self, weights: Mapping[str, Tensor]) -> None:
        """Pack the weights and run. Arrays that no one gave are made: rows within a step, and a sum for each thread."""
        for array in self.kernel.program.arrays:
            if array.name not in self.arrays:
                self.arrays[array.name] = self._made(array)
        packed = self._packed(weights)
        together([partial(self._call, number, packed) for number in range(len(self.shares))])

    def _made(self, array: Array) -> Tensor:
        width = self.padded[array.width]
        if array.place is Place.ROWS:
            return self.scratch(self.steps.batch, array.columns, width)
        if array.place is Place.SUM:
            return torch.zeros(len(self.shares), array.columns, width, dtype=self.engine.dtype)
        raise KeyError(array.name)

    def _packed(self, weights: Mapping[str, Tensor]) -> list[int]:
        """Pack the weights; the addresses of their parts."""
        stems = tuple(stem for stem in weights if stem.startswith(("weight_", "bias_")))
        if not stems:
            return []
        weights = {stem: weights[stem].contiguous() for stem in stems}
        packing = self.kernel.packing(self.lengths, stems)
        packed = SCRATCH.take(packing.elements, NUMPY[self.engine.dtype])
        jobs = packing.addressed(packed.ctypes.data, weights)
        threads = min(len(self.shares), 1 + packing.elements // _PACKED_MEANWHILE)
        edges = [len(jobs) * i // threads for i in range(threads + 1)]
        ranges = [np.array(edges[i : i + 2], np.int64) for i in range(threads)]
        together([partial(self.engine.pack, jobs.ctypes.data, each.ctypes.data) for each in ranges])
        return (packed.ctypes.data + packing.places * packed.itemsize).tolist()

    def _call(self, number: int, packed: list[int]) -> None:
        first, rows = self.shares[number]
        steps, width = self.steps, self.engine.lanes
        pointers = []
        for array in self.kernel.program.arrays:
            tensor = self.arrays[array.name]
            if array.place is Place.ROWS:
                tensor = tensor[first:]
            elif array.place is Place.SUM:
                tensor = tensor[number]
            pointers.append(tensor.data_ptr())
        room = np.empty(self.kernel.vectors * rows * width, NUMPY[self.engine.dtype])
        resets = steps.resets
        pointers += packed
        pointers += [room.ctypes.data, steps.offsets.data_ptr(), 0 if resets is None else resets.data_ptr()]
        flags = (
            steps.backwards,
            resets is not None and steps.reset_first,
            resets is not None and not steps.reset_first,
        )
        padded = (self.padded[Width.HIDDEN], self.padded[Width.PROJECTED])
        numbers = (steps.count, *self.lengths, *padded, first, rows, *map(int, flags))
        taken, sizes = np.array(pointers, np.int64), np.array(numbers, np.int64)
        self.kernel.call(taken.ctypes.data, sizes.ctypes.data)
