"""The page a run leaves for a person: what is forecast, how good that was on data kept aside, on what it
rests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.data.files import round_floats, to_csv
from cellwise.tasks.data.optional import need
from cellwise.tasks.errors import TaskError
from cellwise.tasks.forecasting import plots
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.metrics import Scores
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.output import backtest_frame
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.tables import Cell, Figures, Row, figure, scores_figures, verdict
from cellwise.tasks.shown import shown
from cellwise.tasks.training.loop import Trained, best_of, epochs_of
from cellwise.tasks.training.run_files import BACKTEST, REPORT, RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.forecaster import Forecaster

__all__ = ["describe", "make_report", "measured_on", "remake_report", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
MOST_PLOTS = 6
MOST_ROWS = 20


def make_report(run: RunFolder, forecaster: Forecaster) -> str | None:
    """Write the report and the backtest of a run. None, or a sentence on what could not be made, and how to make it.

    A training may have taken days and its report is made last, so no fault of a report ends it."""
    try:
        write_report(run, forecaster)
        write_backtest(run, forecaster)
    except Exception as error:  # noqa: BLE001 (whatever it is: drawing goes through much that is not ours)
        reason = shown(f"{type(error).__name__}: {error}".partition("\n")[0], 200)
        return (
            f"the run is finished, but its report could not be made ({reason}); "
            f"make it again with: cellwise forecast report {run.path}"
        )
    return None


def remake_report(run: RunFolder, forecaster: Forecaster) -> None:
    """Make the report of a finished run again, as its training would have made it. TaskError if that fails."""
    epochs = epochs_of(run)
    if epochs and forecaster.trained_ is None:
        forecaster.trained_ = Trained(epochs, best_of(epochs), stopped_early=False, resumed_after=0)
    problem = make_report(run, forecaster)
    run.finish(forecaster.summary())
    if problem is not None:
        raise TaskError(problem)


def write_backtest(run: RunFolder, forecaster: Forecaster) -> None:
    """Write backtest.csv, every forecast beside the truth, if anything was held out.

    Names stand in it as they came in, one that begins with "=" too: it is data, to be joined with the person's own."""
    backtest = forecaster.backtest_
    if backtest is not None:
        made = backtest_frame(backtest, replace(forecaster.table_.schema, backend="polars"))
        run.write_text(BACKTEST, to_csv(round_floats(made)))


def write_report(run: RunFolder, forecaster: Forecaster) -> None:
    """Write report.html, and its plots as files of their own in plots/."""
    made, notes = _plots(forecaster)
    for name, svg in made.items():
        run.write_text(f"plots/{name}.svg", svg)
    jinja2 = need("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    run.write_text(REPORT, environment.get_template("report.html").render(_context(forecaster, made, notes)))


def _context(forecaster: Forecaster, made: Mapping[str, str], more_notes: Sequence[str]) -> dict[str, Any]:
    panel, backtest = forecaster.table_.panel, forecaster.backtest_
    many, count = panel.frequency.many, len(panel)
    svgs = {name: plots.page_svg(svg) for name, svg in made.items()}
    captions = _captions(forecaster)
    context: dict[str, Any] = {
        "title": f"{forecaster.target_column if count > 1 else panel.ids[0]}: {forecaster.model_name} forecast",
        "subtitle": describe(panel),
        "verdict": "",
        "ahead_of_naive": True,
        "forecast_title": f"The next {many(forecaster.horizon)}",
        "forecast_plot": svgs.get("forecast"),
        "forecast_caption": captions["forecast"],
        "backtest_plot": svgs.get("backtest"),
        "backtest_caption": captions["backtest"],
        "small_plots": [
            {"svg": svgs[name], "caption": captions[name]}
            for name in ("error", "coverage", "cutoff", "series", "loss")
            if name in svgs
        ],
        "table": None,
        "series_table": None,
        "notes": [_sentence(note) for note in (*forecaster.notes_, *more_notes)],
        "settings": [(name, _plain(value)) for name, value in _settings(forecaster).items()],
        "footer": _footer(forecaster),
    }
    if backtest is not None:
        scores = backtest.scores()
        context["verdict"], context["ahead_of_naive"] = verdict(scores, backtest)
        context["table"] = scores_figures(scores, backtest.levels)
        context["measured_on"] = measured_on(forecaster)
        context["table_note"] = (
            "MAE, RMSE and pinball are in the units of the data, sMAPE and coverage in percent; MASE is the MAE "
            "divided by that of the seasonal naive forecast within what was known. The point forecast is the median. "
            "Every series counts alike. The naive forecast repeats the last "
            f"{many(panel.frequency.season_length)}; its bands are normal." + _knows_more(forecaster)
        )
        if count > 1:
            context["series_table"], context["series_note"] = _series_figures(scores, backtest)
    return context


def measured_on(forecaster: Forecaster) -> str:
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


def _knows_more(forecaster: Forecaster) -> str:
    """The comparison is with a forecast that knows less: say so."""
    names = forecaster.table_.panel.known_names
    return (
        f" {forecaster.model_name} is told {', '.join(names)} in advance, the naive forecast is not."
        if names
        else ""
    )


def _captions(forecaster: Forecaster) -> dict[str, str]:
    bands = " and ".join(f"{level} %" for level in sorted(forecaster.levels))
    both = len(forecaster.table_.panel) > 1 and forecaster.backtest_ is not None
    before = (
        " Left of the dotted line: what was forecast for the last window of the backtest." if both else ""
    )
    return {
        "forecast": f"The end of the data (thin) and the forecast (blue): the median, and the bands in which {bands} "
        f"of the values are expected.{before}",
        "backtest": "The last windows of the backtest. At each dotted line the forecast knew what lies to its left and "
        "nothing else.",
        "error": "Mean absolute error by step of the horizon, averaged over all windows.",
        "coverage": "How many of the true values lay inside the bands; dotted: how many should.",
        "cutoff": "Mean absolute error of each window by its cutoff, the last time that the forecast knew.",
        "loss": "Training loss and validation (both pinball losses, in different units) by epoch; the ring marks the "
        "weights that were kept.",
        "series": "Each dot is a series; below the dotted line the model is better than the seasonal naive forecast.",
    }


def _plots(forecaster: Forecaster) -> tuple[dict[str, str], list[str]]:
    """Name -> SVG, and what could not be drawn."""
    backtest, trained = forecaster.backtest_, forecaster.trained_
    panel, words = forecaster.table_.panel, forecaster.table_.panel.frequency.words
    quantiles, levels, model = forecaster.network_.config.quantiles, forecaster.levels, forecaster.model_name
    made: dict[str, str] = {}
    notes: list[str] = []
    chosen = _choose(len(panel), backtest)
    aheads = _aheads(forecaster, chosen)
    if not aheads:
        notes.append(
            "the known covariates do not reach past the data, so the report shows no forecast of the future"
        )
    elif len(panel) == 1:
        made["forecast"] = plots.ahead_plot(aheads[0], quantiles, levels, model, panel.ids[0])
    else:
        made["forecast"] = plots.grid_plot(aheads, quantiles, levels, model, backtest)
        if len(panel) > len(aheads):
            notes.append(
                f"the pictures show {len(aheads)} of {len(panel):,} series, from the best to the worst"
            )
    if backtest is not None:
        scores = backtest.scores()
        measured = int(np.argmax((backtest.ends >= 0).sum(axis=1)))
        if len(panel) == 1 or not aheads:
            made["backtest"] = plots.backtest_plot(backtest, measured, panel.ids[measured])
        made["error"] = plots.error_plot(
            {name: s.by_horizon["MAE"] for name, s in scores.items()}, "MAE", words
        )
        made["coverage"] = plots.coverage_plot(scores[backtest.model].by_horizon, levels, words)
        if len(panel) == 1 and backtest.count > 1:
            made["cutoff"] = plots.cutoff_plot(backtest, 0)
        if len(panel) > 1:
            made["series"] = plots.series_plot({name: s.by_series["MASE"] for name, s in scores.items()})
    if trained is not None:
        made["loss"] = plots.loss_plot(trained.epochs)
    return made, notes


def _choose(count: int, backtest: Backtest | None) -> list[int]:
    """Series to show: all of a few, else from the best forecast to the worst in even strides."""
    if count <= MOST_PLOTS or backtest is None:
        return list(range(min(count, MOST_PLOTS)))
    quality = backtest.scores()[backtest.model].by_series["MASE"]
    order = np.argsort(quality)[: int(np.isfinite(quality).sum())]
    if len(order) < MOST_PLOTS:
        return list(range(MOST_PLOTS))
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, MOST_PLOTS).round().astype(int)]


def _aheads(forecaster: Forecaster, chosen: Sequence[int]) -> list[plots.Ahead]:
    """The forecast after the end of each chosen series; none if known covariates end too soon."""
    panel = with_calendar(forecaster.table_.panel.select(chosen), forecaster.calendar_, forecaster.horizon)
    if panel.known_names and any(
        len(k) < len(y) + forecaster.horizon for k, y in zip(panel.known, panel.y, strict=True)
    ):
        return []
    made = forecaster.network_.forecast(panel, forecaster.horizon)
    return [
        plots.Ahead(name, times, y, panel.frequency.future(times[-1], forecaster.horizon), forecast)
        for name, times, y, forecast in zip(panel.ids, panel.times, panel.y, made, strict=True)
    ]


def _series_figures(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[Figures, str]:
    own, naive = scores[backtest.model].by_series, scores[NAIVE_NAME].by_series
    order = [int(i) for i in np.argsort(own["MASE"]) if np.isfinite(own["MASE"][i])]
    note = "From the best forecast to the worst, by MASE."
    if len(order) > MOST_ROWS:
        half = MOST_ROWS // 2
        note = f"The {half} best and the {half} worst forecasts of {len(order):,} series, by MASE."
        order = order[:half] + order[-half:]
    rows = []
    for i in order:
        wins = own["MASE"][i] <= naive["MASE"][i]
        cells = [Cell(figure(own[metric][i])) for metric in ("MAE", "sMAPE")]
        cells += [Cell(figure(own["MASE"][i]), wins), Cell(figure(naive["MASE"][i]), not wins)]
        rows.append(Row(backtest.panel.ids[i], tuple(cells)))
    if len(rows) == MOST_ROWS < len(backtest.panel):
        rows.insert(MOST_ROWS // 2, Row("…", tuple(Cell("") for _ in cells)))
    return Figures(("MAE", "sMAPE", "MASE", "naive MASE"), tuple(rows)), note


def describe(panel: Panel) -> str:
    """How many series, values and steps, from when to when."""
    first = min(times[0] for times in panel.times)
    last = max(times[-1] for times in panel.times)
    series = f"{len(panel):,} series" if len(panel) > 1 else "one series"
    values = f"{int(panel.lengths.sum()):,} values, one every {panel.frequency.words}"
    return f"{series}, {values}, {_day(first)} to {_day(last)}"


def _footer(forecaster: Forecaster) -> str:
    weights = sum(p.numel() for p in forecaster.network_.parameters())
    trained = forecaster.trained_
    epochs = "" if trained is None else f", {len(trained.epochs)} epochs, the best was {trained.best.epoch}"
    return f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights{epochs}, seed {forecaster.seed}."


def _day(time: Any) -> str:
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")


def _settings(forecaster: Forecaster) -> dict[str, Any]:
    return forecaster.get_params() | {"cell": cells.get(forecaster.cell).name}


def _visible(value: Any) -> Any:
    """What stands in the page by itself: plain text without what cannot be seen. (What is HTML already is Markup.)"""
    return shown(value) if type(value) is str else value


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + "."


def _plain(value: object) -> str:
    if value is None:
        return "chosen"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
