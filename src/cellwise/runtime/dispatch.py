"""One call: choose a backend, once for each layer and setting, and run it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch._C._functorch import get_interpreter_stack
from torch.autograd import forward_ad

from cellwise.backends.base import Backend, Setting, Stack
from cellwise.backends.registry import Explanation, check_name, choose, explain

__all__ = ["CHOICES", "Chosen", "Explanation", "check_name", "choice", "explain", "setting_of"]


class Chosen(NamedTuple):
    """The backend for a layer in a setting, and what it wants to know beside the call."""

    backend: Backend
    stack: Stack
    prepared: Any


def setting_of(
    device: torch.device, dtype: torch.dtype, resets: bool, traced: bool, recompute: bool = False
) -> Setting:
    """The setting of a call that is made here and now."""
    levels = get_interpreter_stack()
    return Setting(
        device,
        dtype,
        resets,
        () if levels is None else tuple(level.key() for level in levels),
        forward_ad._current_level >= 0,
        torch._C._is_any_autocast_enabled(),
        traced,
        # Without gradients nothing is kept anyway.
        recompute and torch.is_grad_enabled(),
    )


# A program that torch.compile traced finds the choice again under its number: it can hold a number as a constant.
CHOICES: dict[int, Chosen] = {}


@lru_cache(maxsize=1024)
def choice(backend: str, stack: Stack, setting: Setting) -> int:
    """The number under which CHOICES has the backend of this name, or the best that can for "auto".

    Raises:
        BackendError: a backend asked for by name cannot run such calls.
    """
    found = choose(backend, stack, setting)
    number = len(CHOICES)
    CHOICES[number] = Chosen(found, stack, found.prepare(stack, setting))
    return number
