"""A small language model over characters: what the pictures of a trained network are drawn from."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "text",
    "Learn a text, character by character.",
    estimator="model:CharacterModel",
    options="options:TextOptions",
    former_names=("characters",),
)
