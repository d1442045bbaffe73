"""Rows of numbers as kernels read them: as far apart as the compiler says."""

from __future__ import annotations

from torch import Tensor


def without_padding(rows: Tensor, count: int, size: int) -> Tensor:
    """A copy of rows of so many values side by side, (N, count * width), with the first `size` numbers of each."""
    # Neither a view nor, as reshape makes of a single row of single numbers, the rows themselves.
    copy = rows.new_empty(len(rows), count * size)
    copy.unflatten(1, (count, size)).copy_(rows.unflatten(1, (count, -1))[..., :size])
    return copy


def in_rows(rows: Tensor, width: int) -> Tensor:
    """Rows as they are, if they are of this width one after the other; else a copy, zeros in the padding."""
    if rows.shape[-1] == width:
        return rows.contiguous()
    padded = rows.new_zeros(*rows.shape[:-1], width)
    padded[..., : rows.shape[-1]] = rows
    return padded
