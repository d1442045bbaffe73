"""Tagging: a recurrent network that gives each word of a sentence a tag, parts of speech or names for example."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "tag",
    "Tag the words of sentences with a recurrent network.",
    estimator="tagger:SequenceTagger",
    options="options:TagOptions",
)
