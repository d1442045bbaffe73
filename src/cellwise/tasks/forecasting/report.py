"""The report of a forecast: what is forecast, how good that was on data kept aside, on what it rests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from cellwise._version import __version__
from cellwise.tasks.forecasting import looks, plots, report_measured, report_settings
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.report_looks import looks_sections
from cellwise.tasks.forecasting.report_measured import (
    Measured,
    good_section,
    measured_on,
    sure_section,
    wrong_sections,
)
from cellwise.tasks.forecasting.report_settings import settings_of
from cellwise.tasks.forecasting.shown_times import short_time
from cellwise.tasks.forecasting.tables import verdict
from cellwise.tasks.report.charts import loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.training.run_files import RunFolder

__all__ = [
    "Fitted",
    "describe",
    "measured_on",
    "write_report",
]

MOST_PLOTS = 6
MOST_ROWS = 3  # covariates beside the series


class Fitted(looks.Fitted, report_settings.Fitted, report_measured.Fitted, Protocol):
    """What a report needs to know of a forecaster that has learned."""

    notes_: tuple[str, ...]

    @property
    def model_name(self) -> str:
        """How its forecasts are called."""

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """Quantiles (N, horizon, Q) as they are handed out, after the end of each series with its calendar features."""

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, JSON-able."""


def write_report(run: RunFolder, forecaster: Fitted) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(forecaster))


def _page(forecaster: Fitted) -> Page:
    panel, backtest = forecaster.table_.panel, forecaster.backtest_
    measured = None if backtest is None else Measured(backtest)
    name = forecaster.target_column if len(panel) > 1 else panel.ids[0]
    said, is_ahead = ("", True) if measured is None else verdict(measured.scores, measured.backtest)
    shown = _choose(len(panel), measured)
    aheads = _aheads(forecaster, shown)
    return Page(
        title=f"{name}: {forecaster.model_name} forecast",
        subtitle=describe(panel),
        verdict=said or _unmeasured(forecaster),
        is_ahead=is_ahead,
        sections=(
            *_future_sections(forecaster, aheads),
            *_measured_sections(forecaster, measured),
            *looks_sections(forecaster),
            *_training_sections(forecaster),
        ),
        notes=(*forecaster.notes_, *_notes_on_charts(len(panel), len(aheads))),
        settings=settings_of(forecaster),
        footer=_footer(forecaster),
    )


def _unmeasured(forecaster: Fitted) -> str:
    return (
        f"Nothing was held out, so nobody knows how good this forecast is; compare it with what you know of "
        f"{forecaster.target_column}."
    )


def _measured_sections(forecaster: Fitted, measured: Measured | None) -> tuple[Section, ...]:
    if measured is None:
        return ()
    done = forecaster._postprocessing
    blended, calibrated = (
        "" if part is None else f"{part.note[:1].upper()}{part.note[1:]}."
        for part in (done.blend, done.calibration)
    )
    about = f"{measured_on(forecaster)} {blended}".strip()
    good = good_section(measured, about, forecaster.table_.panel.known_names)
    return (good, sure_section(measured, calibrated), *wrong_sections(measured))


def _notes_on_charts(series: int, shown: int) -> tuple[str, ...]:
    if not shown:
        return (
            "the known covariates do not reach past the data, so the report shows no forecast of the future",
        )
    if series > shown:
        return (f"the pictures show {shown} of {series:,} series, from the best to the worst",)
    return ()


def _future_sections(forecaster: Fitted, aheads: Sequence[plots.Ahead]) -> tuple[Section, ...]:
    if not aheads:
        return ()
    panel, backtest, levels = forecaster.table_.panel, forecaster.backtest_, forecaster.levels
    quantiles, model = forecaster.network_.config.quantiles, forecaster.model_name
    bands = " and ".join(f"{level} %" for level in sorted(levels))
    caption = f"Blue: the forecast, the median and the bands in which {bands} of the values are expected."
    if len(panel) == 1:
        svg, narrow = (
            plots.ahead_plot(aheads[0], quantiles, levels, model, narrow=each) for each in (False, True)
        )
        if aheads[0].rows:
            caption += " Below it: what is known in advance."
    else:
        svg, narrow = (
            plots.grid_plot(aheads, quantiles, levels, model, backtest, narrow=each) for each in (False, True)
        )
        if backtest is not None:
            caption += (
                " Left of the dotted line: the forecast of the last held-out window, and what came (dots)."
            )
    title = f"The next {panel.frequency.many(forecaster.horizon)}"
    return (Section(title, lead=Chart("forecast", svg, caption, narrow)),)


def _training_sections(forecaster: Fitted) -> tuple[Section, ...]:
    trained = forecaster.trained_
    if trained is None:
        return ()
    caption = "The loss in training by epoch; the ring marks the weights that were kept."
    if trained.epochs[0].metrics:
        caption = (
            "The loss in training and that on what was held out (both pinball losses, in different units) by epoch; "
            "the ring marks the weights that were kept."
        )
    return (Section("How it learned", charts=(Chart("loss", loss_plot(trained), caption),)),)


def _choose(count: int, measured: Measured | None) -> list[int]:
    """Series to show: all of a few, else from the best forecast to the worst in even strides."""
    if count <= MOST_PLOTS or measured is None:
        return list(range(min(count, MOST_PLOTS)))
    quality = measured.own.by_series["MASE"]
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
        plots.Ahead(
            name,
            times,
            y,
            panel.frequency.future(times[-1], forecaster.horizon),
            forecast,
            _rows(forecaster, i),
        )
        for i, name, times, y, forecast in zip(chosen, panel.ids, panel.times, panel.y, made, strict=True)
    ]


def _rows(forecaster: Fitted, series: int) -> tuple[plots.Row, ...]:
    """The first of the user's covariates that are known in advance, as far as the forecast reaches."""
    panel = forecaster.table_.panel
    times = panel.times[series]
    whole = np.concatenate([times, panel.frequency.future(times[-1], forecaster.horizon)])
    known = panel.known[series][: len(whole)]
    return tuple(plots.Row(name, whole, known[:, k]) for k, name in enumerate(panel.known_names[:MOST_ROWS]))


def describe(panel: Panel) -> str:
    """How many series, values and steps, from when to when."""
    first = min(times[0] for times in panel.times)
    last = max(times[-1] for times in panel.times)
    series = f"{len(panel):,} series" if len(panel) > 1 else "one series"
    values = f"{int(panel.lengths.sum()):,} values, one every {panel.frequency.words}"
    return f"{series}, {values}, {short_time(first)} to {short_time(last)}"


def _footer(forecaster: Fitted) -> str:
    weights = sum(p.numel() for p in forecaster.network_.parameters())
    trained = forecaster.trained_
    epochs = "" if trained is None else f", {len(trained.epochs)} epochs, the best was {trained.best.epoch}"
    return f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights{epochs}, seed {forecaster.seed}."
