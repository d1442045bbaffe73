"""Which settings to try next: Optuna's sampler and pruner, on trials that are kept here.

Each suggestion is made by a fresh study of all trials so far, with a sampler whose seed depends on the search's and on
the trial's number. So it is a pure function of both and of the trials: a search that is taken up again goes on as if
it had never been interrupted, and nothing of Optuna's need be stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cellwise.tasks.data.optional import require
from cellwise.tasks.options import Range
from cellwise.tasks.tuning.trial import DONE, PRUNED, Trial

__all__ = ["Sampler", "Space", "holds", "widened"]

Space = Range | tuple[Any, ...]

UNPRUNED = 5  # trials that must be done before one is given up
UNPRUNED_SHARE = 0.25  # of a trial's epochs, and the first: while the learning rate rises, figures say little
DIGITS = 2  # of a number that is no whole one; settings that differ in later ones do the same


class Sampler:
    """Suggests settings.

    spaces: where to look, by the option's name. epochs: the most that a trial has. Raises TaskError where Optuna is
    not installed."""

    def __init__(
        self, spaces: Mapping[str, Space], *, seed: int, epochs: int, higher_is_better: bool
    ) -> None:
        self._optuna = require("optuna", ("optuna",))
        self._spaces, self._seed = spaces, seed
        self._direction = "maximize" if higher_is_better else "minimize"
        self._first_judged = 1 + int(UNPRUNED_SHARE * epochs)
        self._distributions = {name: self._distribution(space) for name, space in spaces.items()}

    def suggest(self, trials: Sequence[Trial]) -> tuple[dict[str, Any], Judge]:
        """Settings for the trial after these, and who says when it is to be given up."""
        with self._quiet():
            study = self._study(trials)
            made = study.ask(self._distributions)
        settings = {name: _rounded(value, self._spaces[name]) for name, value in made.params.items()}
        return settings, Judge(made)

    def _study(self, trials: Sequence[Trial]) -> Any:
        optuna = self._optuna
        seed = (self._seed * 1_000_003 + len(trials)) % 2**32
        study = optuna.create_study(
            direction=self._direction,
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=self._first_judged),
        )
        for each in trials:
            study.add_trial(self._frozen(each))
        return study

    def _frozen(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        return self._optuna.trial.create_trial(
            state={DONE: states.COMPLETE, PRUNED: states.PRUNED}.get(trial.state, states.FAIL),
            params=dict(trial.settings),
            distributions=self._distributions,
            value=trial.value,
            intermediate_values={
                epoch: math.nan if value is None else value for epoch, value in enumerate(trial.epochs, 1)
            },
        )

    def _distribution(self, space: Space) -> Any:
        kinds = self._optuna.distributions
        if not isinstance(space, Range):
            return kinds.CategoricalDistribution(space)
        is_whole = isinstance(space.low, int) and isinstance(space.high, int)
        kind = kinds.IntDistribution if is_whole else kinds.FloatDistribution
        return kind(space.low, space.high, log=space.is_log)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Optuna tells of each study that it makes; what a program has set is back after the block."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(before)


class Judge:
    """Says when a trial is to be given up: its best epoch so far is worse than the median of the others' by then."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def gives_up(self, epoch: int, value: float) -> bool:
        """Take note of an epoch's figure."""
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune())


def widened(space: Space, value: Any) -> Space:
    """A space that holds a value, which is where the search begins.

    >>> widened(Range(1, 3), 5), widened(("a", "b"), "c")
    (Range(low=1, high=5, is_log=False), ('a', 'b', 'c'))
    """
    if isinstance(space, Range):
        return Range(min(space.low, value), max(space.high, value), space.is_log)
    return space if value in space else (*space, value)


def holds(space: Space, value: Any) -> bool:
    """Whether a value is in a space."""
    return space.low <= value <= space.high if isinstance(space, Range) else value in space


def _rounded(value: Any, space: Space) -> Any:
    """A number that a person can type.

    By digits where the range goes by ratios, else by hundredths of about its width.

    >>> _rounded(0.0123456, Range(0.001, 0.1, is_log=True)), _rounded(0.0123456, Range(0.001, 0.0121, is_log=True))
    (0.012, 0.012)
    >>> _rounded(0.0123456, Range(0.0, 0.5)), _rounded(17, Range(1, 99)), _rounded("gru", ("gru", "lstm"))
    (0.01, 17, 'gru')
    """
    if not isinstance(value, float) or not isinstance(space, Range):
        return value
    if space.is_log:
        made = float(f"{value:.{DIGITS}g}")
    else:
        made = round(value, DIGITS - 1 - math.floor(math.log10((space.high - space.low) or 1.0)))
    return min(max(made, space.low), space.high)
