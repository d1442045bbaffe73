"""`tune(Forecaster(horizon=28), "sales.csv", trials=20).best`: settings under which an estimator learns better."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from cellwise.tasks.errors import DataError, OptionError, TaskError, TrainingError, TrainingInterrupted
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.member_cells import cells_of
from cellwise.tasks.options import Option, Range, options_of, short_repr
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.loading import option_of, store_cells
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.rank import process_count
from cellwise.tasks.tuning.progress import TuneProgress, choose_progress
from cellwise.tasks.tuning.record import Record, own_record
from cellwise.tasks.tuning.sampling import Judge, Sampler, Space, widened
from cellwise.tasks.tuning.trial import DONE, FAILED, PRUNED, Trial, Tuned

__all__ = ["TRIALS", "TuneInterrupted", "tune"]

TRIALS = 20  # where neither trials nor minutes are given
# With some settings of a search, a training may be impossible or too large; that is the trial's end, not the search's.
FAILURES = (TrainingError, DataError, OptionError, torch.OutOfMemoryError)


class TuneInterrupted(TrainingInterrupted):
    """Ctrl-C or SIGTERM during a search. `tuned`: what was found until then; None if no trial was over."""

    tuned: Tuned | None = None


def tune(
    estimator: Estimator,
    data: Any,
    target: Any = None,
    *,
    valid: Any = None,
    trials: int | None = None,
    minutes: float | None = None,
    search: Iterable[str] | Mapping[str, Range | Iterable[Any]] | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | TuneProgress | None = None,
    **more: Any,
) -> Tuned:
    """Train again and again with other settings, each time on the same part of the data, and compare the watched
    metric on what is held out for validation; test windows are not looked at. The estimator stays as it is.

    Trial 0 has the settings of `estimator`. Later ones are chosen by Optuna's tree-structured Parzen estimator, and
    given up early if they are worse than half of the others were by then. The same seed (that of the estimator) and
    number of trials give the same result, unless time decides (`minutes`, here or of the estimator).

    data, target, valid, more: as `fit` of this estimator takes them.
    trials: how many in all, those included that are in the folder already (20; with `minutes`, as many as fit).
    minutes: no longer than this, but trial 0 is always done; a trial that is not over by then is dropped.
    search: names of options; or a dict from names to a `Range` or the values to try; None: all that declare where to
    look and have their default value.
    folder: keeps the trials; the same call goes on with them. `overwrite` begins anew.
    progress: True or False; None shows a line a trial on a terminal.

    Raises OptionError; DataError, also if nothing is held out; RunFolderError if the folder is damaged or another
    search's; TrainingError if no trial came to a figure; TaskError where Optuna is not installed; TuneInterrupted, a
    KeyboardInterrupt with what was found, on Ctrl-C.

    >>> from cellwise.tasks import CharacterModel
    >>> text = "The whale swims, and so does the ship. " * 40
    >>> model = CharacterModel(hidden_size=8, epochs=1)
    >>> tuned = tune(model, text, trials=2, search={"learning_rate": (0.01, 0.03)})
    >>> tuned.metric, [trial.settings for trial in tuned.trials][0]
    ('bits_per_character', {'learning_rate': 0.003})
    >>> better = model.set_params(**tuned.best).fit(text)
    """
    if process_count() > 1:
        raise TaskError("a search trains in one process; start it without torchrun")
    if trials is not None and (type(trials) is not int or trials < 1):
        raise OptionError(f"trials must be a whole number from 1, not {short_repr(trials)}")
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise OptionError(f"minutes must be a number above 0, not {short_repr(minutes)}")
    more |= {name: value for name, value in (("target", target), ("valid", valid)) if value is not None}
    limit = TRIALS if trials is None and minutes is None else trials
    made = _Search(estimator, data, more, _spaces(estimator, search))
    made.begins_anew = overwrite
    made.check_held_out()
    with own_record(None if folder is None else Path(folder), made.about, overwrite) as record:
        return made.run(record, limit, minutes, choose_progress(progress))


def _spaces(estimator: Estimator, search: Any) -> dict[str, Space]:
    """Where to look, by the option's name; the estimator's own values are in there. Raises OptionError."""
    declared = {each.name: each for each in options_of(type(estimator))}
    if search is None:
        search = [
            name
            for name, each in declared.items()
            if each.search is not None and getattr(estimator, name) == each.default
        ]
    given = dict(search) if isinstance(search, Mapping) else dict.fromkeys(search)
    spaces = {}
    for name, wanted in given.items():
        if name not in declared:
            raise OptionError(
                f"{type(estimator).__name__} has no option {name!r}; it has {', '.join(declared)}"
            )
        if name in estimator.measured_by:
            raise OptionError(
                f"{name} decides how settings are measured, so it must be the same in all trials"
            )
        space = declared[name].search if wanted is None else wanted
        if space is None:
            raise OptionError(f"{name} declares no range to search; give one, such as {{{name!r}: [...]}}")
        space = space if isinstance(space, Range) else tuple(space)
        own = option_of(estimator._cells) if name == "cell" else getattr(estimator, name)
        if name == "cell" and isinstance(space, Range):
            raise OptionError("the cells to search must be a list of names")
        for value in (space.low, space.high) if isinstance(space, Range) else (*space, own):
            declared[name].check(value)
            if not isinstance(value, bool | int | float | str | None):
                raise OptionError(f"a search can keep numbers and texts, not {name} = {short_repr(value)}")
            if name == "cell":
                _copy(estimator, {name: value}).check_options()
        spaces[name] = widened(space, own)
    if not spaces:
        raise OptionError("there is nothing to search: every option that has a range to search is given")
    return spaces


class _Search:
    """One search: what it is about, and its trials so far."""

    def __init__(
        self, estimator: Estimator, data: Any, more: dict[str, Any], spaces: dict[str, Space]
    ) -> None:
        self.estimator, self.data, self.more, self.spaces = _copy(estimator, {}), data, more, spaces
        known, training, how = self.estimator._understand(data, more)
        self._known, self._network = known, self.estimator._new_network(known)
        self.objective: Objective[Any] = self.estimator._objective(self._network, known, training)
        self.epochs = self.estimator.epochs or self.estimator._epochs(known, training)
        settings = self.estimator._stored_settings(how)
        cells = spaces.get("cell")
        assert not isinstance(cells, Range)
        self.about = {
            "task": estimator.task,
            "settings": settings,
            "search": {
                name: dataclasses.asdict(space) if isinstance(space, Range) else list(space)
                for name, space in spaces.items()
            },
            "cell": store_cells(self.estimator._cells),
            **({"cells": [store_cells(cells_of(each)) for each in cells]} if cells else {}),
            "data": self.estimator._store(known).fingerprint,
        }
        self.sampler = Sampler(
            spaces,
            seed=self.estimator.seed,
            epochs=self.epochs,
            higher_is_better=self.objective.higher_is_better,
        )
        self.trials: list[Trial] = []
        self.begins_anew = False

    @property
    def tuned(self) -> Tuned:
        """What was found so far."""
        return Tuned(self.objective.metric, self.objective.higher_is_better, tuple(self.trials))

    def run(self, record: Record, limit: int | None, minutes: float | None, progress: TuneProgress) -> Tuned:
        """Do the trials that are not there yet."""
        options: dict[str, Option] = {
            each.name: each for each in options_of(type(self.estimator)) if each.name in self.spaces
        }
        self.trials = record.read(options, self.spaces)[:limit]
        progress.start(len(self.trials))
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        try:
            while limit is None or len(self.trials) < limit:
                trial = self.next_trial(end, progress)
                if trial is None:
                    break
                self.trials.append(trial)
                record.save(self.trials)
                progress.trial(trial, self.tuned)
        except KeyboardInterrupt as stop:
            raise self._interrupted(stop, record) from stop
        finally:
            progress.end()
        if not self.tuned.ranked:
            problem = self.trials[0].problem
            raise TrainingError(f"none of {len(self.trials)} trials came to a figure; the first: {problem}")
        return self.tuned

    def check_held_out(self) -> None:
        """Raise DataError if there is no figure by which settings could be compared."""
        self._network.eval()
        with torch_threads(self.estimator.threads), torch.no_grad():
            if not self.objective.validate():
                raise DataError(
                    "nothing is held out from training for validation, so there is no figure to compare settings "
                    "by; give longer data, or hold more of it out"
                )

    def next_trial(self, end: float, progress: TuneProgress) -> Trial | None:
        """Train once; None if the time is up before it is over."""
        number, judge = len(self.trials), None
        if number and time.monotonic() >= end:
            return None
        settings = self._given()
        if number:
            settings, judge = self.sampler.suggest(self.trials)
        watcher = _Watcher(self, number, judge, end if number else math.inf, progress)
        began, state, value, problem = time.monotonic(), DONE, None, ""
        try:
            tried = _copy(self.estimator, {**settings, **self.estimator.trial_settings})
            made = tried.fit(self.data, progress=watcher, **self.more)
            assert made.trained_ is not None
            value = made.trained_.watch.value(made.trained_.best)
        except _TimeUpError:
            return None
        except _GivenUpError:
            state = PRUNED
        except FAILURES as error:
            state, problem = FAILED, str(error).partition("\n")[0]
        if value is not None and not math.isfinite(value):
            state, value, problem = FAILED, None, f"{self.objective.metric} is {value}"
        epochs = tuple(each if math.isfinite(each) else None for each in watcher.values)
        return Trial(number, settings, state, value, epochs, round(time.monotonic() - began, 3), problem)

    def _given(self) -> dict[str, Any]:
        """The estimator's own values of what is searched, as a record holds them."""
        own = {name: getattr(self.estimator, name) for name in self.spaces}
        return own | ({"cell": option_of(self.estimator._cells)} if "cell" in own else {})

    def _interrupted(self, stop: KeyboardInterrupt, record: Record) -> TuneInterrupted:
        count = len(self.trials)
        kept = f"{count} trial{'s are' if count != 1 else ' is'} over"
        if record.folder is not None:
            again = "the same command without --overwrite" if self.begins_anew else "the same command"
            kept += f" and kept in {record.folder.path}; {again} goes on from there"
        made = TuneInterrupted(f"stopped in trial {count}; {kept}")
        made.number = getattr(stop, "number", made.number)
        made.tuned = self.tuned if self.tuned.ranked else None
        return made


def _copy(estimator: Estimator, settings: Mapping[str, Any]) -> Estimator:
    """A fresh estimator with other settings."""
    return type(estimator)(**{**estimator.get_params(), **settings})


class _GivenUpError(Exception):
    """The trial is worse than half of the others."""


class _TimeUpError(Exception):
    """The search has no time left."""


class _Watcher:
    """The progress of a trial's training, which ends it where it is to be given up."""

    def __init__(
        self, search: _Search, number: int, judge: Judge | None, end: float, progress: TuneProgress
    ) -> None:
        self.values: list[float] = []
        self._metric, self._epochs = search.objective.metric, search.epochs
        self._number, self._judge, self._end, self._progress = number, judge, end, progress

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None: ...

    def step(self, epoch: int, loss: float) -> None:
        """Stop if the time is up."""
        if time.monotonic() >= self._end:
            raise _TimeUpError

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        """Take the epoch's figure, and stop if it is not good enough."""
        value = epoch.metrics[self._metric]
        self.values.append(value)
        self._progress.epoch(self._number, epoch.epoch, self._epochs, value)
        if self._judge is not None and self._judge.gives_up(epoch.epoch, value):
            raise _GivenUpError

    def end(self) -> None: ...
