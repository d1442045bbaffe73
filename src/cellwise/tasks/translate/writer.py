"""Writing a word at a time, which a search asks for: the network's decoder as a stream of single steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.tasks.translate.attention import InTurn
from cellwise.tasks.translate.network import END, TINY, Source, TranslateNetwork

__all__ = ["Writer"]


class Writer:
    """Writes the targets of B sources, K of each side by side, a word at a time: all rows in one kernel call."""

    def __init__(self, network: TranslateNetwork, source: Source, state: Any, beams: int) -> None:
        self._network, self.source, self.beams = network, source, beams
        rows, positions = source.keys.shape[:2]
        # What went before: the sums of the weights (B, K, S), and what the output layer read (B, K, E).
        self._covered = source.keys.new_zeros(rows, beams, positions)
        self._fed = source.keys.new_zeros(rows, beams, network.sizes.embedding_size)
        self._open(_repeated(state, beams), None)

    def _open(self, state: Any, upper: Any) -> None:
        rows = len(self.source.lengths) * self.beams
        self._decoder = self._network.decoder.stream(rows)
        self._decoder.state = state
        self._upper = None if self._network.upper is None else self._network.upper.stream(rows)
        if self._upper is not None and upper is not None:
            self._upper.state = upper

    def step(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """From the last words (B, K): scores (B, K, V'), log-probabilities where the network points at the source too
        and logits where it does not; attention weights (B, K, S). V' has room for words that only sources hold."""
        network, source = self._network, self.source
        batch, beams = words.shape
        read = network.embed(words.flatten())
        if network.sizes.input_feeding:
            read = torch.cat([read, self._fed.flatten(0, 1)], -1)
        place = None
        if isinstance(network.attention, InTurn):
            place = network.attention.place(source.lengths, self._covered)
            found = source.memory[torch.arange(batch, device=words.device)[:, None], place]
            read = torch.cat([read, found.flatten(0, 1)], -1)
        queries = self._decoder(read).view(batch, beams, -1)
        weights = network.attention(queries, source.keys, source.lengths, self._covered)
        self._covered = self._covered + weights
        context = torch.bmm(weights, source.memory)
        above = None
        if self._upper is not None:
            above = self._upper(torch.cat([queries, context], -1).flatten(0, 1)).view(batch, beams, -1)
        combined = self._fed = network.joined(queries, context, above)
        scores = nn.functional.linear(combined, network.output, network.bias)
        if network.gate is not None:
            scores = self._mixed(scores, network.ways(queries, context, combined), weights)
        if place is not None:  # the end of the source writes the end, and nothing else does
            is_end = torch.arange(scores.shape[-1], device=scores.device) == END
            at_end = place == source.lengths[:, None] - 1
            scores = scores.masked_fill(is_end != at_end[..., None], -math.inf)
        return scores, weights

    @property
    def states(self) -> Tensor:
        """What the output layer read in the last step (B, K, E)."""
        return self._fed

    def logarithms(self, scores: Tensor) -> Tensor:
        """The scores of a step as log-probabilities."""
        return scores.log_softmax(-1) if self._network.gate is None else scores

    def _mixed(self, logits: Tensor, ways: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        source, size = self.source, logits.shape[-1]
        extra = max(0, int(source.copies.max()) + 1 - size) if self._network.sizes.copy else 0
        generated, *pointed = ways
        chances = nn.functional.pad(logits.softmax(-1) * generated[..., None], (0, extra))
        if self._network.sizes.copy:
            shares = weights * (source.copies >= 0)[:, None] * pointed[0][..., None]
            chances.scatter_add_(-1, source.copies.clamp(min=0)[:, None].expand_as(shares), shares)
        if source.entries is not None:
            ids, own = source.entries
            shares = (weights[..., None] * own[:, None] * pointed[-1][..., None, None]).flatten(2)
            chances.scatter_add_(-1, ids.flatten(1)[:, None].expand_as(shares), shares)
        scores = torch.log(chances + TINY)
        scores[..., size:].masked_fill_(chances[..., size:] == 0, -math.inf)  # words of other sources
        return scores

    def follow(self, parents: Tensor) -> None:
        """Go on from these of the K beams (B, K) of each source."""
        batch, beams = parents.shape
        first = torch.arange(batch, device=parents.device)[:, None]
        index = (first * beams + parents).flatten()
        for stream in (self._decoder, self._upper):
            if stream is not None:
                stream.state = _rows_of(stream.state, index)
        self._covered, self._fed = self._covered[first, parents], self._fed[first, parents]

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the sources only."""
        index = (rows[:, None] * self.beams + torch.arange(self.beams, device=rows.device)).flatten()
        state = _rows_of(self._decoder.state, index)
        upper = None if self._upper is None else _rows_of(self._upper.state, index)
        self.source = self.source.rows(rows)
        self._covered, self._fed = self._covered[rows], self._fed[rows]
        self._open(state, upper)


def _rows_of(state: Any, index: Tensor) -> Any:
    """Some rows of a state of several."""
    if isinstance(state, tuple):
        return tuple(_rows_of(each, index) for each in state)
    return state.index_select(1, index)


def _repeated(state: Any, times: int) -> Any:
    if isinstance(state, tuple):
        return tuple(_repeated(each, times) for each in state)
    return state.repeat_interleave(times, 1)
