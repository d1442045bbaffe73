"""The arrays of one run of a kernel, as the addresses it takes; and the run, in as many threads as it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.cpu.engine import NUMPY, Kernel
from cellwise.backends.cpu.scratch import SCRATCH
from cellwise.backends.cpu.threads import row_shares, threads_for, together
from cellwise.backends.cpu.walk import Steps, Walk
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
        self.shares = row_shares(steps.walk, threads_for(steps.walk.rows * work))
        self.addresses: dict[str, list[int]] = {}
        self.held: list[Tensor] = []  # what was given stays in memory until the run is over
        self.sums: dict[str, Tensor] = {}
        SCRATCH.begin()

    def scratch(self, *shape: int) -> Tensor:
        """Memory for this run."""
        return SCRATCH.tensor(*shape, dtype=self.engine.dtype)

    def give(self, name: str, tensor: Tensor) -> None:
        assert tensor.is_contiguous(), f"the array {name} must be contiguous"
        self.held.append(tensor)
        self.addresses[name] = [tensor.data_ptr()]

    def give_rows(self, array: Array, rows: Tensor) -> Tensor:
        """Give rows of numbers (..., size); they are copied if the kernel needs them in whole vectors."""
        rows = in_vectors(rows, self.padded[array.width])
        self.give(array.name, rows)
        return rows

    def give_history(
        self, before: Array, after: Array | None, first: Tensor, history: Tensor, walk: Walk
    ) -> None:
        """States of all steps: where each begins (B, size), and the rows of all steps."""
        self._carry(before, after, first, history, walk, walk.before, walk.after)

    def give_pair(self, before: Array, after: Array, first: Tensor) -> Tensor:
        """States of which only the last matter, from their beginnings (B, size). Returns the two buffers."""
        walk = self.steps.walk
        pair = self.scratch(2 * walk.batch, self.padded[before.width])
        self._carry(before, after, first, pair, walk, walk.pair_before, walk.pair_after)
        return pair

    def _carry(
        self,
        before: Array,
        after: Array | None,
        first: Tensor,
        history: Tensor,
        walk: Walk,
        rows_before: np.ndarray,
        rows_after: np.ndarray,
    ) -> None:
        first = in_vectors(first, self.padded[before.width])
        self.held += [first, history]
        start, limits = history.data_ptr(), walk.limits.ctypes.data
        self.addresses[before.name] = [first.data_ptr(), start, rows_before.ctypes.data, limits]
        if after is not None:
            self.addresses[after.name] = [start, rows_after.ctypes.data]

    def run(self, weights: Mapping[str, Tensor]) -> None:
        """Run all steps."""
        self.prepare(weights)
        self.run_span(0, self.steps.count)

    def prepare(self, weights: Mapping[str, Tensor]) -> None:
        """Pack the weights. Arrays that no one gave are made: rows within a step, and a sum for each thread."""
        rows: dict[str, Tensor] = {}
        for array in self.kernel.program.arrays:
            if array.name not in self.addresses:
                width = self.padded[array.width]
                if array.place is Place.ROWS:
                    rows[array.name] = self.scratch(self.steps.batch, array.columns, width)
                elif array.place is Place.SUM:
                    shape = (len(self.shares), array.columns, width)
                    self.sums[array.name] = torch.zeros(shape, dtype=self.engine.dtype)
                else:
                    raise KeyError(array.name)
        packed = self._packed(weights)
        self._pointers = [self._pointers_of(number, rows, packed) for number in range(len(self.shares))]

    def run_span(self, first: int, end: int) -> None:
        """Run the steps from `first` up to `end`."""
        together([partial(self._call, number, first, end) for number in range(len(self.shares))])

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
        edges = [packing.placing * i // threads for i in range(threads + 1)]
        if threads == 1:
            edges[1] = len(jobs)
        ranges = [np.array(edges[i : i + 2], np.int64) for i in range(threads)]
        together([partial(self.engine.pack, jobs.ctypes.data, each.ctypes.data) for each in ranges])
        if edges[-1] < len(jobs):
            last = np.array([edges[-1], len(jobs)], np.int64)
            self.engine.pack(jobs.ctypes.data, last.ctypes.data)
        return (packed.ctypes.data + packing.places * packed.itemsize).tolist()

    def _pointers_of(self, number: int, rows: dict[str, Tensor], packed: list[int]) -> np.ndarray:
        """What the kernel takes for one share of the rows."""
        first, count = self.shares[number]
        pointers: list[int] = []
        for array in self.kernel.program.arrays:
            if array.place is Place.ROWS:
                pointers.append(rows[array.name][first:].data_ptr())
            elif array.place is Place.SUM:
                pointers.append(self.sums[array.name][number].data_ptr())
            else:
                pointers += self.addresses[array.name]
        room = SCRATCH.take(self.kernel.vectors * count * self.engine.lanes, NUMPY[self.engine.dtype])
        resets = self.steps.resets
        pointers += packed
        pointers += [
            room.ctypes.data,
            self.steps.walk.offsets.ctypes.data,
            0 if resets is None else resets.data_ptr(),
        ]
        return np.array(pointers, np.int64)

    def _call(self, number: int, first: int, end: int) -> None:
        """Run steps for one share of the rows."""
        steps = self.steps
        flags = (
            steps.backwards,
            steps.resets is not None and steps.reset_first,
            steps.resets is not None and not steps.reset_first,
        )
        padded = (self.padded[Width.HIDDEN], self.padded[Width.PROJECTED])
        numbers = (first, end - first, *self.lengths, *padded, *self.shares[number], *map(int, flags))
        sizes = np.array(numbers, np.int64)
        self.kernel.call(self._pointers[number].ctypes.data, sizes.ctypes.data)


def in_vectors(rows: Tensor, width: int) -> Tensor:
    """Rows as they are, if they are whole vectors one after the other; else a copy, zeros in the padding."""
    if rows.shape[-1] == width:
        return rows.contiguous()
    padded = rows.new_zeros(*rows.shape[:-1], width)
    padded[..., : rows.shape[-1]] = rows
    return padded
