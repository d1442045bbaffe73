"""Classification of sequences: texts and series of any length."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "classify",
    "Classify texts or series.",
    estimator="estimator:SequenceClassifier",
    options="options:ClassifyOptions",
)
