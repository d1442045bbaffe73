"""Translation: a recurrent encoder and a decoder with attention, from sentences to sentences, letters to sounds."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "translate",
    "Translate sentences, or spell words in sounds, with a recurrent network.",
    estimator="translator:Translator",
    options="options:TranslateOptions",
)
