"""Tags for sentences: the network's scores, blended with those of the linear model beside it, and the best tags."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.tasks.tag.batches import by_length
from cellwise.tasks.tag.crf import Chain
from cellwise.tasks.tag.linear import LinearTagger
from cellwise.tasks.tag.network import TagNetwork
from cellwise.tasks.tag.schemes import is_begin
from cellwise.tasks.tag.vocabulary import Forms, Lexicon

__all__ = [
    "Scored",
    "blended_chain",
    "bonus_for",
    "decide",
    "favoured",
    "probabilities",
    "scored",
    "scored_by_linear",
]

BLOCK = 1 << 17  # words whose different forms are held at once
LETTERS = 1 << 15  # letters that are read at once, about
LEAST_F1 = 0.2  # below it, the figure says little about probabilities


@dataclass(frozen=True, eq=False)
class Scored:
    """Sentences of these numbers, from the beginning: lengths (B,), scores (T, B, K) of the network and of the linear
    model, None if there is none."""

    numbers: list[int]
    lengths: Tensor
    network: Tensor
    linear: Tensor | None

    def blended(self, weights: Tensor) -> Tensor:
        """Both together, with weights (2,)."""
        own = weights[0] * self.network
        return own if self.linear is None else own + weights[1] * self.linear


def scored(
    network: TagNetwork, lexicon: Lexicon, linear: LinearTagger | None, words: Sequence[Sequence[str]]
) -> Iterator[Scored]:
    """All sentences, a batch of like lengths after another. Every different word of a block is spelled once."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for start, stop in _blocks(words):
                yield from _scored_block(network, lexicon, linear, words[start:stop], start)
    finally:
        network.train(training)


def _blocks(words: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    start = count = 0
    for stop, sentence in enumerate(words, 1):
        count += len(sentence)
        if count >= BLOCK or stop == len(words):
            yield start, stop
            start, count = stop, 0


def _scored_block(
    network: TagNetwork,
    lexicon: Lexicon,
    linear: LinearTagger | None,
    words: Sequence[Sequence[str]],
    start: int,
) -> Iterator[Scored]:
    forms, device = Forms(lexicon, words), network.decode.weight.device
    spelled = _spelled(network, forms, device)
    tables = None if linear is None else linear.tables(forms)
    for chosen in by_length(forms.sentences.lengths.tolist()):
        rows = torch.tensor(chosen)
        lengths, padded = forms.sentences.lengths[rows], forms.sentences.padded(rows, 0)
        own = network.read(
            forms.words[padded].to(device),
            forms.shapes[padded].to(device),
            None if spelled is None else torch.nn.functional.embedding(padded.to(device), spelled),
            lengths.to(device),
        )
        others = None if tables is None else tables.emissions(forms.sentences, rows)
        yield Scored([start + i for i in chosen], lengths, own.float().cpu(), others)


def _spelled(network: TagNetwork, forms: Forms, device: torch.device) -> Tensor | None:
    """What the letters of each different word say, (F, 2 * character_size)."""
    if network.spell is None:
        return None
    made: Tensor | None = None
    for chosen in by_length(forms.letters.lengths.tolist(), LETTERS):
        rows = torch.tensor(chosen[::-1])
        letters, lengths = forms.letters_of(rows)
        found = network.spell_words(letters.to(device), lengths.to(device))
        assert found is not None
        if made is None:
            made = found.new_empty(len(forms), found.shape[1])
        made[rows.to(device)] = found
    return made


def scored_by_linear(
    linear: LinearTagger, lexicon: Lexicon, words: Sequence[Sequence[str]]
) -> Iterator[Scored]:
    """The same of the linear model alone, in place of the network."""
    with torch.no_grad():
        for start, stop in _blocks(words):
            forms = Forms(lexicon, words[start:stop])
            tables = linear.tables(forms)
            for chosen in by_length(forms.sentences.lengths.tolist()):
                rows = torch.tensor(chosen)
                scores = tables.emissions(forms.sentences, rows)
                yield Scored([start + i for i in chosen], forms.sentences.lengths[rows], scores, None)


def blended_chain(network: TagNetwork, linear: LinearTagger | None, weights: Tensor) -> Chain | None:
    """The scores of neighbouring tags of both together, on the CPU; None for a softmax."""
    own = network.chain
    if own is None:
        return None
    own = Chain(own.moves.cpu(), own.begins.cpu(), own.ends.cpu())
    other = own if linear is None else linear.chain
    assert other is not None
    return own.weighted(weights[0], other, weights[1])


def bonus_for(f1: float) -> float:
    """What to add to the score of each entity, where entities chosen without it have this F1.

    The most probable tags have a high precision and a low recall where entities are rare. F1 is highest if all are
    taken whose probability is over F1 / 2 (Lipton, Elkan and Narayanaswamy 2014), and the most probable tags take about
    those over 1 / 2. The bonus is the difference of the two in the logarithm of the odds.

    >>> [round(bonus_for(f1), 2) for f1 in (0.0, 0.4, 0.5, 0.9, 1.0)]
    [2.2, 1.39, 1.1, 0.2, 0.0]
    """
    return math.log(2 / max(f1, LEAST_F1) - 1)


def favoured(chain: Chain | None, tags: Sequence[str], bonus: float) -> Chain | None:
    """The scores of neighbouring tags, with a bonus for each entity of BIOES that begins."""
    if chain is None or not bonus:
        return chain
    return chain.favouring(torch.tensor([is_begin(tag) for tag in tags]), bonus)


def decide(batch: Scored, weights: Tensor, chain: Chain | None) -> Tensor:
    """The best tags (T, B)."""
    scores = batch.blended(weights)
    return scores.argmax(-1) if chain is None else chain.decode(scores, batch.lengths)


def probabilities(batch: Scored, weights: Tensor, chain: Chain | None) -> Tensor:
    """Of each tag at each word, (T, B, K)."""
    scores = batch.blended(weights)
    return scores.softmax(-1) if chain is None else chain.marginals(scores, batch.lengths)
