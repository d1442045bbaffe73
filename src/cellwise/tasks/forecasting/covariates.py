"""Covariates made comparable: centred and sized by the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Covariates", "check_reach"]


@dataclass(frozen=True)
class Covariates:
    """Centre and size of every covariate, known and past, over the training data."""

    known_center: tuple[float, ...]
    known_size: tuple[float, ...]
    past_center: tuple[float, ...]
    past_size: tuple[float, ...]

    @classmethod
    def measure(cls, panel: Panel) -> Covariates:
        """Mean and standard deviation (1 where nothing varies) of each column, over all series."""
        return cls(*_moments(panel.known), *_moments(panel.past))

    def known(self, values: np.ndarray) -> np.ndarray:
        """Standardised (T, K), 0 where missing."""
        return np.nan_to_num((values - np.array(self.known_center)) / np.array(self.known_size))

    def past(self, values: np.ndarray) -> np.ndarray:
        """Standardised (T, P); a missing value repeats the one before it."""
        scaled = (values - np.array(self.past_center)) / np.array(self.past_size)
        rows = np.where(np.isnan(scaled), -1, np.arange(len(scaled))[:, None])
        latest = np.maximum.accumulate(rows, axis=0)
        return np.where(latest >= 0, np.take_along_axis(scaled, latest.clip(min=0), axis=0), 0.0)


def _moments(columns: Sequence[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    whole = np.concatenate(list(columns)) if columns else np.zeros((0, 0))
    centers, sizes = [], []
    for column in whole.T:
        column = column[~np.isnan(column)]
        deviation = float(column.std()) if len(column) else 0.0
        centers.append(float(column.mean()) if len(column) else 0.0)
        sizes.append(deviation if deviation > 0 else 1.0)
    return tuple(centers), tuple(sizes)


def check_reach(panel: Panel, horizon: int, target: str) -> None:
    """Raise DataError where the user's covariates known in advance end before the horizon does."""
    if not panel.known_names:
        return
    for name, y, known in zip(panel.ids, panel.y, panel.known, strict=True):
        given = len(known) - len(y)
        if given < horizon:
            raise DataError(
                f"a forecast of {horizon} steps needs {', '.join(panel.known_names)} for as many steps after "
                f"the last value, but series {name!r} has {given}; add rows with an empty {target!r} that hold them"
            )
