"""How good a forecast is. NaN in the truth (or the forecast) means "not known" and is left out of every mean.

Shapes: N series, C cutoffs, H steps of the horizon, Q quantiles.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Scores", "absolute_error", "band_quantiles", "covered", "interval_score", "mean", "naive_scale", "pinball",
    "score", "smape_terms", "table_metrics",
]  # fmt: skip


def mean(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Mean of what is known; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # numpy warns of an all-NaN mean; NaN is the answer here
        return np.asarray(np.nanmean(values, axis=axis))


def absolute_error(y: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """|y - f|, elementwise."""
    return np.abs(y - forecast)


def smape_terms(y: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """200 |y - f| / (|y| + |f|), in percent, as in the M competitions; 0 where both are 0.

    >>> smape_terms(np.array([100.0, 0.0]), np.array([50.0, 0.0])).round(3).tolist()
    [66.667, 0.0]
    """
    size = np.abs(y) + np.abs(forecast)
    return np.where(size == 0, 0.0, 200 * np.abs(y - forecast) / np.where(size == 0, 1.0, size))


def pinball(y: np.ndarray, forecast: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Pinball (quantile) loss, mean over the quantiles: y (...,) against forecast (..., Q) gives (...,).

    >>> round(float(pinball(np.array(10.0), np.array([8.0, 12.0]), [0.1, 0.9])), 12)  # (0.1 * 2 + 0.1 * 2) / 2
    0.2
    """
    error = y[..., None] - forecast
    levels = np.asarray(quantiles)
    return np.maximum(levels * error, (levels - 1) * error).mean(axis=-1)


def covered(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """100 where low <= y <= high, 0 where not, NaN where y is not known: its mean is the coverage in
    percent."""
    inside = np.where((low <= y) & (y <= high), 100.0, 0.0)
    return np.where(np.isnan(y) | np.isnan(low) | np.isnan(high), np.nan, inside)


def interval_score(y: np.ndarray, low: np.ndarray, high: np.ndarray, level: int) -> np.ndarray:
    """How good a band of `level` percent is, elementwise, in the units of y; smaller is better.

    Its width, and for a y outside of it the distance to it times 2 / (1 - level / 100): a band is expected to score
    best if it is bounded by the true quantiles (Winkler 1972; Gneiting and Raftery 2007, section 6.2). NaN where
    anything is not known.

    >>> interval_score(np.array([5.0, 12.0]), np.full(2, 0.0), np.full(2, 10.0), 80).round(6).tolist()
    [10.0, 30.0]
    """
    outside = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    return high - low + outside * 200 / (100 - level)


def naive_scale(y: np.ndarray, season_length: int) -> float:
    """Mean absolute error of the seasonal naive forecast within y (T,): what MASE divides by. NaN if it is
    0 or unknown.

    A series shorter than one season and a step is measured by its plain one-step changes.
    """
    lag = season_length if len(y) > season_length else 1
    if len(y) <= lag:
        return float("nan")
    scale = float(mean(np.abs(y[lag:] - y[:-lag])))
    return scale if scale > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Scores:
    """Metric name -> overall value, value by series (N,), value by step of the horizon (H,).

    Every series counts alike: a metric is taken within a series first and then averaged over the series.
    """

    overall: dict[str, float]
    by_series: dict[str, np.ndarray]
    by_horizon: dict[str, np.ndarray]


def score(
    y: np.ndarray, forecast: np.ndarray, quantiles: Sequence[float], scale: np.ndarray, levels: Sequence[int]
) -> Scores:
    """All metrics at once. y (N, C, H); forecast (N, C, H, Q); scale (N, C) of MASE; levels: bands in
    percent.

    The point forecast is the median. MAE, RMSE, pinball, interval (`interval_score`) and width of the bands are in
    the units of y; MASE and what is called scaled in units of the scale, which makes series comparable; sMAPE
    and coverage in percent.
    """
    quantiles = list(quantiles)
    point = forecast[..., quantiles.index(0.5)]
    known = ~np.isnan(y)
    point = np.where(known, point, np.nan)
    unit = scale[:, :, None]
    terms = {
        "MAE": absolute_error(y, point),
        "RMSE": (y - point) ** 2,
        "sMAPE": smape_terms(y, point),
        "MASE": absolute_error(y, point) / unit,
        "pinball": pinball(y, forecast, quantiles),
    }
    bands = {
        level: tuple(forecast[..., quantiles.index(q)] for q in band_quantiles(level)) for level in levels
    }
    for level, (low, high) in bands.items():
        terms[f"coverage {level}"] = covered(y, low, high)
    terms["scaled pinball"] = terms["pinball"] / unit
    for level, (low, high) in bands.items():
        terms[f"interval {level}"] = interval_score(y, low, high, level)
        terms[f"width {level}"] = np.where(known, high - low, np.nan)
        terms[f"scaled interval {level}"] = terms[f"interval {level}"] / unit
        terms[f"scaled width {level}"] = terms[f"width {level}"] / unit
    roots = {name: np.sqrt if name == "RMSE" else np.asarray for name in terms}
    by_series = {name: roots[name](mean(term, axis=(1, 2))) for name, term in terms.items()}
    by_horizon = {name: mean(roots[name](mean(term, axis=1)), axis=0) for name, term in terms.items()}
    overall = {name: float(mean(values)) for name, values in by_series.items()}
    return Scores(overall, by_series, by_horizon)


def table_metrics(levels: Sequence[int]) -> tuple[str, ...]:
    """The metrics for a table that a person reads; `score` has more of them."""
    bands = tuple(f"{name} {level}" for name in ("coverage", "interval") for level in levels)
    return ("MAE", "RMSE", "sMAPE", "MASE", "pinball", *bands)


def band_quantiles(level: int) -> tuple[float, float]:
    """The two quantiles that bound a central band: 80 -> (0.1, 0.9)."""
    return round((100 - level) / 200, 6), round((100 + level) / 200, 6)
