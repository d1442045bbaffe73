"""When each word was said, and how sure the network is of it: the best path of a given text (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cellwise.tasks.speech.network import BLANK

__all__ = ["Span", "Word", "align", "steps_needed", "words_of"]


@dataclass(frozen=True)
class Span:
    """The steps of a unit, from `first` to `last`, and the mean log-probability that it has there."""

    first: int
    last: int
    score: float


@dataclass(frozen=True)
class Word:
    """A word: start and end in seconds; confidence: the geometric mean of the probabilities of its
    units."""

    text: str
    start: float
    end: float
    confidence: float


def steps_needed(units: Sequence[Any]) -> int:
    """The fewest steps that can hold a text: one a unit, and a blank between equal neighbours."""
    return len(units) + sum(a == b for a, b in pairwise(units))


def align(scores: np.ndarray, units: Sequence[int]) -> list[Span]:
    """The span of each unit on the most likely path of this text through log-probabilities (T, K).

    Raises ValueError if the text needs more steps than there are."""
    if steps_needed(units) > len(scores):
        raise ValueError(f"a text that needs {steps_needed(units)} steps cannot be aligned to {len(scores)}")
    if not units:
        return []
    states = np.full(2 * len(units) + 1, BLANK)
    states[1::2] = units
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    came, best = _forward(scores.astype(np.float64), states, may_skip)
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    path = np.empty(len(scores), dtype=np.int64)
    for step in range(len(scores) - 1, -1, -1):
        path[step] = state
        state -= came[step, state]
    spans = []
    for number, unit in enumerate(units):
        steps = np.flatnonzero(path == 2 * number + 1)
        spans.append(Span(int(steps[0]), int(steps[-1]), float(scores[steps, unit].mean())))
    return spans


def _forward(scores: np.ndarray, states: np.ndarray, may_skip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many states back the best path to each state (T, S) came from, and the scores at the end (S,)."""
    came = np.zeros((len(scores), len(states)), dtype=np.int8)
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    for step in range(1, len(scores)):
        moves = np.full((3, len(states)), -np.inf)
        moves[0], moves[1, 1:] = best, best[:-1]
        moves[2, 2:] = np.where(may_skip[2:], best[:-2], -np.inf)
        came[step] = moves.argmax(axis=0)
        best = moves.max(axis=0) + scores[step, states]
    return came, best


def words_of(units: Sequence[str], spans: Sequence[Span], seconds: float) -> tuple[Word, ...]:
    """The words of a text in units, characters or more, that have these spans; a step takes so many seconds."""
    words: list[tuple[str, list[Span]]] = [("", [])]
    for unit, span in zip(units, spans, strict=True):
        for number, part in enumerate(unit.split(" ")):
            if number:
                words.append(("", []))
            if part:
                text, own = words[-1]
                words[-1] = (text + part, [*own, span])
    return tuple(
        Word(text, round(own[0].first * seconds, 3), round((own[-1].last + 1) * seconds, 3), _mean(own))
        for text, own in words
        if own
    )


def _mean(spans: Sequence[Span]) -> float:
    """The geometric mean of the probabilities of some spans."""
    return float(np.exp(np.mean([span.score for span in spans])))
