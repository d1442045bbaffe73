"""The report of a classifier: how good it is beside a linear model, how sure, where it is wrong and what decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellwise.tasks.classify import plots
from cellwise.tasks.classify.data import Classes
from cellwise.tasks.classify.examples import TEXT, Examples
from cellwise.tasks.classify.metrics import by_class, class_metrics, confusion
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
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.training.run_files import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.classify.estimator import SequenceClassifier

__all__ = ["Measured", "measured", "score_rows", "verdict", "write_report"]

MOST_CLASSES = 60  # rows of the table by class
HIGHER = {"accuracy": True, "macro_f1": True, "log_loss": False, "calibration_error": False}


@dataclass(frozen=True, eq=False)
class Measured:
    """Probabilities (N, C) of each model by name, the network first, beside the labels (N,); is_test: whether neither
    training nor early stopping has seen them; is_learned: whether they were learned after they were measured."""

    chances: dict[str, np.ndarray]
    labels: np.ndarray
    examples: Examples
    is_test: bool
    is_learned: bool = False

    def figures(self) -> dict[str, dict[str, float]]:
        """The metrics of each model."""
        return {name: class_metrics(each, self.labels) for name, each in self.chances.items()}

    @property
    def measured_on(self) -> str:
        """What the figures were measured on, in a sentence or two."""
        return measured_on(self.examples, self.is_test, self.is_learned, "classify")


def measured(model: SequenceClassifier, examples: Examples | None = None) -> Measured:
    """A classifier and the linear model beside it on labelled examples; None: on what the report is about."""
    known = model._data
    chosen = known.measured if examples is None else examples
    assert isinstance(known.targets, Classes)
    chances = {model.model_name: model.predict_proba(chosen)}
    linear = known.linear_outputs(chosen)
    if linear is not None and known.linear is not None:
        chances[known.linear.name] = linear.double().softmax(1).numpy()
    is_test = examples is not None or known.test is not None
    labels = known.targets.encode(chosen, "the training")
    return Measured(chances, labels, chosen, is_test, not is_test and model.network_ is not model.measured_)


def write_report(run: RunFolder, model: SequenceClassifier) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(model))


def score_rows(found: Measured) -> ReportTable:
    """The models and their figures, the better one marked."""
    figures = found.figures()
    best = {
        name: (max if higher else min)(each[name] for each in figures.values())
        for name, higher in HIGHER.items()
    }
    rows = tuple(
        TableRow(
            name,
            tuple(
                TableCell(f"{each[key]:.3f}", len(figures) > 1 and each[key] == best[key]) for key in HIGHER
            ),
        )
        for name, each in figures.items()
    )
    return ReportTable("model", tuple(name.replace("_", " ") for name in HIGHER), rows)


def verdict(found: Measured) -> tuple[str, bool]:
    """The sentence to take home, and whether the network is at least as good as the linear model."""
    (name, own), *rest = found.chances.items()
    right = own.argmax(axis=1) == found.labels
    count, things = len(found.labels), "texts" if found.examples.kind == TEXT else "series"
    said = f"{name} names the right class of {right.mean():.1%} of {count:,} {things}"
    if not rest:
        return f"{said}.", True
    other_name, other = rest[0]
    other_right = other.argmax(axis=1) == found.labels
    won, lost = int((right & ~other_right).sum()), int((~right & other_right).sum())
    if won == lost:
        return f"{said}, as many as a {other_name}.", True
    said = f"{said}; a {other_name} that is fitted in seconds, of {other_right.mean():.1%}"
    if is_chance(won, lost):
        said += f" (a difference of {abs(won - lost):,}, which may be chance)"
    return f"{said}.", won > lost


def _page(model: SequenceClassifier) -> Page:
    found = measured(model)
    said, is_ahead = verdict(found)
    sections = (
        _scores_section(found),
        _errors_section(model, found),
        _classes_section(model, found),
        _mistakes_section(model, found),
        _training_section(model),
    )
    return Page(
        title=f"{model.model_name} classifier",
        subtitle=f"{len(model.classes_):,} classes; measured on {found.examples.about()}",
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(section for section in sections if section is not None),
        notes=model.notes_,
        settings=settings_of(model),
        footer=footer(model),
    )


def _scores_section(found: Measured) -> Section:
    text = (
        "Accuracy is the share of right answers, macro F1 the mean over classes, however rare. Log loss and "
        "calibration error (lower is better) say whether the probabilities mean what they say."
    )
    return Section("How good it is", text, table=score_rows(found), note=found.measured_on)


def _errors_section(model: SequenceClassifier, found: Measured) -> Section:
    own = found.chances[model.model_name]
    table = confusion(own.argmax(axis=1), found.labels, len(model.classes_))
    charts = (
        Chart(
            "confusion",
            plots.confusion_plot(table, [str(name) for name in model.classes_]),
            "Rows are true classes, columns what was said; blue is right. The deeper the colour, the larger the share "
            "of its row.",
        ),
        Chart(
            "reliability",
            plots.reliability_plot(found.chances, found.labels),
            "How often it is right by how sure it is; large dots are many answers. Under the dotted line it "
            "is too sure.",
        ),
    )
    return Section("Where it is wrong, and whether it knows", charts=charts)


def _classes_section(model: SequenceClassifier, found: Measured) -> Section:
    own = found.chances[model.model_name]
    table = confusion(own.argmax(axis=1), found.labels, len(model.classes_))
    precision, recall, f1 = by_class(table)
    count = table.sum(axis=1)
    order = np.argsort(f1, kind="stable")[:MOST_CLASSES] if len(f1) > MOST_CLASSES else np.arange(len(f1))
    rows = tuple(
        TableRow(
            str(model.classes_[each]),
            tuple(
                TableCell(text)
                for text in (
                    f"{precision[each]:.3f}",
                    f"{recall[each]:.3f}",
                    f"{f1[each]:.3f}",
                    f"{count[each]:,}",
                )
            ),
        )
        for each in order
    )
    note = f"The {MOST_CLASSES} worst of {len(f1):,} classes." if len(f1) > MOST_CLASSES else ""
    text = "Precision: how many of those that were called so are. Recall: how many of those that are were called so."
    return Section(
        "Class by class",
        text,
        table=ReportTable("class", ("precision", "recall", "F1", "sequences"), rows),
        note=note,
    )


def _mistakes_section(model: SequenceClassifier, found: Measured) -> Section | None:
    own = found.chances[model.model_name]
    chosen = own.argmax(axis=1)
    wrong = np.flatnonzero(chosen != found.labels)
    worst = wrong[np.argsort(-own[wrong, chosen[wrong]], kind="stable")][:MOST_SHOWN]
    shown = [
        Shown(
            row,
            f"is {model.classes_[found.labels[row]]}, said {model.classes_[chosen[row]]} "
            f"({own[row, chosen[row]]:.0%})",
            int(chosen[row]),
        )
        for row in worst.tolist()
    ]
    words = ("spoke for what was said", "against it", "in logits")
    return shown_section("The most confident mistakes", model, found.examples, shown, words)


def _training_section(model: SequenceClassifier) -> Section | None:
    if model.trained_ is None:
        return None
    caption = (
        "Training loss, and the log loss on what was held out, in nats by epoch; the ring marks the weights that were "
        "kept. Dropout, label smoothing and augmentation make the training loss the higher one."
    )
    charts = [Chart("loss", loss_plot(model.trained_), caption)]
    if all("accuracy" in epoch.metrics for epoch in model.trained_.epochs):
        shown = "Accuracy on what was held out. Log loss chooses the weights, since it hears of doubts too."
        charts.append(
            Chart("accuracy", plots.accuracy_plot(model.trained_, model.trained_.best.epoch), shown)
        )
    return Section("Training", charts=tuple(charts))
