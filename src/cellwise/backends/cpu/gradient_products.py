"""The gradients of weights and of the input for a span of steps, block by block of its rows.

What a backward kernel leaves, the gradients at gates, is wanted three times: beside the states before each step, beside
the inputs, and by the weights of the input. The first two are made of a block of rows while it is in the cache of the
second level, the third of some blocks at once, for each of which weights are brought into order; all in one call of
`block_products`. Threads share the rows of each result, and a block is as long with any number of them, so neither do
its bits depend on it.

What this gains over torch's products, and what was tried, is in docs/decisions/0061 and 0077.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.compiled.compiler import GradientProducts
from cellwise.backends.compiled.gradients import BlockSlice, RowBlocks
from cellwise.backends.compiled.scratch import SCRATCH
from cellwise.backends.cpu.block_products import CHUNK, JOB, block_products, panel_vectors
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.team import Share
from cellwise.backends.cpu.threads import threads_for, together

# Bytes of a column of a block (128 rows of float32), and gates that are brought into order at once: together a quarter
# of a second cache of 1 MiB. Numbers of an operand of the gradient at x at once. Blocks of 96 to 256 rows take the same
# time within a tenth; no sum in a register has more than 128 terms.
_BLOCK_BYTES, _SLAB, RUN = 512, 512, 128
# The gradient at x is made of so many blocks at once. A panel of weights is brought into order for each, which took 9 %
# of the time for one block and takes 2 for three (LSTM, 100,64,256,256); with six it is no less.
_INPUT_BLOCKS = 3
# Gradients of fewer columns are made turned, with the gates along the vectors.
_NARROW = 16
# So many rows are added to one sum block by block; its error grows with their number.
_LONG = 2**15
_ALIGNED = 64
_COLUMN = {name.replace(" ", "_"): place for place, name in enumerate(JOB)}


class Product(NamedTuple):
    """What `out` becomes: gates^T operand of the rows from `first` to `end`; if `by_rows`, gates times a weight.

    columns: of the gates, from and to. operand_row, out_row: how many numbers apart rows are. width: of a row of `out`.
    turned: whether `out` is the transpose, of so many rows.
    """

    columns: tuple[int, int]
    operand_row: int
    out_row: int
    width: int
    add: bool
    first: int
    end: int
    by_rows: bool = False
    turned: bool = False

    @property
    def work(self) -> int:
        return (self.columns[1] - self.columns[0]) * self.width * (self.end - self.first)


class CpuGradientProducts(GradientProducts):
    """Collects the products of a span, and makes them."""

    def __init__(self, dtype: torch.dtype, target: Target) -> None:
        self._bytes = dtype.itemsize
        self._call = block_products(self._bytes, target)
        self._panel = panel_bytes(self._bytes, target)
        self._room: tuple[int, int] | None = None
        self._clear()

    def _clear(self) -> None:
        # By gates: these, the products, and of each its operand and what it becomes.
        self._asked: dict[int, tuple[Tensor, list[Product], list[tuple[Tensor, Tensor]]]] = {}
        self._turned: list[tuple[Tensor, Tensor, bool]] = []

    def _ask(self, gates: Tensor, product: Product, operand: Tensor, out: Tensor) -> None:
        _, products, tensors = self._asked.setdefault(gates.data_ptr(), (gates, [], []))
        products.append(product)
        tensors.append((operand, out))

    def at_weight(
        self, gates: Tensor, runs: Sequence[BlockSlice], operand: RowBlocks, out: Tensor, add: bool
    ) -> None:
        for run in runs:
            target, adds, columns = out[run.rows], add or run.add, (run.columns.start, run.columns.stop)
            height, width = target.shape
            turned = width < _NARROW
            if turned:
                room = target.new_empty(width, height)
                self._turned.append((target, room, adds))
                target, adds = room, False
            # Blocks of rows are made in their order: the first one writes, others add.
            pieces = sorted(operand, key=lambda piece: piece[0].indices(len(gates)))
            for number, (steps, matrix) in enumerate(pieces):
                matrix = matrix if matrix.stride(1) == 1 else matrix.contiguous()
                first, end, _ = steps.indices(len(gates))
                rows = matrix.stride(0), target.stride(0), width, adds or number > 0, first, end
                self._ask(gates, Product(columns, *rows, turned=turned), matrix, target)

    def at_operand(self, gates: Tensor, runs: Sequence[BlockSlice], weight: Tensor, out: Tensor) -> None:
        weight, width = weight.contiguous(), out.shape[1]
        for number, run in enumerate(runs):
            columns = run.columns.start, run.columns.stop
            rows = weight.stride(0), out.stride(0), width, number > 0, 0, len(gates)
            self._ask(gates, Product(columns, *rows, by_rows=True), weight[run.rows], out)

    def run(self) -> None:
        for gates, products, tensors in self._asked.values():
            rows = len(gates)
            self._run_part(gates, products, tensors, (0, min(rows, _LONG)))
            for first in range(_LONG, rows, _LONG):
                own, sums = _apart(products, tensors)
                later = [each._replace(add=each.add or not each.by_rows) for each in products]
                self._run_part(gates, later, own, (first, min(rows, first + _LONG)))
                for out, found in sums:
                    out += found
        for target, room, adds in self._turned:
            if adds:
                target += room.t()
            else:
                target.copy_(room.t())
        self._clear()

    def _run_part(
        self,
        gates: Tensor,
        products: Sequence[Product],
        tensors: Sequence[tuple[Tensor, Tensor]],
        part: tuple[int, int],
    ) -> None:
        threads = threads_for(sum([each.work for each in products]))
        layout = _layout(
            tuple(products), part, gates.stride(0), gates.shape[1], self._bytes, threads, self._panel
        )
        if self._room is None or self._room[1] < layout.room:
            self._room = SCRATCH.address(layout.room), layout.room
        addresses = [each.data_ptr() for pair in tensors for each in pair]
        bases = np.array([0, gates.data_ptr(), self._room[0], *addresses], np.int64)
        tables = [words + bases[which] for words, which in layout.tables]
        shares = [Share(self._call, table.ctypes.data, 0) for table in tables]
        together(shares)


def _apart(
    products: Sequence[Product], tensors: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Operands with sums of their own, and where these are to be added."""
    sums: dict[int, tuple[Tensor, Tensor]] = {}
    found = []
    for product, (operand, out) in zip(products, tensors, strict=True):
        if not product.by_rows:
            out = sums.setdefault(out.data_ptr(), (out, torch.zeros_like(out)))[1]
        found.append((operand, out))
    return found, list(sums.values())


def jobs_of_one(
    products: Sequence[Product], rows: int, row: int, element_bytes: int, target: Target
) -> tuple[np.ndarray, np.ndarray, int]:
    """The jobs of products of all rows in one thread, (jobs, words); what is to be added to each, as `_Layout` has it;
    and the bytes of the room. row: of the gates.
    """
    layout = _layout(
        tuple(products), (0, rows), row, row, element_bytes, 1, panel_bytes(element_bytes, target)
    )
    ((words, which),) = layout.tables
    return words[1:].reshape(-1, len(JOB)), which[1:].reshape(-1, len(JOB)), layout.room


def panel_bytes(element_bytes: int, target: Target) -> int:
    """Of the room for a panel."""
    return panel_vectors(target) * target.vector_bytes * max(_BLOCK_BYTES // element_bytes, RUN)


class _Layout(NamedTuple):
    """For each thread the words of its table, and to each the address that is to be added, by its number: of nothing,
    the gates, the room, then of each product its operand and what it becomes. room: bytes of it."""

    tables: tuple[tuple[np.ndarray, np.ndarray], ...]
    room: int


_NOTHING, _GATES, _ROOM, _FIRST = range(4)


@lru_cache(maxsize=64)
def _layout(
    products: tuple[Product, ...],
    part: tuple[int, int],
    row: int,
    columns: int,
    element_bytes: int,
    threads: int,
    panel: int,
) -> _Layout:
    """What follows from sizes alone. row: of the gates, of which so many `columns` are there."""
    slab = min(_SLAB, -(-columns // (threads * CHUNK)) * CHUNK)
    rows = _BLOCK_BYTES // element_bytes
    chunks = slab * rows * element_bytes
    size = -(-(2 * chunks + panel) // _ALIGNED) * _ALIGNED
    starts = range(0, columns, slab)
    tables = []
    for thread in range(threads):
        slabs = [(start, min(columns, start + slab)) for start in starts[thread::threads]]
        room = (thread * size, thread * size + chunks, thread * size + 2 * chunks)
        tables.append(_Jobs(products, row, rows, element_bytes, slabs, (thread, threads), room).words(part))
    return _Layout(tuple(tables), threads * size)


class _Jobs:
    """Writes the jobs of one thread, which has these slabs of gates and its share of the rows of the input's gradient.

    room: where in the room there is some for chunks of a slab, for those of one product, and for a panel.
    """

    def __init__(
        self,
        products: Sequence[Product],
        row: int,
        rows: int,
        element_bytes: int,
        slabs: Sequence[tuple[int, int]],
        share: tuple[int, int],
        room: tuple[int, int, int],
    ) -> None:
        self._products = list(enumerate(products))
        self._row, self._rows, self._bytes = row, rows, element_bytes
        self._slabs, self._share = slabs, share
        self._chunks, self._own_chunks, self._panel = room

    def words(self, part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The table: segment by segment of rows that have the same products, in blocks, and slab by slab of gates."""
        edges = {*part}
        edges |= {
            edge for _, each in self._products for edge in (each.first, each.end) if part[0] < edge < part[1]
        }
        found = [np.zeros((2, 1), np.int64)]
        for first, end in itertools.pairwise(sorted(edges)):
            for rows, jobs in ((self._rows, self._of_weights), (_INPUT_BLOCKS * self._rows, self._of_inputs)):
                count = -(-(end - first) // rows)
                at = first + (end - first) * np.arange(count + 1) // count
                each = list(jobs(at[:-1], np.diff(at)))
                if each:
                    found.append(np.stack(each, axis=2).reshape(2, -1))
        words, which = np.concatenate(found, axis=1)
        words[0] = (len(words) - 1) // len(JOB)
        return words, which.astype(np.int32)

    def _here(self, at: np.ndarray, by_rows: bool) -> list[tuple[int, Product]]:
        return [
            (number, each)
            for number, each in self._products
            if each.by_rows is by_rows and each.first <= at[0] < each.end
        ]

    def _of_weights(self, at: np.ndarray, counts: np.ndarray) -> Iterable[np.ndarray]:
        """Each job for all blocks, which begin `at` these rows and have so many: (2, blocks, words)."""
        here = self._here(at, by_rows=False)
        for start, end in self._slabs:
            if any(not each.turned for _, each in here):
                yield self._job(
                    at, left=self._gates(at, start), left_n=self._row, left_i=1, n=counts, height=end - start,
                    chunks=(_ROOM, self._chunks), fills=1,
                )  # fmt: skip
            for number, each in here:
                low, high = max(start, each.columns[0]), min(end, each.columns[1])
                if low < high:
                    by_sums = self._turned if each.turned else self._by_sums
                    yield by_sums(number, each, at, counts, low, high, start)

    def _job(self, at: np.ndarray, **words: Any) -> np.ndarray:
        """A word is a number for all blocks or one for each, or an address: which, and so many bytes behind it."""
        job = np.zeros((2, len(at), len(JOB)), np.int64)
        for name, value in words.items():
            which, value = value if isinstance(value, tuple) else (_NOTHING, value)
            job[0, :, _COLUMN[name]], job[1, :, _COLUMN[name]] = value, which
        return job

    def _gates(self, rows: np.ndarray, column: int) -> tuple[int, np.ndarray]:
        return _GATES, self._bytes * (rows * self._row + column)

    def _operand(self, number: int, each: Product, at: np.ndarray) -> tuple[int, np.ndarray]:
        return _FIRST + 2 * number, self._bytes * (at - each.first) * each.operand_row

    def _out(self, number: int, start: int | np.ndarray) -> tuple[int, int | np.ndarray]:
        return _FIRST + 2 * number + 1, self._bytes * start

    def _by_sums(
        self, number: int, each: Product, at: np.ndarray, counts: np.ndarray, low: int, high: int, slab: int
    ) -> np.ndarray:
        """Rows of a weight's gradient, from the gates of these columns."""
        shared = (low - slab) % CHUNK == 0
        chunks = self._chunks + self._bytes * (low - slab) * counts if shared else self._own_chunks
        return self._job(
            at, left=self._gates(at, low), left_n=self._row, left_i=1, right=self._operand(number, each, at),
            right_row=each.operand_row, n=counts, height=high - low, width=each.width, out_row=each.out_row,
            out=self._out(number, each.out_row * (low - each.columns[0])), add=(at > each.first) | each.add,
            chunks=(_ROOM, chunks), fills=not shared, panel=(_ROOM, self._panel),
        )  # fmt: skip

    def _turned(
        self, number: int, each: Product, at: np.ndarray, counts: np.ndarray, low: int, high: int, slab: int
    ) -> np.ndarray:
        return self._job(
            at, left=self._operand(number, each, at), left_n=each.operand_row, left_i=1, right=self._gates(at, low),
            right_row=self._row, n=counts, height=each.width, width=high - low, out_row=each.out_row,
            out=self._out(number, low - each.columns[0]), add=(at > each.first) | each.add,
        )  # fmt: skip

    def _of_inputs(self, at: np.ndarray, counts: np.ndarray) -> Iterable[np.ndarray]:
        """The same of the rows of the input's gradient: a thread's share of each block."""
        thread, threads = self._share
        first, end = counts * thread // threads, counts * (thread + 1) // threads
        for number, each in self._here(at, by_rows=True):
            start, stop = each.columns
            for k in range(0, stop - start, RUN):
                yield self._job(
                    at, left=self._gates(at + first, start + k), left_n=1, left_i=self._row,
                    right=(_FIRST + 2 * number, self._bytes * k * each.operand_row), right_row=each.operand_row,
                    n=min(RUN, stop - start - k), out=self._out(number, (at + first) * each.out_row),
                    out_row=each.out_row, height=end - first, width=each.width, add=each.add or k > 0,
                    panel=(_ROOM, self._panel),
                )  # fmt: skip
