"""Language models over characters or bytes: what comes next in a text, how surprising one is, and more of the like."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "TASK"]

TASK = Task(
    "text",
    "Learn a text, and write more of it.",
    estimator="model:LanguageModel",
    options="options:TextOptions",
    former_names=("characters",),
)

EXPERIMENTS = (
    Experiment(
        "moby-dick",
        "The opening of the book is bundled; --data: any text, whose last twentieth is the test.",
        run="reproduce:moby_dick",
        columns=(("bits per character", "bits_per_character", 3), ("seconds", "seconds", 0)),
    ),
)
