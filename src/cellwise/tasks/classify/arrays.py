"""Series as arrays: a list of them, or one with an axis for the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellwise.tasks.classify.columns import Columns
from cellwise.tasks.classify.examples import SERIES, Channel, Examples
from cellwise.tasks.errors import DataError

__all__ = ["read_arrays"]


def read_arrays(source: Sequence[Any] | np.ndarray, columns: Columns) -> Examples:
    """A list of arrays (T, C) or (T,), or one array (N, T), (N, T, C) or, by `layout`, (N, C, T). DataError."""
    is_stack = isinstance(source, np.ndarray) and source.dtype != object
    layout = columns.layout
    if is_stack and np.ndim(source) == 3 and layout is None:
        layout = _told_by_the_network(np.shape(source), columns)
    if is_stack and np.ndim(source) not in (2, 3):
        raise DataError(
            f"series come as an array (N, T), (N, T, C) or (N, C, T), or as a list of arrays (T, C), not as one "
            f"array of shape {np.shape(source)}"
        )
    values = [_series(each, str(row), layout) for row, each in enumerate(source)]
    widths = [each.shape[1] for each in values]
    wanted = widths[0] if widths else 1
    for row, width in enumerate(widths):
        if width != wanted:
            raise DataError(
                f"series {row} has {width} channels, but series 0 has {wanted}; an array of a list is (steps, "
                "channels), or (channels, steps) with layout='nct'"
            )
    channels = tuple(Channel(f"x{number + 1}") for number in range(wanted))
    if columns.learned is not None and len(columns.learned.channels) == wanted:
        channels = tuple(Channel(each.name) for each in columns.learned.channels)
    return Examples(SERIES, tuple(values), tuple(map(str, range(len(values)))), channels=channels)


def _series(value: Any, name: str, layout: str | None) -> np.ndarray:
    """One series as float64 (T, C)."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"series {name} holds something that is no number: {type(value).__name__}; give an array (steps, channels)"
        ) from error
    if array.ndim not in (1, 2):
        raise DataError(
            f"series {name} has shape {array.shape}; an array of a list is (steps, channels), or (steps,)"
        )
    if array.ndim == 1:
        return array[:, None]
    return np.ascontiguousarray(array.T) if layout == "nct" else array


def _told_by_the_network(shape: tuple[int, ...], columns: Columns) -> str:
    """Which axis is time, where nobody says so: only a network that was trained with so many channels can tell."""
    if columns.learned is not None:
        fits = [axis for axis in (1, 2) if shape[axis] == len(columns.learned.channels)]
        if len(fits) == 1:
            return "nct" if fits[0] == 1 else "ntc"
    raise DataError(
        f"an array of shape {shape} may be (series, channels, steps), as aeon and sktime have it, or (series, steps, "
        "channels); say which with layout='nct' or layout='ntc'"
    )
