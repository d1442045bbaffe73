"""What of a benchmark depends on the device that it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cellwise.bench.settings import BenchError

TF32 = "tf32"


def check(device: str) -> None:
    """Raise BenchError if there is no such device here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError(
            "--device cuda needs an NVIDIA GPU that torch can use, and torch sees none here; --device cpu measures "
            "this machine's processor."
        )


def wait() -> None:
    """Until the GPU has done all that this process asked of it, if there is one that it has used."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def dtype_of(name: str) -> torch.dtype:
    """The element type of numbers of this name.

    >>> dtype_of("bfloat16"), dtype_of("tf32")
    (torch.bfloat16, torch.float32)
    """
    dtype: torch.dtype = torch.float32 if name == TF32 else getattr(torch, name)
    return dtype


@contextmanager
def numbers(name: str, precision: str = "highest") -> Iterator[None]:
    """While this lasts all sides multiply float32 as its name says, or on a CPU the precision. cuDNN takes TF32 unless
    that is forbidden.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    kept = {
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
    }
    torch.set_float32_matmul_precision("high" if name == TF32 else precision)
    try:
        with cudnn.flags(allow_tf32=name == TF32, **kept):  # the flags may be frozen to assignments
            yield
    finally:
        torch.set_float32_matmul_precision(before)
