"""Language models over characters or bytes: what comes next in a text, how surprising one is, and more of the like."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "text",
    "Learn a text, character by character.",
    estimator="model:LanguageModel",
    options="options:TextOptions",
    former_names=("characters",),
)
