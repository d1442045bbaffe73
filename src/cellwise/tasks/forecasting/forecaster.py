"""The estimator: `Forecaster(cell="gru", horizon=28).fit(frame).predict()`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.errors import WorseThanSimpleWarning
from cellwise.tasks.estimator import Stored
from cellwise.tasks.forecasting import TASK
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.covariates import check_reach
from cellwise.tasks.forecasting.data import ForecastData, prepare_data, restore_data, store_data
from cellwise.tasks.forecasting.epochs import epochs_for
from cellwise.tasks.forecasting.explaining import Explaining
from cellwise.tasks.forecasting.frames import Table, TextFormat
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.objective import ForecastObjective, training_part
from cellwise.tasks.forecasting.options import ForecastOptions, TestWindows
from cellwise.tasks.forecasting.output import forecast_frame, quantiles_of
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing
from cellwise.tasks.forecasting.splits import Split, whole_split
from cellwise.tasks.forecasting.tables import judge
from cellwise.tasks.forecasting.updates import Updates
from cellwise.tasks.options import check_values
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.progress import Progress
from cellwise.tasks.training.run_folder import RunFolder
from cellwise.tasks.training.stage import OTHER_SEED

__all__ = ["Forecaster"]


class Forecaster(Updates, Explaining):
    """A recurrent network that forecasts one or many series, with bands.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance; or several, in a
    tuple or as "gru+lstm", which the members have in turn. horizon: steps to forecast; `predict` may be asked for
    more. freq: frequency of the series ("D", "h", "MS", "30min", ...); None infers it from the data.
    season_length: steps in a season; None finds it in the data, or, where none shows, takes that of the frequency
    (7 for days). known, past: columns of covariates, known in advance or only up to the present.
    holidays: places whose public holidays are known in advance ("US", "US-CA").
    id_column, time_column, target_column: names of the columns in long format. date_format ("%d/%m/%Y"),
    decimal ("," or "."), encoding ("cp1252"): the format of text, where it is ambiguous. wide: the table has one
    column, or one row, per series; drop: those of them that are none. sheet: of an Excel workbook. levels: prediction
    intervals in percent.
    hidden_size, num_layers, dropout, members: the network; the forecasts of `members` networks are averaged; of
    several cells, each has at least one. epochs, batch_size, learning_rate, weight_decay, patience, seed, threads,
    device, minutes, accumulate, autocast: the training. validation: windows held out for early stopping and
    calibration; None chooses the number, 0 holds none out. ensemble: hand over a mean of the network and the best
    simple method, weighted by the held-out windows; False: the network alone. best: hand over the better of the two
    instead. calibrate: make the bands as wide as the held-out windows ask for. refit: learn what was held out too,
    once the network is measured.

    What `fit` learns ends in an underscore: `network_`, `measured_` (before it learned what was held out), `table_`
    (the data as it was understood), `notes_` (remarks on it, in sentences), `trained_` (the epochs), `refitted_` (those
    on all data), `backtest_` (forecasts of the held-out windows, beside those of simple methods)."""

    task = TASK.name
    fit_options = TestWindows
    metric = "MASE"
    takes_several_cells = True
    measured_by = ("horizon", "freq", "season_length", "levels", "validation")
    trial_settings: ClassVar = {"refit": False, "calibrate": False, "ensemble": False}
    comparison_settings: ClassVar = {"refit": False}

    def fit(
        self,
        data: Any,
        target: None = None,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        cutoffs: int | None = None,
        step: int | None = None,
        progress: bool | Progress | None = None,
        **more: Any,
    ) -> Self:
        """Train on a pandas, polars or pyarrow frame, a CSV, Excel, Parquet or .tsf file, or a list of arrays (T,), one
        for each series, whose steps are numbered from 0.

        folder: run folder for weights and metrics; the same call with an unfinished one resumes it.
        cutoffs: number of test windows, held out at the end and measured in `backtest_`; None: by the data's length.
        step: steps between them (default: one horizon). progress: True or False; None shows a bar on a terminal.

        WorseThanSimpleWarning where the test windows show that a simple method is much better."""
        windows = {"cutoffs": cutoffs, "step": step}
        super().fit(data, target, folder=folder, overwrite=overwrite, progress=progress, **windows, **more)
        self._warn_if_worse()
        return self

    def _warn_if_worse(self) -> None:
        measured = self.backtest_ if self.calibrate else None  # a trial of many says nothing
        if measured is not None and self.backtest_is_test_:
            said = judge(measured.scores(), measured)
            if said.is_alarming:
                warnings.warn(said.text, WorseThanSimpleWarning, stacklevel=3)

    def _read(self, data: Any, *, cutoffs: int | None, step: int | None) -> tuple[ForecastData, Panel]:
        held_out = self._held_out(cutoffs, step)
        return prepare_data(self._read_new(data), self._network_options(), **held_out, holidays=self.holidays)

    def _network(self, data: ForecastData) -> ForecastNetwork:
        return ForecastNetwork(data.config)

    def _objective(self, network: ForecastNetwork, data: ForecastData, training: Panel) -> ForecastObjective:
        return ForecastObjective(
            network,
            training,
            data.split,
            batch_size=self.batch_size,
            seed=self.seed,
            keeps_best=self._chooses_epoch(data.split),
        )

    def _epochs(self, data: ForecastData, training: Panel) -> int:
        return epochs_for(training_part(training, data.split, self.horizon), self.batch_size)

    def _refits(self, data: ForecastData) -> bool:
        return self.refit and (data.split.has_test or data.split.has_validation)

    def _refit_objective(
        self, network: ForecastNetwork, data: ForecastData, training: Panel
    ) -> ForecastObjective:
        whole = whole_split(training.lengths)
        return ForecastObjective(
            network, training, whole, batch_size=self.batch_size, seed=self.seed + OTHER_SEED
        )

    def _store(self, data: ForecastData) -> Stored:
        return store_data(data)

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> ForecastData:
        windows = {name: config["settings"][name] for name in ("cutoffs", "step")}
        return restore_data(run, config, self._network_options(), **self._held_out(**windows))

    def _learned(self, data: ForecastData) -> None:
        self.table_, self.calendar_ = data.table, data.calendar
        self._windows = self._evaluation = None
        self._measuring = self._postprocessing = Postprocessing()
        self.updates_ = ()

    def _notes(self, data: ForecastData) -> tuple[str, ...]:
        return (*data.table.notes, *data.split.notes)

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.forecasting.exports import write_tables
        from cellwise.tasks.forecasting.report import write_report

        write_report(run, self)
        write_tables(run, self)

    def _figures(self) -> dict[str, Any]:
        backtest = self.backtest_
        scores = {} if backtest is None else {name: s.overall for name, s in backtest.scores().items()}
        return {"scores": scores} | ({"updates": list(self.updates_)} if self.updates_ else {})

    def _held_out_figures(self) -> HeldOut | None:
        backtest = self.backtest_
        if backtest is None:
            return None
        scores = {name: each.overall for name, each in backtest.scores().items()}
        windows = f"{backtest.count:,} window{'s' * (backtest.count != 1)}"
        words = f"{windows} of {backtest.panel.frequency.many(backtest.horizon)} at the end of the data"
        return HeldOut(scores.pop(backtest.model), words, self.backtest_is_test_, scores)

    def _one_prediction(self) -> tuple[str, Callable[[], object]]:
        panel = with_calendar(self.table_.panel, self.calendar_, self.horizon)
        longest = int(panel.lengths.argmax())
        end = max(1, int(panel.lengths[longest]) - self.horizon)  # covariates may end where the data do
        one = panel.select([longest]).cut([end], reach=self.horizon)
        words = f"{panel.frequency.many(self.horizon)} of one series"
        return words, lambda: self.forecast(one, self.horizon)

    def _chooses_epoch(self, split: Split) -> bool:
        """Whether the validation windows choose the epoch whose weights are kept; else it is the last, as planned."""
        is_planned = self.epochs is None and self.minutes is None and self.patience is None
        return not is_planned or split.can_choose

    @property
    def validation_chose_(self) -> str:
        """What the validation windows decided, in words, apart from the width of the bands; "" if nothing."""
        weighed = "what is handed over" if self.best else "the weights of the mean that is handed over"
        is_weighed = self._postprocessing.blend is not None and self._data.split.has_validation
        chosen = {"when to stop": self._chooses_epoch(self._data.split), weighed: is_weighed}
        return " and ".join(words for words, is_so in chosen.items() if is_so)

    @property
    def _least_weights(self) -> int:
        return self._num_members * self.num_layers

    @property
    def _num_members(self) -> int:
        return max(self.members, len(self._cells))

    @property
    def model_name(self) -> str:
        """The name in scores and reports: the cell's in capitals, and with what it was blended."""
        network = self.cell_name.upper()
        blend = self._postprocessing.blend if self.is_fitted else None
        return network if blend is None else blend.called(network)

    @property
    def column_name(self) -> str:
        """The column of the medians: the cell's name in capitals, whatever it was blended with, so that it stays when
        a forecaster is trained anew; "best-Theta" where the network has no part in it."""
        blend = self._postprocessing.blend if self.is_fitted else None
        return self.model_name if blend is not None and not blend.weight else self.cell_name.upper()

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
            made = self.forecast(panel, steps)
        return forecast_frame(panel, made, self._quantiles, self.levels, self.column_name, table.schema)

    def read(self, source: Any) -> Table:
        """Read a frame or file as `fit` would, or as `predict` would once fitted; the notes say which gaps
        were filled."""
        if self.is_fitted:
            return self._read_again(source)
        return self._read_new(source)

    def _held_out(self, cutoffs: int | None, step: int | None) -> dict[str, Any]:
        return {"cutoffs": cutoffs, "step": step or self.horizon, "validation": self.validation}

    def _network_options(self) -> dict[str, Any]:
        """The settings that the network is built from."""
        return {
            "horizon": self.horizon,
            "cell": self._cells if len(self._cells) > 1 else self._cell,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "members": self._num_members,
            "quantiles": quantiles_of(self.levels),
        }
