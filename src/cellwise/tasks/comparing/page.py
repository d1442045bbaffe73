"""The page of a comparison: who is best, by how much, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cellwise._version import __version__
from cellwise.tasks.comparing.result import Comparison, ComparisonRun, Row
from cellwise.tasks.report.charts import BASELINE, FAINT, MODEL, chart, chart_label, legend, thousands
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow, figure
from cellwise.tasks.training.run_files import RunFolder

__all__ = ["comparison_table", "cost_chart", "figures_of", "measured_on", "titles_of", "write_comparison"]

MOST_RUNS = 60  # rows of the table of single trainings
FAR, CLOSE = (
    4.0,
    0.02,
)  # a simple method is drawn within FAR times the range of the networks, or CLOSE of a figure
CROWDED_ACROSS, CROWDED_UP = 0.3, 0.06  # shares of the axes within which two names would meet


def write_comparison(folder: RunFolder, comparison: Comparison, settings: Mapping[str, Any]) -> None:
    """Write report.html and its chart into the folder of a comparison.

    settings: the options that all candidates share. Raises TaskError if jinja2 or matplotlib is not installed."""
    write_page(folder, _page(comparison, settings))


def _page(comparison: Comparison, settings: Mapping[str, Any]) -> Page:
    best, count = comparison.best, len(comparison.candidates)
    seeds = len({each.seed for each in comparison.runs})
    networks = f"{count} network{'s' * (count != 1)}, {seeds} seed{'s' * (seeds != 1)} each"
    names = " and ".join(comparison.candidates) if count < 3 else f"{count} candidates"
    sections = [
        Section(
            "Side by side",
            measured_on(comparison),
            table=comparison_table(comparison),
            note=_note(comparison),
        )
    ]
    if best is not None:
        shown = Chart("cost", cost_chart(comparison), _caption(comparison))
        sections.append(Section("Error against training time", charts=(shown,)))
    sections.append(Section("Every training", table=_runs_table(comparison), note=_note_on_runs(comparison)))
    return Page(
        title=f"{comparison.task}: {names} compared",
        subtitle=f"{networks}, trained in turn on the same data.",
        verdict=" ".join(comparison.verdict),
        is_ahead=best is not None and not (comparison.simple and _leads(comparison, comparison.simple[0])),
        sections=tuple(sections),
        notes=_notes(comparison),
        settings=settings,
        footer=f"cellwise {__version__}",
    )


def measured_on(comparison: Comparison) -> str:
    """What the figures were measured on, and how far one may believe them."""
    looked = (
        ""
        if comparison.is_test
        else "; early stopping or calibration has looked at it, so all figures are a little flattering"
    )
    return f"Measured on {comparison.words}{looked}."


def comparison_table(comparison: Comparison) -> ReportTable:
    """A row for each candidate, then for each simple method; the best candidate's figure that ranks wins."""
    rows = tuple(
        TableRow(
            row.name,
            tuple(
                TableCell(text, row.is_best and not k) for k, text in enumerate(figures_of(comparison, row))
            ),
        )
        for row in (*comparison.rows, *comparison.simple)
    )
    return ReportTable("model", titles_of(comparison), rows)


def titles_of(comparison: Comparison) -> tuple[str, ...]:
    """The columns: the metric that ranks, what it costs, the other metrics."""
    first, *others = (name.replace("_", " ") for name in comparison.metrics or ("",))
    return (first, "seconds", "ms", "parameters", *others)


def figures_of(comparison: Comparison, row: Row) -> tuple[str, ...]:
    """A row of these columns, as text."""
    first, *others = (comparison.shown(row, name) for name in comparison.metrics or ("",))
    costs = ["" if each is None else figure(each) for each in (row.seconds, row.milliseconds)]
    return (first, *costs, "" if row.parameters is None else f"{row.parameters:,}", *others)


def _note(comparison: Comparison) -> str:
    timed = (
        f"; ms: milliseconds for one prediction ({comparison.prediction})" if comparison.prediction else ""
    )
    return (
        "The mean over seeds ± their standard deviation; other held-out data would move all figures. "
        f"seconds: of one training, validation included{timed}."
    )


def _caption(comparison: Comparison) -> str:
    better = "Higher" if comparison.higher_is_better else "Lower"
    simple = " Dashed: simple methods." if _near_simple(comparison) else ""
    return (
        "Small dots are single trainings, large ones the mean over seeds. "
        f"{better} and further left is better.{simple}"
    )


def _near_simple(comparison: Comparison) -> list[Row]:
    """The simple methods that are not so far off that they would press all networks into a line."""
    values = [each.metrics[comparison.metric] for row in comparison.rows for each in row.done]
    low, high = min(values), max(values)
    room = FAR * max(high - low, CLOSE * abs(high))
    return [each for each in comparison.simple if low - room <= each.mean[comparison.metric] <= high + room]


def cost_chart(comparison: Comparison) -> str:
    """The ranking metric against the seconds of training, as SVG."""
    rows, metric = [each for each in comparison.rows if each.done], comparison.metric

    def draw(axes: Any) -> None:
        for row in rows:
            seconds, values = zip(*((each.seconds, each.metrics[metric]) for each in row.done), strict=True)
            axes.plot(seconds, values, "o", color=FAINT, markersize=3.5, alpha=0.7)
            axes.plot([row.seconds], [row.mean[metric]], "o", color=MODEL, markersize=8)
        for row in _near_simple(comparison):
            axes.axhline(
                row.mean[metric],
                color=BASELINE,
                linewidth=1.3,
                linestyle=(0, (4, 3)),
                label=chart_label(row.name),
            )
        axes.margins(x=0.25, y=0.12)
        axes.set_xlim(left=0)
        _name_points(axes, rows, metric)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel(metric.replace("_", " "))
        thousands(axes)
        if axes.get_legend_handles_labels()[1]:
            legend(axes)

    return chart(draw, 6.4, 3.8, "cost")


def _name_points(axes: Any, rows: Sequence[Row], metric: str) -> None:
    """Names beside the large dots: above, or below where another dot has its name close by."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    named: list[tuple[float, float]] = []
    for row in rows:
        x, y = (row.seconds or 0.0) / (right - left), row.mean[metric] / (high - low)
        crowded = any(abs(x - a) < CROWDED_ACROSS and abs(y - b) < CROWDED_UP for a, b in named)
        offset = (6, -13) if crowded else (6, 5)
        axes.annotate(
            chart_label(row.name), (row.seconds, row.mean[metric]), xytext=offset, textcoords="offset points"
        )
        named.append((x, y))


def _runs_table(comparison: Comparison) -> ReportTable:
    rows = tuple(_run_row(each, comparison.metrics) for each in comparison.runs[:MOST_RUNS])
    titles = ("seed", *(name.replace("_", " ") for name in comparison.metrics), "epochs", "seconds")
    return ReportTable("model", titles, rows)


def _run_row(run: ComparisonRun, metrics: Iterable[str]) -> TableRow:
    figures = [figure(run.metrics.get(name, math.nan)) for name in metrics]
    texts = (f"{run.seed}", *figures, f"{run.epochs}", figure(run.seconds))
    return TableRow(run.candidate, tuple(TableCell(each) for each in texts))


def _note_on_runs(comparison: Comparison) -> str:
    return (
        f"The first {MOST_RUNS} of {len(comparison.runs)}, in the order in which they were trained."
        if len(comparison.runs) > MOST_RUNS
        else "In the order in which they were trained."
    )


def _notes(comparison: Comparison) -> tuple[str, ...]:
    failed = [each for each in comparison.runs if each.problem]
    return (
        "every network had the same data and seeds, and was measured on the same part of it",
        *(f"{each.candidate}, seed {each.seed}, failed: {each.problem}" for each in failed),
    )


def _leads(comparison: Comparison, simple: Row) -> bool:
    """Whether a simple method is better than every network."""
    best = comparison.best
    if best is None:
        return True
    one, other = simple.mean[comparison.metric], best.mean[comparison.metric]
    return one >= other if comparison.higher_is_better else one <= other
