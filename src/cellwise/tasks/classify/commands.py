"""The command line of classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.data.standard_input import STDIN, file_of

if TYPE_CHECKING:
    from cellwise.tasks.classify.estimator import SequenceClassifier
    from cellwise.tasks.classify.examples import Examples

__all__ = ["Commands"]


class Commands(TaskCommands):
    """`cellwise classify`: tell classes of texts or series apart."""

    data = Word(
        "FILE",
        "Texts (CSV, TSV, JSON Lines, Parquet with columns text, label) or series (columns series, label, step and "
        "values, or a .ts file), - for standard input, or the bundled 'japanese-vowels' or 'movie-sentences'.",
    )
    valid = "Labelled data that decide when to stop, instead of a share of FILE."
    start = Word(
        "[FILE]",
        "Sequences to classify; a .txt file or standard input may hold a text a line.  [default: those held out]",
    )
    read_options = (
        "text_column",
        "label_column",
        "series_column",
        "step_column",
        "missing",
        "encoding",
        "decimal",
    )
    demo = Demo(
        "japanese-vowels",
        "Japanese vowels of nine speakers (Kudo et al. 1999): who speaks?",
        "runs/japanese-vowels",
    )
    words: ClassVar = {
        "": Words(
            "",
            "Classify texts or series with a recurrent network: fit, predict, evaluate.",
            (
                "cellwise classify demo",
                "cellwise classify fit reviews.csv",
                "cellwise classify predict runs/reviews-gru new.csv",
            ),
        ),
        "fit": Words(
            "Train on labelled texts or series.",
            "Train on FILE and write a run folder with weights and report.html.\n\n"
            "A table with a column text is one of texts; with a column series, it is a long table, with a row for each "
            "series and step. Series may have different lengths. A linear model is fitted beside the network, and the "
            "report compares the two. Run the same command again to resume an interrupted training.",
            (
                "cellwise classify fit reviews.csv --text review --label stars",
                "cellwise classify fit train.csv --valid valid.csv --out runs/mine",
                "cellwise classify fit movements.ts --cell lstm --minutes 2",
            ),
        ),
        "predict": Words(
            "Classify new sequences.",
            "Name the class of each sequence in FILE, and the probability of every class.",
            (
                "cellwise classify predict runs/reviews-gru new.csv --out classes.csv",
                "cellwise classify predict runs/reviews-gru new.txt",
                "cellwise classify predict runs/movements-gru new.ts --json",
            ),
        ),
        "evaluate": Words(
            "Measure on labelled data.",
            "Measure accuracy, macro F1, log loss and calibration error on FILE, beside the linear model that was "
            "fitted with the network.",
            (
                "cellwise classify evaluate runs/reviews-gru test.csv",
                "cellwise classify evaluate runs/reviews-gru test.csv --json",
            ),
        ),
        "demo": Words(
            "Train on Japanese vowels: under a minute.",
            "Train on 270 utterances of nine speakers, and measure on 370 others.",
            ("cellwise classify demo", "cellwise classify demo --cell lstm --out runs/vowels"),
        ),
    }

    def read(self, estimator: SequenceClassifier, source: str) -> Reading:
        """Texts or series, with notes on what was noticed."""
        examples = _read(estimator, source)
        return Reading(examples, _about(examples), examples.notes)

    def learned(self, estimator: SequenceClassifier) -> Answer:
        """The figures of the network and of the linear model."""
        from cellwise.tasks.classify.report import measured, measured_on, score_rows, verdict

        found = measured(estimator)
        table = score_rows(found)
        value = {
            "model": estimator.model_name,
            "measured_on": "test" if found.is_test else "held out",
            "sequences": len(found.labels),
            "models": found.figures(),
        }
        return Answer(
            value,
            table=(
                ("model", *table.columns),
                [(row.name, *(cell.text for cell in row.cells)) for row in table.rows],
            ),
            remarks=(measured_on(found), verdict(found)[0]),
        )

    def evaluate(self, estimator: SequenceClassifier, data: Any, **options: Any) -> Answer:
        """The figures of the network and of the linear model on labelled data."""
        from cellwise.tasks.classify.base import labelled
        from cellwise.tasks.classify.report import measured, score_rows, verdict

        found = measured(estimator, labelled(data, None))
        table, figures = score_rows(found), found.figures()
        (name, own), *rest = figures.items()
        value = {"model": name, **own, "sequences": len(found.labels)}
        if rest:
            value["linear"] = rest[0][1]
        return Answer(
            value,
            table=(
                ("model", *table.columns),
                [(row.name, *(cell.text for cell in row.cells)) for row in table.rows],
            ),
            remarks=(verdict(found)[0],),
        )

    def predict(self, estimator: SequenceClassifier, data: Any, **options: Any) -> Answer:
        """A row for each sequence: its class, and the probability of every class."""
        from cellwise.tasks.data.files import round_floats, to_csv, write_file

        frame = round_floats(_frame(estimator, estimator.held_out_ if data is None else data))

        def write(path: Path) -> str:
            write_file(frame, path)
            return f"{frame.height:,} rows"

        return Answer(frame.to_dicts(), text=to_csv(frame), write=write)

    def check_out(self, path: Path) -> None:
        """Refuse a file name that is neither CSV nor Parquet."""
        from cellwise.tasks.data.files import check_writable

        check_writable(path)


def _read(estimator: SequenceClassifier, source: str) -> Examples:
    """A bundled set, a file, or standard input."""
    from cellwise.tasks.classify.datasets import bundled
    from cellwise.tasks.classify.lines import is_lines, read_lines

    if not Path(source).exists():
        shipped = bundled(source)
        if shipped is not None:
            return shipped
    with file_of(source) as path:
        if estimator.is_fitted and is_lines(
            path, source == STDIN, estimator._data.schema.kind, estimator.text_column
        ):
            return read_lines(path)
        return estimator.read(path)


def _about(examples: Examples) -> str:
    labels = examples.labels
    if labels is None:
        return examples.about()
    return f"{examples.about()}, {len(set(map(str, labels))):,} classes"


def _frame(estimator: SequenceClassifier, examples: Examples) -> Any:
    """Text or series, the class, the probabilities, as a polars frame."""
    from cellwise.tasks.classify.examples import TEXT
    from cellwise.tasks.data.optional import require

    chances = estimator.predict_proba(examples)
    said = chances.argmax(axis=1)
    is_text = examples.kind == TEXT
    columns: dict[str, Any] = {
        "text" if is_text else "series": list(examples.inputs if is_text else examples.names),
        "label": [estimator.classes_[each] for each in said],
    }
    for number, name in enumerate(estimator.classes_):
        columns[f"p_{name}"] = chances[:, number]
    return require("polars").DataFrame(columns)
