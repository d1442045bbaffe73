"""Several outputs of a layer by their names: a tuple with a name for each.

Backends give them side by side in one tensor, all directions of the first, then all of the second.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

# Looked up, not made, when a program is traced.
_KINDS: dict[tuple[str, ...], Callable[..., Any]] = {}


def kind_of(names: tuple[str, ...]) -> Callable[..., Any]:
    """The named tuple of outputs of these names. It is pickled by its names."""
    if names not in _KINDS:
        made = namedtuple("Outputs", names)  # type: ignore[misc]
        made.__reduce__ = _stored  # type: ignore[assignment]
        made.__module__ = __name__
        made.__doc__ = f"The outputs of a layer: {', '.join(names)}, in this order."
        _KINDS[names] = made
    return _KINDS[names]


def _stored(outputs: Any) -> tuple[Any, ...]:
    return _again, (outputs._fields, tuple(outputs))


def _again(names: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return kind_of(names)(*values)


def first_of(output: Any) -> Any:
    """The first output of a layer, whether it has several or one."""
    is_one = isinstance(output, PackedSequence) or not isinstance(output, tuple)
    return output if is_one else output[0]


def namer(names: tuple[str, ...], sizes: tuple[int, ...]) -> Callable[[Tensor], Any]:
    """`by_name` for the contiguous outputs of a step, of so many numbers each, in less than half its time."""
    kind: Any = kind_of(names)
    places = [(sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    whole, make, part = sum(sizes), tuple.__new__, torch.as_strided

    def named(output: Tensor) -> Any:
        at = output.storage_offset()  # of a tensor that is part of another
        if output.dim() == 1:
            return make(kind, [part(output, (size,), (1,), at + start) for start, size in places])
        rows = output.shape[0]
        return make(kind, [part(output, (rows, size), (whole, 1), at + start) for start, size in places])

    return named


def by_name(
    output: Tensor | PackedSequence, names: tuple[str, ...], sizes: tuple[int, ...] | None = None
) -> Any:
    """Outputs that lie side by side in the last dimension, each in the form in which they all came.

    `sizes` are their sizes, where they are not all alike. An exported program returns a plain tuple: whoever loads it
    may know nothing of the names.
    """
    kind = (lambda *each: each) if torch.compiler.is_exporting() else kind_of(names)
    data = output.data if isinstance(output, PackedSequence) else output
    sizes = sizes or (data.shape[-1] // len(names),) * len(names)
    # Each a view for itself, and not one of several, to which torch lets nobody write.
    parts = [data.narrow(-1, sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    if isinstance(output, PackedSequence):
        rest = (output.batch_sizes, output.sorted_indices, output.unsorted_indices)
        return kind(*(PackedSequence(part, *rest) for part in parts))
    return kind(*parts)
