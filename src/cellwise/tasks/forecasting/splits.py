"""Which part of a series trains, which part decides when to stop, which part is kept for the test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.backtest import cutoff_indices
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Split", "shortest_length", "split"]

MANY_SERIES = 30  # from so many on, one validation window each is enough to see through the noise
MOST_WINDOWS = 12
SHARE = 0.15  # at most this share of a series is held out for validation


@dataclass(frozen=True, eq=False)
class Split:
    """Per series: train (N,) observations to learn from; validation and test: cutoffs (N, C) of
    their windows."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...]

    @property
    def has_validation(self) -> bool:
        """Whether anything is held out for early stopping."""
        return bool((self.validation >= 0).any())

    @property
    def has_test(self) -> bool:
        """Whether anything is kept from training for an honest backtest."""
        return bool((self.test >= 0).any())


def shortest_length(horizon: int) -> int:
    """Observations a series needs before it can train: one whole horizon to predict and a little to predict
    it from."""
    return horizon + max(2, min(horizon, 8))


def split(panel: Panel, horizon: int, *, cutoffs: int, step: int, validation: int | None) -> Split:
    """Cut every series from its end: `cutoffs` test windows, then validation windows, the rest trains.

    `validation`: how many windows of one horizon (None: chosen from the data; 0: none). A series too short
    for a window gives none. Raises SeriesTooShortError if no series is long enough."""
    need = shortest_length(horizon)
    lengths = panel.lengths
    if lengths.max() < need:
        _refuse(panel, need, horizon, "")
    none = np.full((len(panel), 0), -1)
    test = cutoff_indices(lengths, cutoffs, step, horizon, need) if cutoffs else none
    if cutoffs and (test < 0).all():
        _refuse(panel, need + horizon, horizon, " and a test of one horizon")
    before_test = _earliest(test, lengths)
    windows = _validation_windows(before_test, horizon) if validation is None else validation
    held = cutoff_indices(before_test, windows, horizon, horizon, 2 * need) if windows else none
    train = _earliest(held, before_test)
    return Split(train, held, test, _notes(panel, train, held, test, horizon, need))


def _earliest(cutoffs: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The first cutoff of each series (N,), or `otherwise` where a series has none."""
    candidates = np.concatenate(
        [np.where(cutoffs >= 0, cutoffs, otherwise[:, None]), otherwise[:, None]], axis=1
    )
    return np.asarray(candidates.min(axis=1))


def _validation_windows(lengths: np.ndarray, horizon: int) -> int:
    if len(lengths) >= MANY_SERIES:
        return 1
    room = int(SHARE * lengths.max() / horizon)
    return max(1, min(MOST_WINDOWS, room))


def _notes(
    panel: Panel, train: np.ndarray, held: np.ndarray, test: np.ndarray, horizon: int, need: int
) -> tuple[str, ...]:
    notes = []
    many = panel.frequency.many
    tested = int((panel.lengths - _earliest(test, panel.lengths)).max())
    if tested:
        notes.append(f"the last {many(tested)} were kept from training; the backtest measures them")
    fitting = int((test >= 0).sum(axis=1).max()) if tested else 0
    if fitting < test.shape[1]:
        notes.append(f"the data is long enough for {fitting} of the {test.shape[1]} cutoffs only")
    if (held >= 0).any():
        count = horizon * int((held >= 0).sum(axis=1).max())
        series = (
            f" in {int((held >= 0).any(axis=1).sum()):,} of {len(panel):,} series" if len(panel) > 1 else ""
        )
        period = f"the {many(count)} before that" if tested else f"the last {many(count)}"
        notes.append(f"{period} were held out from training to decide when to stop{series}")
    else:
        notes.append("nothing is held out, so training does not stop early")
    short = np.flatnonzero(train < need)
    if len(short):
        some = ", ".join(repr(panel.ids[i]) for i in short[:3]) + (", ..." if len(short) > 3 else "")
        notes.append(
            f"{len(short):,} series with fewer than {need} values are forecast but not trained on ({some})"
        )
    return tuple(notes)


def _refuse(panel: Panel, need: int, horizon: int, more: str) -> None:
    longest = int(panel.lengths.argmax())
    which = (
        f"series {panel.ids[longest]!r}"
        if len(panel) == 1
        else f"the longest series, {panel.ids[longest]!r},"
    )
    raise SeriesTooShortError(
        f"{which} has {panel.lengths[longest]} values, but a horizon of {horizon}{more} needs at least {need}; "
        "give a longer series or a shorter horizon"
    )
