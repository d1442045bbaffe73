"""The arrays of one run of a kernel, as the addresses it takes; and the run, in as many threads as it is worth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.cpu.engine import Kernel
from cellwise.backends.cpu.kernel import ADDRESSES
from cellwise.backends.cpu.scratch import SCRATCH
from cellwise.backends.cpu.threads import row_shares, threads_for, together
from cellwise.backends.cpu.walk import Steps, Walk
from cellwise.plan.program import Array, Place, Width

# Numbers that a core packs in the time that it takes to hand work to another thread.
_PACKED_MEANWHILE = 100_000


class Layout(NamedTuple):
    """Where the arrays of a kernel stand among its pointers, and what is made for every run; for layers of one size."""

    arrays: dict[str, Array]
    places: dict[str, int]  # of the first pointer of each array
    pointers: int  # of all arrays
    made: tuple[Array, ...]  # those that no one gives: rows within a step, and sums
    padded: dict[Width, int]
    work: int  # multiply-adds of a row


@lru_cache(maxsize=256)
def layout_of(kernel: Kernel, lengths: tuple[int, int, int]) -> Layout:
    """The layout of a kernel's arguments, with these D, H and P."""
    width, hidden, projected = lengths
    engine, graph = kernel.engine, kernel.engine.graph
    places, count = {}, 0
    for array in kernel.program.arrays:
        places[array.name] = count
        count += len(ADDRESSES.get(array.place, ("",)))
    return Layout(
        arrays={array.name: array for array in kernel.program.arrays},
        places=places,
        pointers=count,
        made=tuple(each for each in kernel.program.arrays if each.place in (Place.ROWS, Place.SUM)),
        padded={
            Width.INPUT: width,
            Width.HIDDEN: engine.padded(hidden),
            Width.PROJECTED: engine.padded(projected),
        },
        # The pointwise work of a unit costs about as much as this many multiply-adds.
        work=hidden * (len(graph.input_gates) * width + len(graph.state_gates) * (projected or hidden) + 20),
    )


class Arguments:
    """Collects arrays by name, makes the others, and runs the kernel."""

    def __init__(self, kernel: Kernel, steps: Steps, lengths: tuple[int, int, int]) -> None:
        self.kernel, self.steps, self.lengths = kernel, steps, lengths
        self.engine = kernel.engine
        self.layout = layout_of(kernel, lengths)
        self.shares = row_shares(steps.walk, threads_for(steps.walk.rows * self.layout.work))
        self.addresses: list[int | None] = [None] * self.layout.pointers
        self.held: list[Tensor] = []  # what was given stays in memory until the run is over
        self.sums: dict[str, Tensor] = {}
        SCRATCH.begin()

    def scratch(self, rows: int, width: int) -> Tensor:
        """Memory for this run."""
        return SCRATCH.tensor(rows, width, self.engine.dtype)

    def give(self, name: str, tensor: Tensor) -> None:
        assert tensor.is_contiguous(), f"the array {name} must be contiguous"
        self.held.append(tensor)
        self.addresses[self.layout.places[name]] = tensor.data_ptr()

    def give_rows(self, array: Array, rows: Tensor) -> None:
        """Give rows of numbers (..., size); they are copied if the kernel needs them in whole vectors."""
        self.give(array.name, in_vectors(rows, self.layout.padded[array.width]))

    def give_history(
        self, before: Array, after: Array | None, first: Tensor, history: Tensor, walk: Walk
    ) -> None:
        """States of all steps: where each begins (B, size), and the rows of all steps."""
        self._carry(before, after, first, history, walk, "")

    def give_pair(self, before: Array, after: Array, first: Tensor) -> Tensor:
        """States of which only the last matter, from their beginnings (B, size). Returns the two buffers."""
        walk = self.steps.walk
        pair = self.scratch(2 * walk.batch, self.layout.padded[before.width])
        self._carry(before, after, first, pair, walk, "pair_")
        return pair

    def _carry(
        self, before: Array, after: Array | None, first: Tensor, history: Tensor, walk: Walk, kind: str
    ) -> None:
        first = in_vectors(first, self.layout.padded[before.width])
        self.held += (first, history)
        start, at, places = history.data_ptr(), walk.addresses, self.layout.places
        place = places[before.name]
        self.addresses[place : place + 4] = first.data_ptr(), start, at[f"{kind}before"], at["limits"]
        if after is not None:
            place = places[after.name]
            self.addresses[place : place + 2] = start, at[f"{kind}after"]

    def run(self, weights: Mapping[str, Tensor]) -> None:
        """Run all steps."""
        self.prepare(weights)
        self.run_span(0, self.steps.count)

    def prepare(self, weights: Mapping[str, Tensor]) -> None:
        """Pack the weights. Arrays that no one gave are made: rows within a step, and a sum for each thread."""
        dtype, shares = self.engine.dtype, self.shares
        moving = []  # place, where it begins, and bytes from one row of the batch, or one share, to the next
        for array in self.layout.made:
            place, size = self.layout.places[array.name], array.columns * self.layout.padded[array.width]
            if array.place is Place.ROWS:
                start = SCRATCH.address(self.steps.batch * size, dtype)
            else:
                self.sums[array.name] = torch.zeros(len(shares), size, dtype=torch.float64, device="cpu")
                start = self.sums[array.name].data_ptr()
            element_bytes = self.engine.element_bytes if array.place is Place.ROWS else 8
            moving.append((place, start, size * element_bytes, array.place is Place.ROWS))
        packed = pack(
            self.kernel, self.lengths, weights, lambda count: SCRATCH.address(count, dtype), len(shares)
        )
        self._calls: list[tuple[np.ndarray, np.ndarray]] = []
        for number, (first, count) in enumerate(shares):
            for place, start, step, by_row in moving:
                self.addresses[place] = start + step * (first if by_row else number)
            room = SCRATCH.address(self.kernel.vectors * count * self.engine.lanes, dtype)
            self._calls.append(self._numbers(first, count, packed, room))

    def _numbers(self, first: int, count: int, packed: list[int], room: int) -> tuple[np.ndarray, np.ndarray]:
        """What the kernel takes for one share of the rows: its pointers, and sizes for any span."""
        steps, padded = self.steps, self.layout.padded
        resets = steps.resets
        sizes = (
            *(0, 0, *self.lengths, padded[Width.HIDDEN], padded[Width.PROJECTED], first, count),
            *(steps.backwards, resets is not None and steps.reset_first),
            resets is not None and not steps.reset_first,
        )
        reset = 0 if resets is None else resets.data_ptr()
        pointers = [*self.addresses, *packed, room, steps.walk.addresses["offsets"], reset]
        return np.array(pointers, np.int64), np.array(sizes, np.int64)

    def run_span(self, first: int, end: int) -> None:
        """Run the steps from `first` up to `end`."""
        for _, sizes in self._calls:
            sizes[0], sizes[1] = first, end - first
        together(
            [
                partial(self.kernel.call, pointers.ctypes.data, sizes.ctypes.data)
                for pointers, sizes in self._calls
            ]
        )


def pack(
    kernel: Kernel,
    lengths: tuple[int, int, int],
    weights: Mapping[str, Tensor],
    room: Callable[[int], int],
    threads: int = 1,
) -> list[int]:
    """Pack the weights to where `room` gives memory for so many numbers; the addresses of their parts."""
    taken = {
        stem: weight.contiguous() for stem, weight in weights.items() if stem.startswith(("weight_", "bias_"))
    }
    if not taken:
        return []
    engine, packing = kernel.engine, kernel.packing(lengths, tuple(taken))
    start, jobs = room(packing.elements), len(packing.jobs)
    threads = min(threads, 1 + packing.elements // _PACKED_MEANWHILE)
    edges = [packing.placing * i // threads for i in range(threads)] + [packing.placing, jobs]
    if threads == 1:
        del edges[1]
    where = [start, *[weight.data_ptr() for weight in taken.values()]]
    given = [np.array([*each, *where], np.int64) for each in itertools.pairwise(edges)]
    calls = [partial(engine.pack, packing.address, each.ctypes.data) for each in given]
    together(calls[:threads])
    together(calls[threads:])
    return [start + place for place in packing.places]


def in_vectors(rows: Tensor, width: int) -> Tensor:
    """Rows as they are, if they are whole vectors one after the other; else a copy, zeros in the padding."""
    if rows.shape[-1] == width:
        return rows.contiguous()
    padded = rows.new_zeros(*rows.shape[:-1], width)
    padded[..., : rows.shape[-1]] = rows
    return padded
