"""From the wall clocks of a zone to UTC, also where the clocks skip or repeat an hour."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from cellwise.tasks.errors import DataError

__all__ = ["to_utc"]


def to_utc(wall: np.ndarray, zone: str) -> np.ndarray:
    """Wall times (R,) datetime64[us] of a zone as UTC. A skipped time moves on by what was skipped; of a
    repeated one the first is meant.

    >>> to_utc(np.array(["2024-04-26"], "datetime64[us]"), "Africa/Cairo")  # 00:00 to 01:00 is skipped
    array(['2024-04-25T22:00:00.000000'], dtype='datetime64[us]')
    """
    clock = _zone(zone)
    times, back = np.unique(wall.astype("datetime64[us]"), return_inverse=True)
    moments: list[datetime] = times.tolist()
    offsets = [clock.utcoffset(moment.replace(tzinfo=clock)) or timedelta() for moment in moments]
    return (times - np.array(offsets, dtype="timedelta64[us]"))[back]


def _zone(name: str) -> tzinfo:
    fixed = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})", name)
    if fixed:
        sign, hours, minutes = fixed.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-distance if sign == "-" else distance)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise DataError(
            f"the time zone {name!r} is not known on this machine; convert the times to UTC"
        ) from error
