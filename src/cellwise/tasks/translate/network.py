"""The network of a translator: a recurrent encoder in both directions, a decoder, attention between them.

In training the decoder's recurrent layers run over whole targets in one call each: attention looks from their outputs
at the source, and what it finds does not flow back into them (Luong et al. 2015). Layers above the attention read what
it found, so that they know what was translated already. With input feeding it does flow back, and training goes step by
step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.translate.attention import SCORES, Attention, InTurn, repetition
from cellwise.tasks.translate.lexicon import Lexicon, matches
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
    of the target belongs to each of the source, zero where nobody knows; None if attention is not told. lexical
    (T, S, B): how likely each word of the target is as a translation of each of the source, by what other pairs say;
    None if what the lexicon says will do."""

    sources: Tensor
    source_lengths: Tensor
    copies: Tensor
    targets: Tensor
    target_lengths: Tensor
    alignments: Tensor | None = None
    lexical: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """Encoded sources: memory (B, S, H + E), which is the encoder's output beside what it read; keys (B, S, H), which
    attention compares with; lengths (B,), copies (B, S); entries, ids and probabilities (B, S, N) of translations by a
    lexicon, None without one."""

    memory: Tensor
    keys: Tensor
    lengths: Tensor
    copies: Tensor
    entries: tuple[Tensor, Tensor] | None = None

    def rows(self, index: Tensor) -> Source:
        """Of some rows, in this order."""
        entries = None if self.entries is None else (self.entries[0][index], self.entries[1][index])
        return Source(self.memory[index], self.keys[index], self.lengths[index], self.copies[index], entries)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the output layer reads at each step of the targets: the decoder's states (B, T, H), the attention weights
    (B, T, S), what they find (B, T, H + E), and the states of the layers above (B, T, H), if there are any."""

    queries: Tensor
    weights: Tensor
    context: Tensor
    above: Tensor | None


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
    lexicon: bool = False
    coverage: float = 0.0
    input_feeding: bool = False


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
        self.in_turn = sizes.attention not in SCORES
        read = embedded + sizes.input_feeding * embedded + self.in_turn * (wide + embedded)
        self.decoder = Recurrent(cell, read, wide, layers, dropout=between)
        self.attention: Attention | InTurn = (
            InTurn() if self.in_turn else Attention(sizes.attention, wide, covers=sizes.coverage > 0)
        )
        self.upper = None
        if sizes.upper_layers:
            above = sizes.dropout if sizes.upper_layers > 1 else 0.0
            self.upper = Recurrent(cell, 2 * wide + embedded, wide, sizes.upper_layers, dropout=above)
        seen = (3 if self.upper is not None else 2) * wide + embedded
        self.combine = nn.Linear(seen, embedded)
        self.decode = None if sizes.tied else nn.Parameter(torch.empty(sizes.targets, embedded))
        self.bias = nn.Parameter(torch.zeros(sizes.targets))
        ways = sizes.copy + sizes.lexicon  # to write a piece, beside the vocabulary
        self.gate = nn.Linear(2 * wide + 2 * embedded, ways) if ways else None
        self.lexicon = Lexicon(sizes.sources, sizes.targets) if sizes.lexicon else None
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
        entries = None if self.lexicon is None else self.lexicon.entries(sources.t())
        found = Source(memory, self.attention.keys(output.transpose(0, 1)), lengths, copies.t(), entries)
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

    def loss(self, batch: Pairs, sampling: float = 0.0) -> Tensor:
        """Mean negative log-likelihood of a word of the targets, in nats, with label smoothing; and the weighted terms
        of alignments and coverage.

        sampling: the probability that a step reads the network's own word before it and not the true one."""
        smoothing, coverage = self.sizes.smoothing, self.sizes.coverage
        own, mean, weights = self._scored(batch, sampling)
        loss = -((1 - smoothing) * own + smoothing * mean).mean()
        if coverage:
            loss = loss + coverage * repetition(weights)[self._inside(batch)].mean()
        if batch.alignments is None or not self.sizes.guide:
            return loss
        told = batch.alignments.permute(2, 0, 1) * torch.log(weights + TINY)
        return loss - self.sizes.guide * told.sum() / len(own)

    def likelihoods(self, batch: Pairs) -> Tensor:
        """Log-probability of each word of the targets (N,), row by row without padding."""
        return self._scored(batch)[0]

    def states(self, batch: Pairs) -> Tensor:
        """What the output layer reads for each word of the targets (N, E), row by row without padding."""
        source, state = self.encode(batch.sources, batch.source_lengths, batch.copies)
        made = self._decoded(self._before(batch), source, state, batch.target_lengths)
        return self.joined(made.queries, made.context, made.above)[self._inside(batch)]

    def _scored(self, batch: Pairs, sampling: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of each word of the targets (N,), its mean over the vocabulary (N,), and the attention
        weights (B, T, S)."""
        source, state = self.encode(batch.sources, batch.source_lengths, batch.copies)
        before = self._before(batch)
        if sampling:
            before = self._sampled(before, source, state, batch, sampling)
        made = self._decoded(self._dropped(before), source, state, batch.target_lengths)
        inside, targets = self._inside(batch), batch.targets.t()
        chosen = targets[inside]
        queries, context = made.queries[inside], made.context[inside]
        combined = self._combined(queries, context, None if made.above is None else made.above[inside])
        known = chosen < self.sizes.targets
        own, mean = log_likelihood(combined, self.output, self.bias, chosen.where(known, UNKNOWN))
        if self.gate is None:
            return own, mean, made.weights
        generated, *pointed = self.ways(queries, context, combined)
        # A word that the vocabulary lacks can only be copied.
        mixed = generated * own.exp() * known
        for way, found in zip(pointed, self._pointed(source, batch), strict=True):
            mixed = mixed + way * (made.weights * found).sum(-1)[inside]
        return torch.log(mixed + TINY), mean, made.weights

    def _pointed(self, source: Source, batch: Pairs) -> list[Tensor]:
        """For each way to point at the source: how likely each position then writes each word of the target
        (B, T, S)."""
        found, targets = [], batch.targets.t()
        if self.sizes.copy:
            found.append((source.copies[:, None] == targets[:, :, None]).to(source.memory.dtype))
        if source.entries is not None:
            told = batch.lexical
            found.append(matches(*source.entries, targets) if told is None else told.permute(2, 0, 1))
        return found

    def _before(self, batch: Pairs) -> Tensor:
        """The word before each of the targets (T, B)."""
        return torch.cat([torch.full_like(batch.targets[:1], BEGIN), batch.targets[:-1]])

    def _inside(self, batch: Pairs) -> Tensor:
        """Which steps (B, T) belong to a target."""
        steps = torch.arange(len(batch.targets), device=batch.target_lengths.device)
        return steps < batch.target_lengths[:, None]

    @torch.no_grad()
    def _sampled(self, before: Tensor, source: Source, state: Any, batch: Pairs, share: float) -> Tensor:
        """The words before (T, B), some of them those that the network itself would have written after the true ones:
        scheduled sampling (Bengio et al. 2015), for all steps at once (Duckworth et al. 2019)."""
        made = self._decoded(before, source, state, batch.target_lengths)
        logits = nn.functional.linear(
            self._combined(made.queries, made.context, made.above), self.output, self.bias
        )
        own = torch.cat([before[:1], logits.argmax(-1).t()[:-1]])
        drawn = torch.rand(before.shape, device=before.device) < share
        return own.where(drawn & (before != BEGIN), before)

    def _decoded(self, before: Tensor, source: Source, state: Any, lengths: Tensor) -> Decoded:
        """The steps of whole targets, from the words before (T, B)."""
        read = self._locked(self.embed(before))
        if self.sizes.input_feeding:
            return self._fed(read, source, state)
        if self.in_turn:  # a step knows beforehand where it looks
            read = torch.cat([read, source.memory.transpose(0, 1)[: len(read)]], -1)
        queries, _ = self.decoder(read, state, lengths=lengths)
        queries = self._locked(queries).transpose(0, 1)
        weights = self.attention.over_targets(queries, source.keys, source.lengths)
        context = source.memory[:, : len(read)] if self.in_turn else torch.bmm(weights, source.memory)
        above = None
        if self.upper is not None:
            above, _ = self.upper(torch.cat([queries, context], -1).transpose(0, 1), lengths=lengths)
            above = self._locked(above).transpose(0, 1)
        return Decoded(queries, weights, context, above)

    def _fed(self, read: Tensor, source: Source, state: Any) -> Decoded:
        """The same step by step: each reads what the output layer read before it (Luong et al. 2015)."""
        steps, size = len(read), state[0].shape if isinstance(state, tuple) else state.shape
        masks = [self._locked(read.new_ones(1, size[1], size[2])) for _ in range(2)]
        fed, upper = read.new_zeros(size[1], self.sizes.embedding_size), None
        covered = torch.zeros_like(source.keys[:, None, :, 0])
        made: list[tuple[Tensor, ...]] = []
        for step in range(steps):
            queries, state = self.decoder(torch.cat([read[step], fed], -1)[None], state)
            queries = (queries * masks[0]).transpose(0, 1)
            weights = self.attention(queries, source.keys, source.lengths, covered)
            covered = covered + weights
            context = torch.bmm(weights, source.memory)
            parts = [queries, weights, context]
            if self.upper is not None:
                above, upper = self.upper(torch.cat([queries, context], -1).transpose(0, 1), upper)
                parts.append((above * masks[1]).transpose(0, 1))
            fed = self.joined(queries, context, parts[3] if self.upper is not None else None)[:, 0]
            made.append(tuple(parts))
        whole = [torch.cat(parts, 1) for parts in zip(*made, strict=True)]
        return Decoded(whole[0], whole[1], whole[2], whole[3] if self.upper is not None else None)

    # --- the output -----------------------------------------------------------------------------------------------

    def joined(self, queries: Tensor, context: Tensor, above: Tensor | None) -> Tensor:
        """What the output layer reads, (..., E)."""
        parts = [queries, context] if above is None else [queries, context, above]
        return torch.tanh(self.combine(torch.cat(parts, -1)))

    def _combined(self, queries: Tensor, context: Tensor, above: Tensor | None) -> Tensor:
        made = self.joined(queries, context, above)
        return nn.functional.dropout(made, self.sizes.dropout, self.training)

    def ways(self, queries: Tensor, context: Tensor, combined: Tensor) -> tuple[Tensor, ...]:
        """How likely the next word is drawn from the vocabulary, is copied from the source (See et al. 2017), or comes
        from the lexicon: those of them that there are, which sum to one."""
        assert self.gate is not None
        scores = self.gate(torch.cat([queries, context, combined], -1))
        return nn.functional.pad(scores, (0, 1)).softmax(-1).unbind(-1)

    def attended(self, batch: Pairs) -> Tensor:
        """Attention weights (B, T, S) while the targets of a batch are written."""
        source, state = self.encode(batch.sources, batch.source_lengths, batch.copies)
        return self._decoded(self._before(batch), source, state, batch.target_lengths).weights
