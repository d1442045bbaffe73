"""What a forecaster is worth: its scores on what it never saw, and on any data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellwise.tasks.errors import NotFittedError
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.forecasting.backtest import Backtest, cutoff_indices, rolling_forecasts
from cellwise.tasks.forecasting.band_factors import MANY_SERIES
from cellwise.tasks.forecasting.blend import SimpleBlend, choose_blend, equal_blend
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.calibration import Calibration
from cellwise.tasks.forecasting.data import ForecastData
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.frames import Columns, Table, TextFormat, read_table
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.options import ForecastOptions
from cellwise.tasks.forecasting.output import Evaluation, backtest_frame, check_by, quantiles_of, scores_frame
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing, Predict, Windows
from cellwise.tasks.training.history import History
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import WINDOWS, Checkpoint, RunFolder
from cellwise.tasks.training.stage import refit_stage

__all__ = ["Measures"]


class Measures(ForecastOptions, Estimator[ForecastData, Panel]):
    """A forecaster as far as it measures what it hands out."""

    network_: ForecastNetwork
    measured_: ForecastNetwork
    table_: Table
    calendar_: tuple[str, ...]
    _windows: Windows | None = None  # of the measured network; None in runs of earlier versions
    _measuring: Postprocessing  # of the measured network's forecasts
    _postprocessing: Postprocessing  # of all others
    _evaluation: Evaluation | None = None
    _stored_rows: Sequence[Mapping[str, object]] = ()
    updates_: tuple[dict[str, Any], ...] = ()
    """A record of each update, the oldest first."""

    def backtest(
        self, frame: Any = None, cutoffs: int = 5, step: int | None = None, *, progress: bool | None = None
    ) -> Any:
        """Forecasts of the past: a fresh network trains on the data before the first cutoff, then
        forecasts one horizon after each of the last `cutoffs` cutoffs, `step` apart (one horizon).

        Returns a frame with the columns of `predict`, a column `cutoff` (the last time the forecast knew),
        the truth, and the forecasts of simple methods. The figures are in `backtest_`; `scores()` lays them
        out. What `fit` learned stays."""
        if frame is None:
            self._check_fitted()
            table = self.table_
        else:
            table = self._read_new(frame)
        fresh: Any = type(self)(**{**self.get_params(), "refit": False})
        fresh.fit(table, cutoffs=cutoffs, step=step, progress=progress)
        self._evaluation = fresh._evaluated()
        assert self._evaluation is not None  # cutoffs >= 1, so there are test windows
        return backtest_frame(self._evaluation.backtest, table.schema, fresh.column_name)

    def evaluate(
        self, frame: Any = None, cutoffs: int = 1, step: int | None = None, *, by: str = "all"
    ) -> Any:
        """Scores of what this forecaster hands out, without training it further, at the last `cutoffs` cutoffs of
        `frame`, beside those of simple methods. Without a frame: on the windows that `fit` held out."""
        self._check_fitted()
        check_by(by)
        if frame is None:
            return self.scores(by=by)
        table = self._read_again(frame)
        return scores_frame(self._backtest_of(table, cutoffs, step), table.schema, by)

    def measure(self, data: Any, target: None = None) -> dict[str, float]:
        """The metrics of what this forecaster hands out at the last cutoff of `data`, over all series and steps."""
        self._check_fitted()
        backtest = self._backtest_of(self._read_again(data), 1, None)
        return dict(backtest.scores()[backtest.model].overall)

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

    def kept_from_training(self, cutoffs: int, step: int | None) -> bool:
        """Whether `fit` held out exactly these test windows, so that they can be measured without training."""
        lengths = self.table_.panel.lengths
        found = self._data.split.test
        asked = cutoff_indices(lengths, cutoffs, step or self.horizon, self.horizon, 1)
        return bool(found.shape == asked.shape and (found >= 0).any() and (asked == found)[found >= 0].all())

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """Quantiles (N, horizon, Q) after the end of each series of a panel with its calendar features, as they are
        handed out: blended, where that was chosen, and calibrated."""
        return self._postprocessing.after(self.network_.forecast)(panel, horizon)

    def _complete(self) -> tuple[str, ...]:
        """Forecast what was held out, by the network that has not learned it, and learn the postprocessing."""
        panel, parts = with_calendar(self.table_.panel, self.calendar_, self.horizon), self._data.split
        with torch_threads(self.threads):
            validation = self._roll(self.measured_, panel, parts.validation)
            test = self._roll(self.measured_, panel, parts.test)
            blend = self._choose_blend(panel, validation, test)
            validation, test = validation.blended(blend, panel), test.blended(blend, panel)
        self._windows = validation + test
        asked = self.calibrate and len(validation) and len(test)
        quantiles = self._quantiles
        self._measuring = Postprocessing(blend, validation.calibration(quantiles, panel) if asked else None)
        final = self._windows.calibration(quantiles, panel) if self.calibrate else None
        if self.calibrate and not len(self._windows):
            short = "the series are too short to hold anything out"
            final = Calibration.none(quantiles, "nothing was held out" if self.validation == 0 else short)
        self._postprocessing = Postprocessing(blend, final)
        is_used = blend is None or blend.weight > 0
        notes = () if self.refitted_ is None else (note_of_refit(self.refitted_, is_used=is_used),)
        return (*notes, *self._postprocessing.notes)

    def _roll(self, network: ForecastNetwork, panel: Panel, cutoffs: np.ndarray) -> Windows:
        """The forecasts of a network at these cutoffs, as they come."""
        return Windows.roll(network.forecast, panel, cutoffs, self.horizon, len(self._quantiles))

    def _choose_blend(self, panel: Panel, validation: Windows, test: Windows) -> SimpleBlend | None:
        """What is made of the network's forecasts before they are calibrated. panel: the series, with their calendar.

        The better one is chosen by the test windows where there are no others; a mean then has equal weights."""
        network = self.cell_name.upper()
        windows = validation if len(validation) or not self.best else test
        if not (self.best or self.ensemble):
            return None
        if not len(windows) and not self.best:
            learned = panel.cut(self._data.split.train.tolist(), reach=0)
            return equal_blend(network, learned, self.horizon, self._quantiles)
        blend = choose_blend(
            network,
            windows.known(panel),
            windows.forecasts,
            windows.truth,
            windows.scale,
            self._quantiles,
            mixed=not self.best,
            gains=self.refitted_ is not None and len(panel) >= MANY_SERIES,
        )
        if blend is None or len(validation):
            return blend
        return replace(
            blend, note=f"{blend.note}; chosen on the windows that are measured, which flatters it"
        )

    def _completion(self) -> dict[str, Checkpoint]:
        if self._windows is None:
            return {}
        about = {
            "measuring": self._measuring.to_dict(),
            "predicting": self._postprocessing.to_dict(),
            "updates": list(self.updates_),
        }
        return {WINDOWS: Checkpoint(self._windows.tensors(), about)}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        if run is None:
            return ("the bands are not calibrated: the run has no forecasts of held-out windows",)
        saved = run.read_tensors(WINDOWS)
        run.guarded(f"{WINDOWS} does not hold whole windows", lambda: self._restore_windows(saved))
        self._stored_rows = tuple(run.read_metrics())
        return ()

    def _restore_windows(self, saved: Checkpoint) -> None:
        quantiles, about = self._quantiles, saved.about
        panel = self.table_.panel
        self._windows = Windows.from_tensors(saved.tensors, panel, self.horizon, len(quantiles))
        self._measuring = Postprocessing.from_dict(about["measuring"], quantiles)
        self._postprocessing = Postprocessing.from_dict(about["predicting"], quantiles)
        if not isinstance(about["updates"], list) or not all(
            isinstance(each, dict) for each in about["updates"]
        ):
            raise ValueError("the record of updates is none")
        self.updates_ = tuple(about["updates"])

    def _metrics_rows(self) -> Sequence[Mapping[str, object]]:
        """The rows of metrics.csv until now."""
        if self.trained_ is None:
            return self._stored_rows
        stage = refit_stage(self.trained_)
        return stage.rows(() if self.refitted_ is None else self.refitted_.epochs)

    def _evaluated(self) -> Evaluation | None:
        """The forecasts of the held-out windows, laid out on first use."""
        parts = self._data.split if self.is_fitted else None
        if self._evaluation is None and parts is not None and (parts.has_test or parts.has_validation):
            panel = with_calendar(self.table_.panel, self.calendar_, self.horizon)
            cutoffs = parts.test if parts.has_test else parts.validation
            with torch_threads(self.threads):
                backtest = self._rolling_forecasts(self._as_measured(panel, cutoffs), panel, cutoffs)
            self._evaluation = Evaluation(backtest, self.table_.schema, parts.has_test)
        return self._evaluation

    def _as_measured(self, panel: Panel, cutoffs: np.ndarray) -> Predict:
        """The measured network's forecasts of held-out windows: calibrated by what was known at each, or, without
        validation windows before them, by others than these."""
        if self._windows is None:
            return self.measured_.forecast
        windows = self._windows.at(cutoffs)
        if self._postprocessing.calibration is None:
            return windows.replay(panel, windows.forecasts)
        if self._measuring.calibration is None:
            return windows.replay(panel, windows.calibrated_by_others(self._quantiles, panel))
        return windows.replay(panel, self._windows.calibrated_in_turn(self._quantiles, panel, cutoffs))

    def _backtest_of(self, table: Table, cutoffs: int, step: int | None) -> Backtest:
        """What is handed out at the last cutoffs of a table."""
        self.check_options(cutoffs=cutoffs, step=step)
        panel = with_calendar(table.panel, self.calendar_, 0)
        indices = cutoff_indices(panel.lengths, cutoffs, step or self.horizon, self.horizon, 2)
        if (indices < 0).all():
            raise SeriesTooShortError(
                f"no series has the {self.horizon + 2} values that measuring a horizon of {self.horizon} needs"
            )
        with torch_threads(self.threads):
            return self._rolling_forecasts(self.forecast, panel, indices)

    def _rolling_forecasts(self, predict: Predict, panel: Panel, indices: np.ndarray) -> Backtest:
        return rolling_forecasts(
            predict,
            panel,
            indices,
            self.horizon,
            name=self.model_name,
            quantiles=self._quantiles,
            levels=tuple(sorted(self.levels)),
        )

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

    def _read_new(self, frame: Any) -> Table:
        return read_table(frame, self._columns(), self.freq, self.season_length)

    def _read_again(self, frame: Any) -> Table:
        frequency = self.table_.panel.frequency
        return read_table(frame, self._columns(self.table_.schema.time_format), frequency)

    @property
    def _quantiles(self) -> tuple[float, ...]:
        return quantiles_of(self.levels)


def note_of_refit(refitted: History, *, is_used: bool) -> str:
    """A sentence on the second stage. is_used: whether forecasts are made with its network at all."""
    count = len(refitted.epochs)
    epochs = f"{count} epoch{'s' * (count != 1)}"
    said = f"once measured, the network learned what was held out too, in {epochs}"
    return f"{said}; that network predicts" if is_used else said
