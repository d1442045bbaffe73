"""Settings that make no sense are refused before any work is done, with what would make sense."""

from __future__ import annotations

from typing import Any

from cellwise import cells
from cellwise.tasks.forecasting.errors import OptionError
from cellwise.tasks.forecasting.frames import TextFormat
from cellwise.tasks.forecasting.frequency import parse_frequency

__all__ = ["check_options"]

# name -> least and greatest value
WHOLE = {
    "horizon": (1, 100_000), "season_length": (1, 1_000_000), "hidden_size": (1, 65_536), "num_layers": (1, 64),
    "members": (1, 1000), "epochs": (1, 1_000_000), "batch_size": (1, 1_000_000), "patience": (0, 1_000_000),
    "validation": (0, 10_000), "seed": (0, 2**31 - 1),
    "threads": (1, 1024), "cutoffs": (0, 10_000), "step": (1, 1_000_000),
}  # fmt: skip
REAL = {"dropout": (0.0, 0.95), "learning_rate": (1e-8, 10.0), "weight_decay": (0.0, 10.0)}
MAY_BE_NONE = ("season_length", "validation", "step")


def check_options(forecaster: Any, **more: Any) -> None:
    """Raise OptionError, FrequencyError or UnknownCellError for the first setting that cannot be."""
    values = forecaster.get_params() | more
    _check_cell(values["cell"])
    for name, (low, high) in (WHOLE | REAL).items():
        if name not in values or (values[name] is None and name in MAY_BE_NONE):
            continue
        value = values[name]
        whole = name in WHOLE
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else (int, float))
            or not low <= value <= high
        ):
            kind = "a whole number" if whole else "a number"
            raise OptionError(f"{name} must be {kind} from {low} to {high}, not {value!r}")
    levels = list(values["levels"])
    if (
        not levels
        or len(set(levels)) != len(levels)
        or any(not isinstance(v, int) or not 1 <= v <= 99 for v in levels)
    ):
        raise OptionError(
            f"levels must be different whole percentages from 1 to 99 such as 80 and 90, not {levels!r}"
        )
    for name in ("known", "past"):
        if isinstance(values[name], str):
            raise OptionError(f"{name} must be a list of column names, such as [{values[name]!r}]")
    if values["freq"] is not None:
        parse_frequency(values["freq"])
    TextFormat(values["date_format"], values["decimal"], values["encoding"])


def _check_cell(given: Any) -> None:
    """A run is stored by its cell's name, so the name alone must lead back to the cell."""
    cell = cells.get(given)
    if cell.name not in cells.names():
        raise OptionError(
            f"the cell {cell!r} has no known name; make it known first with cellwise.cells.register"
        )
    if cells.get(cell.name) != cell:
        raise OptionError(
            f"{cell!r} has options that its name alone does not tell; register it under a name of its own"
        )
