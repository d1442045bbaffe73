"""From texts to translations: in batches, by a search, and back from ids to texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cellwise.tasks.training.device import moved
from cellwise.tasks.translate.allowed import Allowed
from cellwise.tasks.translate.batches import Languages, Row, collate, in_order
from cellwise.tasks.translate.known import TranslateData
from cellwise.tasks.translate.memory import Memory
from cellwise.tasks.translate.network import Pairs, TranslateNetwork
from cellwise.tasks.translate.searching import Hypothesis, beam_search, greedy_search

__all__ = ["Search", "Translation", "translations_of"]

ROOM = 2.0  # a translation may be so many times as long as its source makes expect, and a little more
MOST_ROWS = 256  # translations that are written side by side


@dataclass(frozen=True)
class Translation:
    """A translation: its text, its score (log-probability by length; NaN with a beam of 1, and for a text without
    words, whose translation is empty), and its pieces with, for each, the position of the source's piece that it
    attends to most."""

    text: str
    score: float
    pieces: tuple[str, ...]
    alignment: tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """How translations are searched for; see `Translator.translations`."""

    beam: int
    n_best: int = 1
    length_penalty: float = 1.0
    allowed: Allowed | None = None
    all_beams: bool = False
    memory: Memory | None = None

    def found(
        self,
        network: TranslateNetwork,
        batch: Pairs,
        limits: torch.Tensor,
        sources: Sequence[tuple[str, Row]],
    ) -> list[list[Hypothesis]]:
        """The best translations of each source, or all that were followed."""
        paths = None if self.allowed is None else [self.allowed.paths(*source) for source in sources]
        recall = None if self.memory is None else self.memory.recall([text for text, _ in sources])
        if self.beam == 1:
            return [[each] for each in greedy_search(network, batch, limits, paths, recall)]
        count = self.beam if self.all_beams else self.n_best
        how: dict[str, Any] = {"count": count, "length_penalty": self.length_penalty, "allowed": paths}
        how["recall"] = recall
        return beam_search(network, batch, limits, beams=self.beam, **how)


def translations_of(
    network: TranslateNetwork, data: TranslateData, sources: Sequence[str], search: Search
) -> list[list[Translation]]:
    """The best translations of each source, at most `search.n_best`. Equal sources are translated once."""
    if data.languages.monotone:
        search = replace(search, all_beams=search.beam > 1)
    different = [source for source in dict.fromkeys(sources) if source.strip()]
    rows, pieces = data.languages.rows(different), data.languages.source.cut(different)
    nothing = [Translation("", math.nan, (), ())]
    made: dict[str, list[Translation]] = {}
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    with torch.no_grad():
        for chosen in in_order(rows, max(1, MOST_ROWS // search.beam)):
            batch = collate([rows[number] for number in chosen])
            limits = (batch.source_lengths * data.ratio * ROOM).ceil().long() + 10
            if data.languages.monotone:
                limits = batch.source_lengths
            texts = [(different[number], rows[number]) for number in chosen]
            found = search.found(network, moved(batch, device), limits.to(device), texts)
            for number, hypotheses in zip(chosen, found, strict=True):
                own = rows[number], pieces[number]
                written = [_translation(data.languages, *own, each) for each in hypotheses]
                if search.all_beams:
                    power = len(rows[number].source) ** search.length_penalty
                    written = _summed(written, power)[: search.n_best]
                made[different[number]] = written
    network.train(training)
    return [made.get(source, nothing) for source in sources]


def _translation(languages: Languages, row: Row, source: Sequence[Any], found: Hypothesis) -> Translation:
    pieces = languages.pieces(row, source, found.ids, found.places)
    text = languages.target.text(pieces)
    shown = [
        (languages.target.text([piece]), place) for piece, place in zip(pieces, found.places, strict=True)
    ]
    if languages.monotone:  # positions of the source that write nothing
        shown = [(piece, place) for piece, place in shown if piece]
    return Translation(text, found.score, tuple(p for p, _ in shown), tuple(place for _, place in shown))


def _summed(found: Sequence[Translation], power: float) -> list[Translation]:
    """One translation of each text, the best first: the same sounds may be cut in several ways, whose probabilities
    add up. power: what log-probabilities were divided by."""
    same: dict[str, list[Translation]] = {}
    for each in found:
        same.setdefault(each.text, []).append(each)
    summed = [
        replace(ways[0], score=float(np.logaddexp.reduce([way.score * power for way in ways])) / power)
        for ways in same.values()
    ]
    return sorted(summed, key=lambda each: -each.score)
