"""What a plain call gives beside x and states: what of it decides, and how it becomes the rows that a backend takes.

Of lengths, `resets` and values beside x the key has shapes and kinds alone. Where each row lies is worked out for each
call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cellwise.cells.base import Cell
from cellwise.graph import StepGraph
from cellwise.nn.beside import SizesBeside, drawn
from cellwise.nn.padding import copied
from cellwise.runtime.sequences import Form, Lengths

_WHOLE = (torch.int64, torch.int32)


def key_of_given(
    x: Any, lengths: Lengths | None, resets: Any, beside: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """What decides of these; None if one is no plain tensor on the CPU, or x is packed."""
    if type(x) is not Tensor or not x.is_cpu or (lengths is not None and x.dim() != 3):
        return None
    found: list[Any] = []
    for name, each in beside.items():
        if each is not None and (type(each) is not Tensor or not each.is_cpu):
            return None
        found.append(name if each is None else (name, each.shape, each.dtype, each.layout))
    if resets is not None:
        if type(resets) is not Tensor or not resets.is_cpu:
            return None
        found.append((resets.shape, resets.dtype, resets.layout))
    return tuple(found)


def numbers_of(lengths: Lengths, batch: int, steps: int) -> np.ndarray | None:
    """Lengths (B,) as int64; None of those that are no plain whole numbers of steps, one for each row."""
    if isinstance(lengths, Tensor):
        if type(lengths) is not Tensor or not lengths.is_cpu or lengths.dtype not in _WHOLE:
            return None
        found = lengths.numpy()
    elif type(lengths) in (list, tuple) and all(type(each) is int for each in lengths):
        try:
            found = np.array(lengths, np.int64)
        except OverflowError:
            return None
    else:
        return None
    if found.shape != (batch,) or not batch or found.min() < 0 or found.max() > steps:
        return None
    return found.astype(np.int64, copy=False)


class Counts(NamedTuple):
    """Of the rows of each step: how many steps there are, rows in all, and rows of the first and of the last one."""

    steps: int
    rows: int
    first: int
    last: int


@lru_cache(maxsize=256)
def counts_of(sizes: bytes) -> Counts | None:
    """By the bytes of int64 rows of each step; None of what torch would not make, and where there are no steps."""
    found = np.frombuffer(sizes, np.int64).tolist()
    if not found or found[-1] < 1 or any(after > before for before, after in pairwise(found)):
        return None
    return Counts(len(found), sum(found), found[0], found[-1])


def counts_of_packed(x: PackedSequence) -> Counts | None:
    """Those of a packed sequence of plain tensors on the CPU; None of one that torch would not make."""
    counts = counts_of(x.batch_sizes.numpy().tobytes())
    if counts is None or counts.rows != x.data.shape[0]:
        return None
    orders = x.sorted_indices, x.unsorted_indices
    return counts if all(each is None or each.shape == (counts.first,) for each in orders) else None


class Places(NamedTuple):
    """Where rows of a padded batch lie, as long as all have the steps that they had.

    steps, batch: of what comes in. rows: of what a backend is given, the valid steps. turned: whether the batch comes
    first, and steps are to. places: of each row in the flattened padded batch; order: of the batch, and back, if
    longer rows do not stand first; sizes: the rows of each step, and counts, of these. None of them where all rows
    have all steps.
    """

    steps: int
    batch: int
    rows: int
    turned: bool
    places: Tensor | None = None
    order: Tensor | None = None
    back: Tensor | None = None
    sizes: Tensor | None = None
    counts: Counts | None = None

    @staticmethod
    def of(form: Form) -> Places:
        batch, rows = form.sequences.batch, form.sequences.data.shape[0]
        return Places(form.steps, batch, rows, form.batch_first and form.steps > 1 and batch > 1)

    def take(self, value: Tensor, *tail: int) -> Tensor:
        """The rows (N, *tail) of a value that is padded as x is."""
        if self.places is not None:
            return value.reshape(self.steps * self.batch, *tail).index_select(0, self.places)
        return (value.transpose(0, 1) if self.turned else value).reshape(self.rows, *tail)

    def give_back(self, output: Tensor) -> Tensor:
        """Output rows (N, H) of a batch with lengths, padded with zeros as x is."""
        assert self.places is not None
        width = output.shape[1]
        padded = output.new_zeros(self.steps * self.batch, width).index_copy(0, self.places, output)
        lead = (self.batch, self.steps) if self.turned else (self.steps, self.batch)
        return padded.view(*lead, width)


@lru_cache(maxsize=64)
def places_of(lengths: bytes, steps: int, batch_first: bool) -> Places:
    """Those of a padded batch, in the order in which `form_of` brings its rows, by the bytes of int64 lengths."""
    found = np.frombuffer(lengths, np.int64)
    batch, time, order = len(found), _times(int(found.max())), None
    rows: Any = np.arange(batch)
    if (found[1:] > found[:-1]).any():
        rows = order = np.argsort(-found, kind="stable")
        found = found[order]
    inside = found > time
    where = (rows * steps + time if batch_first else time * batch + rows)[inside]
    rows_of_steps = inside.sum(1)
    counts = counts_of(rows_of_steps.tobytes())
    with torch.inference_mode(False):  # autograd keeps them
        places, sizes = torch.from_numpy(where), torch.from_numpy(rows_of_steps)
        if order is None:
            return Places(steps, batch, len(where), batch_first, places, sizes=sizes, counts=counts)
        back = np.empty_like(order)
        back[order] = np.arange(batch)
        both = torch.from_numpy(order), torch.from_numpy(back)
    return Places(steps, batch, len(where), batch_first, places, *both, sizes, counts)


@lru_cache(maxsize=64)
def _times(steps: int) -> np.ndarray:
    """(T, 1)"""
    return np.arange(steps)[:, None]


# From the weights of all layer passes in a row, x, values by name and where rows lie, the same with rows behind each
# pass's weights.
Give = Callable[[Sequence[Tensor], Tensor, Mapping[str, Any], Places], list[Tensor]]


def widths_of(graph: StepGraph, given: Mapping[str, Any], x: Any, sizes: SizesBeside) -> dict[str, int]:
    """The width of the rows of each value beside x that equations ask for: a number for all units, or one for each."""
    asked = [name for name in graph.asked_inputs if name not in graph.input_parts]
    lead = x.dim() - 1 if isinstance(x, Tensor) else 1
    return {
        name: sizes.of(name) or 1
        if (value := given.get(name)) is not None and value.dim() > lead and value.shape[-1] > 1
        else 1
        for name in asked
    }


def giver(
    cell: Cell,
    graph: StepGraph,
    widths: Mapping[str, int],
    passes: int,
    sizes: SizesBeside,
) -> Give | None:
    """What puts values beside x and random numbers behind the weights of each of so many layer passes; None if there
    are none of either.

    Every layer gets the same values; random numbers are drawn for each layer and direction.
    """
    draws = graph.asked_draws
    if not draws and not widths:
        return None
    defaults: Any = cell.inputs  # which has a number for each that a call may leave out

    def give(
        weights: Sequence[Tensor], like: Tensor, given: Mapping[str, Any], places: Places
    ) -> list[Tensor]:
        rows: list[Tensor] = []
        found: list[Tensor] = []
        count = len(weights) // passes
        for name, width in widths.items():
            value = given.get(name)
            if value is None:
                rows.append(like.new_full((places.rows, 1), defaults[name]))
            else:
                row = places.take(value, width)
                rows.append(row if width == 1 else copied(row, sizes.width, 1))
        for first in range(0, len(weights), count):
            found += weights[first : first + count]
            found += rows
            for each in draws:
                number = places.batch if each.per_sequence else places.rows
                numbers = drawn(each, number, sizes.of(each.name), like)
                found.append(copied(numbers, sizes.width, 1).contiguous())  # a chain reads rows as they lie
        return found

    return give
