"""The network of a tagger: letters and words in, scores of the tags out.

Words through their letters as Ling et al. (2015) and Lample et al. (2016): a recurrent network in both directions over
the letters of each different word of a batch, in one call, beside an embedding of the word and of how it is written;
over the sentence a recurrent network again; over the tags a softmax or a conditional random field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.tag.crf import Crf
from cellwise.tasks.tag.schemes import allowed_moves
from cellwise.tasks.tag.vocabulary import SHAPES, UNKNOWN_WORD, Lexicon

__all__ = ["NO_TAG", "TagBatch", "TagNetwork", "TagSizes"]

NO_TAG = -1  # where a sentence has ended, and for tags that training has not seen
LETTER_SIZE, SHAPE_SIZE = 32, 8  # of the embeddings


@dataclass(frozen=True, eq=False)
class TagBatch:
    """B sentences of at most T words, with U different ones.

    words, shapes, forms (T, B): word index, shape, and which of the U; letters (L, U), letter_lengths (U,); lengths
    (B,); tags (T, B), NO_TAG where there is none."""

    words: Tensor
    shapes: Tensor
    forms: Tensor
    letters: Tensor
    letter_lengths: Tensor
    lengths: Tensor
    tags: Tensor


@dataclass(frozen=True)
class TagSizes:
    """The sizes of a network: of embeddings and recurrent layers, and their dropout."""

    embedding_size: int
    character_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    word_dropout: float


class TagNetwork(nn.Module):
    """Scores of K tags for each word; `crf` is None for a softmax.

    Words are read as unknown now and then in training, the rare ones more often (Kiperwasser and Goldberg 2016), so
    that the network learns what to do with words that it has never seen."""

    rare: Tensor

    def __init__(self, cell: Any, lexicon: Lexicon, sizes: TagSizes, *, crf: bool, is_bioes: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(len(lexicon.embedded) + 1, sizes.embedding_size)
        self.shapes = nn.Embedding(SHAPES, SHAPE_SIZE)
        input_size = sizes.embedding_size + SHAPE_SIZE
        self.letters, self.spell = None, None
        if sizes.character_size:
            self.letters = nn.Embedding(len(lexicon.letters) + 1, LETTER_SIZE)
            self.spell = Recurrent(cell, LETTER_SIZE, sizes.character_size, bidirectional=True)
            input_size += 2 * sizes.character_size
        between = sizes.dropout if sizes.num_layers > 1 else 0.0
        self.layer = Recurrent(
            cell,
            input_size,
            sizes.hidden_size,
            sizes.num_layers,
            dropout=between,
            bidirectional=sizes.bidirectional,
        )
        self.dropout = sizes.dropout
        self.decode = nn.Linear((1 + sizes.bidirectional) * sizes.hidden_size, len(lexicon.tags))
        self.crf = Crf(len(lexicon.tags), *(allowed_moves(lexicon.tags) if is_bioes else ())) if crf else None
        counts = torch.tensor([0.0, *lexicon.embedded])
        rare = sizes.word_dropout / (sizes.word_dropout + counts) if sizes.word_dropout else 0 * counts
        self.register_buffer("rare", rare, persistent=False)
        if not self.words.weight.is_meta:
            nn.init.normal_(self.words.weight, std=0.1)

    def forward(self, batch: TagBatch) -> Tensor:
        """Scores (T, B, K)."""
        words = batch.words
        if self.training:
            hidden = torch.rand(words.shape, device=words.device) < self.rare[words]
            words = words.masked_fill(hidden, UNKNOWN_WORD)
        parts = [self.words(words), self.shapes(batch.shapes)]
        if self.letters is not None and self.spell is not None:
            parts.append(self._spelled(batch)[batch.forms])
        seen = self._locked(torch.cat(parts, dim=-1))
        output, _ = self.layer(seen, lengths=batch.lengths)
        return self.decode(self._locked(output))

    def _spelled(self, batch: TagBatch) -> Tensor:
        """The last state over the letters of each different word in either direction, (U, 2 * character_size)."""
        assert self.letters is not None and self.spell is not None
        _, state = self.spell(self.letters(batch.letters), lengths=batch.letter_lengths)
        last = state[0] if isinstance(state, tuple) else state
        return last.transpose(0, 1).flatten(1)

    def _locked(self, values: Tensor) -> Tensor:
        """Dropout with the same mask for all words of a sentence (Gal and Ghahramani 2016); values (T, B, D)."""
        if not self.training or not self.dropout:
            return values
        kept = torch.empty_like(values[:1]).bernoulli_(1 - self.dropout) / (1 - self.dropout)
        return values * kept

    def loss(self, batch: TagBatch) -> Tensor:
        """Mean negative log-likelihood of a word's tag, in nats."""
        scores = self(batch)
        if self.crf is None:
            return nn.functional.cross_entropy(
                scores.flatten(0, 1), batch.tags.flatten(), ignore_index=NO_TAG
            )
        return self.crf.loss(scores, batch.tags, batch.lengths).sum() / batch.lengths.sum()

    def decide(self, batch: TagBatch) -> Tensor:
        """The best tags (T, B)."""
        scores = self(batch)
        return scores.argmax(-1) if self.crf is None else self.crf.decode(scores, batch.lengths)
