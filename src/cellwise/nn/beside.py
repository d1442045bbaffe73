"""What a layer's kernels are given beside x: values that the caller gives, and random numbers that the layer draws.

Both reach a backend by their names beside the weights, as rows for the valid steps. Random numbers come of torch's
generator for the device and are drawn before a backend is called, so that every backend sees the same ones, and the
backward pass those of the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cellwise.backends.base import Weights
from cellwise.cells.base import Cell
from cellwise.errors import InputError, UnknownInputError, a_or_an, did_you_mean
from cellwise.graph import StepGraph
from cellwise.graph.expr import Draw
from cellwise.nn.padding import copied, copied_again
from cellwise.plan import Padding
from cellwise.runtime.compiling import is_tracing
from cellwise.runtime.sequences import Form, Packed
from cellwise.torch_internals import is_autocast_enabled

_KEYWORDS = ("state", "lengths", "resets")


def _check_names(cell: Cell, given: Mapping[str, Any]) -> None:
    """Raise InputError unless the inputs beside x that were given are those of the cell."""
    name, inputs = type(cell).__name__, tuple(cell.inputs)
    unknown = next((each for each in given if each not in inputs), None)
    if unknown is not None:
        known = (*inputs, *_KEYWORDS)
        raise UnknownInputError(
            f"A layer of {name} takes no {unknown!r}; {did_you_mean(unknown, known)}it takes x, {', '.join(known)}."
        )
    missing = [each for each in inputs if given.get(each) is None and not isinstance(cell.inputs, Mapping)]
    if missing:
        call = ", ".join(["x", *(f"{each}={each}" for each in inputs)])
        numbers = ", ".join(f'"{each}": 1.0' for each in inputs)
        raise InputError(
            f"{name} takes {' and '.join(missing)} beside x, one number a step for each row or unit: layer({call}); "
            f"for calls that give none, the cell may say a number: inputs = {{{numbers}}}."
        )


class SizesBeside(NamedTuple):
    """How many units what is given beside x has: `hidden`, or others by name; None for one number a row alone.

    `width` is that of the rows in which kernels take it.
    """

    hidden: int
    width: int
    others: Mapping[str, int | None] = MappingProxyType({})

    def of(self, name: str) -> int | None:
        return self.others.get(name, self.hidden)


def sizes_beside(hidden_size: int, padding: Padding | None) -> SizesBeside:
    """Those of a layer."""
    if padding is None:
        return SizesBeside(hidden_size, hidden_size)
    return SizesBeside(hidden_size, padding.width, dict((*padding.inputs, *padding.draws)))


def rows_beside(
    cell: Cell, given: Mapping[str, Any], form: Form, sizes: SizesBeside, unbatched: bool
) -> dict[str, Tensor]:
    """The rows of all inputs beside x of a cell, (N, H) or (N, 1).

    Args:
        given: each (T, B), (T, B, 1) or (T, B, H), where x is (T, B, D); in the form of x.
        sizes: in place of H that of another width, of an input that is used with that.

    Raises:
        InputError: one is missing, unknown, or does not fit x.
    """
    _check_names(cell, given)
    data, defaults = form.sequences.data, cell.inputs
    rows = {}
    for name in cell.inputs:
        if given.get(name) is not None:
            rows[name] = _rows(name, given[name], form, sizes.of(name), unbatched)
        elif isinstance(defaults, Mapping):
            rows[name] = data.new_full((data.shape[0], 1), defaults[name])
    return rows


def _rows(name: str, value: Any, form: Form, units: int | None, unbatched: bool) -> Tensor:
    data, steps, batch, batch_first = form.sequences.data, form.steps, form.sequences.batch, form.batch_first
    numbers = value.data if isinstance(value, PackedSequence) else value
    if not isinstance(numbers, Tensor):
        raise InputError(f"{name} must be a tensor, in the form of x; got {a_or_an(type(value).__name__)}.")
    if isinstance(value, PackedSequence):
        _check_packed(name, value, form)
        lead, letters = [data.shape[0]], "N"
    elif unbatched:
        lead, letters = [steps], "T"
    else:
        lead, letters = ([batch, steps], "B, T") if batch_first else ([steps, batch], "T, B")
    shape = list(numbers.shape)
    if shape not in (lead, [*lead, 1], [*lead, units]):
        sizes = ", ".join(map(str, lead))
        a_unit = (
            f"or ({letters}, H) = ({sizes}, {units}), one a unit"
            if units
            else "as it is used with values of several widths"
        )
        raise InputError(
            f"{name} must have shape ({letters}) = ({sizes}{',' * (len(lead) == 1)}), one number a row, {a_unit}; "
            f"it has shape {tuple(shape)}."
        )
    if numbers.device != data.device:
        raise InputError(f"{name} is on {numbers.device}, and the input on {data.device}.")
    if numbers.dtype != data.dtype and not is_autocast_enabled():
        raise InputError(
            f"{name} has {numbers.dtype}, and the input {data.dtype}. Convert it: {name}.to({data.dtype})"
        )
    numbers = numbers.to(data.dtype) if len(shape) > len(lead) else numbers.to(data.dtype).unsqueeze(-1)
    if isinstance(value, PackedSequence):
        return numbers
    return form.rows(numbers.unsqueeze(0 if batch_first else 1) if unbatched else numbers)


def _check_packed(name: str, value: PackedSequence, form: Form) -> None:
    if not isinstance(form, Packed):
        raise InputError(f"{name} is a PackedSequence, and x is none; give both in the same form.")
    sizes, order = form.packed.batch_sizes, form.packed.sorted_indices
    same = value.batch_sizes.shape == sizes.shape and (value.sorted_indices is None) == (order is None)
    if same and not is_tracing():  # where no number may be looked at
        same = torch.equal(value.batch_sizes, sizes)
        same = same and (order is None or torch.equal(_order(value), order))
    if not same:
        raise InputError(f"{name} is packed otherwise than x: pack both with the same lengths.")


def _order(packed: PackedSequence) -> Tensor:
    assert packed.sorted_indices is not None
    return packed.sorted_indices


def with_given(
    weights: tuple[Weights, ...], graph: StepGraph, rows: Mapping[str, Tensor], form: Form, sizes: SizesBeside
) -> tuple[Weights, ...]:
    """The weights of all layers and directions, each with all that it is given beside x.

    Every layer gets the same values; random numbers are drawn for each layer and direction.
    """
    data, batch = form.sequences.data, form.sequences.batch
    found = []
    for each in weights:
        numbers = {
            draw.name: copied(
                drawn(draw, batch if draw.per_sequence else data.shape[0], sizes.of(draw.name), data),
                sizes.width,
                1,
            )
            for draw in graph.asked_draws
        }
        # Parts of the input are known when a layer's turn comes (`run_stacked`).
        asked = {
            name: rows[name] if rows[name].shape[-1] == 1 else copied(rows[name], sizes.width, 1)
            for name in graph.asked_inputs
            if name not in graph.input_parts
        }
        found.append(Weights({**each.by_stem, **asked, **numbers}))
    return tuple(found)


def drawn(draw: Draw, rows: int, hidden: int | None, like: Tensor) -> Tensor:
    """Random numbers (rows, H). They are drawn in float32, so that a probability is the same whatever the dtype."""
    assert hidden is not None  # what is drawn is of one width
    uniform = torch.rand(rows, hidden, dtype=torch.float32, device=like.device)
    return (uniform if draw.probability is None else uniform < draw.probability).to(like.dtype)


def drop_weights(
    weights: tuple[Weights, ...], p: float, padding: Padding | None, fixed: int
) -> tuple[Weights, ...]:
    """Each recurrent weight zero with probability p, else w / (1 - p): for all steps of a call (Merity et al. 2018).

    The last `fixed` rows, which are not learned, stay.
    """
    stem = "weight_hh"

    def drop(weight: Tensor) -> Tensor:
        dropped = torch.nn.functional.dropout(weight[: len(weight) - fixed], p)
        whole = torch.cat([dropped, weight[-fixed:]]) if fixed else dropped
        return whole if padding is None else copied_again(whole, padding)

    dropped = [{stem: drop(each.by_stem[stem])} if stem in each.by_stem else {} for each in weights]
    return tuple([Weights({**each.by_stem, **other}) for each, other in zip(weights, dropped, strict=True)])
