"""The report of a forecast: what is forecast, how good that was on data kept aside, on what it rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.data.files import round_floats, to_csv
from cellwise.tasks.errors import TaskError
from cellwise.tasks.forecasting import plots
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.output import backtest_frame
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.tables import scores_table, series_table, verdict
from cellwise.tasks.report.charts import loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, attempt, write_page
from cellwise.tasks.training.history import History, read_history
from cellwise.tasks.training.run_files import BACKTEST, RunFolder

__all__ = [
    "Fitted",
    "describe",
    "make_report",
    "measured_on",
    "remake_report",
    "write_backtest",
    "write_report",
]

MOST_PLOTS = 6


class Fitted(Protocol):
    """What a report needs to know of a forecaster that has learned."""

    cell: Any
    horizon: int
    levels: Sequence[int]
    target_column: str
    seed: int
    table_: Table
    calendar_: tuple[str, ...]
    network_: ForecastNetwork
    notes_: tuple[str, ...]
    trained_: History | None

    @property
    def model_name(self) -> str:
        """How its forecasts are called."""

    @property
    def backtest_(self) -> Backtest | None:
        """Forecasts beside the truth, if anything was held out."""

    @property
    def backtest_is_test_(self) -> bool:
        """Whether neither training nor early stopping has seen what `backtest_` measures."""

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """Quantiles (N, horizon, Q) as they are handed out, after the end of each series with its calendar features."""

    def get_params(self) -> dict[str, Any]:
        """Its options by name."""

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, JSON-able."""


def make_report(run: RunFolder, forecaster: Fitted) -> str | None:
    """Write the report and the backtest of a run. None, or a sentence on what could not be made, and how to make it."""

    def write() -> None:
        write_report(run, forecaster)
        write_backtest(run, forecaster)

    return attempt(write, f"cellwise forecast report {run.path}")


def remake_report(run: RunFolder, forecaster: Fitted) -> None:
    """Make the report of a finished run again, as its training would have made it. TaskError if that fails."""
    if forecaster.trained_ is None:
        forecaster.trained_ = read_history(run)
    problem = make_report(run, forecaster)
    run.finish(forecaster.summary())
    if problem is not None:
        raise TaskError(problem)


def write_backtest(run: RunFolder, forecaster: Fitted) -> None:
    """Write backtest.csv, every forecast beside the truth, if anything was held out.

    Names stand in it as they came in, one that begins with "=" too: it is data, to be joined with the person's own."""
    backtest = forecaster.backtest_
    if backtest is not None:
        made = backtest_frame(backtest, replace(forecaster.table_.schema, backend="polars"))
        run.write_text(BACKTEST, to_csv(round_floats(made)))


def write_report(run: RunFolder, forecaster: Fitted) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(forecaster))


def _page(forecaster: Fitted) -> Page:
    panel, backtest = forecaster.table_.panel, forecaster.backtest_
    name = forecaster.target_column if len(panel) > 1 else panel.ids[0]
    said, is_ahead = ("", True) if backtest is None else verdict(backtest.scores(), backtest)
    shown = _choose(len(panel), backtest)
    aheads = _aheads(forecaster, shown)
    return Page(
        title=f"{name}: {forecaster.model_name} forecast",
        subtitle=describe(panel),
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(
            section
            for section in (
                _future_section(forecaster, aheads),
                _scores_section(forecaster),
                _backtest_section(forecaster, aheads),
                _details_section(forecaster),
                _series_section(backtest),
            )
            if section is not None
        ),
        notes=(*forecaster.notes_, *_notes_on_charts(len(panel), len(aheads))),
        settings=forecaster.get_params() | {"cell": cells.get(forecaster.cell).name},
        footer=_footer(forecaster),
    )


def _notes_on_charts(series: int, shown: int) -> tuple[str, ...]:
    if not shown:
        return (
            "the known covariates do not reach past the data, so the report shows no forecast of the future",
        )
    if series > shown:
        return (f"the pictures show {shown} of {series:,} series, from the best to the worst",)
    return ()


def _future_section(forecaster: Fitted, aheads: Sequence[plots.Ahead]) -> Section | None:
    if not aheads:
        return None
    panel, backtest, levels = forecaster.table_.panel, forecaster.backtest_, forecaster.levels
    quantiles, model = forecaster.network_.config.quantiles, forecaster.model_name
    bands = " and ".join(f"{level} %" for level in sorted(levels))
    caption = (
        f"The end of the data (thin) and the forecast (blue): the median, and the bands in which {bands} "
        "of the values are expected."
    )
    if len(panel) == 1:
        svg = plots.ahead_plot(aheads[0], quantiles, levels, model, panel.ids[0])
    else:
        svg = plots.grid_plot(aheads, quantiles, levels, model, backtest)
        if backtest is not None:
            caption += " Left of the dotted line: what was forecast for the last window of the backtest."
    title = f"The next {panel.frequency.many(forecaster.horizon)}"
    return Section(title, charts=(Chart("forecast", svg, caption),))


def _scores_section(forecaster: Fitted) -> Section | None:
    backtest, panel = forecaster.backtest_, forecaster.table_.panel
    if backtest is None:
        return None
    note = (
        "MAE, RMSE, pinball and interval are in the units of the data, sMAPE and coverage in percent; MASE is the MAE "
        "divided by that of the seasonal naive forecast within what was known. The interval score is the width of the "
        "band, and a penalty for what lies outside it. The point forecast is the median. "
        "Every series counts alike. The naive forecast repeats the last "
        f"{panel.frequency.many(panel.frequency.season_length)}; its bands are normal."
    )
    if panel.known_names:  # the comparison is with a forecast that knows less
        known = ", ".join(panel.known_names)
        note += f" {forecaster.model_name} is told {known} in advance, the naive forecast is not."
    table = scores_table(backtest.scores(), backtest.levels)
    return Section("How good it is", measured_on(forecaster), table=table, note=note)


def measured_on(forecaster: Fitted) -> str:
    """What the figures were measured on, and how far one may believe them."""
    backtest = forecaster.backtest_
    assert backtest is not None
    words = f"{backtest.count:,} windows of {backtest.panel.frequency.many(backtest.horizon)}"
    if forecaster.backtest_is_test_:
        return (
            f"Measured on {words} at the end of the data, which neither training nor early stopping has seen."
        )
    return (
        f"Measured on {words} that were held out to decide when to stop: not trained on, but looked at, so a little "
        "flattering. A backtest with cutoffs gives honest figures."
    )


def _backtest_section(forecaster: Fitted, aheads: Sequence[plots.Ahead]) -> Section | None:
    backtest = forecaster.backtest_
    if backtest is None or (
        len(backtest.panel) > 1 and aheads
    ):  # the charts of the future show their last window
        return None
    series = int(np.argmax((backtest.cutoffs >= 0).sum(axis=1)))
    caption = (
        "The last windows of the backtest. At each dotted line the forecast knew what lies to its left and nothing "
        "else."
    )
    svg = plots.backtest_plot(backtest, series, backtest.panel.ids[series])
    return Section("What it would have said", charts=(Chart("backtest", svg, caption),))


def _details_section(forecaster: Fitted) -> Section | None:
    charts = [] if forecaster.backtest_ is None else _backtest_charts(forecaster.backtest_)
    if forecaster.trained_ is not None:
        caption = (
            "Training loss and the loss on what was held out (both pinball losses, in different units) by epoch; the "
            "ring marks the weights that were kept."
        )
        charts.append(Chart("loss", loss_plot(forecaster.trained_), caption))
    return Section("Errors, bands and training", charts=tuple(charts)) if charts else None


def _backtest_charts(backtest: Backtest) -> list[Chart]:
    scores, words = backtest.scores(), backtest.panel.frequency.words
    errors = {name: each.by_horizon["MAE"] for name, each in scores.items()}
    coverage = scores[backtest.model].by_horizon
    charts = [
        Chart(
            "error",
            plots.error_plot(errors, "MAE", words),
            "Mean absolute error by step of the horizon, averaged over all windows.",
        ),
        Chart(
            "coverage",
            plots.coverage_plot(coverage, backtest.levels, words),
            "How many of the true values lay inside the bands; dotted: how many should.",
        ),
    ]
    if len(backtest.panel) == 1 and backtest.count > 1:
        caption = "Mean absolute error of each window by its cutoff, the last time that the forecast knew."
        charts.append(Chart("cutoff", plots.cutoff_plot(backtest, 0), caption))
    if len(backtest.panel) > 1:
        caption = "Each dot is a series; below the dotted line the model is better than the seasonal naive forecast."
        mase = {name: each.by_series["MASE"] for name, each in scores.items()}
        charts.append(Chart("series", plots.series_plot(mase), caption))
    return charts


def _series_section(backtest: Backtest | None) -> Section | None:
    if backtest is None or len(backtest.panel) == 1:
        return None
    table, note = series_table(backtest.scores(), backtest)
    return Section("Series by series", note, table=table)


def _choose(count: int, backtest: Backtest | None) -> list[int]:
    """Series to show: all of a few, else from the best forecast to the worst in even strides."""
    if count <= MOST_PLOTS or backtest is None:
        return list(range(min(count, MOST_PLOTS)))
    quality = backtest.scores()[backtest.model].by_series["MASE"]
    order = np.argsort(quality)[: int(np.isfinite(quality).sum())]
    if len(order) < MOST_PLOTS:
        return list(range(MOST_PLOTS))
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, MOST_PLOTS).round().astype(int)]


def _aheads(forecaster: Fitted, chosen: Sequence[int]) -> list[plots.Ahead]:
    """The forecast after the end of each chosen series; none if known covariates end too soon."""
    panel = with_calendar(forecaster.table_.panel.select(chosen), forecaster.calendar_, forecaster.horizon)
    if panel.known_names and any(
        len(k) < len(y) + forecaster.horizon for k, y in zip(panel.known, panel.y, strict=True)
    ):
        return []
    made = forecaster.forecast(panel, forecaster.horizon)
    return [
        plots.Ahead(name, times, y, panel.frequency.future(times[-1], forecaster.horizon), forecast)
        for name, times, y, forecast in zip(panel.ids, panel.times, panel.y, made, strict=True)
    ]


def describe(panel: Panel) -> str:
    """How many series, values and steps, from when to when."""
    first = min(times[0] for times in panel.times)
    last = max(times[-1] for times in panel.times)
    series = f"{len(panel):,} series" if len(panel) > 1 else "one series"
    values = f"{int(panel.lengths.sum()):,} values, one every {panel.frequency.words}"
    return f"{series}, {values}, {_day(first)} to {_day(last)}"


def _footer(forecaster: Fitted) -> str:
    weights = sum(p.numel() for p in forecaster.network_.parameters())
    trained = forecaster.trained_
    epochs = "" if trained is None else f", {len(trained.epochs)} epochs, the best was {trained.best.epoch}"
    return f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights{epochs}, seed {forecaster.seed}."


def _day(time: Any) -> str:
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
