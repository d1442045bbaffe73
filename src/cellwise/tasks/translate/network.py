"""The network of a translator: a recurrent encoder in both directions, a decoder, attention between them.

In training the decoder's recurrent layers run over whole targets in one call each: attention looks from their outputs
at the source, and what it finds does not flow back into them (Luong et al. 2015, without input feeding). Layers above
the attention read what it found, so that they know what was translated already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.translate.attention import Attention
from cellwise.tasks.translate.likelihood import log_likelihood

__all__ = ["BEGIN", "END", "NO_COPY", "UNKNOWN", "Pairs", "Source", "TranslateNetwork", "TranslateSizes"]

UNKNOWN, BEGIN, END = range(3)  # ids of either vocabulary
NO_COPY = -1  # beyond the end of a source
TINY = 1e-10  # added to probabilities before their logarithm


@dataclass(frozen=True, eq=False)
class Pairs:
    """B sources and their targets.

    sources (S, B), source_lengths (B,): ids, each source with END. copies (S, B): what copying a position writes, an id
    of the targets or, from the size of their vocabulary on, a word that it lacks; NO_COPY beyond the end. targets
    (T, B), target_lengths (B,): ids of the same kind, each target with END. alignments (T, S, B): how likely each word
    of the target belongs to each of the source, zero where nobody knows; None if attention is not told."""

    sources: Tensor
    source_lengths: Tensor
    copies: Tensor
    targets: Tensor
    target_lengths: Tensor
    alignments: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """Encoded sources: memory (B, S, H + E), which is the encoder's output beside what it read; keys (B, S, H), which
    attention compares with; lengths (B,), copies (B, S)."""

    memory: Tensor
    keys: Tensor
    lengths: Tensor
    copies: Tensor

    def rows(self, index: Tensor) -> Source:
        """Of some rows, in this order."""
        return Source(self.memory[index], self.keys[index], self.lengths[index], self.copies[index])


@dataclass(frozen=True)
class TranslateSizes:
    """The form of a network: sizes of embeddings and layers, kinds of attention and output, and its regularisation."""

    sources: int
    targets: int
    embedding_size: int
    hidden_size: int
    num_layers: int
    upper_layers: int
    attention: str
    copy: bool
    tied: bool
    shared: bool
    dropout: float
    word_dropout: float
    smoothing: float
    guide: float


class TranslateNetwork(nn.Module):
    """Encoder, decoder and attention. H is the hidden size rounded up to an even number: half reads each way."""

    def __init__(self, cell: Any, sizes: TranslateSizes) -> None:
        super().__init__()
        self.sizes = sizes
        half = (sizes.hidden_size + 1) // 2
        wide, embedded, layers = 2 * half, sizes.embedding_size, sizes.num_layers
        # Rows of a table have length 1 at first, which suits the output; read, their components are about 1.
        self.scale = math.sqrt(embedded)
        between = sizes.dropout if layers > 1 else 0.0
        self.source = nn.Embedding(sizes.sources, embedded)
        self.target = None if sizes.shared else nn.Embedding(sizes.targets, embedded)
        self.encoder = Recurrent(cell, embedded, half, layers, dropout=between, bidirectional=True)
        self.decoder = Recurrent(cell, embedded, wide, layers, dropout=between)
        self.attention = Attention(sizes.attention, wide)
        self.upper = None
        if sizes.upper_layers:
            above = sizes.dropout if sizes.upper_layers > 1 else 0.0
            self.upper = Recurrent(cell, 2 * wide + embedded, wide, sizes.upper_layers, dropout=above)
        seen = (3 if self.upper is not None else 2) * wide + embedded
        self.combine = nn.Linear(seen, embedded)
        self.decode = None if sizes.tied else nn.Parameter(torch.empty(sizes.targets, embedded))
        self.bias = nn.Parameter(torch.zeros(sizes.targets))
        self.gate = nn.Linear(2 * wide + 2 * embedded, 1) if sizes.copy else None
        if not self.bias.is_meta:
            for table in (
                self.source.weight,
                None if self.target is None else self.target.weight,
                self.decode,
            ):
                if table is not None:
                    nn.init.normal_(table, std=embedded**-0.5)

    @property
    def output(self) -> Tensor:
        """The weights (V, E) behind the scores of the vocabulary."""
        return self._targets.weight if self.decode is None else self.decode

    @property
    def _targets(self) -> nn.Embedding:
        return self.source if self.target is None else self.target

    # --- what training and translating share ---------------------------------------------------------------------

    def encode(self, sources: Tensor, lengths: Tensor, copies: Tensor) -> tuple[Source, Any]:
        """Sources (S, B) read in both directions, and the state in which the decoder begins."""
        read = self._locked(self.scale * self.source(self._dropped(sources)))
        output, state = self.encoder(read, lengths=lengths)
        output = self._locked(output)
        # The words themselves help with rare ones (Nguyen and Chiang 2018).
        memory = torch.cat([output, read], -1).transpose(0, 1)
        found = Source(memory, self.attention.keys(output.transpose(0, 1)), lengths, copies.t())
        return found, self._joined(state)

    def _joined(self, state: Any) -> Any:
        """The last state of both directions side by side, layer by layer: (2 L, B, H/2) as (L, B, H)."""
        if isinstance(state, tuple):
            return tuple(self._joined(each) for each in state)
        layers, batch = state.shape[0] // 2, state.shape[1]
        return state.view(layers, 2, batch, -1).transpose(1, 2).reshape(layers, batch, -1)

    def embed(self, words: Tensor) -> Tensor:
        """Targets as the decoder reads them; words that the vocabulary lacks are unknown to it."""
        return self.scale * self._targets(words.masked_fill(words >= self.sizes.targets, UNKNOWN))

    def _dropped(self, words: Tensor) -> Tensor:
        """In training, some words are read as unknown (Gal and Ghahramani 2016), never the signs of begin and end."""
        if not self.training or not self.sizes.word_dropout:
            return words
        hidden = torch.rand(words.shape, device=words.device) < self.sizes.word_dropout
        return words.masked_fill(hidden & (words > END), UNKNOWN)

    def _locked(self, values: Tensor) -> Tensor:
        """Dropout with the same mask for all steps of a row; values (T, B, D)."""
        kept = 1 - self.sizes.dropout
        if not self.training or kept == 1:
            return values
        return values * (torch.empty_like(values[:1]).bernoulli_(kept) / kept)

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, batch: Pairs) -> Tensor:
        """Mean negative log-likelihood of a word of the targets, in nats, with label smoothing."""
        smoothing = self.sizes.smoothing
        own, mean, weights = self._scored(batch)
        loss = -((1 - smoothing) * own + smoothing * mean).mean()
        if batch.alignments is None or not self.sizes.guide:
            return loss
        told = batch.alignments.permute(2, 0, 1) * torch.log(weights + TINY)
        return loss - self.sizes.guide * told.sum() / len(own)

    def likelihoods(self, batch: Pairs) -> Tensor:
        """Log-probability of each word of the targets (N,), row by row without padding."""
        return self._scored(batch)[0]

    def _scored(self, batch: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of each word of the targets (N,), its mean over the vocabulary (N,), and the attention
        weights (B, T, S)."""
        source, state = self.encode(batch.sources, batch.source_lengths, batch.copies)
        begin = torch.full_like(batch.targets[:1], BEGIN)
        before = torch.cat([begin, batch.targets[:-1]])
        lengths = batch.target_lengths
        read = self._locked(self.embed(self._dropped(before)))
        queries, _ = self.decoder(read, state, lengths=lengths)
        queries = self._locked(queries).transpose(0, 1)
        weights = self.attention(queries, source.keys, source.lengths)
        context = torch.bmm(weights, source.memory)
        above = None
        if self.upper is not None:
            above, _ = self.upper(torch.cat([queries, context], -1).transpose(0, 1), lengths=lengths)
            above = self._locked(above).transpose(0, 1)
        valid = torch.arange(len(batch.targets), device=lengths.device) < lengths[:, None]
        chosen = batch.targets.t()[valid]
        combined = self._combined(queries[valid], context[valid], None if above is None else above[valid])
        known = chosen < self.sizes.targets
        own, mean = log_likelihood(combined, self.output, self.bias, chosen.where(known, UNKNOWN))
        if self.gate is None:
            return own, mean, weights
        generated = self._generates(queries[valid], context[valid], combined)
        same = source.copies[:, None] == batch.targets.t()[:, :, None]
        copied = (weights * same).sum(-1)[valid]
        # A word that the vocabulary lacks can only be copied.
        mixed = generated * own.exp() * known + (1 - generated) * copied
        return torch.log(mixed + TINY), mean, weights

    def _combined(self, queries: Tensor, context: Tensor, above: Tensor | None) -> Tensor:
        """What the output layer reads, (..., E)."""
        parts = [queries, context] if above is None else [queries, context, above]
        made = torch.tanh(self.combine(torch.cat(parts, -1)))
        return nn.functional.dropout(made, self.sizes.dropout, self.training)

    def _generates(self, queries: Tensor, context: Tensor, combined: Tensor) -> Tensor:
        """How likely the next word is drawn from the vocabulary and not copied from the source (See et al. 2017)."""
        assert self.gate is not None
        return torch.sigmoid(self.gate(torch.cat([queries, context, combined], -1)))[..., 0]

    # --- translating --------------------------------------------------------------------------------------------

    def attended(self, batch: Pairs) -> Tensor:
        """Attention weights (B, T, S) while the targets of a batch are written."""
        source, state = self.encode(batch.sources, batch.source_lengths, batch.copies)
        begin = torch.full_like(batch.targets[:1], BEGIN)
        before = self.embed(torch.cat([begin, batch.targets[:-1]]))
        queries, _ = self.decoder(before, state, lengths=batch.target_lengths)
        return self.attention(queries.transpose(0, 1), source.keys, source.lengths)


class Writer:
    """Writes the targets of B sources, K of each side by side, a word at a time: all rows in one kernel call."""

    def __init__(self, network: TranslateNetwork, source: Source, state: Any, beams: int) -> None:
        self._network, self.source, self.beams = network, source, beams
        self._open(_repeated(state, beams), None)

    def _open(self, state: Any, upper: Any) -> None:
        rows = len(self.source.lengths) * self.beams
        self._decoder = self._network.decoder.stream(rows)
        self._decoder.state = state
        self._upper = None if self._network.upper is None else self._network.upper.stream(rows)
        if self._upper is not None and upper is not None:
            self._upper.state = upper

    def step(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """From the last words (B, K): scores (B, K, V'), log-probabilities where the network copies and logits where it
        does not; attention weights (B, K, S). V' has room for words that only sources hold."""
        network, source = self._network, self.source
        batch, beams = words.shape
        queries = self._decoder(network.embed(words.flatten())).view(batch, beams, -1)
        weights = network.attention(queries, source.keys, source.lengths)
        context = torch.bmm(weights, source.memory)
        above = None
        if self._upper is not None:
            read = torch.cat([queries, context], -1).flatten(0, 1)
            above = self._upper(read).view(batch, beams, -1)
        combined = network._combined(queries, context, above)
        logits = torch.nn.functional.linear(combined, network.output, network.bias)
        if network.gate is None:
            return logits, weights
        return self._mixed(logits, network._generates(queries, context, combined), weights), weights

    def _mixed(self, logits: Tensor, generated: Tensor, weights: Tensor) -> Tensor:
        copies, size = self.source.copies, logits.shape[-1]
        extra = max(0, int(copies.max()) + 1 - size)
        chances = nn.functional.pad(logits.softmax(-1) * generated[..., None], (0, extra))
        shares = weights * (copies >= 0)[:, None] * (1 - generated[..., None])
        chances.scatter_add_(-1, copies.clamp(min=0)[:, None].expand_as(shares), shares)
        scores = torch.log(chances + TINY)
        scores[..., size:].masked_fill_(chances[..., size:] == 0, -math.inf)  # words of other sources
        return scores

    def follow(self, parents: Tensor) -> None:
        """Go on from these of the K beams (B, K) of each source."""
        batch, beams = parents.shape
        first = torch.arange(batch, device=parents.device)[:, None] * beams
        index = (first + parents).flatten()
        for stream in (self._decoder, self._upper):
            if stream is not None:
                stream.state = _rows_of(stream.state, index)

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the sources only."""
        index = (rows[:, None] * self.beams + torch.arange(self.beams, device=rows.device)).flatten()
        state = _rows_of(self._decoder.state, index)
        upper = None if self._upper is None else _rows_of(self._upper.state, index)
        self.source = self.source.rows(rows)
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
