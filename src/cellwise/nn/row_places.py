"""A layer of several widths on the short way: its weights in rows of one width, by a few operators a call.

`cellwise.nn.padding` says what such rows hold, piece by piece, in operators that compile and export. Where a row comes
from is the same in every call, so that is asked once, with parameters that hold the numbers of their rows. A call then
gathers rows, in one node of autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.nn.padding import padded_weights
from cellwise.plan import Padding
from cellwise.torch_internals import apply_alone

Shapes = Mapping[str, tuple[int, ...]]


class _Source(NamedTuple):
    """A parameter: which of all, its rows, and its columns, so many times `units` numbers to be `width` each."""

    place: int
    rows: int
    times: int = 1
    units: int = 0
    width: int = 0

    def widened(self, value: Tensor) -> Tensor:
        if self.units == self.width:
            return value
        if self.times == 1:
            return F.pad(value, (0, self.width - self.units))
        return F.pad(value.unflatten(1, (self.times, self.units)), (0, self.width - self.units)).flatten(1)

    def narrowed(self, value: Tensor) -> Tensor:
        if self.units == self.width:
            return value
        parts = value.unflatten(1, (self.times, self.width)).narrow(2, 0, self.units)
        return parts.flatten(1).contiguous()


class _Gathered(NamedTuple):
    """A weight of a layer pass as the kernels take it.

    taken: which of its sources' rows, one after the other, and behind them one of zeros, each of its own is; None where
    they are these. back: where each of the sources' rows is first.
    """

    sources: tuple[_Source, ...]
    has_zeros: bool
    taken: Tensor | None
    back: Tensor | None

    def take(self, values: Sequence[Tensor]) -> Tensor:
        found = [source.widened(values[source.place]) for source in self.sources]
        if self.has_zeros:
            found.append(found[0].new_zeros(1, *found[0].shape[1:]))
        whole = found[0] if len(found) == 1 else torch.cat(found)
        return whole if self.taken is None else whole.index_select(0, self.taken)

    def give_back(self, gradient: Tensor) -> list[Tensor]:
        """The gradients at the sources. None reaches a copy, so there is nothing to add up."""
        whole = gradient if self.back is None else gradient.index_select(0, self.back)
        pieces = [whole] if len(self.sources) == 1 else whole.split([source.rows for source in self.sources])
        return [source.narrowed(piece) for source, piece in zip(self.sources, pieces, strict=True)]


class _Rows(torch.autograd.Function):
    """`_Rows.apply(gathered, *parameters)` -> the weights that are gathered from them."""

    @staticmethod
    def forward(ctx: Any, gathered: Sequence[_Gathered], *values: Tensor) -> tuple[Tensor, ...]:
        ctx.gathered, ctx.count = gathered, len(values)
        ctx.set_materialize_grads(False)
        return tuple([each.take(values) for each in gathered])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        found: list[Tensor | None] = [None] * ctx.count
        for each, gradient in zip(ctx.gathered, gradients, strict=True):
            if gradient is not None:
                for source, piece in zip(each.sources, each.give_back(gradient), strict=True):
                    found[source.place] = piece
        return None, *found


_apply = apply_alone(_Rows)


def gatherer(
    stems: Sequence[Sequence[str]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
    padding: Padding,
    dtype: torch.dtype,
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """From the parameters of all layers and directions in a row, on the CPU, to their weights in rows of one width."""
    made: list[int | Tensor | _Gathered] = []  # a parameter as it is, a constant, or what is gathered
    start = 0
    with torch.inference_mode(False):  # autograd keeps some of it
        for number, (names, sizes) in enumerate(zip(stems, shapes, strict=True)):
            given = dict(zip(names, sizes, strict=True))
            made += _entries(given, start, padding, number >= padding.directions, dtype)
            start += len(names)
    gathered = [each for each in made if isinstance(each, _Gathered)]

    def fill(weights: Sequence[Tensor]) -> list[Tensor]:
        if torch.is_grad_enabled() and any(each.requires_grad for each in weights):
            rows = iter(_apply(gathered, *weights))
        else:
            rows = iter([each.take(weights) for each in gathered])
        return [
            weights[each] if isinstance(each, int) else each if isinstance(each, Tensor) else next(rows)
            for each in made
        ]

    return fill


def _entries(
    shapes: Shapes, start: int, padding: Padding, deeper: bool, dtype: torch.dtype
) -> list[int | Tensor | _Gathered]:
    """The weights of one layer in one direction, whose first parameter is the one with the number `start`."""
    places = {stem: start + place for place, stem in enumerate(shapes)}
    masks = {name for name, _ in padding.masks}
    numbered, firsts = _numbered(shapes)
    found: list[int | Tensor | _Gathered] = []
    for stem, value in padded_weights(numbered, padding, deeper).items():
        if not value.dim():
            found.append(places[stem])
            continue
        origin = value.reshape(len(value), -1)[:, 0].long()
        taken = [] if stem in masks else [each for each in shapes if _holds(origin, firsts[each])]
        sources = [_source(places[each], shapes[each], value, stem, padding) for each in taken]
        # A mask, and a bias that no gate has, are made of no parameter.
        found.append(
            _gathered(sources, [firsts[each].start for each in taken], origin) if taken else value.to(dtype)
        )
    return found


def _numbered(shapes: Shapes) -> tuple[dict[str, Tensor], dict[str, range]]:
    """Parameters whose rows hold their numbers, counted from 1 on, and those of each."""
    found, rows, first = dict[str, Tensor](), dict[str, range](), 1
    for stem, shape in shapes.items():
        rows[stem] = range(first, first + (shape[0] if shape else 1))
        numbers = torch.tensor(rows[stem], dtype=torch.float64, device="cpu")
        found[stem] = numbers.view(-1, *[1] * (len(shape) - 1)).expand(shape) if shape else numbers[0]
        first = rows[stem].stop
    return found, rows


def _holds(origin: Tensor, rows: range) -> bool:
    return bool(((origin >= rows.start) & (origin < rows.stop)).any())


def _source(place: int, shape: tuple[int, ...], value: Tensor, stem: str, padding: Padding) -> _Source:
    if len(shape) == 1:
        return _Source(place, shape[0])
    times = padding.directions if stem == "weight_ih" else 1
    return _Source(place, shape[0], times, shape[1] // times, value.shape[1] // times)


def _gathered(sources: Sequence[_Source], firsts: Sequence[int], origin: Tensor) -> int | _Gathered:
    """From where each row comes from; a parameter as it is, if that is all."""
    count = sum(source.rows for source in sources)
    index, at = torch.full_like(origin, count), 0  # zeros, where nothing is
    for source, first in zip(sources, firsts, strict=True):
        inside = (origin >= first) & (origin < first + source.rows)
        index[inside] = origin[inside] - first + at
        at += source.rows
    has_zeros = bool((index == count).any())
    if not has_zeros and torch.equal(index, torch.arange(count, device="cpu")):
        if len(sources) == 1 and sources[0].units == sources[0].width:
            return sources[0].place
        return _Gathered(tuple(sources), False, None, None)
    back = torch.stack([(index == row).nonzero()[0, 0] for row in range(count)])
    return _Gathered(tuple(sources), has_zeros, index, back)
