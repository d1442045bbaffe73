"""The sections of a forecast's report on what was measured: how good it is, how sure it is, where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cellwise.tasks.forecasting import plots
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import Scores, band_quantiles, mean
from cellwise.tasks.forecasting.shown_times import short_time
from cellwise.tasks.forecasting.tables import scores_table, series_table
from cellwise.tasks.report.page import Chart, Section
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow, figure

__all__ = ["Measured", "good_section", "measured_on", "sure_section", "wrong_sections"]

WORST = 5  # windows in the table of the worst
FLATTENING = 2.5  # times the largest error of the others
FEW_WINDOWS = 5  # with fewer, the coverage of single steps is noise
FEW = 30  # values: with fewer of them inside or outside a band says little


class Fitted(Protocol):
    """A forecaster that has measured itself."""

    @property
    def backtest_(self) -> Backtest | None:
        """Forecasts beside the truth, if anything was held out."""

    @property
    def validation_chose_(self) -> str:
        """What the validation windows decided, in words; "" if nothing but the width of the bands."""

    @property
    def backtest_is_test_(self) -> bool:
        """Whether neither training nor early stopping has seen what `backtest_` measures."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A backtest and what a report needs of it, computed once."""

    backtest: Backtest

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Model name -> its scores."""
        return self.backtest.scores()

    @property
    def own(self) -> Scores:
        """The scores of the model."""
        return self.scores[self.backtest.model]

    @property
    def several(self) -> bool:
        """Whether there are several series, whose errors in units of the data have no common mean."""
        return len(self.backtest.panel) > 1

    @property
    def metric(self) -> str:
        """The error that is compared."""
        return self.backtest.metric

    @property
    def rival(self) -> str | None:
        """The best of the simple methods."""
        return next(iter(self.backtest.simple), None)

    def errors(self, name: str) -> np.ndarray:
        """The error of each window, (N, C), NaN where there is none."""
        backtest = self.backtest
        point = backtest.forecasts[name][..., list(backtest.quantiles).index(0.5)]
        errors = mean(np.abs(backtest.y - point), axis=2)
        return errors / backtest.scale if self.metric == "MASE" else errors


def measured_on(forecaster: Fitted) -> str:
    """What the figures were measured on, and how far one may believe them."""
    backtest = forecaster.backtest_
    assert backtest is not None
    windows = f"{backtest.count:,} window{'s' * (backtest.count != 1)}"
    words = f"{windows} of {backtest.panel.frequency.many(backtest.horizon)}"
    if forecaster.backtest_is_test_:
        return (
            f"Measured on {words} at the end of the data, which neither training nor early stopping has seen."
        )
    were = "was" if backtest.count == 1 else "were"
    measured = f"Measured on {words} that {were} held out from training"
    if chosen := forecaster.validation_chose_:
        return f"{measured} but decided {chosen}, so a little flattering. A backtest gives honest figures."
    if len(np.unique(backtest.cutoffs)) == 1 == len(backtest.panel):
        return f"{measured}; a single window says little, and has no others to calibrate its bands by."
    return f"{measured}; they decided nothing but the width of the bands."


# --- how good it is ----------------------------------------------------------------------------------------------


def good_section(measured: Measured, sentence: str, known: Sequence[str]) -> Section:
    """The scores of the models. sentence: what they were measured on; known: the user's covariates known in advance."""
    backtest = measured.backtest
    table = scores_table(measured.scores, backtest.levels)
    kept = [
        i
        for i, name in enumerate(table.columns)
        if not name.startswith(("coverage", "interval", "scaled interval"))
    ]
    table = _columns(table, kept)
    note = ""
    if known:  # the comparison is with a forecast that knows less
        note = f"{backtest.model} is told {', '.join(known)} in advance, the simple methods are not."
    return Section("How good it is", sentence, table=table, note=note, terms=_terms(table, measured))


def _columns(table: ReportTable, kept: Sequence[int]) -> ReportTable:
    rows = tuple(TableRow(row.name, tuple(row.cells[i] for i in kept)) for row in table.rows)
    return ReportTable(table.first, tuple(table.columns[i] for i in kept), rows)


def _terms(table: ReportTable, measured: Measured) -> tuple[tuple[str, str], ...]:
    backtest = measured.backtest
    every = " Every series counts alike." if measured.several else ""
    words = {
        "MAE": "mean absolute error of the median, in the units of the data",
        "RMSE": "root of the mean squared error, in the same units: large errors weigh more",
        "sMAPE": "error in percent of the mean of forecast and truth",
        "MASE": "the mean absolute error divided by that of repeating the last season within what was known before: "
        "below 1 is better than that." + every,
        "pinball": "the error of median and bands together (quantile loss)",
        "scaled pinball": "the error of median and bands together (quantile loss), divided as the MASE is",
        "skill %": f"by how much the {measured.metric} is smaller than that of {measured.rival}, the best of the "
        "simple methods",
    }
    if backtest.panel.frequency.season_length == 1:
        words["MASE"] = words["MASE"].replace("the last season", "the last value")
    return tuple((name, words[name]) for name in table.columns if name in words)


# --- how sure it is ----------------------------------------------------------------------------------------------


def sure_section(measured: Measured, calibration: str = "") -> Section:
    """Whether the bands hold what they promise, and how wide they are. calibration: a sentence on their origin."""
    backtest, own = measured.backtest, measured.own
    levels = sorted(backtest.levels)
    holds = [f"{own.overall[f'coverage {level}']:.1f} % in the {level} % band" for level in levels]
    values = int((~np.isnan(backtest.y)).sum())
    text = f"Of {values:,} values that came, {' and '.join(holds).replace(' in', ' lay in', 1)}."
    if values < FEW:
        text += " That is too few to tell whether the bands hold."
    text += f" {calibration}"
    words = backtest.panel.frequency.words
    chart = Chart(
        "coverage",
        plots.coverage_plot(own.by_horizon, backtest.levels, words),
        "How many of the values that came lay inside the bands, by step of the horizon; dotted: how many should.",
    )
    charts = () if backtest.count < FEW_WINDOWS else (chart,)
    unit = "in units of the naive error" if measured.several else "in the units of the data"
    note = (
        "Inside: the share of the values that came that lay in the band; of an 80 % band it should be 80 %, less means "
        "too narrow, more too wide. Interval score: the width of the band, and for each value outside its distance to "
        "it, times 2 / (1 − level); smaller is better (Winkler 1972). "
        f"Both it and the width are {unit}."
    )
    return Section("How sure it is", text.strip(), charts=charts, table=_band_table(measured), note=note)


def _band_table(measured: Measured) -> ReportTable:
    """One row for each model and band."""
    prefix = "scaled " if measured.several else ""
    names = [measured.backtest.model] + ([] if measured.rival is None else [measured.rival])
    rows = []
    for level in sorted(measured.backtest.levels):
        interval = f"{prefix}interval {level}"
        best = min(measured.scores[name].overall[interval] for name in names)
        for name in names:
            found = measured.scores[name].overall
            inside = found[f"coverage {level}"]
            cells = (
                TableCell(f"{inside:.1f} %" if np.isfinite(inside) else "–"),
                TableCell(figure(found[f"{prefix}width {level}"])),
                TableCell(figure(found[interval]), found[interval] <= best),
            )
            rows.append(TableRow(f"{level} % band of {name}", cells))
    return ReportTable("band", ("inside", "width", "interval score"), tuple(rows))


# --- where it is wrong -------------------------------------------------------------------------------------------


def wrong_sections(measured: Measured) -> tuple[Section, ...]:
    """Which windows, steps of the horizon and series are forecast worst."""
    backtest, metric = measured.backtest, measured.metric
    words = backtest.panel.frequency.words
    by_horizon = {name: measured.scores[name].by_horizon[metric] for name in _compared(measured)}
    charts = [
        Chart(
            "error",
            plots.error_plot(by_horizon, metric, words, measured.rival),
            "The error by step of the horizon, over all windows.",
        )
    ]
    if not measured.several and backtest.count > 1:
        caption = "The error of each window by its cutoff, the last time that the forecast knew."
        charts.append(Chart("cutoff", plots.cutoff_plot(backtest, 0, measured.rival), caption))
    if measured.several and measured.rival is not None and np.isfinite(measured.own.by_series["MASE"]).any():
        other = measured.scores[measured.rival].by_series["MASE"]
        svg = plots.series_plot(measured.own.by_series["MASE"], other, backtest.model, measured.rival)
        caption = (
            f"Each dot is a series; below the dotted line {backtest.model} is better than {measured.rival}."
        )
        charts.append(Chart("series", svg, caption))
    lead = _windows_chart(measured)
    table, note = _worst_table(measured) if backtest.count > 1 else (None, "")
    sections = [Section("Where it is wrong", _wrong_text(measured), lead, tuple(charts), table, note)]
    if measured.several:
        by_name, about = series_table(measured.scores, backtest)
        sections.append(Section("Series by series", about, table=by_name))
    return tuple(sections)


def _compared(measured: Measured) -> list[str]:
    """What a person compares, without what errs so much that it would flatten all else."""
    if measured.rival is None:
        return [measured.backtest.model]
    metric, (own, *others) = measured.metric, measured.backtest.shown
    most = max(measured.scores[name].by_horizon[metric].max() for name in (own, *others[:1]))
    return [own, *(n for n in others if measured.scores[n].by_horizon[metric].max() <= FLATTENING * most)]


def _wrong_text(measured: Measured) -> str:
    """At which steps the error is least and most; in how many windows a simple method was better."""
    backtest, errors = measured.backtest, measured.own.by_horizon[measured.metric]
    many, text = backtest.panel.frequency.many, ""
    if len(errors) > 1 and np.isfinite(errors).all():
        best, worst = int(errors.argmin()), int(errors.argmax())
        text = (
            f"The {measured.metric} is smallest {many(best + 1)} ahead ({figure(errors[best])}) and largest "
            f"{many(worst + 1)} ahead ({figure(errors[worst])})."
        )
    if measured.rival is not None and backtest.count > 1:
        lost = int((measured.errors(backtest.model) > measured.errors(measured.rival)).sum())
        text += f" In {lost:,} of {backtest.count:,} windows {measured.rival} was closer."
    return text.strip()


def _windows_chart(measured: Measured) -> Chart:
    """The best, the middle and the worst window, and the last."""
    backtest = measured.backtest
    errors = measured.errors(backtest.model)
    order = [(int(i), int(c)) for i, c in np.argwhere(np.isfinite(errors))]
    order.sort(key=lambda window: errors[window])
    called: dict[tuple[int, int], str] = {}
    places = {"best": 0, "typical": len(order) // 2, "worst": len(order) - 1}
    if len(order) > 3:
        for name, place in places.items():
            called[order[place]] = name
    recent = [window for window in order if window[1] == max(c for _, c in order)]
    if recent and len(called) < 4:
        last = recent[len(recent) // 2]
        called.setdefault(last, "last" if not measured.several else "one of the last")
    if len(order) <= 3:
        called = {window: f"from {short_time(backtest.times(*window)[0])}" for window in sorted(order)}
    shown = [_shown(measured, window, name) for window, name in called.items()]
    caption = "The windows of the backtest."
    if len(order) > 3:
        names = [_CALLED[name] for name in called.values()]
        caption = f"Of {len(order):,} windows {', '.join(names[:-1])} and {names[-1]}, by {measured.metric}."
    return Chart(
        "backtest",
        plots.windows_plot(backtest, shown, measured.rival),
        f"{caption} At the dotted line the forecast knew what lies to its left and nothing else; dots: what came.",
        narrow=plots.windows_plot(backtest, shown, measured.rival, narrow=True),
    )


_CALLED = {"best": "the best", "typical": "the middle one", "worst": "the worst", "last": "the last"}
_CALLED |= {"one of the last": "one of the last"}


def _shown(measured: Measured, window: tuple[int, int], name: str) -> plots.Shown:
    backtest, (series, cutoff) = measured.backtest, window
    title = f"{name}: {measured.metric} {figure(measured.errors(backtest.model)[window])}"
    if measured.several:
        title += f", {backtest.panel.ids[series]}"
    return plots.Shown(series, cutoff, title)


def _worst_table(measured: Measured) -> tuple[ReportTable, str]:
    """The windows with the largest errors, beside the best of the simple methods."""
    backtest = measured.backtest
    own = measured.errors(backtest.model)
    other = None if measured.rival is None else measured.errors(measured.rival)
    worst = [tuple(window) for window in np.argwhere(np.isfinite(own))]
    worst = sorted(worst, key=lambda window: -own[window])[:WORST]
    level = max(backtest.levels)
    columns = [
        backtest.model,
        *([] if measured.rival is None else [measured.rival]),
        f"inside the {level} % band",
    ]
    rows = []
    for window in worst:
        first = short_time(backtest.times(*window)[0])
        name = f"{backtest.panel.ids[window[0]]}, from {first}" if measured.several else f"from {first}"
        errors = [own[window], *([] if other is None else [other[window]])]
        cells = [TableCell(figure(error), error <= min(errors) and len(errors) > 1) for error in errors]
        rows.append(TableRow(name, (*cells, TableCell(_inside(backtest, window, level)))))
    note = f"The {len(rows)} windows with the largest {measured.metric}."
    if len(rows) == backtest.count:
        note = f"All windows, by {measured.metric}, the worst first."
    return ReportTable("window", tuple(columns), tuple(rows)), note


def _inside(backtest: Backtest, window: tuple[int, ...], level: int) -> str:
    """How many of the values of a window lay inside a band."""
    quantiles = list(backtest.quantiles)
    own, y = backtest.forecasts[backtest.model][window], backtest.y[window]
    low, high = (own[:, quantiles.index(q)] for q in band_quantiles(level))
    known = ~np.isnan(y)
    return f"{int(((low <= y) & (y <= high))[known].sum())} of {int(known.sum())}"
