"""The estimator: `Forecaster(cell="gru", horizon=28).fit(frame).predict()`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from cellwise.tasks.errors import NotFittedError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.forecasting import TASK
from cellwise.tasks.forecasting.backtest import Backtest, cutoff_indices, rolling_forecasts
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.covariates import check_reach
from cellwise.tasks.forecasting.data import ForecastData, prepare_data, restore_data, store_data
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.frames import Columns, Table, TextFormat, read_table
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.objective import ForecastObjective
from cellwise.tasks.forecasting.options import ForecastOptions, TestWindows
from cellwise.tasks.forecasting.output import (
    Evaluation,
    backtest_frame,
    check_by,
    forecast_frame,
    quantiles_of,
    scores_frame,
)
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.options import check_values
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.progress import Progress
from cellwise.tasks.training.run_folder import RunFolder

__all__ = ["Forecaster"]


class Forecaster(ForecastOptions, Estimator[ForecastData, Panel]):
    """A recurrent network that forecasts one or many series, with bands.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. horizon: steps to
    forecast; `predict` may be asked for more. freq: frequency of the series ("D", "h", "MS", "30min", ...);
    None infers it from the data. season_length: steps in a season; None takes the natural one of the
    frequency (7 for days). known, past: columns of covariates, known in advance or only up to the present.
    holidays: places whose public holidays are known in advance ("US", "US-CA").
    id_column, time_column, target_column: names of the columns in long format. date_format ("%d/%m/%Y"),
    decimal ("," or "."), encoding ("cp1252"): the format of text, where it is ambiguous. wide: the table has one
    column, or one row, per series; drop: those of them that are none. sheet: of an Excel workbook. levels: prediction
    intervals in percent.
    hidden_size, num_layers, dropout, members: the network; the forecasts of `members` networks are averaged. epochs,
    batch_size, learning_rate, weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the
    training. validation: windows of one horizon held out at the end for early stopping; None chooses the number, 0
    holds nothing out.

    What `fit` learns ends in an underscore: `network_`, `table_` (the data as it was understood), `notes_` (remarks
    on it, in sentences), `trained_` (the epochs), `backtest_` (forecasts of the held-out windows, beside the seasonal
    naive forecast)."""

    task = TASK.name
    fit_options = TestWindows
    metric = "MASE"

    network_: ForecastNetwork
    table_: Table
    calendar_: tuple[str, ...]
    _evaluation: Evaluation | None = None

    def fit(
        self,
        data: Any,
        target: None = None,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        cutoffs: int = 0,
        step: int | None = None,
        progress: bool | Progress | None = None,
        **more: Any,
    ) -> Self:
        """Train on a pandas, polars or pyarrow frame, a CSV or Parquet file, or a list of arrays (T,), one for each
        series, whose steps are numbered from 0.

        folder: run folder for weights and metrics; the same call with an unfinished one resumes it.
        cutoffs: number of test windows, held out at the end and measured in `backtest_`. step: steps between them
        (default: one horizon). progress: True or False; None shows a bar on a terminal."""
        windows = {"cutoffs": cutoffs, "step": step}
        return super().fit(
            data, target, folder=folder, overwrite=overwrite, progress=progress, **windows, **more
        )

    def _read(self, data: Any, *, cutoffs: int, step: int | None) -> tuple[ForecastData, Panel]:
        table = read_table(data, self._columns(), self.freq, self.season_length)
        held_out = self._held_out(cutoffs, step)
        return prepare_data(table, self._network_options(), **held_out, holidays=self.holidays)

    def _network(self, data: ForecastData) -> ForecastNetwork:
        return ForecastNetwork(data.config)

    def _objective(self, network: ForecastNetwork, data: ForecastData, training: Panel) -> ForecastObjective:
        return ForecastObjective(network, training, data.split, batch_size=self.batch_size, seed=self.seed)

    def _store(self, data: ForecastData) -> Stored:
        return store_data(data)

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> ForecastData:
        windows = {name: config["settings"][name] for name in ("cutoffs", "step")}
        return restore_data(run, config, self._network_options(), **self._held_out(**windows))

    def _learned(self, data: ForecastData) -> None:
        self.table_, self.calendar_ = data.table, data.calendar
        self._evaluation = None

    def _notes(self, data: ForecastData) -> tuple[str, ...]:
        return (*data.table.notes, *data.split.notes)

    def _report(self, run: RunFolder) -> str | None:
        from cellwise.tasks.forecasting.report import make_report

        return make_report(run, self)

    def _figures(self) -> dict[str, Any]:
        backtest = self.backtest_
        return {
            "scores": {} if backtest is None else {name: s.overall for name, s in backtest.scores().items()}
        }

    @property
    def _least_weights(self) -> int:
        return self.members * self.num_layers

    @property
    def model_name(self) -> str:
        """The column name of the forecasts: the cell's name in capitals."""
        return self._cell.name.upper()

    def check_options(self, **how: Any) -> None:
        """Raise OptionError, FrequencyError, UnknownCellError or CellError for the first invalid option.

        how: cutoffs and step of `fit`."""
        super().check_options(**how)
        if self.freq is not None:
            parse_frequency(self.freq)
        TextFormat(self.date_format, self.decimal, self.encoding)

    def predict(self, frame: Any = None, horizon: int | None = None) -> Any:
        """Forecasts after the end of every series: id, time, the median, and the bands, as a frame of the
        same kind.

        frame: series to continue, also ones never seen; None continues those of `fit`. Rows with an empty
        target at the end supply the covariates known in advance. horizon: steps to forecast (None: as
        trained), also more than trained."""
        self._check_fitted()
        steps = self.horizon if horizon is None else horizon
        self.check_options()
        check_values(ForecastOptions, {"horizon": steps})
        table = self.table_ if frame is None else self._read_again(frame)
        panel = with_calendar(table.panel, self.calendar_, steps, self.network_.context_length)
        check_reach(table.panel, steps, self.target_column)
        with torch_threads(self.threads):
            made = self.network_.forecast(panel, steps)
        return forecast_frame(panel, made, self._quantiles, self.levels, self.model_name, table.schema)

    def backtest(
        self, frame: Any = None, cutoffs: int = 5, step: int | None = None, *, progress: bool | None = None
    ) -> Any:
        """Forecasts of the past: a fresh network trains on the data before the first cutoff, then
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
        self._evaluation = fresh._evaluated()
        assert self._evaluation is not None  # cutoffs >= 1, so there are test windows
        return backtest_frame(self._evaluation.backtest, table.schema)

    def evaluate(
        self, frame: Any = None, cutoffs: int = 1, step: int | None = None, *, by: str = "all"
    ) -> Any:
        """Scores of this network, without training it further, at the last `cutoffs` cutoffs of `frame`, beside
        the seasonal naive forecast. Without a frame: on the windows that `fit` held out."""
        self._check_fitted()
        check_by(by)
        if frame is None:
            return self.scores(by=by)
        table = self._read_again(frame)
        return scores_frame(self._backtest_of(table, cutoffs, step), table.schema, by)

    def measure(self, data: Any, target: None = None) -> dict[str, float]:
        """The metrics of this network at the last cutoff of `data`, over all series and steps."""
        self._check_fitted()
        backtest = self._backtest_of(self._read_again(data), 1, None)
        return dict(backtest.scores()[backtest.model].overall)

    def _backtest_of(self, table: Table, cutoffs: int, step: int | None) -> Backtest:
        """This network at the last cutoffs of a table."""
        self.check_options(cutoffs=cutoffs, step=step)
        panel = with_calendar(table.panel, self.calendar_, 0)
        indices = cutoff_indices(panel.lengths, cutoffs, step or self.horizon, self.horizon, 2)
        if (indices < 0).all():
            raise SeriesTooShortError(
                f"no series has the {self.horizon + 2} values that measuring a horizon of {self.horizon} needs"
            )
        with torch_threads(self.threads):
            return self._rolling_forecasts(panel, indices)

    def scores(self, by: str = "all") -> Any:
        """The scores of the last backtest, or on the windows that `fit` held out, as a frame; by "all", "series"
        or "horizon"."""
        check_by(by)
        measured = self._evaluated()
        if measured is None:
            raise NotFittedError(
                "there is nothing to measure: call backtest, or fit on series long enough to hold some out"
            )
        return scores_frame(measured.backtest, measured.schema, by)

    @property
    def backtest_(self) -> Backtest | None:
        """Forecasts beside the truth: of the last `backtest`, or of the part that `fit` held out; None if
        there is none."""
        measured = self._evaluated()
        return None if measured is None else measured.backtest

    @property
    def backtest_is_test_(self) -> bool:
        """Whether `backtest_` measures what neither training nor early stopping has seen."""
        measured = self._evaluated()
        return measured is not None and measured.is_test

    def _evaluated(self) -> Evaluation | None:
        """The forecasts of the held-out windows, computed on first use."""
        if self._evaluation is not None or not self.is_fitted:
            return self._evaluation
        parts = self._data.split
        if parts.has_test or parts.has_validation:
            panel = with_calendar(self.table_.panel, self.calendar_, self.horizon)
            with torch_threads(self.threads):
                backtest = self._rolling_forecasts(panel, parts.test if parts.has_test else parts.validation)
            self._evaluation = Evaluation(backtest, self.table_.schema, parts.has_test)
        return self._evaluation

    def read(self, source: Any) -> Table:
        """Read a frame or file as `fit` would, or as `predict` would once fitted; the notes say which gaps
        were filled."""
        if self.is_fitted:
            return self._read_again(source)
        return read_table(source, self._columns(), self.freq, self.season_length)

    def kept_from_training(self, cutoffs: int, step: int | None) -> bool:
        """Whether `fit` held out exactly these test windows, so that they can be measured without training."""
        learned = self._held_out(**self._fitted_how)
        return learned == self._held_out(cutoffs, step)

    def _columns(self, learned_format: str | None = None) -> Columns:
        text = TextFormat(self.date_format, self.decimal, self.encoding, self.sheet, learned_format)
        return Columns(
            self.id_column,
            self.time_column,
            self.target_column,
            tuple(self.known),
            tuple(self.past),
            text,
            self.wide,
            tuple(self.drop),
        )

    @property
    def _quantiles(self) -> tuple[float, ...]:
        return quantiles_of(self.levels)

    def _held_out(self, cutoffs: int, step: int | None) -> dict[str, Any]:
        return {"cutoffs": cutoffs, "step": step or self.horizon, "validation": self.validation}

    def _network_options(self) -> dict[str, Any]:
        """The settings that the network is built from."""
        return {
            "horizon": self.horizon,
            "cell": self._cell,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "members": self.members,
            "quantiles": quantiles_of(self.levels),
        }

    def _rolling_forecasts(self, panel: Panel, indices: np.ndarray) -> Backtest:
        return rolling_forecasts(
            self.network_.forecast,
            panel,
            indices,
            self.horizon,
            name=self.model_name,
            quantiles=self._quantiles,
            levels=tuple(sorted(self.levels)),
        )

    def _read_again(self, frame: Any) -> Table:
        frequency = self.table_.panel.frequency
        return read_table(frame, self._columns(self.table_.schema.time_format), frequency)
