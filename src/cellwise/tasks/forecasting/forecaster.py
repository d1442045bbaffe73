"""The estimator: `Forecaster(cell="gru", horizon=28).fit(frame).predict()`.

Longer than other files: the options and methods of the estimator are described here.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from cellwise import cells
from cellwise.cells import Cell
from cellwise.cells.stored import known_cell, store_cell
from cellwise.tasks.errors import NotFittedError, ReportWarning, RunFolderError
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.forecasting.backtest import Backtest, ends_of, roll
from cellwise.tasks.forecasting.calendar import calendar_names, with_calendar
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.covariates import check_reach
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.frames import Columns, Table, TextFormat, read_table
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.objective import ForecastLearning, training_part
from cellwise.tasks.forecasting.options import check_options
from cellwise.tasks.forecasting.output import (
    Measured,
    backtest_frame,
    check_by,
    forecast_frame,
    quantiles_of,
    scores_frame,
)
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.saved import read_saved
from cellwise.tasks.forecasting.splits import Split, split
from cellwise.tasks.forecasting.store import fingerprint, write_table
from cellwise.tasks.training.history import History
from cellwise.tasks.training.loading import cell_of_run, check_loaded
from cellwise.tasks.training.loop import TrainSettings, threads, train
from cellwise.tasks.training.progress import Progress, choose_progress
from cellwise.tasks.training.run_folder import BEST, Checkpoint, RunFolder, own_run

__all__ = ["Forecaster"]

TASK = "forecast"


class Forecaster(Estimator):
    """A recurrent network that forecasts one or many series, with bands.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. horizon: steps to
    forecast; `predict` may be asked for more. freq: distance of the times ("D", "h", "MS", "30min", ...);
    None reads it off the data. season_length: steps in a season; None takes the natural one of the
    frequency (7 for days). known, past: columns of covariates, known in advance or only up to now.
    id_column, time_column, target_column: names of the columns in long format. date_format ("%d/%m/%Y"),
    decimal ("," or "."), encoding ("cp1252"): how text is written, where it leaves that open. levels: bands in percent.
    hidden_size, num_layers, dropout, members: the network; `members` networks are averaged. epochs,
    batch_size, learning_rate, weight_decay, patience, seed: the training. validation: windows of one
    horizon held out at the end to decide when to stop; None chooses, 0 holds nothing out.

    What `fit` learns ends in an underscore: `network_`, `notes_` (what was noticed in the data, in
    sentences), `trained_` (the epochs), `backtest_` (forecasts of what was held out, beside the seasonal
    naive)."""

    def __init__(
        self,
        cell: Any = "gru",
        horizon: int = 28,
        *,
        freq: str | None = None,
        season_length: int | None = None,
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        id_column: str = "unique_id",
        time_column: str = "ds",
        target_column: str = "y",
        levels: Sequence[int] = (80, 90),
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.1,
        members: int = 1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-3,
        patience: int = 6,
        validation: int | None = None,
        seed: int = 0,
        threads: int = 1,
        date_format: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
    ) -> None:
        self._measured: Measured | None = None
        self._parts: Split | None = None
        self.cell = cell
        self.horizon = horizon
        self.freq = freq
        self.season_length = season_length
        self.known = known
        self.past = past
        self.id_column = id_column
        self.time_column = time_column
        self.target_column = target_column
        self.levels = levels
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.members = members
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation = validation
        self.seed = seed
        self.threads = threads
        self.date_format = date_format
        self.decimal = decimal
        self.encoding = encoding

    @property
    def model_name(self) -> str:
        """How the forecasts are called: the cell's name in capitals."""
        return self._cell.name.upper()

    @property
    def _cell(self) -> Cell:
        return cells.get(self.cell)

    def fit(
        self,
        frame: Any,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        cutoffs: int = 0,
        step: int | None = None,
        progress: bool | Progress | None = None,
    ) -> Self:
        """Learn from a pandas, polars or pyarrow frame, or a CSV or Parquet file.

        folder: a run folder for weights and figures; the same call on an unfinished one resumes it.
        cutoffs: so many test windows at the end are kept from training and measured in `backtest_`, `step`
        apart (one horizon). progress: True or False; None shows a bar on a terminal."""
        check_options(self, cutoffs=cutoffs, step=step)
        start = time.perf_counter()
        table = read_table(frame, self._columns(), self.freq, self.season_length)
        names = calendar_names(table.panel.frequency, table.panel.times)
        panel = with_calendar(table.panel, names, self.horizon)
        parts = self._split(panel, cutoffs, step)
        config = NetworkConfig.for_panel(
            training_part(panel, parts, self.horizon), **self._network_options(self._cell)
        )
        network = self._new_network(config)
        learning = ForecastLearning(network, panel, parts, batch_size=self.batch_size, seed=self.seed)
        with (
            self._opened(folder, table, config, names, (cutoffs, step), overwrite) as run,
            threads(self.threads),
        ):
            self.trained_: History | None = train(
                network, learning, TrainSettings.of(self), run, choose_progress(progress)
            )
            self._take(table, names, network, (*table.notes, *parts.notes))
            self._measured, self._parts = None, parts
            self.seconds_ = time.perf_counter() - start
            if run is not None:
                self._finish(run)
        return self

    def predict(self, frame: Any = None, horizon: int | None = None) -> Any:
        """Forecasts after the end of every series: id, time, the median, and the bands, as a frame of the
        same kind.

        frame: series to continue, also ones never seen; None continues those of `fit`. Rows with an empty
        target at the end supply the covariates known in advance. horizon: steps to forecast (None: as
        trained), also more than trained."""
        self._check_fitted()
        steps = self.horizon if horizon is None else horizon
        check_options(self, horizon=steps)
        table = self.table_ if frame is None else self._read_again(frame)
        panel = with_calendar(table.panel, self.calendar_, steps, self.network_.looks_back)
        check_reach(table.panel, steps, self.target_column)
        with threads(self.threads):
            made = self.network_.forecast(panel, steps)
        return forecast_frame(panel, made, self._quantiles, self.levels, self.model_name, table.style)

    def backtest(
        self, frame: Any = None, cutoffs: int = 5, step: int | None = None, *, progress: bool | None = None
    ) -> Any:
        """Honest forecasts of the past: a fresh network learns from what lies before the first cutoff, then
        forecasts one horizon after each of the last `cutoffs` cutoffs, `step` apart (one horizon).

        Returns a frame with the columns of `predict`, a column `cutoff` (the last time the forecast knew),
        the truth, and the seasonal naive forecast. The figures are in `backtest_`; `scores()` lays them
        out. What `fit` learned stays."""
        if frame is None:
            self._check_fitted()
            table = self.table_
        else:
            table = read_table(frame, self._columns(), self.freq, self.season_length)
        fresh = type(self)(**self.get_params())
        fresh.fit(table, cutoffs=cutoffs, step=step, progress=progress)
        self._measured = fresh._measure()
        assert self._measured is not None  # cutoffs >= 1, so there are test windows
        return backtest_frame(self._measured.backtest, table.style)

    def evaluate(
        self, frame: Any = None, cutoffs: int = 1, step: int | None = None, *, by: str = "all"
    ) -> Any:
        """Scores of this very network, without training, at the last `cutoffs` cutoffs of `frame`, beside
        the seasonal naive forecast. Without a frame: on what `fit` held out."""
        self._check_fitted()
        check_by(by)
        if frame is None:
            return self.scores(by=by)
        check_options(self, cutoffs=cutoffs, step=step)
        table = self._read_again(frame)
        panel = with_calendar(table.panel, self.calendar_, 0)
        ends = ends_of(panel.lengths, cutoffs, step or self.horizon, self.horizon, 2)
        if (ends < 0).all():
            raise SeriesTooShortError(
                f"no series has the {self.horizon + 2} values that measuring a horizon of {self.horizon} needs"
            )
        with threads(self.threads):
            return scores_frame(self._roll(panel, ends), table.style, by)

    def scores(self, by: str = "all") -> Any:
        """The figures of the last backtest, or of what `fit` held out, as a frame; by "all", "series" or
        "horizon"."""
        check_by(by)
        measured = self._measure()
        if measured is None:
            raise NotFittedError(
                "there is nothing to measure: call backtest, or fit on series long enough to hold some out"
            )
        return scores_frame(measured.backtest, measured.style, by)

    @property
    def backtest_(self) -> Backtest | None:
        """Forecasts beside the truth: of the last `backtest`, or of the part that `fit` held out; None if
        there is none."""
        measured = self._measure()
        return None if measured is None else measured.backtest

    @property
    def backtest_is_test_(self) -> bool:
        """Whether `backtest_` measures what neither training nor early stopping has seen."""
        measured = self._measure()
        return measured is not None and measured.is_test

    def _measure(self) -> Measured | None:
        """Forecast what was held out, the first time that somebody asks."""
        parts = self._parts
        if self._measured is None and parts is not None and (parts.has_test or parts.has_validation):
            panel = with_calendar(self.table_.panel, self.calendar_, self.horizon)
            with threads(self.threads):
                backtest = self._roll(panel, parts.test if parts.has_test else parts.validation)
            self._measured = Measured(backtest, self.table_.style, parts.has_test)
        return self._measured

    def save(self, folder: str | Path) -> None:
        """Write a run folder from which `load` makes an equal forecaster. It must be new or empty."""
        self._check_fitted()
        if RunFolder(Path(folder)).is_started:
            raise RunFolderError(f"{folder} holds a training; save into a new folder")
        table, config = self.table_, self.network_.config
        with self._opened(folder, table, config, self.calendar_, (0, None), overwrite=False) as run:
            assert run is not None
            run.write_tensors(BEST, Checkpoint(self.network_.state_dict(), {}))
            run.finish(self.summary())

    @classmethod
    def load(cls, folder: str | Path, *, unfinished: bool = False) -> Self:
        """The forecaster of a finished run folder, whole or not at all: every file is compared with its checksum.

        A cell whose class is not known here is taken from the equations in the folder; no code is read from it.
        unfinished: take the best weights so far of a run that is not finished; it may be training meanwhile.
        Raises RunFolderError if it is damaged, unfinished or something else."""
        run = RunFolder(Path(folder))
        config = run.config(TASK)
        if not run.is_finished and not (unfinished and (run / BEST).is_file()):
            raise run.unfinished()
        return run.guarded("config.json lacks settings", lambda: cls._loaded(run, config))

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        given = dict(config["settings"]["forecaster"])
        cutoffs, step = config["settings"]["cutoffs"], config["settings"]["step"]
        cell = cell_of_run(run, config, given["cell"])
        made = cls(**given | {"cell": given["cell"] if known_cell(given["cell"]) == cell else cell})
        check_loaded(run, lambda: check_options(made, cutoffs=cutoffs, step=step))
        saved = read_saved(run, config, made._network_options(cell), cell)
        made._take(saved.table, saved.calendar, saved.network, saved.notes)
        made.trained_, made.seconds_ = None, float("nan")
        made._parts = made._split(saved.table.panel, cutoffs, step)
        return made

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, JSON-able."""
        trained = getattr(self, "trained_", None)
        backtest = self.backtest_
        epochs = {} if trained is None else {"epochs": len(trained.epochs), "best_epoch": trained.best.epoch}
        scores = {} if backtest is None else {name: s.overall for name, s in backtest.scores().items()}
        return {"model": self.model_name, **epochs, "scores": scores, "notes": list(self.notes_)}

    def read(self, source: Any) -> Table:
        """Understand a frame or file as `fit` would, or as `predict` would once fitted; its notes say what
        was filled."""
        if hasattr(self, "table_"):
            return self._read_again(source)
        return read_table(source, self._columns(), self.freq, self.season_length)

    def kept_from_training(self, cutoffs: int, step: int | None) -> bool:
        """Whether `fit` kept just these test windows from training, so that they can be measured as they
        are."""
        return self._cutoffs == (cutoffs, step or self.horizon)

    def _columns(self, learned_format: str | None = None) -> Columns:
        text = TextFormat(self.date_format, self.decimal, self.encoding, learned_format)
        return Columns(
            self.id_column, self.time_column, self.target_column, tuple(self.known), tuple(self.past), text
        )

    @property
    def _quantiles(self) -> tuple[float, ...]:
        return quantiles_of(self.levels)

    def _split(self, panel: Panel, cutoffs: int, step: int | None) -> Split:
        self._cutoffs = cutoffs, step or self.horizon
        return split(
            panel, self.horizon, cutoffs=cutoffs, step=step or self.horizon, validation=self.validation
        )

    def _network_options(self, cell: Cell) -> dict[str, Any]:
        """What of the settings the network is built from."""
        return {
            "horizon": self.horizon,
            "cell": cell,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "members": self.members,
            "quantiles": quantiles_of(self.levels),
        }

    def _new_network(self, config: NetworkConfig) -> ForecastNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return ForecastNetwork(config)

    def _take(
        self, table: Table, calendar: tuple[str, ...], network: ForecastNetwork, notes: tuple[str, ...]
    ) -> None:
        self.table_: Table = table
        self.calendar_, self.network_, self.notes_ = calendar, network, notes

    @contextmanager
    def _opened(
        self,
        folder: str | Path | None,
        table: Table,
        config: NetworkConfig,
        calendar: tuple[str, ...],
        windows: tuple[int, int | None],
        overwrite: bool,
    ) -> Iterator[RunFolder | None]:
        """The run folder, which is this process's own inside the block; None without one."""
        if folder is None:
            yield None
            return
        cutoffs, step = windows
        lists = {name: list(getattr(self, name)) for name in ("known", "past", "levels")}
        params = self.get_params() | lists | {"cell": self._cell.name}
        with own_run(
            folder,
            TASK,
            {"forecaster": params, "cutoffs": cutoffs, "step": step},
            fingerprint(table.panel, table.style),
            cell=store_cell(self._cell),
            extra={"network": config.to_dict(), "calendar": calendar},
            overwrite=overwrite,
        ) as run:
            write_table(run, table)
            yield run

    def _finish(self, run: RunFolder) -> None:
        """The report, the backtest, the summary. Whatever becomes of the first two, the run is finished."""
        from cellwise.tasks.forecasting.report import make_report

        problem = make_report(run, self)
        run.finish(self.summary())
        if problem is not None:
            self.notes_ = (*self.notes_, problem)
            warnings.warn(problem, ReportWarning, stacklevel=3)

    def _roll(self, panel: Panel, ends: np.ndarray) -> Backtest:
        return roll(
            self.network_.forecast,
            panel,
            ends,
            self.horizon,
            name=self.model_name,
            quantiles=self._quantiles,
            levels=tuple(sorted(self.levels)),
        )

    def _read_again(self, frame: Any) -> Table:
        frequency = self.table_.panel.frequency
        return read_table(frame, self._columns(self.table_.style.time_format), frequency)

    def _check_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise NotFittedError("this Forecaster has not learned anything yet; call fit first")
