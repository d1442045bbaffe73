"""Memory that ends, or begins, at a page that nobody may touch; and a word about who touched it.

Whatever the engine hands to a kernel is taken from here while `guarding` lasts: what torch's operators make, what the
engine's modules make with numpy, what the scratch and the pool hand out. A read or write beside a buffer is then a
segmentation fault at once, and the handler here says which buffer it was beside.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cellwise.backends.compiled import backward_pass, forward_pass, gradients, plain, scratch, time_schedule
from cellwise.backends.cpu import compiler, launch, pack, small_ragged, stepper, threads

TOUCHED = 86  # the exit status of a process that touched a guard page
_PAGE = mmap.PAGESIZE
_NOTHING = 0  # PROT_NONE
_LIBC = ctypes.CDLL(None, use_errno=True)
_MODULES = (
    backward_pass,
    compiler,
    forward_pass,
    gradients,
    launch,
    pack,
    scratch,
    stepper,
    threads,
    time_schedule,
)
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.int16}


class Guards:
    """Hands out memory beside guard pages. `at_end`: buffers end at one, else they begin after one.

    `short`: buffers whose maker has this name are one element shorter than asked, to see that it is found out.
    """

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self._numbers = itertools.count()
        # Where a mapping begins, its length, and address and size of the buffer in it.
        self.live: dict[int, tuple[int, int, int, int]] = {}
        self.names: dict[int, str] = {}  # address -> what a kernel knows it as
        self.running = ""

    def bytes(self, size: int) -> np.ndarray:
        """So many bytes of 255, which read as NaN, or as no place in any array."""
        inner = max(1, -(-size // _PAGE)) * _PAGE
        memory = mmap.mmap(-1, inner + 2 * _PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (start, start + _PAGE + inner):
            if _LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), _NOTHING):
                raise OSError(ctypes.get_errno(), "mprotect")
        offset = _PAGE + (inner - size if self.at_end else 0)
        number = next(self._numbers)
        self.live[number] = (start, inner + 2 * _PAGE, start + offset, size)
        weakref.finalize(memory, self.live.pop, number).atexit = False
        array = np.frombuffer(memory, np.uint8, size, offset)
        array.fill(255)
        return array

    def empty(self, shape: Any, kind: Any) -> np.ndarray:
        count = int(np.prod(shape))
        return self.bytes(count * np.dtype(kind).itemsize).view(kind).reshape(shape)

    def array(self, given: np.ndarray) -> np.ndarray:
        """A copy, unless it is there already."""
        if self.holds(given.ctypes.data):
            return given
        copy = self.empty(given.shape, given.dtype)
        copy[...] = given
        return copy

    def tensor(self, given: Tensor) -> Tensor:
        """A copy with the same strides, unless it is there already."""
        storage = given.untyped_storage()
        if storage.nbytes() == 0 or self.holds(storage.data_ptr()):
            return given
        size = storage.nbytes()
        memory = self.bytes(size)
        ctypes.memmove(memory.ctypes.data, storage.data_ptr(), size)
        copy = torch.empty(0, dtype=given.dtype)
        copy.set_(
            torch.from_numpy(memory).untyped_storage(), given.storage_offset(), given.shape, given.stride()
        )
        return copy

    def holds(self, address: int) -> bool:
        return self.near(address, beside=0) is not None

    def near(self, address: int, beside: int = _PAGE) -> tuple[int, int] | None:
        """Address and size of the buffer that an address belongs to, or that it is not further than this from."""
        for start, length, first, size in list(self.live.values()):
            if (beside and start <= address < start + length) or first <= address < first + max(1, size):
                return first, size
        return None

    def told(self, address: int) -> str:
        """What someone touched."""
        found = self.near(address)
        if found is None:
            return f"{self.running}: touched {address:#x}, which is beside no buffer"
        first, size = found
        # A kernel may know an inner row of a buffer by a name.
        names = {name: at - first for at, name in self.names.items() if first <= at < first + max(1, size)}
        known = ", ".join(f"{name} (from byte {place})" for name, place in names.items()) or "no name"
        return f"{self.running}: touched byte {address - first} of a buffer of {size} bytes: {known}"


class _NewTensors(TorchDispatchMode):
    """Puts what torch's operators make into guarded memory."""

    def __init__(self, guards: Guards) -> None:
        super().__init__()
        self.guards = guards

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return torch.utils._pytree.tree_map_only(Tensor, self.guards.tensor, found)


class _Numpy(types.ModuleType):
    """numpy, whose functions return arrays in guarded memory."""

    def __init__(self, guards: Guards) -> None:
        super().__init__("numpy")
        self._guards = guards

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found
        return lambda *args, **kwargs: _moved(self._guards, found(*args, **kwargs))


def _moved(guards: Guards, value: Any) -> Any:
    """The arrays in a value, moved into guarded memory."""
    if isinstance(value, np.ndarray):
        return guards.array(value)
    if is_dataclass(value) and not isinstance(value, type):
        arrays = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(
            value, **{k: guards.array(each) for k, each in arrays.items() if isinstance(each, np.ndarray)}
        )
    return value


@contextmanager
def guarding(at_end: bool) -> Iterator[Guards]:
    """While this lasts, what kernels are given lies beside guard pages."""
    guards = Guards(at_end)

    def parts(self: Any) -> None:
        # Apart, and good until the next call takes others.
        self.guarded = [guards.bytes(size) for size in self.parts]
        self._move([part.ctypes.data for part in self.guarded])

    def matrix(self: Any, rows: int, width: int, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(guards.empty((rows, width), _NUMPY[dtype])).view(dtype)

    def pooled(self: Any, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(guards.empty(shape, _NUMPY[dtype])).view(dtype)

    def through(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: _moved(guards, make(*args, **kwargs))

    make_schedule = time_schedule.schedule_at.__wrapped__

    def schedule(*args: Any) -> Any:
        made = _moved(guards, make_schedule(*args))
        for name in ("limits", "before", "after", "pair_before", "pair_after"):
            made.__dict__[name] = guards.array(getattr(made, name))
        return made

    with ExitStack() as stack:
        for module in _MODULES:
            if hasattr(module, "np"):
                stack.enter_context(mock.patch.object(module, "np", _Numpy(guards)))
        # What is made by methods and operators of numpy's arrays is moved when it is complete. Nothing is cached, since
        # what is cached would outlive its guards.
        stack.enter_context(mock.patch.object(time_schedule, "schedule_at", schedule))
        stack.enter_context(mock.patch.object(small_ragged, "_plans", small_ragged._plans.__wrapped__))
        stack.enter_context(mock.patch.object(compiler, "_packing", through(compiler._packing.__wrapped__)))
        for name in ("forward_pass", "backward_pass"):
            stack.enter_context(mock.patch.object(plain, name, getattr(plain, name).__wrapped__))
        stack.enter_context(mock.patch.object(launch.CpuRun, "_take", parts))
        if at_end:  # stores past caches, which are for what is far larger
            stack.enter_context(mock.patch.object(launch, "_PAST_CACHES", -1))
        stack.enter_context(mock.patch.object(scratch.Scratch, "tensor", matrix))
        stack.enter_context(mock.patch.object(scratch.Pool, "tensor", pooled))
        stack.enter_context(_NewTensors(guards))
        yield guards


# --- who touched a guard page ---------------------------------------------------------------------------------------

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SEGV, _SIGINFO, _ADDRESS_AT = 11, 4, 16
_installed: list[Any] = []


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", _HANDLER),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def tell_of_faults(guards: Guards) -> None:
    """From now on a segmentation fault writes one line and ends the process with the status TOUCHED (Linux).

    The fault is in a kernel, which runs without Python's lock and holds no other, so that Python may speak here.
    """

    def handle(signal: int, info: int, context: int) -> None:
        address = ctypes.c_uint64.from_address(info + _ADDRESS_AT).value
        sys.stderr.write(guards.told(address) + "\n")
        sys.stderr.flush()
        os._exit(TOUCHED)

    handler = _HANDLER(handle)
    _installed.append(handler)
    if _LIBC.sigaction(_SEGV, ctypes.byref(_Action(handler=handler, flags=_SIGINFO)), None):
        raise OSError(ctypes.get_errno(), "sigaction")
