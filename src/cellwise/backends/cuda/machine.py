"""What a run asks of the device it is on, or of what stands for one where there is none."""

from __future__ import annotations

import ctypes
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor

from cellwise.backends.cuda.layout import Device, Layout
from cellwise.errors import CellwiseError

_LEAST_ZEROS = 2**16  # numbers

T = TypeVar("T")


class LateError(CellwiseError):
    """A block waited in vain for what others were to post. The results of an earlier call are not to be used."""


class RefusedError(CellwiseError):
    """A device does not start so many blocks at once."""


class Launcher(ABC):
    """A kernel that can be launched. `registers` of a thread; `spilled`: bytes of them in memory."""

    registers: int = 0
    spilled: int = 0

    @abstractmethod
    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        """Start it with these arguments. together: all blocks are to run at once, since they wait for each other.

        Raises:
            RefusedError: they cannot; nothing was started.
        """


class Order:
    """Work that follows other work on the same memory, whichever queues it goes to: where there is one, as it comes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def begin(self, tensors: Callable[[], Iterable[Tensor]]) -> int | None:
        """What goes to the queue of now waits for all that came before the last `end`.

        Args:
            tensors: what the work reads and writes, asked for where that goes to another queue than before.

        Returns:
            The queue; None while the caller records a graph, in which nothing waits for what is outside of it.
        """
        return self._machine.stream()

    def end(self) -> None:
        """The work was asked for."""


class Machine(ABC):
    """Compiles kernels and runs them. late: (1,) int32, not zero once a block has waited in vain."""

    device: Device
    late: Tensor
    name: str = "none"  # what the maker calls the device

    @cached_property
    def refused(self) -> dict[tuple[str, Layout], str]:
        """Of what a call was measured for (`tuned.call_of`) the layouts that the device did not start, and why."""
        return {}

    @abstractmethod
    def build(self, source: str, shared: int, arguments: tuple[str, ...]) -> Launcher:
        """The kernel of a text, with so many bytes of shared memory."""

    def mark(self, rows: Tensor) -> None:
        """Set every bit of rows that lie one after the other: the mark of places that nobody has written yet."""
        rows.view(torch.int32).fill_(-1)

    @cached_property
    def _flag(self) -> ctypes.c_int32:
        """`late` where it lies, which takes no operator of torch's to read."""
        return ctypes.c_int32.from_address(self.late.data_ptr())

    def lasting(self, make: Callable[[], T]) -> T:
        """What is made so outlives the call, and may be read at once by any of the device's queues.

        While a graph is recorded memory is otherwise the graph's own, and nothing is written to it before a replay.
        """
        with torch.inference_mode(False):
            return make()

    def lend(self, tensors: Iterable[Tensor]) -> None:
        """The queue of now works with these, which may be let go of before it is done."""
        return

    @cached_property
    def _zeros(self) -> dict[torch.dtype, list[Tensor]]:
        return {}

    @cached_property
    def _constants(self) -> dict[tuple[int, ...], Tensor]:
        return {}

    def zeros(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros that are only read: of one piece of memory for all, which stays, since graphs of the caller's know it.
        Where it is too small another follows, at least twice as large.
        """
        size, pieces = math.prod(shape), self._zeros.setdefault(dtype, [])
        piece = pieces[-1] if pieces else None
        if piece is None or len(piece) < size:
            count = max(size, _LEAST_ZEROS if piece is None else 2 * len(piece))
            piece = self.lasting(partial(torch.zeros, count, dtype=dtype, device=device))
            pieces.append(piece)
        return piece[:size].view(tuple(shape))

    def constant(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """Whole numbers, int64, that are only read. They stay, too: there are as many as cells and sizes."""
        key = tuple(numbers)
        if key not in self._constants:
            self._constants[key] = self.lasting(partial(torch.tensor, key, dtype=torch.int64, device=device))
        return self._constants[key]

    def copy(self, to: Tensor, given: Tensor) -> None:
        """As many bytes from one place to another; both lie in one piece."""
        to.view(-1).copy_(given.reshape(-1))

    def order(self) -> Order:
        """What keeps work on some memory in its order, on whichever of the device's queues it is asked for."""
        return Order(self)

    def fork(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None] | None:
        """A context for work beside that of now, which reads these tensors: see `KernelCompiler.fork`."""
        return None

    def multiply(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        """out (M, N) in float32 = rows (M, K) weights (K, N)."""
        if rows.dtype == out.dtype:
            torch.mm(rows, weights, out=out)
        else:
            torch.mm(rows, weights, out.dtype, out=out)

    def stream(self) -> int | None:
        """Which of the device's queues work goes to now; None while a graph is being recorded by the caller."""
        return 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """The same work, on the same memory, in less of the host's time: a graph of the device's, if it has such."""
        return work

    def check(self) -> None:
        """Raise LateError if a kernel gave up, of this call or of an earlier one."""
        if self._flag.value:
            # Not through the tensor: one of inference mode may not be written to outside of it.
            self._flag.value = 0
            raise LateError(
                "A kernel on the GPU gave up waiting for its own blocks, and what it computed is not to be used. All "
                "blocks are to run at once: something else (a debugger, another process) held some of them back. "
                "backend='native' or 'reference' runs without such kernels."
            )
