"""Where a network is trained, and moving batches there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from cellwise.tasks.errors import OptionError

__all__ = ["choose_device", "moved"]

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is there.

    Raises OptionError for a name that is none, or one of a device that is not there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    is_there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in is_there.items() if there()))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"device {name!r:.60} is none of auto, cpu, cuda, cuda:N and mps") from error
    if device.type not in is_there:
        raise OptionError(f"device {name!r:.60} is none of auto, cpu, cuda, cuda:N and mps")
    if not is_there[device.type]():
        raise OptionError(f"device {name!r} was asked for, but torch finds none here; use 'cpu' or 'auto'")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise OptionError(
            f"device {name!r} was asked for, but torch finds {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return device


def moved(batch: T, device: torch.device) -> T:
    """A batch with every tensor on a device, at any depth of tuples, lists, dicts and dataclasses.

    What is there already is not copied."""
    made: Any = batch
    if isinstance(batch, torch.Tensor):
        made = batch.to(device)
    elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
        made = type(batch)(*(moved(each, device) for each in batch))
    elif isinstance(batch, list | tuple):
        made = type(batch)(moved(each, device) for each in batch)
    elif isinstance(batch, dict):
        made = {key: moved(each, device) for key, each in batch.items()}
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
        made = dataclasses.replace(batch, **{name: moved(each, device) for name, each in fields.items()})
    return made
