"""Whether two sides computed the same. What is wrong is not timed."""

from __future__ import annotations

import torch

from cellwise.bench.implementations import Results

# The largest distance of two float32 results, as a part of the largest number of that result. Both sides round
# differently, in sums of up to D + H products and, for the gradients of weights, of T * B steps; on the default shapes
# the sides were measured to differ by at most 3e-6 (outputs and states) and 8e-6 (gradients).
TOLERANCES = {"output": 2e-5, "final": 2e-5, "gradient": 1e-4}
BF16_TOLERANCES = {"output": 5e-2, "final": 5e-2, "gradient": 2e-1}
# Of numbers with 10 bits behind the point.
F16_TOLERANCES = {"output": 1e-2, "final": 1e-2, "gradient": 5e-2}


def tolerances(dtype: torch.dtype) -> dict[str, float]:
    """Those of results of a dtype, by the first word of their names; of float32 as torch now multiplies it."""
    if dtype is torch.bfloat16:
        return BF16_TOLERANCES
    is_tf32 = dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return F16_TOLERANCES if dtype is torch.float16 or is_tf32 else TOLERANCES


def mismatch(found: Results, wanted: Results) -> str | None:
    """What is wrong with `found`, in words; None if nothing is.

    >>> good = {"output": torch.ones(2, 3)}
    >>> mismatch(good, good)
    >>> mismatch({"output": torch.tensor([1.0, 2.0, 3.5])}, {"output": torch.tensor([1.0, 2.0, 4.0])})
    'output is off by 0.12 of its largest number, 2e-05 allowed'
    >>> mismatch(good, {"output": torch.full((2, 3), torch.inf)})
    'output holds NaN or infinity beside it, with which nothing can be compared'
    """
    if found.keys() != wanted.keys():
        return f"it has {', '.join(sorted(found.keys() ^ wanted.keys()))} on one side only"
    for name, right in wanted.items():
        if found[name].shape != right.shape:
            return f"{name} has shape {tuple(found[name].shape)}, not {tuple(right.shape)}"
        if not right.isfinite().all():
            where = "beside it" if found[name].isfinite().all() else "on both sides"
            return f"{name} holds NaN or infinity {where}, with which nothing can be compared"
        allowed = tolerances(right.dtype)[name.partition(" ")[0]]
        scale = max(float(right.abs().max()), torch.finfo(right.dtype).tiny)
        off = float((found[name] - right).abs().max()) / scale
        if not off <= allowed:  # NaN is wrong too
            return f"{name} is off by {off:.2g} of its largest number, {allowed:.2g} allowed"
    return None
