"""The base class of estimators: fit, save and load, for every task. What a task supplies is in `hooks`."""

from __future__ import annotations

import copy
import inspect
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import nn

from cellwise.cells import Cell
from cellwise.errors import a_or_an
from cellwise.tasks.common_options import CommonOptions
from cellwise.tasks.comparable import Comparable
from cellwise.tasks.errors import NotFittedError, OptionError, ReportWarning, RunFolderError, TaskError
from cellwise.tasks.hooks import Hooks, Stored
from cellwise.tasks.member_cells import cells_of, joined_name
from cellwise.tasks.options import Option, check_values, options_of, plain
from cellwise.tasks.parameters import Parameters
from cellwise.tasks.report.page import attempt
from cellwise.tasks.stored_run import epoch_of, note_of_unfinished, notes_of, without_groups
from cellwise.tasks.training.device import choose_device
from cellwise.tasks.training.history import History, read_history
from cellwise.tasks.training.loading import cells_of_run, check_loaded, load_network, option_of, store_cells
from cellwise.tasks.training.loop import TrainSettings, torch_threads, train
from cellwise.tasks.training.progress import Progress, choose_progress
from cellwise.tasks.training.replacing import current_run
from cellwise.tasks.training.run_files import REPORT
from cellwise.tasks.training.run_folder import (
    BEST,
    CONFIG,
    DATA,
    FINAL,
    WINDOWS,
    Checkpoint,
    RunFolder,
    own_run,
)
from cellwise.tasks.training.stage import Stage, continued_settings, first_settings, refit_stage

__all__ = ["Estimator", "Stored"]

Data = TypeVar("Data")
Training = TypeVar("Training")


class Estimator(CommonOptions, Parameters, Comparable, Hooks[Data, Training]):
    """A recurrent network that is trained on the user's data.

    Constructor arguments are stored unchanged under their own names; what is learned ends in an underscore.
    `Data` is all that a prediction needs besides weights: it stays with the estimator and is stored in the run folder.
    `Training` is used by the training only."""

    network_: nn.Module
    """What predicts."""
    measured_: nn.Module
    """What the figures are of: the network before it was continued on all data; `network_` itself if it was not."""
    notes_: tuple[str, ...]
    trained_: History | None
    refitted_: History | None
    seconds_: float

    @property
    def _least_weights(self) -> int:
        """Fewest weight tensors of a network; a file with fewer is refused before a network of absurd size is built."""
        return self.num_layers

    def fit(
        self,
        data: Any,
        target: Any = None,
        *,
        valid: Any = None,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
        **more: Any,
    ) -> Self:
        """Train on data.

        target: what to predict, for tasks whose data does not contain it. valid: validation data, for tasks that do not
        hold out their own. folder: run folder for weights and metrics; the same call with an unfinished one resumes it;
        `overwrite` replaces a run. progress: True or False; None shows a bar on a terminal.

        Raises OptionError, DataError, RunFolderError, TrainingError; TrainingInterrupted on Ctrl-C."""
        start = time.perf_counter()
        more |= {name: value for name, value in (("target", target), ("valid", valid)) if value is not None}
        known, training, how = self._understand(data, more)
        network = self._new_network(known)
        objective = self._objective(network, known, training)
        with self._opened(folder, known, how, overwrite) as run, torch_threads(self.threads):
            settings, shown = TrainSettings.of(self, self._epochs(known, training)), choose_progress(progress)
            refits = self._refits(known)
            first = first_settings(settings) if refits else settings
            trained = train(network, objective, first, run, shown)
            final, refitted = network, None
            if refits:
                stage, epochs = refit_stage(trained), trained.best.epoch
                final, refitted = self._continued(network, known, training, epochs, run, shown, stage)
            self._take(known, how, network, final, trained, refitted)
            self.notes_ = (*self._notes(known), *self._complete())
            self.seconds_ = time.perf_counter() - start
            if run is not None and run.writes:  # of several processes one
                self._finish(run)
        return self

    def _continued(
        self,
        network: nn.Module,
        data: Data,
        training: Training,
        epochs: int,
        run: RunFolder | None,
        progress: Progress,
        stage: Stage,
    ) -> tuple[nn.Module, History]:
        """A copy of a network that was trained for so many epochs, continued on all data."""
        final = copy.deepcopy(network)
        settings = continued_settings(TrainSettings.of(self, epochs), epochs)
        objective = self._refit_objective(final, data, training)
        return final, train(final, objective, settings, run, progress, stage=stage)

    def _understand(self, data: Any, more: Mapping[str, Any]) -> tuple[Data, Training, dict[str, Any]]:
        """What `fit` was given, understood, and the values of the `fit_options`. Wrong options are found first."""
        how = self._how(more)
        self.check_options(**how)
        choose_device(self.device)  # a run may be read where the device of its training is not
        # A grid of numpy's gives its numbers, which torch and JSON do not take.
        self.set_params(**{name: plain(value) for name, value in self.get_params().items()})
        known, training = self._read(data, **{**more, **how})
        return known, training, how

    def check_options(self, **how: Any) -> None:
        """Raise OptionError, UnknownCellError or CellError for the first invalid option.

        how: `fit_options` to check with them. Called before any work, and for the settings in a run folder."""
        if len(self._cells) > 1 and not self.takes_several_cells:
            raise OptionError(
                f"cell must be one cell for {a_or_an(type(self).__name__)}, not {self.cell_name}"
            )
        for cell in self._cells:
            _ = cell.graph  # an error in the equations is said here, with its line
        check_values(type(self), self.get_params())
        if self.fit_options is not None:
            check_values(self.fit_options, how)

    def _how(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all `fit_options`, given or default. TypeError for a missing or unknown argument."""
        parameters = inspect.signature(self._read).parameters
        declared = {each.name: each for each in self._fit_options()}
        for name in more:
            if name not in parameters and name not in declared:
                raise TypeError(f"{type(self).__name__}.fit takes no {name!r}")
        for name in ("target", "valid"):
            if (
                name in parameters
                and parameters[name].default is inspect.Parameter.empty
                and name not in more
            ):
                raise TypeError(f"{type(self).__name__}.fit needs {name!r}")
        return {name: more.get(name, each.default) for name, each in declared.items()}

    @classmethod
    def _fit_options(cls) -> tuple[Option, ...]:
        return () if cls.fit_options is None else options_of(cls.fit_options)

    def _new_network(self, data: Data) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._network(data)

    def _take(
        self,
        data: Data,
        how: Mapping[str, Any],
        measured: nn.Module,
        network: nn.Module,
        trained: History | None = None,
        refitted: History | None = None,
        best_epoch: int | None = None,
    ) -> None:
        """Set the fitted state, but for the notes."""
        self._data, self._fitted_how = data, dict(how)
        self.measured_, self.network_ = measured.eval(), network.eval()
        self.trained_, self.refitted_ = trained, refitted
        self._best_epoch = best_epoch if trained is None else trained.best.epoch
        self._learned(data)

    def _finish(self, run: RunFolder) -> None:
        """Write the report, then the summary. The run is finished even if the report fails."""
        self._write_completion(run)
        problem = self._written_report(run)
        if problem is not None:
            self.notes_ = (*self.notes_, problem)
            warnings.warn(problem, ReportWarning, stacklevel=4)

    def _written_report(self, run: RunFolder) -> str | None:
        """Write the report and, with checksums of it too, the summary. None, or a sentence on what failed, and how to
        make the report again."""
        problem = attempt(lambda: self._report(run), f"cellwise {self.task} report {run.path}")
        run.finish(self.summary())
        return problem

    @classmethod
    def remake_report(cls, folder: str | Path) -> Path:
        """Make the report of a finished run again, as its training would have made it; returns its path.

        Raises RunFolderError as `load` does, TaskError if it cannot be made, or if this task has none."""
        made, run = cls.load(folder), current_run(Path(folder))
        made.trained_ = read_history(run)
        problem = made._written_report(run)
        if problem is None and not (run / REPORT).exists():
            problem = f"runs of the task {cls.task!r} have no report"
        if problem is not None:
            raise TaskError(problem)
        return run / REPORT

    def _write_completion(self, run: RunFolder) -> None:
        for name, content in self._completion().items():
            run.write_tensors(name, content)

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise NotFittedError(f"this {type(self).__name__} has not learned anything yet; call fit first")

    @property
    def model_name(self) -> str:
        """The model's name in tables and forecasts: that of its cell."""
        return self.cell_name

    @property
    def cell_name(self) -> str:
        """The name of the cell; those of several joined, as in "gru+lstm"."""
        return joined_name(self._cells)

    @property
    def _cells(self) -> tuple[Cell, ...]:
        return cells_of(self.cell)

    @property
    def _cell(self) -> Cell:
        """The cell, where there is one."""
        (cell,) = self._cells
        return cell

    def save(self, folder: str | Path) -> None:
        """Write a run folder from which `load` makes an equal estimator. It must be new or empty."""
        self._check_fitted()
        path = Path(folder)
        if path.is_dir() and not RunFolder(path).is_empty:
            raise RunFolderError(f"{path} is not empty; save into a new folder")
        with self._opened(path, self._data, self._fitted_how, overwrite=False) as run:
            assert run is not None
            about = {} if self._best_epoch is None else {"epoch": self._best_epoch}
            run.write_tensors(BEST, Checkpoint(self.measured_.state_dict(), about))
            if self.network_ is not self.measured_:
                run.write_tensors(FINAL, Checkpoint(self.network_.state_dict(), {}))
            self._write_completion(run)
            run.finish(self.summary())

    @classmethod
    def load(cls, folder: str | Path, *, unfinished: bool = False) -> Self:
        """The estimator of a finished run folder. Every file is compared with its checksum.

        A cell whose class is unknown here is restored from the equations in the folder; no code is read from it.
        unfinished: accept a run that is not finished, which may still be training, and take its best weights so far.
        Raises RunFolderError if the folder is damaged, unfinished or not a run of this task."""
        run = current_run(Path(folder))
        config = run.config()
        if config["task"] not in cls.former_tasks:
            config = run.config(cls.task)
        if not run.is_finished and not (unfinished and (run / BEST).is_file()):
            raise run.unfinished()
        return run.guarded(f"{CONFIG} lacks settings", lambda: cls._loaded(run, config))

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        given = without_groups(config["settings"])
        how = {each.name: given.pop(each.name) for each in cls._fit_options()}
        made = cls(**given | {"cell": option_of(cells_of_run(run, config, given["cell"]))})
        check_loaded(run, lambda: made.check_options(**how))
        summary = run.summary() if run.is_finished else None
        data = made._restore(run, config)
        if config.get("format", 1) > 1 and made._store(data).fingerprint != config["data"]:
            raise run.damaged(f"{DATA} holds other data than {CONFIG} says")
        files = () if summary is None else tuple(summary.get("files", ()))
        best = run.read_tensors(BEST)
        measured = made._load_network(run, data, BEST, best)
        final = made._load_network(run, data, FINAL, run.read_tensors(FINAL)) if FINAL in files else measured
        made._take(data, how, measured, final, best_epoch=epoch_of(best))
        more = made._restore_completion(run if WINDOWS in files else None)
        notes = made._notes(data) if summary is None else notes_of(summary)
        made.notes_ = (*notes, *(note for note in more if note not in notes))
        if summary is None:
            made.notes_ += (note_of_unfinished(best),)
        made.seconds_ = float("nan")
        return made

    def _load_network(self, run: RunFolder, data: Data, name: str, saved: Checkpoint) -> nn.Module:
        return load_network(run, lambda: self._network(data), self._least_weights, saved.tensors, name)

    @contextmanager
    def _opened(
        self, folder: str | Path | None, data: Data, how: Mapping[str, Any], overwrite: bool
    ) -> Iterator[RunFolder | None]:
        """The run folder, locked by this process inside the block; None without one."""
        if folder is None:
            yield None
            return
        stored = self._store(data)
        with own_run(
            folder,
            self.task if overwrite else self._task_in(Path(folder)),
            self._stored_settings(how),
            stored.fingerprint,
            cell=store_cells(self._cells),
            extra=stored.config,
            defaults={each.name: each.stored(each.default) for each in self._declared()},
            overwrite=overwrite,
        ) as run:
            run.write_tensors(DATA, Checkpoint(dict(stored.tensors), dict(stored.about)))
            yield run

    def _declared(self) -> tuple[Option, ...]:
        return (*self._options(), *self._fit_options())

    def _stored_settings(self, how: Mapping[str, Any]) -> dict[str, Any]:
        """All options of this estimator and of `fit`, by name, as JSON holds them."""
        values = {**self.get_params(), "cell": self.cell_name, **how}
        return {each.name: each.stored(values[each.name]) for each in self._declared()}

    def _task_in(self, folder: Path) -> str:
        """The task's name in a run folder: an unfinished run of an earlier version goes on under its own."""
        if not (folder / CONFIG).is_file():
            return self.task
        name: str = RunFolder(folder).config()["task"]
        return name if name in self.former_tasks else self.task

    def summary(self) -> dict[str, Any]:
        """Key figures of the run, JSON-able."""
        self._check_fitted()
        trained = self.trained_
        epochs = {} if trained is None else {"epochs": len(trained.epochs), "best_epoch": trained.best.epoch}
        return {"model": self.model_name, **epochs, **self._figures(), "notes": list(self.notes_)}

    def score(self, data: Any, target: Any = None) -> float:
        """The metric named `metric` on data, negated where lower is better, as scikit-learn expects."""
        figure = self.measure(data, target)[self.metric]
        return figure if self.higher_is_better else -figure
