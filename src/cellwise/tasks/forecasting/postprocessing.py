"""What becomes of the network's forecasts before anybody sees them: blended with a simple method where that was chosen,
then calibrated. `Forecaster` hands out nothing else, whatever it was asked for.

The choice of the blend and the calibration are learned from `Windows`: forecasts of values that the network never
learned, beside those values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cellwise.tasks.forecasting.backtest import windows_at
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Blend", "Calibrated", "Postprocessing", "Windows"]


class Blend(Protocol):
    """What is made of the network's forecasts with those of a simple method: a mean of both, or the other instead."""

    @property
    def note(self) -> str:
        """A sentence on what is handed over, and why."""

    def apply(self, panel: Panel, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H, Q) of the network after the end of each series of a panel to those handed over, alike."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""


class Calibrated(Protocol):
    """A calibration of bands; see `calibration.Calibration`."""

    @property
    def note(self) -> str:
        """A sentence: from how many windows, or why there is none."""

    def apply(self, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H', Q) with other bands; H' may be longer than what was calibrated."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""


@dataclass(frozen=True, eq=False)
class Postprocessing:
    """Blend, then calibration; None for a part that is not there."""

    blend: Blend | None = None
    calibration: Calibrated | None = None

    def apply(self, panel: Panel, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H, Q) of the network after the end of each series to those that are handed over."""
        blended = forecasts if self.blend is None else self.blend.apply(panel, forecasts)
        return blended if self.calibration is None else self.calibration.apply(blended)

    def predict(self, network: Callable[[Panel, int], np.ndarray]) -> Callable[[Panel, int], np.ndarray]:
        """The network's `forecast`, postprocessed."""
        return lambda panel, horizon: self.apply(panel, network(panel, horizon))


@dataclass(frozen=True, eq=False)
class Windows:
    """Forecasts (W, H, Q) of a network, blended where that was chosen, beside the truth (W, H), NaN where unknown.

    index (W, 2): series and cutoff of each window, as in the `cutoffs` that they were made from."""

    forecasts: np.ndarray
    truth: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def roll(
        cls, predict: Callable[[Panel, int], np.ndarray], panel: Panel, cutoffs: np.ndarray, horizon: int
    ) -> Windows:
        """Forecasts of `horizon` steps after each of the cutoffs (N, C) that is not -1."""
        cut, truth, index = windows_at(panel, cutoffs, horizon)
        return cls(predict(cut, horizon), truth, index)
