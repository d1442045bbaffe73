"""Which part of a series trains, which part validates (calibrates, may stop training), which part is kept for the test.

Every series is cut from its end: `train | validation windows | test windows`. What is held out is learned after it was
measured, so it costs the forecasts little. Where the data is short, the test windows go first, then all validation
windows but one, then that one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cellwise.tasks.forecasting.backtest import cutoff_indices
from cellwise.tasks.forecasting.band_factors import MANY_SERIES
from cellwise.tasks.forecasting.calibration import windows_for
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Split", "former_split", "restore_split", "shortest_length", "split", "split_tensors"]
__all__ += ["whole_split"]

FEWEST_TO_CHOOSE = 4  # validation windows of one series; fewer say too little to choose an epoch by
TEST_SHARE, TEST_SHARE_OF_MANY = 1 / 6, 1 / 4  # at most this share of the longest series is kept for the test
MOST_TESTS, MOST_TESTS_OF_MANY = 12, 3
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Per series: train (N,) observations to learn from; validation and test: cutoffs (N, C) of
    their windows, -1 where a series has none."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def has_validation(self) -> bool:
        """Whether anything is held out for early stopping and calibration."""
        return bool((self.validation >= 0).any())

    @property
    def can_choose(self) -> bool:
        """Whether the validation windows can tell a good epoch from a bad one: several of one series, and few series,
        which are learned by heart soonest."""
        windows = int((self.validation >= 0).sum(axis=1).max(initial=0))
        return len(self.validation) < MANY_SERIES and windows >= FEWEST_TO_CHOOSE

    @property
    def has_test(self) -> bool:
        """Whether anything is kept from training for an honest backtest."""
        return bool((self.test >= 0).any())


def whole_split(lengths: np.ndarray) -> Split:
    """Nothing of series of these lengths (N,) is held out."""
    none = np.full((len(lengths), 0), -1)
    return Split(lengths, none, none)


def shortest_length(horizon: int) -> int:
    """Observations a series needs before it can train: one whole horizon to predict and a little to predict
    it from."""
    return horizon + max(2, min(horizon, 8))


def split(panel: Panel, horizon: int, *, cutoffs: int | None, step: int, validation: int | None) -> Split:
    """Cut every series from its end: `cutoffs` test windows, `step` apart, then validation windows, the rest trains.

    cutoffs, validation: how many windows of one horizon (None: by the length of the data; 0: none). A series too
    short for a window gives none. Raises SeriesTooShortError if no series is long enough, for as many test windows as
    were asked for at least one."""
    need = shortest_length(horizon)
    lengths = panel.lengths
    if lengths.max() < need:
        _refuse(panel, need, horizon, "")
    count = _test_windows(lengths, horizon, step) if cutoffs is None else cutoffs
    test = cutoff_indices(lengths, count, step, horizon, need)
    if cutoffs and (test < 0).all():
        _refuse(panel, need + horizon, horizon, " and a test of one horizon")
    before_test = _earliest(test, lengths)
    held = _validation_cutoffs(before_test, horizon, validation)
    if cutoffs is None and validation != 0 and (held < 0).all() and (test >= 0).any():
        return split(panel, horizon, cutoffs=0, step=step, validation=validation)
    train = _earliest(held, before_test)
    return Split(train, held, test, _notes(panel, train, held, test, cutoffs, horizon))


def _test_windows(lengths: np.ndarray, horizon: int, step: int) -> int:
    """How many test windows the data affords."""
    many = len(lengths) >= MANY_SERIES
    room = int((TEST_SHARE_OF_MANY if many else TEST_SHARE) * int(lengths.max()))
    if room < horizon:
        return 0
    return min(MOST_TESTS_OF_MANY if many else MOST_TESTS, 1 + (room - horizon) // step)


def _validation_cutoffs(lengths: np.ndarray, horizon: int, windows: int | None) -> np.ndarray:
    """Cutoffs (N, C) of validation windows in series of these lengths.

    Twice the shortest length is left to train on; once, where else nothing could be held out."""
    if windows is None:
        count, apart = windows_for(lengths, horizon)
    else:
        count, apart = windows, horizon
    need = shortest_length(horizon)
    held = cutoff_indices(lengths, count, apart, horizon, 2 * need)
    return held if windows == 0 or (held >= 0).any() else cutoff_indices(lengths, count, apart, horizon, need)


def _earliest(cutoffs: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The first cutoff of each series (N,), or `otherwise` where a series has none."""
    candidates = np.concatenate(
        [np.where(cutoffs >= 0, cutoffs, otherwise[:, None]), otherwise[:, None]], axis=1
    )
    return np.asarray(candidates.min(axis=1))


def _notes(
    panel: Panel,
    train: np.ndarray,
    held: np.ndarray,
    test: np.ndarray,
    cutoffs: int | None,
    horizon: int,
) -> tuple[str, ...]:
    notes, need = [], shortest_length(horizon)
    many = panel.frequency.many
    before_test = _earliest(test, panel.lengths)
    tested = int((panel.lengths - before_test).max())
    if tested:
        notes.append(f"the last {many(tested)} were kept from training; the backtest measures them")
    elif cutoffs is None:
        notes.append("the data is too short for test windows")
    fitting = int((test >= 0).sum(axis=1).max()) if tested else 0
    if cutoffs is not None and fitting < cutoffs:
        notes.append(f"the data is long enough for {fitting} of the {cutoffs} cutoffs only")
    if (held >= 0).any():
        count = int((before_test - train).max())
        series = (
            f" in {int((held >= 0).any(axis=1).sum()):,} of {len(panel):,} series" if len(panel) > 1 else ""
        )
        period = f"the {many(count)} before that" if tested else f"the last {many(count)}"
        notes.append(f"{period} were held out from training for validation{series}")
    else:
        notes.append("nothing is held out for validation, so nothing stops training early")
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


# --- in a run folder --------------------------------------------------------------------------------------------


def split_tensors(parts: Split) -> dict[str, torch.Tensor]:
    """A split as data.safetensors holds it: what was held out does not depend on a rule of later versions."""
    return {f"split/{name}": torch.from_numpy(np.asarray(getattr(parts, name), np.int64)) for name in _PARTS}


def restore_split(tensors: Mapping[str, torch.Tensor], lengths: np.ndarray) -> Split | None:
    """The inverse of `split_tensors`, for series of these lengths (N,); None where an earlier version wrote none.

    Raises ValueError, KeyError or RuntimeError if they are no cutoffs of such series."""
    if "split/train" not in tensors:
        return None
    found = {name: tensors[f"split/{name}"].numpy() for name in _PARTS}
    for name, value in found.items():
        rows = value.reshape(-1, 1) if name == "train" else value
        if value.dtype != np.int64 or rows.ndim != 2 or len(rows) != len(lengths):
            raise ValueError(f"its {name} windows are none")
        if ((rows < -1) | (rows == 0) | (rows > lengths[:, None])).any() or (
            name == "train" and (rows < 1).any()
        ):
            raise ValueError(f"its {name} windows lie outside the data")
    return Split(found["train"], found["validation"], found["test"])


def former_split(panel: Panel, horizon: int, *, cutoffs: int, step: int, validation: int | None) -> Split:
    """What versions up to 0.2 held out, which did not write it down."""
    need, lengths = shortest_length(horizon), panel.lengths
    test = cutoff_indices(lengths, cutoffs, step, horizon, need)
    before_test = _earliest(test, lengths)
    by_length = 1 if len(panel) >= 30 else max(1, min(12, int(0.15 * int(before_test.max()) / horizon)))
    held = cutoff_indices(
        before_test, by_length if validation is None else validation, horizon, horizon, 2 * need
    )
    return Split(_earliest(held, before_test), held, test)
