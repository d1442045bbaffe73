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

Lengths = Tensor | Sequence[int]


class Form(ABC):
    """How a batch came in."""

    sequences: Sequences

    @abstractmethod
    def output(self, data: Tensor) -> Any:
        """Bring output data (N, H) back to the caller's form."""

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

    def output(self, data: Tensor) -> Tensor:
        output = data.view(self.steps, self.sequences.batch, data.shape[-1])
        return output.transpose(0, 1) if self.batch_first else output


@dataclass(frozen=True, eq=False)
class Ragged(Form):
    """Rows of different lengths in a padded tensor. `places` are the valid steps in it, `order` the rows by length."""

    sequences: Sequences
    steps: int
    batch_first: bool
    places: Tensor
    order: Tensor

    def output(self, data: Tensor) -> Tensor:
        width = data.shape[-1]
        padded = data.new_zeros(self.steps * self.sequences.batch, width).index_copy(0, self.places, data)
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

    def output(self, data: Tensor) -> PackedSequence:
        p = self.packed
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


def form_of(
    x: Tensor | PackedSequence, batch_first: bool, lengths: Lengths | None, resets: Tensor | None
) -> Form:
    """Bring a batched input to the internal form.

    Args:
        x: (T, B, D), or (B, T, D) if `batch_first`; or packed.
        lengths: (B,) valid steps of each row, from 0 to T, in any order, on any device.
        resets: (T, B), or (B, T) if `batch_first`, bool: the state of a row is zero before that step.

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
        return Dense(Sequences(data, (batch,) * steps, batch, resets), steps, batch_first)
    valid = _checked_lengths(lengths, steps, batch)
    order = torch.argsort(valid, descending=True, stable=True)
    longest = int(valid.max()) if batch else 0
    batch_sizes = tuple((valid > torch.arange(longest).unsqueeze(1)).sum(1).tolist())
    places = _places(order, batch_sizes, steps, batch, batch_first).to(x.device)
    data = x.reshape(steps * batch, x.shape[-1]).index_select(0, places)
    if resets is not None:
        resets = resets.reshape(-1).to(x.device).index_select(0, places)
    return Ragged(Sequences(data, batch_sizes, batch, resets), steps, batch_first, places, order.to(x.device))


def _places(order: Tensor, batch_sizes: tuple[int, ...], steps: int, batch: int, batch_first: bool) -> Tensor:
    """Where each valid step lies in the flattened padded tensor, in the internal order."""
    sizes = torch.tensor(batch_sizes, dtype=torch.int64)
    time = torch.repeat_interleave(torch.arange(len(batch_sizes)), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    row = order[torch.arange(len(time)) - torch.repeat_interleave(first, sizes)]
    return row * steps + time if batch_first else time * batch + row


def _packed(x: PackedSequence, batch_first: bool, resets: Tensor | None) -> Packed:
    batch_sizes = tuple(x.batch_sizes.tolist())
    batch, steps = batch_sizes[0], len(batch_sizes)
    if resets is not None:
        _check_resets(resets, steps, batch, batch_first)
        order = torch.arange(batch) if x.sorted_indices is None else x.sorted_indices.cpu()
        places = _places(order, batch_sizes, steps, batch, batch_first)
        resets = resets.reshape(-1).index_select(0, places.to(resets.device)).to(x.data.device)
    return Packed(Sequences(x.data, batch_sizes, batch, resets), x)


def _checked_lengths(lengths: Lengths, steps: int, batch: int) -> Tensor:
    found = torch.as_tensor(lengths).detach().cpu()
    if not found.numel():  # an empty list has no dtype of its own
        found = found.to(torch.int64)
    if found.is_floating_point() or found.dtype == torch.bool or found.is_complex():
        raise InputError(f"lengths must be whole numbers, one per row; their dtype is {found.dtype}.")
    if found.shape != (batch,):
        raise InputError(
            f"lengths must have shape ({batch},), one per row; they have shape {tuple(found.shape)}."
        )
    wrong = found[(found < 0) | (found > steps)]
    if len(wrong):
        raise InputError(
            f"lengths must lie between 0 and the number of steps, {steps}; one of them is {int(wrong[0])}."
        )
    return found.to(torch.int64)


def _check_resets(resets: Tensor | None, steps: int, batch: int, batch_first: bool) -> None:
    if resets is None:
        return
    wanted, named = ((batch, steps), "(B, T)") if batch_first else ((steps, batch), "(T, B)")
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        found = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise InputError(f"resets must be a bool tensor of shape {named} = {wanted}; got {found}.")
    if tuple(resets.shape) != wanted:
        raise InputError(f"resets must have shape {named} = {wanted}; they have shape {tuple(resets.shape)}.")
