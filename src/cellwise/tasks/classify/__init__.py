"""Classification and regression of sequences: texts and series of any length."""

from cellwise.tasks.registry import Task

__all__ = ["REGRESS", "TASK", "TASKS"]

TASK = Task(
    "classify",
    "Classify texts or series.",
    estimator="estimator:SequenceClassifier",
    options="options:ClassifyOptions",
)
REGRESS = Task(
    "regress",
    "Predict a number from a text or a series.",
    estimator="regressor:SequenceRegressor",
    options="options:RegressOptions",
    commands="regress_commands:Commands",
)
TASKS = (TASK, REGRESS)
