"""What a plain call gives beside x and states: what of it decides, and how it becomes the rows that a backend takes.

Lengths are in the key with all their numbers, since they say where each row lies; of `resets` and of values beside x it
has shapes and kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellwise.cells.base import Cell
from cellwise.graph import StepGraph
from cellwise.nn.beside import SizesBeside, drawn
from cellwise.nn.padding import copied
from cellwise.runtime.sequences import Form, Lengths, Ragged

_WHOLE = (torch.int64, torch.int32)


def key_of_given(
    x: Any, lengths: Lengths | None, resets: Any, beside: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """What decides of these; None if one is no plain tensor on the CPU, or x is packed."""
    if type(x) is not Tensor or not x.is_cpu:
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
    if lengths is not None:
        numbers = _numbers(lengths) if x.dim() == 3 else None
        if numbers is None:
            return None
        found.append(numbers)
    return tuple(found)


def _numbers(lengths: Lengths) -> tuple[Any, ...] | bytes | None:
    """Lengths as something to be looked up by; None of those that are no plain whole numbers."""
    if isinstance(lengths, Tensor):
        is_plain = type(lengths) is Tensor and lengths.is_cpu and lengths.dtype in _WHOLE
        # Of a view with steps, too, the numbers one after the other.
        return (lengths.shape, lengths.dtype, lengths.numpy().tobytes()) if is_plain else None
    if type(lengths) not in (list, tuple) or not all(type(each) is int for each in lengths):
        return None
    return tuple(lengths)


def are_even(lengths: Lengths) -> bool:
    """Whether all rows have as many steps; of lengths that have a key."""
    numbers = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    return len(set(numbers)) == 1


class Places(NamedTuple):
    """Where rows of a padded batch lie, as long as all have the steps that they had.

    steps, batch: of what comes in. rows: of what a backend is given, the valid steps. turned: whether the batch comes
    first, and steps are to. places: of each row in the flattened padded batch; order: of the batch, and back; none of
    these where all rows have all steps.
    """

    steps: int
    batch: int
    rows: int
    turned: bool
    places: Tensor | None = None
    order: Tensor | None = None
    back: Tensor | None = None

    @staticmethod
    def of(form: Form) -> Places:
        batch, rows = form.sequences.batch, form.sequences.data.shape[0]
        if not isinstance(form, Ragged):
            return Places(form.steps, batch, rows, form.batch_first and form.steps > 1 and batch > 1)
        with torch.inference_mode(False):  # autograd keeps them
            places, order = form.places.clone(), form.order.clone()
        return Places(form.steps, batch, rows, form.batch_first, places, order, torch.argsort(order))

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


# From the weights of all layer passes in a row, x and values by name, the same with rows behind each pass's weights.
Give = Callable[[Sequence[Tensor], Tensor, Mapping[str, Any]], list[Tensor]]


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
    places: Places,
    sizes: SizesBeside,
) -> Give | None:
    """What puts values beside x and random numbers behind the weights of each of so many layer passes; None if there
    are none of either.

    Every layer gets the same values; random numbers are drawn for each layer and direction.
    """
    many = [(each, places.batch if each.per_sequence else places.rows) for each in graph.asked_draws]
    if not many and not widths:
        return None
    defaults: Any = cell.inputs  # which has a number for each that a call may leave out

    def give(weights: Sequence[Tensor], like: Tensor, given: Mapping[str, Any]) -> list[Tensor]:
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
            for each, number in many:
                numbers = drawn(each, number, sizes.of(each.name), like)
                found.append(copied(numbers, sizes.width, 1).contiguous())  # a chain reads rows as they lie
        return found

    return give
