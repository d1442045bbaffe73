"""Training series that are a little other than they were: stretched, scaled, with noise."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["augmented"]


def augmented(values: Tensor, lengths: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Values (T, B, D) and lengths (B,), each series changed by its own draw from torch's generator.

    With `strength` s: time is stretched by up to e^±s, channels are scaled by 1 ± s, and noise of s is added, all
    in units of the channel's spread (Um et al. 2017 compare such changes)."""
    values, lengths = _stretched(values, lengths, strength)
    size = values.shape[1:]
    scale = 1 + strength * torch.randn(size, device=values.device)
    noise = strength * torch.randn_like(values)
    return values * scale + noise, lengths


def _stretched(values: Tensor, lengths: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Each series read at another speed, by linear interpolation; none becomes shorter than a step."""
    factor = torch.exp(strength * (2 * torch.rand(lengths.shape, device=values.device) - 1))
    made = (lengths * factor).round().long().clamp(min=1)
    top = int(made.max())
    ratio = (lengths - 1) / (made - 1).clamp(min=1)
    position = (torch.arange(top, device=values.device)[:, None] * ratio).clamp(max=(lengths - 1).float())
    before = position.floor().long()
    after = torch.minimum(before + 1, lengths - 1)
    share = (position - before)[..., None]
    row = torch.arange(values.shape[1], device=values.device)
    return values[before, row] * (1 - share) + values[after, row] * share, made
