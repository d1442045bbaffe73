"""One call: choose a backend, once for each layer, setting and workload."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from cellwise import torch_internals
from cellwise.backends.base import Backend, Setting, Stack, Stepper, Weights, Workload
from cellwise.backends.registry import AUTO, Explanation, check_name, choose, explain, willing

__all__ = [
    "AUTO",
    "CHOICES",
    "Chosen",
    "Explanation",
    "Workload",
    "check_name",
    "choice",
    "explain",
    "setting_of",
    "stepper",
]


class Chosen(NamedTuple):
    """The backend for a layer in a setting, and what it wants to know beside the call."""

    backend: Backend
    stack: Stack
    prepared: Any


def setting_of(
    device: torch.device, dtype: torch.dtype, resets: bool, traced: bool, recompute: bool = False
) -> Setting:
    """The setting of a call that is made here and now."""
    levels = torch_internals.interpreter_stack()
    return Setting(
        device,
        dtype,
        resets,
        () if levels is None else tuple(level.key() for level in levels),
        torch_internals.forward_ad._current_level >= 0,
        torch_internals.is_autocast_enabled(),
        traced,
        # Without gradients nothing is kept anyway.
        recompute and torch.is_grad_enabled(),
    )


# A program that torch.compile traced finds the choice again under its number: it can hold a number as a constant.
CHOICES: dict[int, Chosen] = {}


def choice(backend: str, stack: Stack, setting: Setting, workload: Workload | None) -> int:
    """The number under which CHOICES has the backend of this name, or for "auto" the best that can.

    Args:
        workload: what "auto" decides by where several can; None where no sizes are known.

    Raises:
        BackendError: no backend can run such calls, or not the one asked for by name.
    """
    name = _best(stack, setting, workload) if backend == AUTO else backend
    return _choice(name, stack, setting)


@lru_cache(maxsize=4096)  # sequences of many lengths
def _best(stack: Stack, setting: Setting, workload: Workload | None) -> str:
    return explain(AUTO, stack, setting, workload).chosen or AUTO


@lru_cache(maxsize=1024)
def _choice(backend: str, stack: Stack, setting: Setting) -> int:
    found = choose(backend, stack, setting)
    number = len(CHOICES)
    CHOICES[number] = Chosen(found, stack, found.prepare(stack, setting))
    return number


def stepper(
    backend: str, stack: Stack, setting: Setting, weights: tuple[Weights, ...], batch: int
) -> Stepper | None:
    """What makes single steps on these weights as they are now; None if no backend that can run them has it."""
    for name in willing(backend, stack, setting):
        found, _, prepared = CHOICES[_choice(name, stack, setting)]
        made = found.stepper(stack, prepared, weights, batch)
        if made is not None:
            return made
    return None
