"""Whether torch's settings let products of float32 numbers have fewer bits.

There are two ways to set them, `torch.set_float32_matmul_precision` and one setting a library
(`torch.backends.cuda.matmul.fp32_precision`); after the second torch refuses to answer for the first. What each library
is to do follows from both, so that is what is asked.
"""

from __future__ import annotations

import torch

__all__ = ["allows_tf32", "allows_two_parts"]

# Looked up once: this is asked at every call.
_ON_GPUS = torch.backends.cuda.matmul
_ON_CPUS = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch puts it there when it is loaded


def allows_tf32() -> bool:
    """On a GPU: TF32, 10 bits behind the point."""
    return bool(_ON_GPUS.fp32_precision == "tf32")


def allows_two_parts() -> bool:
    """On a CPU: each number as two of bfloat16, about 16 bits, more than the TF32 or bfloat16 that is asked for."""
    return _ON_CPUS.fp32_precision in ("tf32", "bf16")
