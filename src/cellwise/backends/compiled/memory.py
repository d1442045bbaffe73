"""Whether memory of the host still holds what it held.

Torch counts most changes of a tensor, but not those through `.data`, by numpy, by a fused optimizer or by another
process. Only reading tells.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

WORD = 4  # bytes: the numbers of float32, and halves of those of float64
# What a step looks at: so many bytes are read in about a microsecond.
_AT_ONCE = 2**16


class Memory:
    """What some tensors held when this was made. They must stay where they are while it is asked.

    It is looked at in parts of up to 64 KiB: what is no larger is one part.

    Args:
        digest: from the address of a table, the number of its parts and then address and words of each, writes a whole
            number of 64 bits to the second address.
    """

    def __init__(self, tensors: Sequence[Tensor], digest: Callable[[int, int], None]) -> None:
        self._tables = [_table(parts) for parts in _shares(tensors)]
        self._result = ctypes.c_int64()
        self._call, self._at = digest, ctypes.addressof(self._result)
        self._held = [self._look(table.ctypes.data) for table in self._tables]
        self._addresses = [table.ctypes.data for table in self._tables]

    def _look(self, table: int) -> int:
        self._call(table, self._at)
        return self._result.value

    @property
    def parts(self) -> list[tuple[int, int]]:
        """For each part the address of its table, and what its digest was: for who asks about one after the other."""
        return list(zip(self._addresses, self._held, strict=True))

    def has_changed_anywhere(self) -> bool:
        """Whether any of it holds something else."""
        return any(self._look(each) != held for each, held in zip(self._addresses, self._held, strict=True))


def _shares(tensors: Sequence[Tensor]) -> list[list[tuple[int, int]]]:
    """Address and words of the parts of each share."""
    shares: list[list[tuple[int, int]]] = [[]]
    room = _AT_ONCE // WORD
    for tensor in tensors:
        address, left = tensor.data_ptr(), _words(tensor)
        while left:
            if not room:
                shares.append([])
                room = _AT_ONCE // WORD
            taken = min(left, room)
            shares[-1].append((address, taken))
            address, left, room = address + taken * WORD, left - taken, room - taken
    return shares


def _words(tensor: Tensor) -> int:
    """From a tensor's first number to its last, whatever lies in between."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size() // WORD


def _table(parts: list[tuple[int, int]]) -> np.ndarray:
    return np.array([len(parts), *(each for part in parts for each in part)], np.int64)
