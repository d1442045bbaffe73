"""Bundled data with their fixed parts, measured once on the test part: what `cellwise reproduce` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.classify.datasets import BUNDLED, parts_of
from cellwise.tasks.classify.estimator import SequenceClassifier
from cellwise.tasks.errors import TaskError
from cellwise.tasks.published import mean_row

__all__ = ["REPORTED", "Row", "japanese_vowels", "movie_sentiment", "run"]


@dataclass(frozen=True)
class Row:
    """One method: figures on the test part, and where they come from."""

    method: str
    accuracy: float
    macro_f1: float | None = None
    log_loss: float | None = None
    seconds: float | None = None
    source: str = "computed here"


_ELSEWHERE = "measured elsewhere, one core"
# Other software on the same parts, from single runs or means of three seeds.
REPORTED: Mapping[str, tuple[Row, ...]] = {
    "japanese-vowels": (
        Row("1-NN with dynamic time warping", 0.949, source=_ELSEWHERE),
        Row("MiniRocket and ridge regression", 0.982, seconds=0.2, source=_ELSEWHERE),
        Row("plain torch, packed BiGRU of 64", 0.984, seconds=6, source=_ELSEWHERE),
    ),
    "movie-sentences": (
        Row("plain torch, BiLSTM", 0.756, seconds=90, source=_ELSEWHERE),
        Row("fastText", 0.816, seconds=2, source=_ELSEWHERE),
        Row("TF-IDF of 1-2 grams and logistic regression", 0.826, seconds=5, source=_ELSEWHERE),
        Row("NB-SVM", 0.830, seconds=7, source=_ELSEWHERE),
    ),
}


def _bundled(name: str) -> Callable[..., list[Row]]:
    def reproduce(
        data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
    ) -> list[Row]:
        if data is not None:
            raise TaskError(f"the data of this experiment is bundled; leave out --data {data}")
        return run(name, seeds, options, say)

    return reproduce


japanese_vowels, movie_sentiment = _bundled("japanese-vowels"), _bundled("movie-sentences")


def run(name: str, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Train on the training part of a bundled set with seeds 0, 1, ..., measure on its test part."""
    whole, test = BUNDLED[name]()
    train, valid = parts_of(whole)
    say(
        f"{name}: {len(train):,} to train on, {len(valid):,} to decide when to stop, {len(test):,} for the test"
    )
    own: list[Row] = []
    linear: Row | None = None
    for seed in range(seeds):
        model = SequenceClassifier(seed=seed, **options).fit(train, valid=valid, progress=False)
        if linear is None and model._data.linear is not None:
            linear = _row(model._data.linear.name, model.measure_linear(test), None)
        own.append(_row(f"{model.model_name} of cellwise, seed {seed}", model.measure(test), model.seconds_))
        say(f"{own[-1].method}: accuracy {own[-1].accuracy:.4f}, {model.seconds_:.0f} s")
    computed = own if linear is None else [linear, *own]
    return [*REPORTED[name], *computed, mean_row(own)]


def _row(method: str, figures: Mapping[str, float], seconds: float | None) -> Row:
    return Row(method, figures["accuracy"], figures["macro_f1"], figures["log_loss"], seconds)
