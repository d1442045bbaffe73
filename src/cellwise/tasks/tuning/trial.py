"""What a search has found, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DONE", "FAILED", "PRUNED", "Trial", "Tuned", "trial_of"]

DONE, PRUNED, FAILED = "done", "pruned", "failed"


@dataclass(frozen=True)
class Trial:
    """One training with other settings.

    number: 0 is the estimator as it was given. settings: the values of what is searched. state: "done"; "pruned", given
    up since half of the others were better by then; "failed", with the reason in `problem`. value: the watched metric
    of the best epoch, None unless it is done. epochs: the metric after each epoch, None where it was no number.
    seconds: how long it took."""

    number: int
    settings: Mapping[str, Any]
    state: str
    value: float | None
    epochs: tuple[float | None, ...]
    seconds: float
    problem: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"settings": dict(self.settings), "epochs": list(self.epochs)}


@dataclass(frozen=True)
class Tuned:
    """What came of a search.

    metric: what was compared, on what was held out for validation; the figure that chose the settings is a
    little too good for that. trials: in the order in which they were tried."""

    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]

    @property
    def ranked(self) -> tuple[Trial, ...]:
        """The trials that came to a figure, the best first, the earlier of equals first."""
        done = [each for each in self.trials if each.value is not None]
        return tuple(sorted(done, key=self._rank))

    @property
    def best(self) -> dict[str, Any]:
        """The best settings, as `set_params` takes them; those of the estimator itself if none were better."""
        return dict(self.ranked[0].settings)

    @property
    def value(self) -> float:
        """The metric under the best settings."""
        (value,) = (self.ranked[0].value,)
        assert value is not None
        return value

    def _rank(self, trial: Trial) -> float:
        assert trial.value is not None
        return -trial.value if self.higher_is_better else trial.value


def trial_of(record: Mapping[str, Any], number: int, names: Sequence[str]) -> Trial:
    """The trial of a record that may say anything. Raises ValueError, KeyError or TypeError if it is none."""
    trial = Trial(**{**record, "epochs": tuple(record["epochs"])})
    if trial.number != number or trial.state not in (DONE, PRUNED, FAILED):
        raise ValueError(f"record {number} is no trial")
    if (trial.value is None) == (trial.state == DONE) or set(trial.settings) != set(names):
        raise ValueError(f"trial {number} is not whole")
    numbers = [trial.seconds, *(each for each in (trial.value, *trial.epochs) if each is not None)]
    if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
        raise ValueError(f"trial {number} has figures that are no numbers")
    if not isinstance(trial.problem, str):
        raise ValueError(f"trial {number} says nothing of its problem")
    return trial
