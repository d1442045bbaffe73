"""The base class of estimators: options, fit, run folders, scikit-learn's interface.

A task implements (see docs/adding-a-task.md) `_read`, `_network`, `_objective`, `_store`, `_restore`, and
`measure`; and, where it has something to add, `_learned`, `_notes`, `_report`, `_figures`.
"""

from __future__ import annotations

import inspect
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import nn

from cellwise.cells import Cell
from cellwise.tasks.common_options import CommonOptions
from cellwise.tasks.comparable import Comparable
from cellwise.tasks.errors import NotFittedError, OptionError, ReportWarning, RunFolderError, TaskError
from cellwise.tasks.member_cells import cells_of, joined_name
from cellwise.tasks.options import Option, check_values, options_of, plain
from cellwise.tasks.training.device import choose_device
from cellwise.tasks.training.history import History
from cellwise.tasks.training.loading import cells_of_run, check_loaded, load_network, option_of, store_cells
from cellwise.tasks.training.loop import TrainSettings, torch_threads, train
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.progress import Progress, choose_progress
from cellwise.tasks.training.run_folder import BEST, CONFIG, DATA, Checkpoint, RunFolder, own_run

__all__ = ["Estimator", "Stored"]

Data = TypeVar("Data")
Training = TypeVar("Training")


@dataclass(frozen=True, eq=False)
class Stored:
    """The part of an estimator's data that a run folder holds, beside options and weights.

    fingerprint: a digest of the data; a run resumes only with equal data.
    tensors, about: contents of data.safetensors.
    config: additional entries of config.json, JSON-able."""

    fingerprint: str
    tensors: Mapping[str, torch.Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


class Estimator(CommonOptions, Comparable, ABC, Generic[Data, Training]):
    """A recurrent network that is trained on the user's data.

    Constructor arguments are stored unchanged under their own names; what is learned ends in an underscore.
    `Data` is all that a prediction needs besides weights: it stays with the estimator and is stored in the run folder.
    `Training` is used by the training only."""

    task: ClassVar[str]
    """Name of the task: that of its command, and in run folders."""
    former_tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the task in run folders of earlier versions."""
    fit_options: ClassVar[type | None] = None
    """Declares the options of this task's `fit`, which the run folder stores too."""
    metric: ClassVar[str]
    """The figure of `measure` that `score` returns."""
    higher_is_better: ClassVar[bool] = False
    takes_several_cells: ClassVar[bool] = False
    """Whether the network has members, each of which may have a cell of its own."""

    network_: nn.Module
    notes_: tuple[str, ...]
    trained_: History | None
    seconds_: float

    @abstractmethod
    def _read(self, data: Any, *args: Any, **more: Any) -> tuple[Data, Training]:
        """Read the arguments of `fit`. Raises DataError.

        The parameters after `data` are those that this task's `fit` takes: `target`, `valid`, and the `fit_options`."""

    @abstractmethod
    def _network(self, data: Data) -> nn.Module:
        """A network with initial weights, drawn with the seed."""

    @abstractmethod
    def _objective(self, network: Any, data: Data, training: Training) -> Objective[Any]:
        """Batches, loss and validation."""

    @abstractmethod
    def _store(self, data: Data) -> Stored:
        """The data as a run folder stores it."""

    @abstractmethod
    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> Data:
        """The inverse of `_store`. Nothing in the folder is trusted.

        Raises RunFolderError, or ValueError, KeyError, ... if config.json is not as it was written."""

    @abstractmethod
    def measure(self, data: Any, target: Any = None) -> dict[str, float]:
        """The metrics of this network on any data, by name."""

    def _learned(self, data: Data) -> None:
        """Set the fitted attributes, whose names end in an underscore, that come from the data."""

    def _notes(self, data: Data) -> tuple[str, ...]:
        """What was noticed in the data, in sentences."""
        return ()

    def _report(self, run: RunFolder) -> str | None:
        """Write the report. Returns None, or a sentence on what failed and how to retry."""
        return None

    def _figures(self) -> dict[str, Any]:
        """Additional entries of summary.json, JSON-able."""
        return {}

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
            trained = train(network, objective, TrainSettings.of(self), run, choose_progress(progress))
            self._take(known, how, network, self._notes(known), trained)
            self.seconds_ = time.perf_counter() - start
            if run is not None and run.writes:  # of several processes one
                self._finish(run)
        return self

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
            raise OptionError(f"cell must be one cell for a {type(self).__name__}, not {self.cell_name}")
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
        network: nn.Module,
        notes: tuple[str, ...],
        trained: History | None,
    ) -> None:
        """Set the fitted state."""
        self._data, self._fitted_how = data, dict(how)
        self.network_, self.notes_, self.trained_ = network.eval(), notes, trained
        self._learned(data)

    def _finish(self, run: RunFolder) -> None:
        """Write the report, then the summary. The run is finished even if the report fails."""
        problem = self._report(run)
        run.finish(self.summary())
        if problem is not None:
            self.notes_ = (*self.notes_, problem)
            warnings.warn(problem, ReportWarning, stacklevel=4)

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise NotFittedError(f"this {type(self).__name__} has not learned anything yet; call fit first")

    @property
    def is_fitted(self) -> bool:
        """Whether there is a trained network."""
        return hasattr(self, "network_")

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
            run.write_tensors(BEST, Checkpoint(self.network_.state_dict(), {}))
            run.finish(self.summary())

    @classmethod
    def load(cls, folder: str | Path, *, unfinished: bool = False) -> Self:
        """The estimator of a finished run folder. Every file is compared with its checksum.

        A cell whose class is unknown here is restored from the equations in the folder; no code is read from it.
        unfinished: accept a run that is not finished, which may still be training, and take its best weights so far.
        Raises RunFolderError if the folder is damaged, unfinished or not a run of this task."""
        run = RunFolder(Path(folder))
        config = run.config()
        if config["task"] not in cls.former_tasks:
            config = run.config(cls.task)
        if not run.is_finished and not (unfinished and (run / BEST).is_file()):
            raise run.unfinished()
        return run.guarded(f"{CONFIG} lacks settings", lambda: cls._loaded(run, config))

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        given = _without_groups(config["settings"])
        how = {each.name: given.pop(each.name) for each in cls._fit_options()}
        made = cls(**given | {"cell": option_of(cells_of_run(run, config, given["cell"]))})
        check_loaded(run, lambda: made.check_options(**how))
        summary = run.summary() if run.is_finished else None
        data = made._restore(run, config)
        if config.get("format", 1) > 1 and made._store(data).fingerprint != config["data"]:
            raise run.damaged(f"{DATA} holds other data than {CONFIG} says")
        best = run.read_tensors(BEST)
        network = load_network(run, lambda: made._network(data), made._least_weights, best.tensors)
        made._take(data, how, network, _notes_of(made._notes(data), summary, best), None)
        made.seconds_ = float("nan")
        return made

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
        return (*options_of(type(self)), *self._fit_options())

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

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (`deep` is there for scikit-learn; nothing is nested)."""
        return {each.name: getattr(self, each.name) for each in options_of(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; returns self. What was learned stays until the next fit."""
        names = [each.name for each in options_of(type(self))]
        for name, value in params.items():
            if name not in names:
                raise TaskError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(names)}")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return self.is_fitted

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator; nobody else does, so it is there when this is called."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True, allow_nan=True),
        )

    def __repr__(self) -> str:
        changed = (
            f"{each.name}={value!r}"
            for each in options_of(type(self))
            if (value := getattr(self, each.name)) is not each.default and value != each.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def _without_groups(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name. Runs of version 0.1 nested those of a forecaster in a group."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _notes_of(notes: tuple[str, ...], summary: Mapping[str, Any] | None, best: Checkpoint) -> tuple[str, ...]:
    """The notes of a loaded run: those of its summary, or that it is not finished."""
    if summary is not None:
        return tuple(str(note) for note in summary.get("notes", ()))
    epoch = best.about.get("epoch")
    return (*notes, f"the run is not finished; these are its weights of epoch {epoch}, the best so far")
