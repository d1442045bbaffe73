"""In which form gradients arrive at a node of autograd: as tensors that a kernel can read, or as something else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise import torch_internals


def are_plain(gradients: Sequence[Tensor | None]) -> bool:
    """Whether a kernel can read gradients where they lie, and nobody differentiates them."""
    if torch.is_grad_enabled() or torch_internals.transform_level() is not None:
        return False
    for each in gradients:
        if each is not None and (
            type(each) is not Tensor
            or each.is_neg()
            or torch_internals.is_zero_without_memory(each)
            or torch_internals.is_legacy_batched(each)
        ):
            return False
    return True


def are_transformed(gradients: Sequence[Tensor | None]) -> bool:
    """Whether gradients may have no numbers that a kernel could read: many arrive as one, in `is_grads_batched=True`
    or within torch.func.vmap, or torch.func differentiates them.
    """
    return torch_internals.transform_level() is not None or any(
        torch_internals.is_legacy_batched(each) for each in gradients if each is not None
    )
