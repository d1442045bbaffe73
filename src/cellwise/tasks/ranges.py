"""Settings within bounds: one check for what a person gives and for what is read from a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cellwise.errors import CellwiseError

__all__ = ["TRAINING_REAL", "TRAINING_WHOLE", "check_ranges"]

Whole = Mapping[str, tuple[int, int]]
Real = Mapping[str, tuple[float, float]]

# name -> least and greatest value; those that every estimator has
TRAINING_WHOLE: Whole = {
    "hidden_size": (1, 65_536), "num_layers": (1, 64), "epochs": (1, 1_000_000), "batch_size": (1, 1_000_000),
    "patience": (0, 1_000_000), "seed": (0, 2**31 - 1), "threads": (1, 1024),
}  # fmt: skip
TRAINING_REAL: Real = {"dropout": (0.0, 0.95), "learning_rate": (1e-8, 10.0), "weight_decay": (0.0, 10.0)}


def check_ranges(
    values: Mapping[str, Any],
    whole: Whole,
    real: Real,
    error: type[CellwiseError],
    optional: Collection[str] = (),
) -> None:
    """Raise `error` for the first value that is no number or out of its range. `optional`: may be None."""
    for name, (low, high) in (whole | real).items():  # type: ignore[operator]
        if name not in values or (values[name] is None and name in optional):
            continue
        value, kinds = values[name], (int,) if name in whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if name in whole else "a number"
            raise error(f"{name} must be {kind} from {low} to {high}, not {short_repr(value)}")


def short_repr(value: object) -> str:
    """A value as a sentence can show it, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
