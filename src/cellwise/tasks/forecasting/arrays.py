"""Series given as plain arrays, without names or times: as a table in long format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.frames import Columns

__all__ = ["table_of_arrays"]


def table_of_arrays(arrays: Iterable[Any], columns: Columns) -> Any:
    """A polars frame of arrays (T_i,): series and times are numbered from 0.

    Raises DataError for what is no list of series, and for covariates, which need a table."""
    if columns.known or columns.past:
        raise DataError("a list of arrays holds no covariates; give a table in long format")
    series = [_numbers(array, i) for i, array in enumerate(arrays)]
    if not series:
        raise DataError("the list of arrays is empty")
    lengths = [len(values) for values in series]
    return require("polars").DataFrame(
        {
            columns.id: np.repeat(np.arange(len(series)), lengths),
            columns.time: np.concatenate([np.arange(length) for length in lengths]),
            columns.target: np.concatenate(series),
        }
    )


def _numbers(array: Any, index: int) -> np.ndarray:
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"series {index} of the list is no array of numbers but {type(array).__name__}"
        ) from error
    if values.ndim == 0:
        raise DataError(
            f"a list of arrays is needed, a row of numbers for each series, not list of {type(array).__name__}"
        )
    if values.ndim != 1:
        raise DataError(f"series {index} of the list must be one row of numbers, not of shape {values.shape}")
    return values
