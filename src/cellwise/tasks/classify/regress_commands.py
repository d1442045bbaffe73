"""The command line of regressors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.classify.commands import SequenceCommands, compared
from cellwise.tasks.commands import Answer, Demo, Word, Words

if TYPE_CHECKING:
    from cellwise.tasks.classify.examples import Examples
    from cellwise.tasks.classify.regressor import SequenceRegressor

__all__ = ["Commands"]


class Commands(SequenceCommands):
    """`cellwise regress`: say a number of a text or a series."""

    data = Word(
        "FILE",
        "Texts (CSV, TSV, JSON Lines, Parquet with columns text, label) or series (columns series, label, step and "
        "values, or a .ts file) whose labels are numbers, - for standard input, or the bundled 'movie-ratings'.",
    )
    start = Word(
        "[FILE]",
        "Sequences to say a number of; a .txt file or standard input may hold a text a line.  [default: those held "
        "out]",
    )
    demo = Demo(
        "movie-ratings",
        "Sentences from film reviews, rated from -4 to 4 by 20 people each (Hutto and Gilbert 2014): what do they "
        "think of the film?",
        "runs/movie-ratings",
        settings={"epochs": 8},
    )
    words: ClassVar = {
        "": Words(
            "",
            "Predict a number from texts or series with a recurrent network: fit, predict, evaluate.",
            (
                "cellwise regress demo",
                "cellwise regress fit reviews.csv --label stars",
                "cellwise regress predict runs/reviews-gru new.csv",
            ),
        ),
        "fit": Words(
            "Train on texts or series with numbers.",
            "Train on FILE and write a run folder with weights and report.html.\n\n"
            "Tables are those of `cellwise classify`, with numbers as labels: one of texts has a column text; a long "
            "one has a column series, and a row for each series and step. A linear model is fitted beside the network, "
            "and the report compares the two. Run the same command again to resume an interrupted training.",
            (
                "cellwise regress fit reviews.csv --label stars",
                "cellwise regress fit train.csv --valid valid.csv --out runs/mine",
                "cellwise regress fit engines.ts --cell lstm --minutes 2",
            ),
        ),
        "predict": Words(
            "Say a number of new sequences.",
            "Say the number of each sequence in FILE, and bounds, low and high, between which about four of five true "
            "numbers lie.",
            (
                "cellwise regress predict runs/reviews-gru new.csv --out stars.csv",
                "cellwise regress predict runs/reviews-gru new.txt",
                "cellwise regress predict runs/engines-gru new.ts --json",
            ),
        ),
        "evaluate": Words(
            "Measure on labelled data.",
            "Measure mean absolute error, root mean squared error, R² and the coverage of the bounds on FILE, beside "
            "the linear model that was fitted with the network.",
            (
                "cellwise regress evaluate runs/reviews-gru test.csv",
                "cellwise regress evaluate runs/reviews-gru test.csv --json",
            ),
        ),
        "demo": Words(
            "Train on rated sentences about films: about a minute.",
            "Train on 9,065 sentences from film reviews with their mean ratings, and measure on 1,007 others.",
            ("cellwise regress demo", "cellwise regress demo --cell lstm --out runs/ratings"),
        ),
    }

    def learned(self, estimator: SequenceRegressor) -> Answer:
        """The figures of the network, of the linear model, and of the mean."""
        from cellwise.tasks.classify.regress_report import measured, score_rows, verdict

        found = measured(estimator)
        value = {
            "model": estimator.model_name,
            "measured_on": "test" if found.is_test else "held out",
            "sequences": len(found.truth),
            "models": found.figures(),
            "coverage_80": found.coverage,
        }
        return compared(value, score_rows(found), found.measured_on, verdict(found)[0])

    def evaluate(self, estimator: SequenceRegressor, data: Any, **options: Any) -> Answer:
        """The same on labelled data."""
        from cellwise.tasks.classify.base import labelled
        from cellwise.tasks.classify.regress_report import MEAN, measured, score_rows, verdict

        found = measured(estimator, labelled(data, None))
        (name, own), *rest = found.figures().items()
        value = {"model": name, **own, "coverage_80": found.coverage, "sequences": len(found.truth)}
        value |= {"mean" if each == MEAN else "linear": figures for each, figures in rest}
        covered = f"{found.coverage:.0%} of the true numbers lie within the bounds that predict gives."
        return compared(value, score_rows(found), verdict(found)[0], covered)

    def _columns(self, estimator: SequenceRegressor, examples: Examples) -> dict[str, Any]:
        """The number and its bounds."""
        said = estimator.predict(examples)
        margin = estimator.margin_
        return {"label": said, "low": said - margin, "high": said + margin}
