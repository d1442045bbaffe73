"""A time as one reads it."""

from __future__ import annotations

from typing import Any

__all__ = ["short_time"]


def short_time(time: Any) -> str:
    """A time without the parts that are zero.

    >>> import numpy as np
    >>> short_time(np.datetime64("2024-03-01T00:00:00", "us")), short_time(np.int64(7))
    ('2024-03-01', '7')
    """
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
