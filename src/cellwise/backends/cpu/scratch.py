"""Memory for runs. Fresh memory costs a page fault every four kilobytes, for large runs as much as the kernels do.

What a run needs only until it returns is kept for the next one: each Python thread has its own, as large as its largest
run needed. What outlives the run comes from a pool. All is taken through numpy, which asks the system for large pages.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic

from cellwise.backends.cpu.engine import NUMPY

_ALIGNED = 64


class Scratch(threading.local):
    """Hands out memory from one block; `begin` takes all of it back."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = 0
        self._beside: list[np.ndarray] = []  # what did not fit into the block in this run

    def begin(self) -> None:
        """Start a run: what was handed out before is free again, and the block grows to what the last run needed."""
        if self._beside:
            wanted = self._used + sum(each.nbytes for each in self._beside)
            self._beside = []
            self._block = np.empty(wanted, np.uint8)
        self._used = 0

    def take(self, count: int, dtype: Any = np.float32) -> np.ndarray:
        """An uninitialised array of this many elements, at a multiple of 64 bytes."""
        wanted = count * np.dtype(dtype).itemsize + _ALIGNED
        if self._used + wanted <= self._block.nbytes:
            room = self._block[self._used : self._used + wanted]
            self._used += wanted
        else:
            room = np.empty(wanted, np.uint8)
            self._beside.append(room)
        skip = -room.ctypes.data % _ALIGNED
        array = room[skip : skip + wanted - _ALIGNED].view(dtype)
        if _poisoned():
            array.fill(np.nan)
        return array

    def tensor(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """The same as a tensor. It must not outlive the run."""
        count = int(np.prod(shape))
        return torch.from_numpy(self.take(count, NUMPY[dtype])).view(shape)


class Pool:
    """Blocks for what outlives a run, taken back when the last tensor on them is gone, and used again.

    A block that many later ones did without is let go.
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
        size = int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize
        block = self._take(size)
        array = block[:size].view(NUMPY[dtype]).reshape(shape)
        # The tensor holds this very array, not its base, and so the array lives as long as the tensor's memory is used.
        weakref.finalize(array, self._back.append, block).atexit = False
        if _poisoned():
            array.fill(np.nan)
        return torch.from_numpy(array)

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


def _poisoned() -> bool:
    # As torch.empty does it.
    settings: Any = deterministic
    return torch.are_deterministic_algorithms_enabled() and settings.fill_uninitialized_memory


SCRATCH = Scratch()
POOL = Pool()
