"""Small panels for the tests of the forecasting network."""

from dataclasses import replace

import numpy as np

from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.panel import Panel


def panel_of(series, season_length=4, known=None, past=None) -> Panel:
    """A panel of numbered times; known and past: one (T, K) array per series, or None."""
    y = tuple(np.asarray(values, dtype=np.float64) for values in series)
    known = tuple(np.zeros((len(v), 0)) for v in y) if known is None else tuple(known)
    past = tuple(np.zeros((len(v), 0)) for v in y) if past is None else tuple(past)
    return Panel(
        ids=tuple(f"s{i}" for i in range(len(y))),
        frequency=replace(parse_frequency(1), season_length=season_length),
        times=tuple(np.arange(len(v)) for v in y),
        y=y,
        known=known,
        past=past,
        known_names=tuple(f"k{i}" for i in range(known[0].shape[1])),
        past_names=tuple(f"p{i}" for i in range(past[0].shape[1])),
    )


def random_series(count=3, steps=50, seed=0, base=100.0):
    """Positive random walks with a season of four."""
    generator = np.random.default_rng(seed)
    season = np.tile([1.1, 0.9, 1.0, 1.0], -(-steps // 4))[:steps]
    walks = np.exp(0.03 * generator.normal(size=(count, steps)).cumsum(1))
    return [base * walk * season for walk in walks]
