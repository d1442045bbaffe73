"""Memory of the host for runs. Fresh memory costs a page fault every four kilobytes, as much as the kernels if much.

What a run needs only until it returns is kept for the next one: each Python thread has its own, as large as its largest
run needed. What outlives the run comes from a pool. All is taken through numpy, which asks the system for large pages.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic

_ALIGNED = 64
# Up to here a block of the pool costs more than memory that the C library has at hand.
_SMALL = 2**16
# Tensors on a block that are kept.
_MOST_VIEWS = 256


class _Block:
    """Uninitialised memory from a multiple of 64 bytes on."""

    def __init__(self, size: int) -> None:
        memory = np.empty(size + _ALIGNED, np.uint8)
        self.size, self.bytes = size, memory[-memory.ctypes.data % _ALIGNED :][:size]
        self.start: int = self.bytes.ctypes.data
        self._made: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def tensor(self, start: int, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        """Rows of numbers from a byte on; the same object for the same place, since calls mostly repeat each other."""
        key = (start, rows, width, dtype)
        if key not in self._made:
            if len(self._made) >= _MOST_VIEWS:
                self._made.clear()
            with torch.inference_mode(False):  # it outlives the call
                part = torch.from_numpy(self.bytes[start : start + rows * width * dtype.itemsize])
                self._made[key] = part.view(dtype).view(rows, width)
        return self._made[key]


class Scratch(threading.local):
    """Hands out memory from one block; `begin` takes all of it back."""

    def __init__(self) -> None:
        self._block = _Block(0)
        self._used, self._poison = 0, False
        self._beside: list[_Block] = []  # what did not fit into the block in this run

    def begin(self) -> None:
        """Start a run: what was handed out before is free again, and the block grows to what the last run needed."""
        if self._beside:
            wanted = self._used + sum(each.size for each in self._beside)
            self._beside = []
            self._block = _Block(wanted)
        self._used, self._poison = 0, _poisoned()

    def fresh(self, size: int) -> _Block:
        """Start a run that needs so many bytes and no more: the block, whose beginning it may use."""
        if self._beside or self._block.size < size:
            self.begin()
            if self._block.size < size:
                self._block = _Block(size)
        self._used = size
        if _are_deterministic() and _poisoned():
            self._block.bytes[:size] = 255
        return self._block

    def address(self, size: int) -> int:
        """Where there is room for this many bytes, at a multiple of 64. It is good until the run is over."""
        block, start = self._take(size)
        return block.start + start

    def tensor(self, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        """The same as an uninitialised tensor. It must not outlive the run."""
        block, start = self._take(rows * width * dtype.itemsize)
        return block.tensor(start, rows, width, dtype)

    def _take(self, size: int) -> tuple[_Block, int]:
        size = -(-size // _ALIGNED) * _ALIGNED
        block, start = self._block, self._used
        if start + size <= block.size:
            self._used += size
        else:
            block, start = _Block(size), 0
            self._beside.append(block)
        if self._poison:
            block.bytes[start : start + size] = 255  # the bytes of a NaN
        return block, start


class Pool:
    """Blocks for what outlives a run, taken back when the last tensor on them is gone, and used again.

    A tensor begins at a multiple of 64 bytes. A block that many later ones did without is let go.
    """

    def __init__(self, patience: int = 32) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._count = 0
        self._idle: list[tuple[int, np.ndarray]] = []  # when it came back, the block
        # Blocks come back from wherever a tensor dies, perhaps from within `take`: nothing may be waited for there.
        self._back: deque[np.ndarray] = deque()

    def tensor(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        if size <= _SMALL:
            return torch.empty(shape, dtype=dtype, device="cpu")
        block = self._take(size + _ALIGNED)
        array = block[-block.ctypes.data % _ALIGNED :][:size]
        # The tensor holds this very array, not its base, and so the array lives as long as the tensor's memory is used.
        weakref.finalize(array, self._back.append, block).atexit = False
        if _poisoned():
            array.fill(255)
        return torch.from_numpy(array).view(dtype).view(shape)

    @property
    def idle_bytes(self) -> int:
        """What is kept for later."""
        return sum(block.nbytes for _, block in self._idle) + sum(block.nbytes for block in self._back)

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            self._count += 1
            while self._back:
                self._idle.append((self._count, self._back.popleft()))
            self._idle = [each for each in self._idle if each[0] + self._patience >= self._count]
            fitting = [i for i, (_, block) in enumerate(self._idle) if size <= block.nbytes <= 2 * size]
            if fitting:
                best = min(fitting, key=lambda i: self._idle[i][1].nbytes)
                block = self._idle.pop(best)[1]
            else:
                block = np.empty(size, np.uint8)
        return block


_are_deterministic: Callable[[], bool] = torch.are_deterministic_algorithms_enabled


def _poisoned() -> bool:
    # As torch.empty does it.
    settings: Any = deterministic
    return torch.are_deterministic_algorithms_enabled() and settings.fill_uninitialized_memory


SCRATCH = Scratch()
POOL = Pool()
