"""The season of a panel, as its values show it.

A season of m steps shows in the autocorrelation at lag m, once the trend is taken out. The trend is the centred moving
average over m steps. What is left of a trend, of white noise or of a random walk has no correlation at lag m: the
averages around t and t + m do not overlap. So one test serves them all, with Bartlett's (1946) standard error, as in
the Theta method's test for a season (Assimakopoulos and Nikolopoulos 2000). A season, unlike a cycle of changing length
(sunspots), is as strong after two and three turns as after one.

The frequency tells which seasons to expect: the natural one stays unless another shows, and it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.series import SMALLEST_SHARE

__all__ = ["FoundSeason", "find_season", "plausible_seasons"]

MOST_SERIES = 64  # of a panel that are looked at
MOST_CYCLES, LEAST_VALUES = 30, 500  # the newest so many cycles are looked at, and at least so many values
LEAST_CYCLES = 3  # fewer tell nothing
LONGEST_SEARCH, SEARCH_CYCLES = 200, 4  # seasons that no frequency suggests: at most so long, so often seen
# A season shows from this correlation and so many standard errors on. One that no frequency suggests is the best
# of many, and must stand out more, and repeat itself.
CORRELATION, ERRORS = 0.1, 2.5
SEARCH_CORRELATION, SEARCH_ERRORS, REPEATED = 0.15, 3.0, 0.7
VALLEY = 0.5  # a peak is twice as high as the lowest correlation before it
# Multiples of a season show as well as it, and where it is smooth its neighbours do. Taken is the shortest that is
# nearly as strong as the best, then the best of those up to so many times as long, or a usual one if hardly worse.
NEARLY_BEST, NEIGHBOURS, HARDLY_WORSE = 0.8, 1.2, 0.95
USUAL = (4, 5, 7, 12, 24, 48, 52, 60, 96, 168)
ROUNDING = 1e-9  # of the largest value: what is left by less does not move
OUTLIER = 3.0  # of the size that nine in ten values stay below; more is cut off


@dataclass(frozen=True)
class FoundSeason:
    """length: steps in the season, 1 for none; also: longer cycles of the frequency that show too; note: how it was
    chosen, in words, "" where there is nothing to say."""

    length: int
    also: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, eq=False)
class Correlation:
    """The autocorrelation of a panel less its trend: at_lag (3 m + 2,), NaN where unknown; error: the standard error
    of that at lag m."""

    at_lag: np.ndarray
    error: float
    season_length: int

    def shows(self, least: float = CORRELATION, errors: float = ERRORS) -> bool:
        """Whether there is a season."""
        here = self.at_lag[self.season_length]
        return bool(here > least and here > errors * self.error)

    @property
    def strength(self) -> float:
        """Mean correlation after one, two and three turns, as far as they are known."""
        return float(np.nanmean(self.at_lag[self.season_length :: self.season_length]))

    def repeats(self) -> bool:
        """Whether it rises to a peak, and is as strong two and three turns later."""
        m = self.season_length
        here, later = self.at_lag[m], self.at_lag[2 * m :: m]
        later = later[~np.isnan(later)]
        is_peak = (
            self.at_lag[1:m].min() <= VALLEY * here and here >= NEARLY_BEST * self.at_lag[m : m + 2].max()
        )
        return bool(is_peak and len(later) and later.min() >= REPEATED * here)


def find_season(panel: Panel) -> FoundSeason:
    """The season of a panel whose frequency has the natural one: that, unless it does not show and another does."""
    frequency = panel.frequency
    natural = frequency.season_length
    values = sample(panel.y)
    seen = correlation(values, natural) if natural > 1 else None
    if seen is not None and seen.shows():
        also = longer_cycles(panel, natural)
        return FoundSeason(natural, also, _also_note(panel, natural, also))
    found = search(values)
    if found > 1:
        word = f"not the {natural} that the frequency suggests" if natural > 1 else "found in the data"
        return FoundSeason(found, (), f"the season is {frequency.many(found)}, {word}")
    also = longer_cycles(panel, natural)
    if seen is not None and not also:
        kept = f"the season is {frequency.many(natural)}, by frequency, though it does not show in the data"
        return FoundSeason(natural, (), kept)
    return FoundSeason(natural, also, _also_note(panel, natural, also))


def plausible_seasons(panel: Panel) -> tuple[int, ...]:
    """Seasons in steps: the panel's own, then each longer cycle of its frequency that shows in the data: (24, 168)
    for hours with a week. () where there is none. The longest may be very long: a year of hours has 8,766."""
    own = panel.frequency.season_length
    return (*((own,) if own > 1 else ()), *longer_cycles(panel, own))


def longer_cycles(panel: Panel, season_length: int) -> tuple[int, ...]:
    """Cycles of the frequency that are longer than a season and show beside it, the shortest first."""
    values = sample(panel.y)
    found: list[int] = []
    for steps in panel.frequency.cycles.values():
        if steps > season_length:
            shorter = found[-1] if found else season_length
            seen = correlation([_without(y, shorter) for y in values], steps)
            if seen is not None and seen.shows():
                found.append(steps)
    return tuple(found)


def sample(series: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The longest series, or so many of the long ones; positive ones as logarithms."""
    lengths = np.array([len(y) for y in series])
    order = np.argsort(-lengths, kind="stable")
    long = np.sort(order[lengths[order] >= lengths.max() / 2])
    chosen = long[np.linspace(0, len(long) - 1, min(MOST_SERIES, len(long))).round().astype(int)]
    return [_learned(series[i]) for i in chosen]


def search(values: Sequence[np.ndarray]) -> int:
    """The season that shows best of all lengths, 1 if none does."""
    longest = int(np.median([len(y) for y in values])) // SEARCH_CYCLES
    strengths: dict[int, float] = {}
    for m in range(2, min(longest, LONGEST_SEARCH) + 1):
        seen = correlation(values, m)
        if seen is not None and seen.shows(SEARCH_CORRELATION, SEARCH_ERRORS) and seen.repeats():
            strengths[m] = seen.strength
    best = max(strengths.values(), default=0.0)
    first = next((m for m, here in strengths.items() if here >= NEARLY_BEST * best), 1)
    near = {m: here for m, here in strengths.items() if first <= m <= NEIGHBOURS * first}
    best = max(near.values(), default=0.0)
    usual = [m for m in USUAL if near.get(m, 0.0) >= HARDLY_WORSE * best > 0]
    return usual[0] if usual else max(near, key=near.__getitem__, default=1)


def correlation(values: Sequence[np.ndarray], season_length: int) -> Correlation | None:
    """The autocorrelation around the lag of a season, mean over the series; None where most are too short to tell, or
    do not move."""
    m, lags = season_length, LEAST_CYCLES * season_length + 2
    kept = max(MOST_CYCLES * m, LEAST_VALUES)
    long = [y[-kept:] for y in values if len(y) >= LEAST_CYCLES * m]
    if 2 * len(long) < len(values) or not long:
        return None
    size = max(map(len, long))
    padded = np.stack([np.concatenate([np.full(size - len(y), np.nan), y]) for y in long])
    rest = detrended(padded, m)
    known = ~np.isnan(rest)
    width = 2 ** int(np.ceil(np.log2(rest.shape[1] + lags)))
    spectra = [np.fft.rfft(part, width, axis=1) for part in (np.where(known, rest, 0.0), known.astype(float))]
    products, pairs = (np.fft.irfft(np.abs(part) ** 2, width, axis=1)[:, :lags] for part in spectra)
    pairs = pairs.round()
    variance = products[:, :1] / np.maximum(pairs[:, :1], 1.0)
    told = (pairs[:, m] >= m / 2) & (variance[:, 0] > 0)
    if 2 * told.sum() < len(values):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(pairs >= m / 2, products / pairs / variance, np.nan)[told]
    errors = (1 + 2 * np.nansum(each[:, 1:m] ** 2, axis=1)) / pairs[told, m]
    seen = ~np.isnan(each)
    at_lag = np.where(seen, each, 0.0).sum(0) / np.where(seen.any(0), seen.sum(0), np.nan)
    return Correlation(at_lag, float(np.sqrt(errors.mean() / len(each))), m)


def detrended(values: np.ndarray, season_length: int) -> np.ndarray:
    """values (N, T) less their centred moving average over one season, (N, T - 2 (m // 2)); NaN where the value or half
    of the average is missing or lies before the first value, and where a series does not move. Outliers are cut off."""
    m, half = season_length, season_length // 2
    known = ~np.isnan(values)
    inner = values[:, half : values.shape[1] - half]
    totals = _moving_sum(np.where(known, values, 0.0), m)
    counts = _moving_sum(known.astype(float), m)
    # What lies before the first value is no gap: a series must not depend on those that are longer.
    whole = np.arange(inner.shape[1]) >= np.where(known.any(axis=1), known.argmax(axis=1), 0)[:, None]
    told = (counts >= m / 2) & ~np.isnan(inner) & whole
    rest = np.where(told, inner - totals / np.maximum(counts, 1.0), 0.0)
    size = np.abs(rest)
    moves = size.max(axis=1) > ROUNDING * np.where(known, np.abs(values), 0.0).max(axis=1)
    usual = np.array(
        [np.quantile(each[seen], 0.9) if seen.any() else 0.0 for each, seen in zip(size, told, strict=True)]
    )
    bound = np.where(usual > 0, OUTLIER * usual, np.inf)[:, None]
    return np.where(told & moves[:, None], np.clip(rest, -bound, bound), np.nan)


def _moving_sum(values: np.ndarray, season_length: int) -> np.ndarray:
    """Over m values, or m + 1 with halved ends where m is even: (N, T) -> (N, T - 2 (m // 2))."""
    m = season_length
    sums = np.pad(values.cumsum(axis=1), ((0, 0), (1, 0)))
    sums = sums[:, m:] - sums[:, :-m]
    return sums if m % 2 else (sums[:, 1:] + sums[:, :-1]) / 2


def _without(y: np.ndarray, season_length: int) -> np.ndarray:
    """y (T,) less the mean of each phase of a season."""
    if season_length < 2 or len(y) < LEAST_CYCLES * season_length:
        return y
    phase = np.arange(len(y)) % season_length
    known = ~np.isnan(y)
    count = np.bincount(phase[known], minlength=season_length)
    means = np.bincount(phase[known], y[known], season_length) / np.maximum(count, 1)
    return np.asarray(y - means[phase])


def _learned(y: np.ndarray) -> np.ndarray:
    known = y[~np.isnan(y)]
    if len(known) and known.min() > SMALLEST_SHARE * np.abs(known).mean():
        return np.log(y)
    return y


def _also_note(panel: Panel, season_length: int, also: Sequence[int]) -> str:
    if not also:
        return ""
    words = {steps: word for word, steps in panel.frequency.cycles.items()}
    many = panel.frequency.many(season_length)
    shown = " and ".join(f"the {words[steps]} of {steps:,}" for steps in also)
    first = f"the season is {many}, by frequency; " if season_length > 1 else ""
    return f"{first}{shown} {'shows' if len(also) == 1 else 'show'} too"
