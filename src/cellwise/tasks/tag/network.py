"""The network of a tagger: letters and words in, scores of the tags out.

Words through their letters as Ling et al. (2015) and Lample et al. (2016): a recurrent network in both directions over
the letters of each different word of a batch, in one call, beside an embedding of the word and of how it is written;
over the sentence a recurrent network again; over the tags a softmax or a conditional random field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.tag.crf import Chain, Crf
from cellwise.tasks.tag.schemes import allowed_moves
from cellwise.tasks.tag.vocabulary import SHAPES, UNKNOWN_WORD, Lexicon

__all__ = ["NO_TAG", "TagBatch", "TagNetwork", "TagSizes", "new_crf", "tag_loss"]

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
    blend: Tensor

    def __init__(
        self, cell: Any, lexicon: Lexicon, sizes: TagSizes, *, crf: bool, is_bioes: bool, is_blended: bool
    ) -> None:
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
        self.crf = new_crf(lexicon.tags, is_bioes) if crf else None
        # What is computed, not learned, is no weight of a run folder, and not on the device "meta" when one is loaded.
        counts = torch.tensor([0.0, *lexicon.embedded], device="cpu")
        rare = sizes.word_dropout / (sizes.word_dropout + counts) if sizes.word_dropout else 0 * counts
        self.register_buffer("rare", rare, persistent=False)
        # How much the network counts, and how much the linear model beside it.
        self.register_buffer("blend", torch.tensor([1.0, 0.0], device="cpu"), persistent=is_blended)
        if not self.words.weight.is_meta:
            nn.init.normal_(self.words.weight, std=0.1)

    @property
    def chain(self) -> Chain | None:
        """Scores of neighbouring tags; None for a softmax."""
        return None if self.crf is None else self.crf.chain()

    def forward(self, batch: TagBatch) -> Tensor:
        """Scores (T, B, K)."""
        words = batch.words
        if self.training:
            hidden = torch.rand(words.shape, device=words.device) < self.rare[words]
            words = words.masked_fill(hidden, UNKNOWN_WORD)
        return self.read(words, batch.shapes, self._spelled(batch), batch.lengths)

    def read(self, words: Tensor, shapes: Tensor, spelled: Tensor | None, lengths: Tensor) -> Tensor:
        """Scores (T, B, K) of word indices and shapes (T, B), and what their letters say (T, B, 2 * character_size)."""
        parts = [self.words(words), self.shapes(shapes)]
        if spelled is not None:
            parts.append(spelled)
        output, _ = self.layer(self._locked(torch.cat(parts, dim=-1)), lengths=lengths)
        return self.decode(self._locked(output))

    def _spelled(self, batch: TagBatch) -> Tensor | None:
        found = self.spell_words(batch.letters, batch.letter_lengths)
        return None if found is None else nn.functional.embedding(batch.forms, found)

    def spell_words(self, letters: Tensor, lengths: Tensor) -> Tensor | None:
        """The last state over the letters (L, U) of each word in either direction, (U, 2 * character_size); None if the
        network reads no letters."""
        if self.letters is None or self.spell is None:
            return None
        _, state = self.spell(self.letters(letters), lengths=lengths)
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
        return tag_loss(self(batch), batch.tags, batch.lengths, self.chain) / (
            batch.tags != NO_TAG
        ).sum().clamp(min=1)


def new_crf(tags: Sequence[str], is_bioes: bool) -> Crf:
    """A field over these tags; those of BIOES make legal moves only."""
    return Crf(len(tags), *(allowed_moves(tags) if is_bioes else ()))


def tag_loss(scores: Tensor, tags: Tensor, lengths: Tensor, chain: Chain | None) -> Tensor:
    """Sum of the negative log-likelihoods of tags (T, B) under scores (T, B, K), in nats."""
    if chain is None:
        return nn.functional.cross_entropy(
            scores.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG, reduction="sum"
        )
    return chain.loss(scores, tags, lengths).sum()
