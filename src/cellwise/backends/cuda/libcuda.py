"""The driver's library, which torch has loaded already: its functions, its errors, and what it allows in a thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cellwise.errors import CellwiseError

_RELAXED = 2  # of CUstreamCaptureMode


class DriverError(CellwiseError):
    """The driver refuses."""


@cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL("libcuda.so.1")
    # Said once, so that a call converts nothing.
    word, pointer = ctypes.c_uint, ctypes.c_void_p
    found.cuLaunchKernel.argtypes = [pointer, *[word] * 7, pointer, pointer, pointer]
    found.cuLaunchCooperativeKernel.argtypes = [pointer, *[word] * 7, pointer, pointer]
    found.cuMemsetD32Async.argtypes = [pointer, word, ctypes.c_size_t, pointer]
    found.cuMemcpyAsync.argtypes = [pointer, pointer, ctypes.c_size_t, pointer]
    found.cuGraphLaunch.argtypes = [pointer, pointer]
    found.cuCtxSetCurrent.argtypes = [pointer]
    return found


def call(name: str, *arguments: Any) -> None:
    """Call one of its functions.

    Raises:
        DriverError: with what the driver has to say.
    """
    check(getattr(library(), name)(*arguments))


def check(code: int) -> None:
    if code:
        raise DriverError(f"The CUDA driver fails: {text_of(code)}.")


def text_of(code: int) -> str:
    text = ctypes.c_char_p()
    library().cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'an unknown error').decode()} ({code})"


@contextmanager
def relaxed() -> Iterator[None]:
    """Within, this thread may load modules and take memory while a CUDA graph is recorded, by itself or by another
    thread. Else the driver refuses (900), and ends that recording with an error.

    For calls that put nothing on a stream which is being recorded (cuThreadExchangeStreamCaptureMode, CUDA driver API;
    docs/decisions/0085). The thread is to have a context.
    """
    mode = ctypes.c_int(_RELAXED)  # the driver leaves in it what was before
    call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
    try:
        yield
    finally:
        call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
