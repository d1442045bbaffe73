"""What is done in a chain beside its kernel, as tables of jobs, in which addresses are names of tensors at first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cellwise.backends.cpu.block_products import JOB
from cellwise.backends.cpu.copy_rows import COPY
from cellwise.backends.cpu.masks import MULTIPLY
from cellwise.backends.cpu.small_products import KINDS, WORD
from cellwise.backends.cpu.step_rows import BEFORE, END, LAY_OUT, TIMES


class Count(NamedTuple):
    """How many rows there are where each call says that, as the word of this name; at most so many."""

    name: str
    most: int

    @property
    def word(self) -> tuple[str, int]:
        """For a job, which is given it as it is given an address."""
        return self.name, 0


Rows = int | Count


def most_of(rows: Rows) -> int:
    return rows.most if isinstance(rows, Count) else rows


def word_of_rows(rows: Rows) -> int | tuple[str, int]:
    return rows.word if isinstance(rows, Count) else rows


class Table:
    """Jobs of some kinds as a table of words, and which of these are addresses in which tensor.

    kinds: the names of the words of a job. Numbers of jobs stand first, then those of each kind.
    """

    kinds: tuple[tuple[str, ...], ...]

    def __init__(self, element_bytes: int) -> None:
        self.bytes = element_bytes
        self.jobs: tuple[list[list[int]], ...] = tuple([] for _ in self.kinds)
        self._addresses: list[tuple[int, int, int, str, int]] = []  # kind, job, column, tensor, bytes

    def add(self, kind: int, words: Iterable[int | tuple[str, int]]) -> None:
        """A job; an address is a tensor and how many bytes behind its beginning."""
        job = []
        for column, word in enumerate(words):
            if isinstance(word, tuple):
                self._addresses.append((kind, len(self.jobs[kind]), column, *word))
                word = 0
            job.append(word)
        self.jobs[kind].append(job)

    def __bool__(self) -> bool:
        return any(self.jobs)

    def table(self) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
        """The words, and of each address the tensor, its index among the words, and bytes behind the beginning."""
        words = [len(each) for each in self.jobs]
        starts = []
        for each in self.jobs:
            starts.append(len(words))
            words += [word for job in each for word in job]
        found = [
            (name, starts[kind] + job * len(self.kinds[kind]) + column, behind)
            for kind, job, column, name, behind in self._addresses
        ]
        return np.array(words, np.int64), found


class Copies(Table):
    """The table of `copy_rows`."""

    kinds = (COPY,)

    def copy(
        self,
        to: tuple[str, int],
        to_row: int,
        source: tuple[str, int],
        source_row: int,
        rows: Rows,
        size: int,
        width: int = 0,
    ) -> None:
        """Rows of `size` numbers, zeros behind them up to `width`; tensors and starts as of a product."""
        to, source = ((name, start * self.bytes) for name, start in (to, source))
        self.add(0, (to, to_row, source, source_row, word_of_rows(rows), size, width or size))


class Products(Table):
    """The table of `block_products`."""

    kinds = (JOB,)
    room = 0  # bytes that they need

    @staticmethod
    def of(
        element_bytes: int, words: np.ndarray, which: np.ndarray, names: Sequence[tuple[str, int]], room: int
    ) -> Products:
        """Those of a table (jobs, words); to each word is added `which` of these names, the first being 1."""
        found = Products(element_bytes)
        found.room = room
        for job, places in zip(words.tolist(), which.tolist(), strict=True):
            found.add(0, [
                (names[place - 1][0], names[place - 1][1] + word) if place else word
                for word, place in zip(job, places, strict=True)
            ])  # fmt: skip
        return found

    def product(self, **words: Any) -> None:
        """Words by name, `JOB` with `_` in place of spaces, 0 if not given; tensors and starts as of `Jobs.product`."""
        given = {name.replace("_", " "): value for name, value in words.items()}
        for name in ("left", "right", "out"):
            tensor, start = given[name]
            given[name] = (tensor, start * self.bytes)
        self.add(0, [given.get(name, 0) for name in JOB])


class Masks(Table):
    """The table of `multiply`."""

    kinds = (MULTIPLY,)

    def multiply(self, to: str, left: str, right: str, start: int, numbers: int) -> None:
        """So many numbers from the same place on in all three."""
        self.add(0, (*((name, start * self.bytes) for name in (to, left, right)), numbers))


class WholeRows(Copies):
    """Copies in whole vectors of what a kernel reads and a caller's tensors are not. room: bytes of each."""

    def __init__(self, element_bytes: int) -> None:
        super().__init__(element_bytes)
        self.room: dict[str, int] = {}

    def of(self, name: str, rows: Rows, size: int, width: int) -> str:
        """Under which name rows of `size` numbers of a tensor stand in rows of `width`: its own if they are as wide."""
        if size == width:
            return name
        whole = f"whole {name}"
        if whole not in self.room:
            self.room[whole] = most_of(rows) * width * self.bytes
            self.copy((whole, 0), width, (name, 0), size, rows, size, width)
        return whole


class LayOut(Table):
    """The table of `lay_out`."""

    kinds = (LAY_OUT,)

    def __init__(self, batch: int, backwards: bool, steps: int) -> None:
        super().__init__(WORD)
        given = [(f"schedule {name}", 0) for name in ("offsets", "steps")]
        names = [f"schedule {name}" for name in TIMES]
        self.add(0, (*given, batch, int(backwards), *((name, 0) for name in names)))
        # Of arrays for so many steps.
        self.room = dict.fromkeys(names, WORD * steps)


class StepRows(Table):
    """The table of `step_rows`."""

    kinds = (BEFORE, END)

    def before(self, to: str, source: tuple[str, int], first: tuple[str, int], numbers: int) -> None:
        """What each row has before each step, one after the other; a tensor and how wide its rows are."""
        words = (to, 0), numbers, (source[0], 0), source[1], (first[0], 0), first[1], numbers
        # In the order of the forward pass, which is the other one to a backward pass.
        times = ("steps", "offsets", "following", "other before")
        self.add(0, (*words, *((f"schedule {name}", 0) for name in times)))

    def end(
        self, to: str, source: tuple[str, int], first: tuple[str, int], numbers: int, after: str, batch: int
    ) -> None:
        """What each row of the batch has after its last step; `after` names the array that says where that is."""
        words = (to, 0), numbers, (source[0], 0), source[1], (first[0], 0), first[1], numbers
        times = ("steps", "offsets", "following", after)
        self.add(1, (*words, *((f"schedule {name}", 0) for name in times), batch))


class Jobs(Table):
    """The table of `small_products`, what comes before, and the copies that follow."""

    kinds = KINDS

    def __init__(self, element_bytes: int) -> None:
        super().__init__(element_bytes)
        self.steps = StepRows(element_bytes)
        self.copies = Copies(element_bytes)

    def product(
        self,
        left: tuple[str, int],
        left_row: int,
        right: tuple[str, int],
        right_row: int,
        rows: Rows,
        out: tuple[str, int],
        size: tuple[int, int],
        add: bool,
    ) -> None:
        """Tensors with how many numbers behind their beginning; `rows` of both operands; `size` of the result."""
        left, right, out = ((name, start * self.bytes) for name, start in (left, right, out))
        self.add(0, (left, left_row, right, right_row, word_of_rows(rows), out, size[1], *size, int(add)))

    def narrow(self, out: tuple[str, int], sums: int, count: int, add: bool) -> None:
        """Numbers of float64 at an address, as those of the kernel's type."""
        self.add(1, ((out[0], out[1] * self.bytes), sums, count, int(add)))

    def total(self, out: str, sums: int, count: int) -> None:
        """All of so many numbers of float64 at an address as one of the kernel's type."""
        self.add(3, ((out, 0), sums, count))

    def move(
        self, to: tuple[str, int], source: tuple[str, int], rows: int, size: int, source_row: int
    ) -> None:
        """Rows of `size` numbers, one after the other, from rows that are perhaps wider."""
        places = rows * size, to[1], source[1]
        if size == source_row and all(each * self.bytes % WORD == 0 for each in places):
            to, source = ((name, start * self.bytes) for name, start in (to, source))
            self.add(2, (to, source, rows * size * self.bytes // WORD))
        else:
            self.copies.copy(to, size, source, source_row, rows, size)
