"""A forecaster that has learned goes on with newer data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.data import ForecastData
from cellwise.tasks.forecasting.extending import Extension, extend
from cellwise.tasks.forecasting.measures import Measures
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing, Windows
from cellwise.tasks.forecasting.splits import Split
from cellwise.tasks.hooks import USUAL_EPOCHS
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.progress import Progress, choose_progress
from cellwise.tasks.training.replacing import current_run, replaced_run
from cellwise.tasks.training.run_folder import BEST, CONFIG, Checkpoint, RunFolder
from cellwise.tasks.training.stage import update_stage

__all__ = ["Updates"]

KEPT_WINDOWS = 20_000  # of former trainings and updates, for calibration: the newest


class Updates(Measures):
    """A forecaster as far as it goes on with newer data."""

    def update(
        self,
        data: Any,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
    ) -> Self:
        """Go on with newer data: measure what is handed out on the new values, as they came, then learn them too.

        data: as `fit` takes it. Rows after the last of a series are appended, rows that overlap it revise it, series of
        other names are added. folder: where to write the run: the folder of this very run, which is replaced at once
        when all is done, or another; the same call goes on with one that was interrupted.

        `backtest_` then holds the forecasts of the new values by the network that had not learned them; `updates_` has
        a record of every update. Raises DataError if there is nothing new."""
        start = time.perf_counter()
        self._check_fitted()
        self.check_options()
        extension = extend(self.table_, self._read_again(data))
        panel = with_calendar(extension.table.panel, self.calendar_, self.horizon)
        known = replace(self._data, table=extension.table, split=_split_of(extension, self.horizon))
        shown, epochs = (
            choose_progress(progress),
            self._best_epoch or self.epochs or USUAL_EPOCHS,
        )
        with self._updated_run(folder, known, overwrite) as run, torch_threads(self.threads):
            windows, new = self._former_windows(panel), self._roll(self.network_, panel, known.split.test)
            new = new.blended(self._postprocessing.blend, panel)
            if run is not None:
                about = {} if self._best_epoch is None else {"epoch": self._best_epoch}
                run.write_tensors(BEST, Checkpoint(self.network_.state_dict(), about))
            stage = update_stage(self._metrics_rows())
            network, history = self._continued(self.network_, known, panel, epochs, run, shown, stage)
            former, updates = self._postprocessing, self.updates_
            how, best = self._fitted_how, self._best_epoch
            self._take(known, how, self.network_, network, refitted=history, best_epoch=best)
            self._windows, self._measuring = windows + new, former
            calibration = self._windows.calibration(self._quantiles, panel) if self.calibrate else None
            self._postprocessing = Postprocessing(former.blend, calibration)
            self.updates_ = (*updates, self._record(extension, new))
            self.notes_ = (*self._notes(known), *extension.notes, *self._postprocessing.notes)
            self.seconds_ = time.perf_counter() - start
            if run is not None and run.writes:
                self._finish(run)
        return self

    def _former_windows(self, panel: Panel) -> Windows:
        """Held-out windows of the training and of former updates, beside the truth as `panel` has it now."""
        parts, windows = self._data.split, self._windows
        if windows is None:  # of an earlier version
            before = with_calendar(self.table_.panel, self.calendar_, self.horizon)
            windows = self._roll(self.measured_, before, parts.validation)
            windows += self._roll(self.measured_, before, parts.test)
        return windows.select(slice(-KEPT_WINDOWS, None)).refreshed(panel)

    def _record(self, extension: Extension, new: Windows) -> dict[str, Any]:
        """What came of an update, JSON-able."""
        backtest = self.backtest_
        scores = {} if backtest is None else backtest.scores()
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "values": extension.appended,
            "filled": extension.filled,
            "revised": extension.revised,
            "new_series": extension.new_series,
            "windows": len(new),
            "scores": {
                name: {metric: value for metric, value in each.overall.items() if math.isfinite(value)}
                for name, each in scores.items()
            },
        }

    @contextmanager
    def _updated_run(
        self, folder: str | Path | None, known: ForecastData, overwrite: bool
    ) -> Iterator[RunFolder | None]:
        """The folder of the updated run inside the block. If it is that of this run, it takes its place after it."""
        if folder is None or not self._is_run_of(Path(folder), self._data):
            with self._opened(folder, known, self._fitted_how, overwrite) as run:
                yield run
            return
        with replaced_run(Path(folder)) as place:
            goes_on = self._is_run_of(place, known)
            with self._opened(place, known, self._fitted_how, overwrite=not goes_on) as run:
                yield run

    def _is_run_of(self, path: Path, data: ForecastData) -> bool:
        """Whether a folder holds a run on this data."""
        run = current_run(path)
        if not run.has(CONFIG):
            return False
        try:
            found = run.config().get("data")
        except RunFolderError:
            return False
        return bool(found == self._store(data).fingerprint)


def _split_of(extension: Extension, horizon: int) -> Split:
    """What is new is the test; nothing decides when to stop."""
    lengths, test = extension.table.panel.lengths, extension.cutoffs(horizon)
    first = np.where(test >= 0, test, lengths[:, None]).min(axis=1)
    return Split(first, np.full((len(lengths), 0), -1), test, (_NOTE,) if (test >= 0).any() else ())


_NOTE = "the figures are those of the network before the update, on values that it had not learned"
