"""What becomes of the network's forecasts before anybody sees them: blended with a simple method where that was chosen,
then calibrated. `Forecaster` hands out nothing else, whatever it was asked for.

Both are learned from `Windows`: forecasts of values that the network had not learned, beside those values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch

from cellwise.tasks.forecasting.backtest import windows_at
from cellwise.tasks.forecasting.calibration import Calibration
from cellwise.tasks.forecasting.metrics import naive_scale
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Blend", "Postprocessing", "Windows", "calibrated"]

Predict = Callable[[Panel, int], np.ndarray]
FOLDS = 5  # of series, where all windows end at one time


class Blend(Protocol):
    """What is made of the network's forecasts with those of a simple method: a mean of both, or the other instead."""

    @property
    def note(self) -> str:
        """A sentence on what is handed over, and why."""

    def apply(self, panel: Panel, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H, Q) of the network after the end of each series of a panel to those handed over, alike."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""


@dataclass(frozen=True, eq=False)
class Postprocessing:
    """Blend, then calibration; None for a part that is not there."""

    blend: Blend | None = None
    calibration: Calibration | None = None

    def apply(self, panel: Panel, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H, Q) of the network after the end of each series to those that are handed over."""
        blended = forecasts if self.blend is None else self.blend.apply(panel, forecasts)
        return calibrated(self.calibration, blended, panel)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is done to the forecasts."""
        blended = () if self.blend is None else (self.blend.note,)
        off = "the bands are not calibrated, as it was asked for"
        return (*blended, off if self.calibration is None else self.calibration.note)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        parts = {"blend": self.blend, "calibration": self.calibration}
        return {name: None if part is None else part.to_dict() for name, part in parts.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], quantiles: Sequence[float]) -> Self:
        """The inverse, for forecasts of these quantiles. Raises ValueError, KeyError or TypeError if it is none."""
        found = values["calibration"]
        calibration = None if found is None else Calibration.from_dict(found)
        if calibration is not None and calibration.quantiles != tuple(quantiles):
            raise ValueError("a calibration is for other quantiles")
        if values["blend"] is not None:
            raise ValueError("it names a blend")
        return cls(None, calibration)

    def after(self, network: Predict) -> Predict:
        """The network's `forecast`, postprocessed."""
        return lambda panel, horizon: self.apply(panel, network(panel, horizon))


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows, oldest first: forecasts (W, H, Q), blended where that was chosen, beside the truth (W, H), NaN where
    unknown.

    series (W,): which series of the table; cutoffs (W,): how many observations of it were known; times (W,): when the
    last of them was, in microseconds or steps; scale (W,): the error of the seasonal naive forecast within them."""

    forecasts: np.ndarray
    truth: np.ndarray
    series: np.ndarray
    cutoffs: np.ndarray
    times: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def roll(cls, predict: Predict, panel: Panel, cutoffs: np.ndarray, horizon: int, count: int) -> Windows:
        """Forecasts, of `count` quantiles, of `horizon` steps after each of the cutoffs (N, C) that is not -1."""
        cut, truth, index = windows_at(panel, cutoffs, horizon)
        if not len(cut):
            none = np.zeros(0, np.int64)
            return cls(np.zeros((0, horizon, count)), np.zeros((0, horizon)), none, none, none, np.zeros(0))
        times = np.array([each[-1] for each in cut.times]).astype(np.int64)
        scale = np.array([naive_scale(y, panel.frequency.season_length) for y in cut.y])
        made = cls(predict(cut, horizon), truth, index[:, 0], cut.lengths, times, scale)
        return made.select(np.argsort(times, kind="stable"))

    def known(self, panel: Panel) -> Panel:
        """The series of `panel` as known at each window, W of them."""
        horizon = self.truth.shape[1]
        return panel.select(self.series.tolist()).cut(self.cutoffs.tolist(), reach=horizon)

    def blended(self, blend: Blend | None, panel: Panel) -> Windows:
        """With what is made of the forecasts by a blend."""
        return (
            self if blend is None else replace(self, forecasts=blend.apply(self.known(panel), self.forecasts))
        )

    def refreshed(self, panel: Panel) -> Windows:
        """With the truth as a panel has it, which may reach further than before."""
        horizon = self.truth.shape[1]
        truth = np.full(self.truth.shape, np.nan)
        for row, (i, cutoff) in enumerate(zip(self.series.tolist(), self.cutoffs.tolist(), strict=True)):
            after = panel.y[i][cutoff : cutoff + horizon]
            truth[row, : len(after)] = after
        return replace(self, truth=truth)

    def at(self, cutoffs: np.ndarray) -> Windows:
        """Those of the windows that are among the cutoffs (N, C)."""
        return self.select((cutoffs[self.series] == self.cutoffs[:, None]).any(axis=1))

    def replay(self, panel: Panel, forecasts: np.ndarray) -> Predict:
        """These forecasts (W, H, Q) for whoever asks for them, with series of `panel` that end at these cutoffs."""
        rows = {
            (panel.ids[i], cutoff): row
            for row, (i, cutoff) in enumerate(zip(self.series.tolist(), self.cutoffs.tolist(), strict=True))
        }

        def predict(asked: Panel, horizon: int) -> np.ndarray:
            found = [rows[name, len(y)] for name, y in zip(asked.ids, asked.y, strict=True)]
            return forecasts[found][:, :horizon]

        return predict

    def select(self, rows: np.ndarray | slice) -> Windows:
        """Only these rows: numbers, a mask, or a slice."""
        return Windows(*(getattr(self, name)[rows] for name in _NAMES))

    def __add__(self, later: Windows) -> Windows:
        both = Windows(*(np.concatenate([getattr(self, name), getattr(later, name)]) for name in _NAMES))
        return both.select(np.argsort(both.times, kind="stable"))

    def calibration(self, quantiles: Sequence[float], panel: Panel) -> Calibration:
        """The calibration that these windows ask for, those of which half is known. panel: the series of the table.

        The first steps of a horizon are the easiest, so the windows of daily updates say little until they are full."""
        full = 2 * (~np.isnan(self.truth)).sum(axis=1) >= self.truth.shape[1]
        one = self.select(full) if full.any() else self
        return Calibration.fit(
            one.forecasts, one.truth, quantiles, series=_names(panel.ids, one.series), cutoffs=one.cutoffs,
            scale=one.scale, nonnegative=one.nonnegative(panel),
        )  # fmt: skip

    def nonnegative(self, panel: Panel) -> np.ndarray:
        """Whether a value below zero makes no sense, of the series of each window, (W,)."""
        return _nonnegative(panel)[self.series]

    def calibrated_in_turn(self, quantiles: Sequence[float], panel: Panel, cutoffs: np.ndarray) -> np.ndarray:
        """The forecasts of the windows at these cutoffs (N, C), each calibrated by the windows whose truth was known
        when it was made: as a user would have had them. As they are where there was none."""
        last = np.minimum(self.cutoffs + self.truth.shape[1], panel.lengths[self.series]) - 1
        known = np.array([panel.times[i][t] for i, t in zip(self.series, last, strict=True)]).astype(np.int64)
        asked = self.at(cutoffs)
        made = asked.forecasts.copy()
        for time in np.unique(asked.times):
            own, before = asked.times == time, known <= time
            if before.any():
                calibration = self.select(before).calibration(quantiles, panel)
                made[own] = calibrated(calibration, made[own], panel.select(asked.series[own].tolist()))
        return made

    def calibrated_by_others(self, quantiles: Sequence[float], panel: Panel) -> np.ndarray:
        """The forecasts (W, H, Q), each calibrated by windows that share no value with it; as they are where there
        are none.

        Those are the windows that end at other times, or, if all end at one, those of other series."""
        made = self.forecasts.copy()
        horizon = self.truth.shape[1]
        ends = self.cutoffs - panel.lengths[self.series]  # how far before the end of its series
        if len(np.unique(ends)) > 1:
            groups = [(ends == end, np.abs(ends - end) >= horizon) for end in np.unique(ends)]
        else:
            fold = self.series % FOLDS
            groups = [(fold == k, fold != k) for k in np.unique(fold)]
        for own, others in groups:
            if others.any():
                calibration = self.select(others).calibration(quantiles, panel)
                made[own] = calibrated(calibration, made[own], panel.select(self.series[own].tolist()))
        return made

    def tensors(self) -> dict[str, torch.Tensor]:
        """As a run folder holds them."""
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _NAMES}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, torch.Tensor], panel: Panel, horizon: int, count: int
    ) -> Windows:
        """The inverse, for forecasts of `count` quantiles. Raises ValueError or KeyError for what `tensors` could not
        have made."""
        made = cls(*(tensors[name].numpy() for name in _NAMES))
        shapes = (len(made), horizon, count), (len(made), horizon), *[(len(made),)] * 4
        for name, shape in zip(_NAMES, shapes, strict=True):
            value = getattr(made, name)
            wanted = np.int64 if name in ("series", "cutoffs", "times") else np.float64
            if value.shape != shape or value.dtype != wanted:
                raise ValueError(f"the {name} of its windows are none")
        if len(made) and not (made.series.min() >= 0 and made.series.max() < len(panel)):
            raise ValueError("a window is of no series")
        if ((made.cutoffs < 1) | (made.cutoffs > panel.lengths[made.series])).any():
            raise ValueError("a window lies outside its series")
        return made


_NAMES = ("forecasts", "truth", "series", "cutoffs", "times", "scale")


def calibrated(calibration: Calibration | None, forecasts: np.ndarray, panel: Panel) -> np.ndarray:
    """Forecasts (N, H, Q) after the ends of the series of a panel."""
    if calibration is None:
        return forecasts
    names = _names(panel.ids, range(len(panel)))
    return calibration.apply(forecasts, series=names, nonnegative=_nonnegative(panel))


def _nonnegative(panel: Panel) -> np.ndarray:
    return np.array([float(np.nanmin(y)) >= 0 for y in panel.y], dtype=bool)


def _names(ids: Sequence[str], series: Sequence[int] | np.ndarray) -> list[str] | None:
    """Names of the series of forecasts; None where there is but one."""
    return None if len(ids) == 1 else [ids[int(i)] for i in series]
