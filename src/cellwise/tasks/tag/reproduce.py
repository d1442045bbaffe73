"""A corpus in its fixed parts, measured once on the test part: what `cellwise reproduce brown-tagging` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.folders import cache_folder
from cellwise.tasks.published import mean_row
from cellwise.tasks.tag import brown
from cellwise.tasks.tag.data import Parts
from cellwise.tasks.tag.report import compared
from cellwise.tasks.tag.tagger import SequenceTagger

__all__ = ["REPORTED", "SETTINGS", "Row", "brown_tagging", "run"]

# Chosen on the validation part: with a million words, larger batches and fewer epochs than the defaults.
SETTINGS: Mapping[str, Any] = {"batch_size": 64, "embedding_size": 96, "epochs": 5, "dropout": 0.25}


@dataclass(frozen=True)
class Row:
    """One method: accuracy on the words of the test part, on those seen in training and not, in percent."""

    method: str
    accuracy: float
    known: float | None = None
    unknown: float | None = None
    seconds: float | None = None
    words_per_second: float | None = None
    source: str = "computed here"


REPORTED = (Row("TnT, trigrams of tags", 96.33, None, 77.3, 3.2, source="measured elsewhere, one core"),)


def brown_tagging(
    data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """The Brown corpus."""
    path = brown.fetch(cache_folder()) if data is None else data
    return run(brown.read(path), seeds, options, say)


def run(parts: Parts, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Train with seeds 0, 1, ..., and measure on the test part."""
    test = parts.test
    assert test is not None
    say(f"{parts.training.count:,} words to learn from, {test.count:,} for the test")
    others: list[Row] = []
    own: list[Row] = []
    for seed in range(seeds):
        model = SequenceTagger(seed=seed, **{**SETTINGS, **options})
        model.fit(parts.training, valid=parts.validation, progress=False)
        scores = compared(model, test)
        figures = scores.pop(model.model_name)
        if not own:
            others = [_row(name, each) for name, each in scores.items()]
        own.append(
            _row(f"{model.model_name} of cellwise, seed {seed}", figures, model.seconds_, model.speed_)
        )
        say(f"{own[-1].method}: accuracy {own[-1].accuracy:.2f}, {model.seconds_:.0f} s")
    return [*REPORTED, *others, *own, mean_row(own)]


def _row(
    method: str, figures: Mapping[str, float], seconds: float | None = None, speed: float | None = None
) -> Row:
    accuracy, known, unknown = (
        100 * figures[name] for name in ("accuracy", "accuracy_known", "accuracy_unknown")
    )
    return Row(method, accuracy, known, unknown, seconds, speed)
