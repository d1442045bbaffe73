"""Classification and regression of sequences: texts and series of any length."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "REGRESS", "TASK", "TASKS"]

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

_COLUMNS = (
    ("accuracy", "accuracy", 3),
    ("macro F1", "macro_f1", 3),
    ("log loss", "log_loss", 3),
    ("seconds", "seconds", 0),
)
EXPERIMENTS = (
    Experiment("japanese-vowels", "Bundled.", run="reproduce:japanese_vowels", columns=_COLUMNS),
    Experiment("movie-sentiment", "Bundled.", run="reproduce:movie_sentiment", columns=_COLUMNS),
)
