"""Settings that make no sense are refused before any work is done, with what would make sense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cellwise import cells
from cellwise.tasks.errors import OptionError
from cellwise.tasks.forecasting.frames import TextFormat
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.ranges import TRAINING_REAL, TRAINING_WHOLE, check_ranges, short_repr

__all__ = ["check_options"]

# name -> least and greatest value
WHOLE = {
    **TRAINING_WHOLE,
    "horizon": (1, 100_000), "season_length": (1, 1_000_000), "members": (1, 1000), "validation": (0, 10_000),
    "cutoffs": (0, 10_000), "step": (1, 1_000_000),
}  # fmt: skip
MAY_BE_NONE = ("season_length", "validation", "step")
COLUMN_NAMES = ("id_column", "time_column", "target_column")


def check_options(forecaster: Any, **more: Any) -> None:
    """Raise OptionError, FrequencyError, UnknownCellError or CellError for the first setting that cannot be.

    Asked before a training, and of the settings that a run folder holds."""
    values = forecaster.get_params() | more
    _ = cells.get(values["cell"]).graph  # an error in the equations is said here, with its line
    check_ranges(values, WHOLE, TRAINING_REAL, OptionError, MAY_BE_NONE)
    _check_levels(values["levels"])
    for name in COLUMN_NAMES:
        if not isinstance(values[name], str) or not values[name]:
            raise OptionError(f"{name} must be the name of a column, not {short_repr(values[name])}")
    for name in ("known", "past"):
        if isinstance(values[name], str):
            raise OptionError(f"{name} must be a list of column names, such as [{values[name]!r}]")
        if not isinstance(values[name], Iterable) or not all(isinstance(each, str) for each in values[name]):
            raise OptionError(f"{name} must be a list of column names, not {short_repr(values[name])}")
    if values["freq"] is not None:
        parse_frequency(values["freq"])
    TextFormat(values["date_format"], values["decimal"], values["encoding"])


def _check_levels(levels: Any) -> None:
    try:
        values = list(levels)
    except TypeError:
        values = []
    whole = all(isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= 99 for each in values)
    if not values or not whole or len(set(values)) != len(values):
        raise OptionError(
            "levels must be different whole percentages from 1 to 99 such as 80 and 90, not "
            f"{short_repr(values or levels)}"
        )
