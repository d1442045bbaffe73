"""Writing translations: the most likely word each time, or a beam of several (Sutskever et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.tasks.translate.allowed import Paths, Walks
from cellwise.tasks.translate.memory import Recall
from cellwise.tasks.translate.network import BEGIN, END, Pairs, TranslateNetwork
from cellwise.tasks.translate.writer import Writer

__all__ = ["Hypothesis", "beam_search", "greedy_search"]


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its ids without END, for each the position of the source that it attends to most, and the
    log-probability divided by the length to the power of `length_penalty`; NaN from the greedy search."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    score: float


def greedy_search(
    network: TranslateNetwork,
    batch: Pairs,
    limits: Tensor,
    allowed: Sequence[Paths | None] | None = None,
    recall: Recall | None = None,
) -> list[Hypothesis]:
    """The translation of each source (only those of `batch` are read) that takes the most likely word each time.

    limits (B,): most words of each, END included. allowed: what may be written for each source; it raises the limits to
    the longest text there. recall: what a memory has for the sources."""
    walks = None if allowed is None else Walks(allowed, 1)
    limits = limits if walks is None else walks.limits(limits)
    source, state = network.encode(batch.sources, batch.source_lengths, batch.copies)
    writer = Writer(network, source, state, 1)
    count, longest = len(limits), int(limits.max())
    device = batch.sources.device
    written = torch.full((longest, count), END, device=device)
    places = torch.zeros_like(written)
    alive = torch.arange(count, device=device)
    words = torch.full((count, 1), BEGIN, device=device)
    for step in range(longest):
        scores, weights = writer.step(words)
        if recall is not None:
            scores = recall.mixed(writer.logarithms(scores), writer.states, alive)
        if walks is not None:
            scores = walks.masked(scores, alive, limits[alive] - step - 2)
        words = scores.argmax(-1)
        if walks is not None:
            walks.follow(alive, torch.zeros_like(words), words)
        written[step, alive] = words[:, 0]
        places[step, alive] = _places(weights, writer)[:, 0]
        goes_on = (words[:, 0] != END) & (limits[alive] > step + 1)
        if not goes_on.any():
            break
        if int(goes_on.sum()) <= 0.75 * len(alive):
            rows = goes_on.nonzero()[:, 0]
            writer.keep(rows)
            alive, words = alive[rows], words[rows]
    return [
        _hypothesis(ids[: int(limits[row])], at, math.nan)
        for row, (ids, at) in enumerate(zip(written.T.tolist(), places.T.tolist(), strict=True))
    ]


def _hypothesis(ids: list[int], places: list[int], score: float) -> Hypothesis:
    end = ids.index(END) if END in ids else len(ids)
    return Hypothesis(tuple(ids[:end]), tuple(places[:end]), score)


def _places(weights: Tensor, writer: Writer) -> Tensor:
    """The position of the source, its end left out, that each row (B, K) attends to most."""
    source = writer.source
    places = torch.arange(weights.shape[-1], device=weights.device)
    is_word = places < (source.lengths - 1)[:, None]
    return weights.masked_fill(~is_word[:, None], -1.0).argmax(-1)


class _Beams:
    """What a search has found: for each step and source the words of K beams and which beams they follow, and the K
    best translations that have ended."""

    def __init__(
        self, count: int, beams: int, longest: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = longest, count, beams
        self.words = torch.zeros(shape, dtype=torch.long, device=device)
        self.parents, self.places = torch.zeros_like(self.words), torch.zeros_like(self.words)
        self.scores = torch.full((count, beams), -math.inf, device=device, dtype=dtype)
        self.ends = torch.zeros((count, beams), dtype=torch.long, device=device)  # steps
        self.tails = torch.zeros_like(self.ends)  # beams

    def finish(self, rows: Tensor, scores: Tensor, step: int, beams: Tensor) -> None:
        """Take in translations of some rows that end in a step, -inf for those that do not; scores, beams (R, C)."""
        scores = torch.cat([self.scores[rows], scores], 1)
        ends = torch.cat([self.ends[rows], torch.full_like(beams, step)], 1)
        tails = torch.cat([self.tails[rows], beams], 1)
        best, order = scores.topk(self.scores.shape[1])
        self.scores[rows], self.ends[rows] = best, ends.gather(1, order)
        self.tails[rows] = tails.gather(1, order)

    def best(self, count: int) -> list[list[Hypothesis]]:
        """The best translations of each source, at most so many."""
        words, parents, places = self.words.tolist(), self.parents.tolist(), self.places.tolist()
        made = []
        for row, scores in enumerate(self.scores.tolist()):
            found = []
            for number, score in enumerate(scores[:count]):
                if score == -math.inf:
                    break
                beam, ids, at = int(self.tails[row, number]), [], []
                for step in range(int(self.ends[row, number]) - 1, -1, -1):
                    ids.append(words[step][row][beam])
                    at.append(places[step][row][beam])
                    beam = parents[step][row][beam]
                found.append(Hypothesis(tuple(reversed(ids)), tuple(reversed(at)), score))
            made.append(found)
        return made


def beam_search(
    network: TranslateNetwork,
    batch: Pairs,
    limits: Tensor,
    *,
    beams: int,
    count: int = 1,
    length_penalty: float = 1.0,
    allowed: Sequence[Paths | None] | None = None,
    recall: Recall | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source, at most `count`, the best first.

    A source is done when `beams` translations have ended, each among the best of its step, and none of those that go on
    has a better score so far than the last of them; or at its limit (B,), which counts END. With as many beams as there
    are translations within the limit the result is the best of all. allowed: what may be written for each source; it
    raises the limits to the longest text there. recall: what a memory has for the sources."""
    walks = None if allowed is None else Walks(allowed, beams)
    limits = limits if walks is None else walks.limits(limits)
    source, state = network.encode(batch.sources, batch.source_lengths, batch.copies)
    writer = Writer(network, source, state, beams)
    device, size = batch.sources.device, len(limits)
    found = _Beams(size, beams, int(limits.max()), device, source.memory.dtype)
    alive = torch.arange(size, device=device)
    words = torch.full((size, beams), BEGIN, device=device)
    sums = torch.full((size, beams), -math.inf, device=device, dtype=source.memory.dtype)
    sums[:, 0] = 0.0
    for step in range(int(limits.max())):
        scores, weights = writer.step(words)
        scores = writer.logarithms(scores)
        if recall is not None:
            scores = recall.mixed(scores, writer.states, alive)
        if walks is not None:
            scores = walks.masked(scores, alive, limits[alive] - step - 2)
        width = scores.shape[-1]
        is_last = limits[alive] == step + 1
        if is_last.any():  # what has not ended has to
            scores = scores.clone()
            ends = scores[is_last, :, END].clone()
            scores[is_last] = -math.inf
            scores[is_last, :, END] = ends
        totals, order = (sums[..., None] + scores).flatten(1).topk(min(2 * beams, beams * width))
        parents, words = order // width, order % width
        is_end = words == END
        ending = is_end.clone()
        ending[:, beams:] = False
        normalised = totals / (step + 1) ** length_penalty
        found.finish(alive, normalised.masked_fill(~ending, -math.inf), step, parents)
        best = normalised.masked_fill(is_end, -math.inf).amax(1)
        goes_on = (best > found.scores[alive, -1]) & (limits[alive] > step + 1)
        if not goes_on.any():
            break
        chosen = is_end.to(torch.uint8).argsort(stable=True, dim=1)[:, :beams]
        sums = totals.masked_fill(is_end | ~goes_on[:, None], -math.inf).gather(1, chosen)
        parents, words = parents.gather(1, chosen), words.gather(1, chosen)
        places = _places(weights, writer).gather(1, parents)
        found.words[step, alive], found.parents[step, alive] = words, parents
        found.places[step, alive] = places
        writer.follow(parents)
        if walks is not None:
            walks.follow(alive, parents, words)
        if int(goes_on.sum()) <= 0.75 * len(alive):
            rows = goes_on.nonzero()[:, 0]
            writer.keep(rows)
            alive, words, sums = alive[rows], words[rows], sums[rows]
    return found.best(count)
