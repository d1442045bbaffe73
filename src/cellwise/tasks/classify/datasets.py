"""The bundled data, with the splits that the documents speak of; see data/LICENSE.txt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cellwise.tasks.classify.columns import Columns
from cellwise.tasks.classify.examples import Examples
from cellwise.tasks.classify.tables import read_examples

__all__ = ["BUNDLED", "bundled", "japanese_vowels", "movie_ratings", "movie_sentences", "parts_of"]

FOLDER = Path(__file__).parent / "data"


def japanese_vowels() -> tuple[Examples, Examples]:
    """270 utterances of nine speakers to learn from, and 370 for the test: 12 channels, 7 to 29 steps (Kudo et al.
    1999)."""
    train, test = (
        read_examples(FOLDER / f"japanese_vowels_{part}.ts.gz", Columns()) for part in ("train", "test")
    )
    return train, test


def movie_sentences() -> tuple[Examples, Examples]:
    """9,065 sentences from film reviews to learn from, positive or negative, and every tenth one for the test (Hutto
    and Gilbert 2014; Pang and Lee 2005)."""
    return _movies("label")


def movie_ratings() -> tuple[Examples, Examples]:
    """The same sentences with the mean of 20 people's ratings, from -4 to 4; none lies between -0.5 and 0.5."""
    return _movies("rating")


def _movies(label: str) -> tuple[Examples, Examples]:
    whole = read_examples(FOLDER / "movie_sentences.csv.gz", Columns(label=label))
    tenth = np.arange(len(whole)) % 10
    return whole.select(np.flatnonzero(tenth != 9)), whole.select(np.flatnonzero(tenth == 9))


BUNDLED = {
    "japanese-vowels": japanese_vowels,
    "movie-ratings": movie_ratings,
    "movie-sentences": movie_sentences,
}


def bundled(name: str) -> Examples | None:
    """The examples of a bundled set to learn from, which bring its test part along; None for another name."""
    if name not in BUNDLED:
        return None
    train, test = BUNDLED[name]()
    return replace(train, test=test)


def parts_of(train: Examples) -> tuple[Examples, Examples]:
    """Training and validation part of a bundled set, as they are always split: every fifth series of each class, or
    every ninth sentence."""
    assert train.labels is not None
    if train.kind == "text":
        held = np.arange(len(train)) % 9 == 8
    else:
        seen: dict[object, int] = {}
        held = np.zeros(len(train), dtype=bool)
        for row, label in enumerate(train.labels):
            seen[label] = seen.get(label, -1) + 1
            held[row] = seen[label] % 5 == 4
    return train.select(np.flatnonzero(~held)), train.select(np.flatnonzero(held))
