"""What is handed over: a mean of the network and the best simple method, or the better of the two.

Both are chosen on held-out windows, before anything is measured. A mean of forecasts errs less than most of what it is
made of (Bates and Granger 1969), and weights fitted to few windows err more than simple ones (Claeskens et al. 2016).
So they are drawn to those of Bates and Granger, which are in inverse proportion to the squared errors. Bands are
averaged quantile by quantile (Lichtendahl, Grushka-Cockayne and Winkler 2013).

Shapes: W windows, N forecasts, H steps of the horizon, Q quantiles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from cellwise.tasks.forecasting.backtest import cutoff_indices, windows_at
from cellwise.tasks.forecasting.metrics import mean, naive_scale, pinball
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.simple import SimpleMethod, method_of, plausible_methods, seasons_of

__all__ = ["SimpleBlend", "choose_blend", "equal_blend", "is_network"]

WEIGHTS = np.linspace(0.0, 1.0, 21)  # of the network, tried
PRIOR_WINDOWS = 8.0  # windows that the weights by squared errors count as much as
LEAST_WEIGHT = 0.05  # of a network in a mean: it alone hears of covariates
LEAST_PAST = 4  # values before a window by which simple methods are told apart
PAST_WINDOWS, PAST_SERIES = 12, 200  # of a series, and series, by which simple methods are told apart
LONGEST_NOTE, MOST_SEASONS = 1000, 8


@dataclass(frozen=True)
class SimpleBlend:
    """A simple method, and how much the network weighs beside it.

    method: name of the simple method; seasons: in steps, as it was chosen for; weight: of the network, 0 for the simple
    method alone, 1 for the network alone; quantiles: of the forecasts; note: what is handed over, and why, in words."""

    method: str
    seasons: tuple[int, ...]
    weight: float
    quantiles: tuple[float, ...]
    note: str

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError("the weight of a network lies between 0 and 1")
        if list(self.seasons) != sorted(set(self.seasons)) or not 1 <= len(self.seasons) <= MOST_SEASONS:
            raise ValueError("seasons are sorted, and few")
        method_of(self.method, self.seasons)

    def called(self, network: str) -> str:
        """The name of what is handed over, with a network of this name."""
        return (
            network
            if self.weight == 1
            else f"{network}+{self.method}"
            if self.weight
            else f"best-{self.method}"
        )

    def apply(self, panel: Panel, forecasts: np.ndarray) -> np.ndarray:
        """Forecasts (N, H, Q) of the network after the end of each series of a panel to those handed over, alike."""
        if self.weight == 1:
            return forecasts
        method = method_of(self.method, self.seasons)
        simple = method.forecast(panel, forecasts.shape[1], self.quantiles)
        return self.weight * forecasts + (1 - self.weight) * simple

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {**asdict(self), "seasons": list(self.seasons), "quantiles": list(self.quantiles)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], quantiles: Sequence[float]) -> Self:
        """The inverse, for forecasts of these quantiles. Nothing in it is trusted.

        Raises ValueError, KeyError or TypeError for what `to_dict` could not have written."""
        seasons, weight, note = values["seasons"], values["weight"], values["note"]
        if tuple(values["quantiles"]) != tuple(quantiles):
            raise ValueError("a blend is for other quantiles")
        if not isinstance(seasons, list) or not all(type(m) is int and 1 <= m < 2**31 for m in seasons):
            raise ValueError("the seasons of a blend are no numbers")
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not math.isfinite(weight):
            raise ValueError("the weight of a blend is no number")
        if not isinstance(note, str) or len(note) > LONGEST_NOTE or not note.isprintable():
            raise ValueError("the note on a blend is not a sentence")
        return cls(values["method"], tuple(seasons), float(weight), tuple(quantiles), note)


def is_network(name: str) -> bool:
    """Whether a model of this name is a network alone, not what `SimpleBlend.called` names."""
    # "GRU+LSTM" are members of two cells, "GRU+Theta" is a mean with a simple method.
    return not name.startswith("best-") and re.search(r"\+[A-Z][a-z]", name) is None


def choose_blend(
    network: str,
    panel: Panel,
    forecasts: np.ndarray,
    truth: np.ndarray,
    scale: np.ndarray,
    quantiles: Sequence[float],
    *,
    mixed: bool,
    gains: bool = False,
) -> SimpleBlend | None:
    """What to hand over, from held-out windows: the better of the network and the best simple method, or, `mixed`, a
    mean of the two; None where nothing can be compared.

    network: its name; panel: the series as known at each window, W of them; forecasts (W, H, Q): of the network; truth
    (W, H): NaN where unknown; scale (W,): what a window's error is divided by, its own size where NaN; gains: whether
    the network that forecasts is still to learn these windows and gains by that, which they cannot show: then half of
    what the simple method would weigh is its."""
    unit = _units(panel, scale)
    quantiles = tuple(quantiles)

    def loss(made: np.ndarray) -> float:
        return float(mean(mean(pinball(truth, made, quantiles), axis=1) / unit))

    if not len(panel) or not np.isfinite(own := loss(forecasts)):
        return None
    seasons = seasons_of(panel)
    made = {m: m.forecast(panel, truth.shape[1], quantiles) for m in plausible_methods(seasons)}
    losses = {m: loss(each) for m, each in made.items()}
    best: SimpleMethod = min(losses, key=losses.__getitem__)
    count = len(panel)
    words = f"{count:,} held-out window{'s' * (count != 1)}"
    change = 100 * (1 - own / losses[best]) if losses[best] > 0 else 0.0
    errs = f"on {words} {network} errs {abs(change):.0f} % {'less' if own <= losses[best] else 'more'} than {best.name}"
    if not mixed:
        weight = 1.0 if own <= losses[best] else 0.0
        note = f"{network if weight else best.name} is handed over: {errs}"
    else:
        tried = [loss(w * forecasts + (1 - w) * made[best]) for w in WEIGHTS]
        found, usual = float(WEIGHTS[int(np.argmin(tried))]), _inverse_squares(own, losses[best])
        weight = (count * found + PRIOR_WINDOWS * usual) / (count + PRIOR_WINDOWS)
        weight = round(max(LEAST_WEIGHT, (1 + weight) / 2 if gains else weight), 4)
        note = f"{_mean_of(network, best.name, weight)}: {errs}"
    return SimpleBlend(best.name, seasons, weight, quantiles, note)


def equal_blend(network: str, panel: Panel, horizon: int, quantiles: Sequence[float]) -> SimpleBlend:
    """The mean of the network and a simple method where nothing tells how good the network is: half of each.

    panel: what the network has learned. The simple method is the one that would have forecast it best; it has nothing
    to learn, so its own past is a fair test. Theta where the series are too short for one."""
    quantiles, seasons = tuple(quantiles), seasons_of(panel)
    some = panel.select(range(min(len(panel), PAST_SERIES)))
    cutoffs = cutoff_indices(some.lengths, PAST_WINDOWS, max(1, horizon // 2), horizon, LEAST_PAST)
    best = "Theta"
    if (cutoffs >= 0).any():
        cut, truth, _ = windows_at(some, cutoffs, horizon)
        unit = _units(cut, np.array([naive_scale(y, panel.frequency.season_length) for y in cut.y]))
        losses = {
            m.name: float(
                mean(mean(pinball(truth, m.forecast(cut, horizon, quantiles), quantiles), axis=1) / unit)
            )
            for m in plausible_methods(seasons)
        }
        best = min(losses, key=lambda name: np.nan_to_num(losses[name], nan=np.inf))
    note = f"{_mean_of(network, best, 0.5)}: nothing was held out to weigh them by"
    return SimpleBlend(best, seasons, 0.5, quantiles, note)


def _mean_of(network: str, method: str, weight: float) -> str:
    share = round(100 * weight)
    return f"a mean is handed over, {share} % {network} and {100 - share} % {method}"


def _inverse_squares(own: float, other: float) -> float:
    """The weight of the first of two, by the squares of their errors."""
    squares = own**2 + other**2
    return other**2 / squares if squares > 0 else 0.5


def _units(panel: Panel, scale: np.ndarray) -> np.ndarray:
    """What errors of each window are divided by: the scale, or the size of the values, or 1."""
    size = np.array([float(mean(np.abs(y))) for y in panel.y])
    return np.where(np.isfinite(scale) & (scale > 0), scale, np.where(size > 0, size, 1.0))
