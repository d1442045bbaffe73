"""The report of a regressor: how far off it is beside a linear model, how sure, where it errs and what decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellwise.tasks.classify import regress_plots as plots
from cellwise.tasks.classify.data import Numbers
from cellwise.tasks.classify.examples import TEXT, Examples
from cellwise.tasks.classify.metrics import number_metrics
from cellwise.tasks.classify.regressor import INSIDE
from cellwise.tasks.classify.report_parts import (
    MOST_SHOWN,
    Shown,
    footer,
    is_chance,
    measured_on,
    settings_of,
    shown_section,
)
from cellwise.tasks.report.charts import loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow, figure
from cellwise.tasks.training.run_files import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.classify.regressor import SequenceRegressor

__all__ = ["MeasuredNumbers", "measured", "score_rows", "verdict", "write_report"]

MEAN = "always the mean"
TITLES = {"mean_absolute_error": "mean error", "root_mean_squared_error": "RMSE", "r2": "R²"}


@dataclass(frozen=True, eq=False)
class MeasuredNumbers:
    """What each model says by name (N,), the network first, beside the truth (N,); margin: half the width of the
    network's intervals. is_test, is_learned: as in `report_parts.measured_on`."""

    said: dict[str, np.ndarray]
    truth: np.ndarray
    margin: float
    examples: Examples
    is_test: bool
    is_learned: bool

    def figures(self) -> dict[str, dict[str, float]]:
        """The metrics of each model."""
        return {name: number_metrics(each, self.truth) for name, each in self.said.items()}

    @property
    def coverage(self) -> float:
        """The share of true numbers in their interval."""
        own = next(iter(self.said.values()))
        return float((np.abs(own - self.truth) <= self.margin).mean())

    @property
    def measured_on(self) -> str:
        """What the figures were measured on, in a sentence or two."""
        return measured_on(self.examples, self.is_test, self.is_learned, "regress")


def measured(model: SequenceRegressor, examples: Examples | None = None) -> MeasuredNumbers:
    """A regressor and the linear model beside it on labelled examples; None: on what the report is about."""
    known = model._data
    chosen = known.measured if examples is None else examples
    said = {model.model_name: model.predict(chosen)}
    linear = known.linear_outputs(chosen)
    if linear is not None and known.linear is not None:
        said[known.linear.name] = model._scaled(linear)
    assert isinstance(known.targets, Numbers)
    said[MEAN] = np.full(len(chosen), known.targets.mean)
    is_test = examples is not None or known.test is not None
    is_learned = not is_test and model.network_ is not model.measured_
    return MeasuredNumbers(said, model._numbers(chosen), model.margin_, chosen, is_test, is_learned)


def write_report(run: RunFolder, model: SequenceRegressor) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(model))


def score_rows(found: MeasuredNumbers) -> ReportTable:
    """The models and their figures, the best one marked."""
    figures = found.figures()
    best = {name: (max if name == "r2" else min)(each[name] for each in figures.values()) for name in TITLES}
    rows = tuple(
        TableRow(name, tuple(TableCell(figure(each[key]), each[key] == best[key]) for key in TITLES))
        for name, each in figures.items()
    )
    return ReportTable("model", tuple(TITLES.values()), rows)


def verdict(found: MeasuredNumbers) -> tuple[str, bool]:
    """The sentence to take home, and whether the network is at least as good as the others."""
    name, *others = found.said
    things = "texts" if found.examples.kind == TEXT else "series"
    errors = {each: np.abs(said - found.truth) for each, said in found.said.items()}
    best = min(others, key=lambda each: float(errors[each].mean()))
    off, other = float(errors[name].mean()), float(errors[best].mean())
    said = f"{name} is off by {figure(off)} on average over {len(found.truth):,} {things}"
    words = "always saying the mean" if best == MEAN else f"a {best} that is fitted in seconds"
    said += f"; {words}, by {figure(other)}"
    won, lost = int((errors[name] < errors[best]).sum()), int((errors[name] > errors[best]).sum())
    if won + lost and is_chance(won, lost):
        said += f" (it is nearer {won:,} times and farther {lost:,}, which may be chance)"
    return f"{said}.", off <= other


def _page(model: SequenceRegressor) -> Page:
    found = measured(model)
    said, is_ahead = verdict(found)
    sections = (
        _scores_section(found),
        _errors_section(found),
        _sure_section(found),
        _worst_section(model, found),
        _training_section(model),
    )
    return Page(
        title=f"{model.model_name} regressor",
        subtitle=f"Numbers from {figure(found.truth.min())} to {figure(found.truth.max())}; measured on "
        f"{found.examples.about()}",
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(section for section in sections if section is not None),
        notes=model.notes_,
        settings=settings_of(model),
        footer=footer(model),
    )


def _scores_section(found: MeasuredNumbers) -> Section:
    text = (
        "The mean error, without regard to its sign, is in the units of the labels. The RMSE, the root of the mean "
        "squared error, weighs large errors more. R² is the share of the variance that is explained: 1 is perfect, 0 "
        "is what the mean is worth."
    )
    return Section("How good it is", text, table=score_rows(found), note=found.measured_on)


def _errors_section(found: MeasuredNumbers) -> Section:
    lengths = np.array([len(each) for each in found.examples.inputs])
    unit = "characters" if found.examples.kind == TEXT else "steps"
    charts = [
        Chart(
            "predicted",
            plots.scatter_plot(found),
            "Each dot is a sequence; on the dotted line the prediction is true. Where dots lie flatter than the line, "
            "it keeps to the middle.",
        ),
        Chart(
            "error-by-value",
            plots.error_plot(found, found.truth, "true number", "error-by-value"),
            "Mean absolute error by the true number, in fifths of the sequences: are small or large numbers harder?",
        ),
    ]
    if np.ptp(lengths):
        caption = "Mean absolute error by length, in fifths of the sequences: are short or long ones harder?"
        svg = plots.error_plot(found, lengths, unit, "error-by-length")
        charts.append(Chart("error-by-length", svg, caption))
    return Section("Where it errs", charts=tuple(charts))


def _sure_section(found: MeasuredNumbers) -> Section:
    text = (
        f"`predict` gives each number with bounds of ± {figure(found.margin)}: {INSIDE:.0%} of the errors on what was "
        f"held out were no larger. Of the true numbers here {found.coverage:.0%} lie within them."
    )
    caption = (
        "The share of sequences whose error is at most so large, for each model: the higher the line, the better. The "
        "dotted line is the bound."
    )
    return Section("How sure it is", text, charts=(Chart("errors", plots.sure_plot(found), caption),))


def _worst_section(model: SequenceRegressor, found: MeasuredNumbers) -> Section | None:
    own = found.said[model.model_name]
    order = np.argsort(-np.abs(own - found.truth), kind="stable")[:MOST_SHOWN]
    shown = [
        Shown(row, f"is {figure(found.truth[row])}, said {figure(own[row])}")
        for row in order.tolist()
        if own[row] != found.truth[row]
    ]
    targets = model._data.targets
    assert isinstance(targets, Numbers)
    words = ("raised the number", "that lowered it", "in the units of the labels")
    return shown_section("The largest errors", model, found.examples, shown, words, targets.spread)


def _training_section(model: SequenceRegressor) -> Section | None:
    if model.trained_ is None:
        return None
    caption = (
        "Training loss (Huber's), and the mean absolute error on what was held out, both in units of the labels' "
        "spread; the ring marks the weights that were kept."
    )
    return Section("Training", charts=(Chart("loss", loss_plot(model.trained_), caption),))
