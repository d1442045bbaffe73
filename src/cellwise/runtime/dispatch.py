"""One call: choose a backend, once for each layer, setting and workload."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.base import Backend, CallContext, LayerSpec, Stepper, Weights, Workload
from cellwise.backends.registry import AUTO, Explanation, check_name, choose, explain, for_steps

__all__ = [
    "AUTO",
    "DISPATCHES",
    "Dispatch",
    "Explanation",
    "Workload",
    "check_name",
    "context_of",
    "dispatch_id",
    "explain",
    "stepper",
]


class Dispatch(NamedTuple):
    """The backend for a layer in a setting, and what it wants to know beside the call."""

    backend: Backend
    stack: LayerSpec
    prepared: Any


def context_of(
    device: torch.device, dtype: torch.dtype, resets: bool, traced: bool, recompute: bool = False
) -> CallContext:
    """The setting of a call that is made here and now."""
    levels = torch_internals.interpreter_stack()
    return CallContext(
        device,
        dtype,
        resets,
        () if levels is None else tuple(level.key() for level in levels),
        torch_internals.forward_ad._current_level >= 0,
        _autocast_dtype(device.type),
        traced,
        # Without gradients nothing is kept anyway.
        recompute and torch.is_grad_enabled(),
    )


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    if not (torch_internals.is_autocast_enabled() and torch.amp.is_autocast_available(device_type)):
        return None
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


# A program that torch.compile traced finds the choice again under its number: it can hold a number as a constant.
DISPATCHES: dict[int, Dispatch] = {}
_NUMBERS = itertools.count()  # threads that meet here draw different ones


def dispatch_id(backend: str, stack: LayerSpec, context: CallContext, workload: Workload | None) -> int:
    """The number under which DISPATCHES has the backend of this name, or for "auto" the best that can.

    Args:
        workload: what "auto" decides by where several can; None where no sizes are known.

    Raises:
        BackendError: no backend can run such calls, or not the one asked for by name.
    """
    name = _best(stack, context, workload) if backend == AUTO else backend
    return _dispatch_id(name, stack, context)


@lru_cache(maxsize=4096)  # sequences of many lengths
def _best(stack: LayerSpec, context: CallContext, workload: Workload | None) -> str:
    with (
        torch_internals.outside_modes()
    ):  # cells are read here, maybe for the first time while a layer is exported
        return explain(AUTO, stack, context, workload).chosen or AUTO


@lru_cache(maxsize=1024)
def _dispatch_id(backend: str, stack: LayerSpec, context: CallContext) -> int:
    with torch_internals.outside_modes():
        found = choose(backend, stack, context)
        number = next(_NUMBERS)
        DISPATCHES[number] = Dispatch(found, stack, found.prepare(stack, context))
        return number


def stepper(
    backend: str,
    stack: LayerSpec,
    context: CallContext,
    weights: tuple[Weights, ...],
    batch: int,
    watched: Sequence[Tensor],
) -> Stepper | None:
    """What makes single steps on these weights as they are now; None if no backend that can run them has it."""
    for name in for_steps(backend, stack, context):
        found, _, prepared = DISPATCHES[_dispatch_id(name, stack, context)]
        made = found.stepper(stack, prepared, weights, batch, watched)
        if made is not None:
            return made
    return None
