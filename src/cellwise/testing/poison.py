"""Uninitialised memory that reads as NaN, so that a number nobody wrote cannot pass a test by chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic as deterministic_settings


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within it `torch.empty` and its relatives are filled: NaN for floats, the largest number for integers.

    Torch does so only while its algorithms are deterministic, so they are as well.

    >>> with poisoned_memory():
    ...     torch.empty(2)
    tensor([nan, nan])
    """
    settings: Any = deterministic_settings
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
