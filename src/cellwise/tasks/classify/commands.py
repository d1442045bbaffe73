"""The command line of classifiers, and what that of regressors shares with it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.data.standard_input import STDIN, file_of

if TYPE_CHECKING:
    from cellwise.tasks.classify.base import SequenceEstimator
    from cellwise.tasks.classify.estimator import SequenceClassifier
    from cellwise.tasks.classify.examples import Examples
    from cellwise.tasks.report.table import ReportTable

__all__ = ["Commands", "SequenceCommands", "compared"]


class SequenceCommands(TaskCommands):
    """What the commands of classifiers and regressors share: reading, and writing predictions."""

    valid = "Labelled data that decide when to stop, instead of a share of FILE."
    read_options = (
        "text_column",
        "label_column",
        "series_column",
        "step_column",
        "missing",
        "encoding",
        "decimal",
    )

    def read(self, estimator: SequenceEstimator, source: str) -> Reading:
        """Texts or series, with notes on what was noticed."""
        examples = _read(estimator, source)
        return Reading(examples, self._about(examples), examples.notes)

    def _about(self, examples: Examples) -> str:
        """A line on what was read."""
        return examples.about()

    @abstractmethod
    def _columns(self, estimator: Any, examples: Examples) -> dict[str, Any]:
        """The columns of a prediction, without that which says of what."""

    def predict(self, estimator: SequenceEstimator, data: Any, **options: Any) -> Answer:
        """A row for each sequence."""
        from cellwise.tasks.classify.examples import TEXT
        from cellwise.tasks.data.files import round_floats, to_csv, write_file
        from cellwise.tasks.data.optional import require

        examples = estimator._data.measured if data is None else data
        is_text = examples.kind == TEXT
        named = {"text" if is_text else "series": list(examples.inputs if is_text else examples.names)}
        frame = round_floats(require("polars").DataFrame(named | self._columns(estimator, examples)))

        def write(path: Path) -> str:
            write_file(frame, path)
            return f"{frame.height:,} rows"

        return Answer(frame.to_dicts(), text=to_csv(frame), write=write)

    def check_out(self, path: Path) -> None:
        """Refuse a file name that is neither CSV nor Parquet."""
        from cellwise.tasks.data.files import check_writable

        check_writable(path)


def compared(value: Any, table: ReportTable, *remarks: str) -> Answer:
    """The figures of the network and of what it is compared with."""
    rows = [(row.name, *(cell.text for cell in row.cells)) for row in table.rows]
    return Answer(value, table=(("model", *table.columns), rows), remarks=remarks)


class Commands(SequenceCommands):
    """`cellwise classify`: tell classes of texts or series apart."""

    data = Word(
        "FILE",
        "Texts (CSV, TSV, JSON Lines, Parquet with columns text, label; a folder of texts for each class) or series "
        "(columns series, label, step and values; a .ts file, a .tsv of the UCR archive), - for standard input, or the "
        "bundled 'japanese-vowels' or 'movie-sentences'.",
    )
    start = Word(
        "[FILE]",
        "Sequences to classify; a .txt file or standard input may hold a text a line.  [default: those held out]",
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

    def _about(self, examples: Examples) -> str:
        labels = examples.labels
        if labels is None:
            return examples.about()
        return f"{examples.about()}, {len(set(map(str, labels))):,} classes"

    def learned(self, estimator: SequenceClassifier) -> Answer:
        """The figures of the network and of the linear model."""
        from cellwise.tasks.classify.report import measured, score_rows, verdict

        found = measured(estimator)
        value = {
            "model": estimator.model_name,
            "measured_on": "test" if found.is_test else "held out",
            "sequences": len(found.labels),
            "models": found.figures(),
        }
        return compared(value, score_rows(found), found.measured_on, verdict(found)[0])

    def evaluate(self, estimator: SequenceClassifier, data: Any, **options: Any) -> Answer:
        """The figures of the network and of the linear model on labelled data."""
        from cellwise.tasks.classify.base import labelled
        from cellwise.tasks.classify.report import measured, score_rows, verdict

        found = measured(estimator, labelled(data, None))
        (name, own), *rest = found.figures().items()
        value = {"model": name, **own, "sequences": len(found.labels)}
        if rest:
            value["linear"] = rest[0][1]
        return compared(value, score_rows(found), verdict(found)[0])

    def _columns(self, estimator: SequenceClassifier, examples: Examples) -> dict[str, Any]:
        """The class, and the probability of every class."""
        chances = estimator.predict_proba(examples)
        names = estimator.classes_
        said = {"label": [names[each] for each in chances.argmax(axis=1)]}
        return said | {f"p_{name}": chances[:, number] for number, name in enumerate(names)}


def _read(estimator: SequenceEstimator, source: str) -> Examples:
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
