"""What is handed over where a simple method does better, or as well: that method, or a mean of it and the network.

Both are chosen on held-out windows, before anything is measured. A mean of forecasts errs less than most of what it is
made of (Bates and Granger 1969), and weights learned from few windows err more than equal ones (Claeskens et al. 2016),
so they are drawn to one half. Bands are averaged quantile by quantile (Lichtendahl, Grushka-Cockayne and Winkler 2013).

Shapes: W windows, N forecasts, H steps of the horizon, Q quantiles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from cellwise.tasks.forecasting.metrics import mean, pinball
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.simple import SimpleMethod, method_of, plausible_methods, seasons_of

__all__ = ["SimpleBlend", "choose_blend", "is_network"]

WEIGHTS = np.linspace(0.0, 1.0, 21)  # of the network, tried
EQUAL_WINDOWS = 8.0  # windows that one half counts as much as
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
) -> SimpleBlend | None:
    """What to hand over, from held-out windows: the better of the network and the best simple method, or, `mixed`, a
    mean of the two; None where nothing can be compared.

    network: its name; panel: the series as known at each window, W of them; forecasts (W, H, Q): of the network; truth
    (W, H): NaN where unknown; scale (W,): what a window's error is divided by, its own size where NaN."""
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
        found = float(WEIGHTS[int(np.argmin(tried))])
        weight = round((count * found + EQUAL_WINDOWS / 2) / (count + EQUAL_WINDOWS), 4)
        share = round(100 * weight)
        note = f"a mean is handed over, {share} % {network} and {100 - share} % {best.name}: {errs}"
    return SimpleBlend(best.name, seasons, weight, quantiles, note)


def _units(panel: Panel, scale: np.ndarray) -> np.ndarray:
    """What errors of each window are divided by: the scale, or the size of the values, or 1."""
    size = np.array([float(mean(np.abs(y))) for y in panel.y])
    return np.where(np.isfinite(scale) & (scale > 0), scale, np.where(size > 0, size, 1.0))
