"""The unit of a network's answers: how far off the base forecast usually is."""

from __future__ import annotations

import numpy as np
import torch

from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.scaling import scale
from cellwise.tasks.forecasting.series import prepare

__all__ = ["answer_unit"]

SERIES, STEPS = 50, 1000  # so many of a panel, and so many steps of each, are looked at
USUAL_ERROR = 1.5  # of the base forecast, in spreads, or less: most series keep the spread as their unit
LARGEST = 100.0


def answer_unit(panel: Panel, horizon: int, typical_step: float) -> float:
    """In spreads: how many times as large as usual the base forecast's mean absolute error is, in the median over
    series; at least 1.

    The spread measures errors one step ahead. Where a series is smooth (half-hours of electricity), those of a whole
    horizon are several times as large: without this unit the first bands are far too narrow, and so are the steps in
    which the network learns."""
    chosen = [y for y in panel.y if np.count_nonzero(~np.isnan(y)) >= 2]
    errors = [
        _base_error(y, panel.frequency.season_length, horizon, typical_step)
        for y in chosen[:: max(1, len(chosen) // SERIES)]
    ]
    known = [error for error in errors if np.isfinite(error)]
    return float((np.median(known) / USUAL_ERROR).clip(1.0, LARGEST)) if known else 1.0


def _base_error(y: np.ndarray, season_length: int, horizon: int, typical_step: float) -> float:
    """Of one series, over the cutoffs in its second half; NaN if it is too short for one."""
    one = prepare(y, season_length, typical_step).tail(STEPS + horizon)
    first, stop = len(one.values) // 2, len(one.values) - horizon
    if stop <= first:
        return float("nan")
    filled, observed = torch.from_numpy(one.filled), torch.from_numpy(~np.isnan(one.values))
    linear = torch.tensor([not one.logarithmic])
    seen = scale(filled[None], observed[None], linear, season_length, horizon, typical_step)
    future = torch.from_numpy(one.values).unfold(0, horizon, 1)[first + 1 : stop + 1]
    errors = (future - seen.base[0, first:stop]).abs() / seen.spread[0, first:stop, None]
    return float(errors.nanmean())
