"""In which order the units of a layer are drawn, so that a picture shows more than noise."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["alike", "by_activity", "orders"]


def orders(states: Tensor) -> dict[str, list[int]]:
    """Name -> order of the units, from their states over time (T, H)."""
    stored = list(range(states.shape[1]))
    return {"alike together": alike(states), "most active first": by_activity(states), "as stored": stored}


def by_activity(states: Tensor) -> list[int]:
    """Units whose state moves most come first.

    >>> by_activity(torch.tensor([[0.0, 5.0, 1.0], [0.1, -5.0, 2.0]]))
    [1, 2, 0]
    """
    return spread(states).argsort(descending=True, stable=True).tolist()


def alike(states: Tensor) -> list[int]:
    """Units whose states move together stand together: from the most active one on, always the unvisited unit that
    correlates best with the last one (a nearest-neighbour walk, the simplest seriation).

    >>> wave = torch.tensor([0.0, 1.0, 0.0, -1.0])
    >>> alike(torch.stack([wave, wave.roll(1), 3 * wave, -wave], dim=1))
    [2, 0, 1, 3]
    """
    centred = states.double().nan_to_num() - states.double().nan_to_num().mean(0)
    scaled = centred / centred.norm(dim=0).clamp(min=1e-30)
    correlation = scaled.T @ scaled
    correlation.fill_diagonal_(-torch.inf)
    place = by_activity(states)[0]
    walk = [place]
    for _ in range(states.shape[1] - 1):
        correlation[:, place] = -torch.inf
        place = int(correlation[place].argmax())
        walk.append(place)
    return walk


def spread(states: Tensor) -> Tensor:
    """Standard deviation of each unit over time, (H,); 0 for a single step."""
    return states.double().nan_to_num().std(0, correction=0)
