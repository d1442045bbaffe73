"""The random numbers of a training (dropout): those of an epoch depend on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["own_randomness", "random_state", "set_random_state"]


@contextmanager
def own_randomness(device: torch.device, seed: int, epoch: int, rank: int) -> Iterator[None]:
    """Generators seeded for an epoch inside the block; the caller's are left as they were.

    Every process draws other numbers, the first one those that it would draw alone."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch + rank * 7_368_787) % 2**63)
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that draw on a device, to go on from. Those of "mps" are not among them."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(device: torch.device, state: Mapping[str, Tensor]) -> None:
    """Go on from `random_state`. Raises RuntimeError or TypeError if it is none."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
