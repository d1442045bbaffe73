"""The ways in which a caller may give a batch, and the one internal form that backends see.

A `Form` remembers how the batch came, and brings outputs and states back to that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cellwise.backends.base import Sequences
from cellwise.errors import InputError
from cellwise.runtime.compiling import is_tracing

Lengths = Tensor | Sequence[int]


class Form(ABC):
    """How a batch came in."""

    sequences: Sequences
    steps: int  # T of what came in
    batch_first: bool

    @abstractmethod
    def rows(self, value: Tensor) -> Tensor:
        """Rows (N, k) of what came beside x, padded as x is or would be: (T, B, k), or (B, T, k)."""

    @abstractmethod
    def output(self, data: Tensor) -> Any:
        """Bring output data (N, H), or (T, B, H), back to the caller's form. The caller may write to what it gets."""

    def sort(self, state: Tensor) -> Tensor:
        """Bring a state (L, B, H) from the caller's order of rows to the internal one."""
        return state

    def unsort(self, state: Tensor) -> Tensor:
        """Bring a state back to the caller's order of rows."""
        return state


@dataclass(frozen=True, eq=False)
class Dense(Form):
    """All rows have all steps; (T, B, D), or (B, T, D) if `batch_first`."""

    sequences: Sequences
    steps: int
    batch_first: bool

    def rows(self, value: Tensor) -> Tensor:
        return (value.transpose(0, 1) if self.batch_first else value).flatten(0, 1)

    def output(self, data: Tensor) -> Tensor:
        output = data if data.dim() == 3 else data.view(self.steps, self.sequences.batch, data.shape[-1])
        if _is_saved(data):
            output = output.clone()
        return output.transpose(0, 1) if self.batch_first else output


@dataclass(frozen=True, eq=False)
class Ragged(Form):
    """Rows of different lengths in a padded tensor. `order` are the rows by length, `places` where in the padded
    tensor each row of the data belongs; surplus data, which is zero in the output, belongs to the padding.
    """

    sequences: Sequences
    steps: int
    batch_first: bool
    places: Tensor
    order: Tensor

    def rows(self, value: Tensor) -> Tensor:
        return value.flatten(0, 1).index_select(0, self.places)

    def output(self, data: Tensor) -> Tensor:
        data = _rows(data)
        width = data.shape[-1]
        padded = data.new_zeros(self.steps * self.sequences.batch, width).index_copy_(0, self.places, data)
        shape = (self.sequences.batch, self.steps) if self.batch_first else (self.steps, self.sequences.batch)
        return padded.view(*shape, width)

    def sort(self, state: Tensor) -> Tensor:
        return state.index_select(1, self.order)

    def unsort(self, state: Tensor) -> Tensor:
        return state.index_select(1, torch.argsort(self.order))


@dataclass(frozen=True, eq=False)
class Packed(Form):
    """A PackedSequence of torch, which is the internal form already."""

    sequences: Sequences
    packed: PackedSequence
    steps: int
    batch_first: bool

    def rows(self, value: Tensor) -> Tensor:
        places = _places_of_packed(self.packed, self.sequences.batch, self.batch_first)
        return value.flatten(0, 1).index_select(0, places.to(value.device))

    def output(self, data: Tensor) -> PackedSequence:
        p = self.packed
        data = _rows(data.clone() if _is_saved(data) else data)
        return PackedSequence(data, p.batch_sizes, p.sorted_indices, p.unsorted_indices)

    def sort(self, state: Tensor) -> Tensor:
        return (
            state if self.packed.sorted_indices is None else state.index_select(1, self.packed.sorted_indices)
        )

    def unsort(self, state: Tensor) -> Tensor:
        return (
            state
            if self.packed.unsorted_indices is None
            else state.index_select(1, self.packed.unsorted_indices)
        )


def _rows(data: Tensor) -> Tensor:
    return data.flatten(0, 1) if data.dim() == 3 else data


def _is_saved(data: Tensor) -> bool:
    """Whether the backward pass reads this very tensor, and not a copy that the caller may write to."""
    return (
        data.requires_grad
        and not is_tracing()  # where nothing is written to in place
        and getattr(data.grad_fn, "reads_output", False)
    )


def form_of(
    x: Tensor | PackedSequence,
    batch_first: bool,
    lengths: Lengths | None,
    resets: Tensor | None,
    surplus: bool = False,
) -> Form:
    """Bring a batched input to the internal form.

    Args:
        x: (T, B, D), or (B, T, D) if `batch_first`; or packed.
        lengths: (B,) valid steps of each row, from 0 to T, in any order, on any device.
        resets: (T, B), or (B, T) if `batch_first`, bool: the state of a row is zero before that step.
        surplus: read no number from a tensor; the data then keeps rows beyond the valid steps.

    Raises:
        InputError: lengths or resets do not fit x.
    """
    if isinstance(x, PackedSequence):
        if lengths is not None:
            raise InputError(
                "lengths= was given beside a PackedSequence, which has its own; give only one of the two."
            )
        return _packed(x, batch_first, resets)
    steps, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    _check_resets(resets, steps, batch, batch_first)
    if lengths is None:
        data = (x.transpose(0, 1) if batch_first else x).reshape(steps * batch, x.shape[-1])
        if resets is not None:
            resets = (resets.t() if batch_first else resets).reshape(-1).to(x.device)
        return Dense(Sequences(data, steps, batch, None, resets), steps, batch_first)
    valid = _checked_lengths(lengths, x, batch_first)
    order = torch.argsort(valid, descending=True, stable=True)
    longest = steps if surplus else int(valid.max()) if batch else 0
    inside = valid.index_select(0, order) > torch.arange(longest, device="cpu").unsqueeze(1)
    places = _places(order, inside, steps, batch_first, surplus).to(x.device)
    data = x.reshape(steps * batch, x.shape[-1]).index_select(0, places)
    if resets is not None:
        resets = resets.reshape(-1).to(x.device).index_select(0, places)
    sequences = Sequences(data, longest, batch, inside.sum(1), resets)
    return Ragged(sequences, steps, batch_first, places, order.to(x.device))


def _places(order: Tensor, inside: Tensor, steps: int, batch_first: bool, surplus: bool = False) -> Tensor:
    """Where each valid step lies in the flattened padded tensor, in the internal order.

    Args:
        order: (B,) the rows in their internal order. inside: (T, B) which steps of these are valid.
        surplus: then the places outside of all rows, without reading how many.
    """
    longest, batch = inside.shape
    time = torch.arange(longest, device="cpu").unsqueeze(1)
    places = order * steps + time if batch_first else time * batch + order
    if not surplus:
        return places[inside]
    found = torch.argsort(inside.logical_not().reshape(-1).to(torch.uint8), stable=True)
    return places.reshape(-1).index_select(0, found)


def _packed(x: PackedSequence, batch_first: bool, resets: Tensor | None) -> Packed:
    # Shapes are known to a compiled program, numbers are not, and in torch.export len() is a constant.
    sizes = x.batch_sizes
    if not is_tracing():
        _check_packed(x)
    batch = int(sizes[0]) if x.sorted_indices is None else x.sorted_indices.shape[0]
    steps = sizes.shape[0]
    if resets is not None:
        _check_resets(resets, steps, batch, batch_first)
        places = _places_of_packed(x, batch, batch_first)
        resets = resets.reshape(-1).index_select(0, places.to(resets.device)).to(x.data.device)
    return Packed(Sequences(x.data, steps, batch, sizes, resets), x, steps, batch_first)


def _places_of_packed(x: PackedSequence, batch: int, batch_first: bool) -> Tensor:
    """Where the rows of a packed batch would lie in a padded one, flattened."""
    order = torch.arange(batch, device="cpu") if x.sorted_indices is None else x.sorted_indices.cpu()
    inside = torch.arange(batch, device="cpu") < x.batch_sizes.unsqueeze(1)
    return _places(order, inside, x.batch_sizes.shape[0], batch_first)


def _check_packed(x: PackedSequence) -> None:
    """Raise InputError for a PackedSequence that torch's functions would not make: its fields can be set by hand."""
    sizes, rows = x.batch_sizes, x.data.shape[0]
    if sizes.dtype != torch.int64 or not sizes.is_cpu or sizes.dim() != 1 or not len(sizes):
        raise InputError(
            "batch_sizes of a PackedSequence must be whole numbers (int64) on the CPU, one for each step; "
            f"they are {sizes.dtype} on {sizes.device}, of shape {tuple(sizes.shape)}."
        )
    counts = sizes.numpy()
    if counts[-1] < 1 or (counts[1:] > counts[:-1]).any() or counts[0] > rows or counts.sum() != rows:
        raise InputError(
            f"batch_sizes of a PackedSequence must be positive, never rise, and add up to its {rows} rows of data; "
            f"they begin with {counts[:5].tolist()} and add up to {counts.sum()}."
        )
    for name, order in (("sorted_indices", x.sorted_indices), ("unsorted_indices", x.unsorted_indices)):
        if order is not None and order.shape != (counts[0],):
            raise InputError(
                f"{name} of a PackedSequence must have shape ({counts[0]},), one for each sequence; "
                f"they have shape {tuple(order.shape)}."
            )


def _checked_lengths(lengths: Lengths, x: Tensor, batch_first: bool) -> Tensor:
    batch, time = (x.shape[0], 1) if batch_first else (x.shape[1], 0)
    found = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths, device="cpu")
    found = found.detach().cpu()
    if not found.numel():  # an empty list has no dtype of its own
        found = found.to(torch.int64)
    if found.is_floating_point() or found.dtype == torch.bool or found.is_complex():
        raise InputError(f"lengths must be whole numbers, one per row; their dtype is {found.dtype}.")
    if found.shape != (batch,):
        raise InputError(
            f"lengths must have shape ({batch},), one per row; they have shape {tuple(found.shape)}."
        )
    found = found.to(torch.int64)
    if is_tracing():
        found = torch.ops.cellwise.within(found, x, time)
    else:
        _check_within(found, x.shape[time])
    return found


def _check_within(lengths: Tensor, steps: int) -> None:
    least, most = map(int, lengths.aminmax()) if len(lengths) else (0, 0)
    if least < 0 or most > steps:
        raise InputError(
            f"lengths must lie between 0 and the number of steps, {steps}; "
            f"one of them is {least if least < 0 else most}."
        )


def _within(lengths: Tensor, x: Tensor, time: int) -> Tensor:
    _check_within(lengths, x.shape[time])
    return lengths.clone()


# A compiled program cannot look at a number; this call in it can, when it runs. It returns the lengths so that it is
# not left out.
_LIBRARY = torch.library.Library("cellwise", "FRAGMENT")
_LIBRARY.define("within(Tensor lengths, Tensor x, int time) -> Tensor")
_LIBRARY.impl("within", _within, "CompositeExplicitAutograd")
torch.library.register_fake(
    "cellwise::within", lambda lengths, x, time: torch.empty_like(lengths), lib=_LIBRARY
)


def _check_resets(resets: Tensor | None, steps: int, batch: int, batch_first: bool) -> None:
    if resets is None:
        return
    wanted, named = ((batch, steps), "(B, T)") if batch_first else ((steps, batch), "(T, B)")
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        found = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise InputError(f"resets must be a bool tensor of shape {named} = {wanted}; got {found}.")
    if tuple(resets.shape) != wanted:
        raise InputError(f"resets must have shape {named} = {wanted}; they have shape {tuple(resets.shape)}.")
