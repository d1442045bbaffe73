"""Sentences in batches, those of a like length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cellwise.tasks.tag.network import NO_TAG, TagBatch
from cellwise.tasks.tag.vocabulary import Forms, Ragged

__all__ = ["by_length", "collate", "shuffled"]

BLUR = 0.3  # a sentence counts as up to so much longer, so that its mates differ from epoch to epoch


def collate(forms: Forms, chosen: Sequence[int], tags: Ragged | None = None) -> TagBatch:
    """The sentences of these numbers as a batch."""
    rows = torch.tensor(chosen)
    padded = forms.sentences.padded(rows, 0)
    different, index = padded.unique(return_inverse=True)
    order = forms.by_letters(different)
    different, index = different[order], order.argsort()[index]
    letters, letter_lengths = forms.letters_of(different)
    known = torch.full_like(padded, NO_TAG) if tags is None else tags.padded(rows, NO_TAG)
    return TagBatch(
        words=forms.words[padded],
        shapes=forms.shapes[padded],
        forms=index,
        letters=letters,
        letter_lengths=letter_lengths,
        lengths=forms.sentences.lengths[rows],
        tags=known,
    )


def shuffled(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Numbers of sentences, `batch_size` in a batch: those of nearly equal lengths, batches and mates drawn anew."""
    blurred = lengths * (1 + BLUR * torch.rand(len(lengths), generator=generator))
    batches = blurred.argsort().split(batch_size)
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i].tolist()


def by_length(lengths: Sequence[int], words: int = 8192) -> Iterator[list[int]]:
    """Numbers of all sentences from short to long, about so many words in a batch."""
    current: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if current and (len(current) + 1) * lengths[number] > words:
            yield current
            current = []
        current.append(number)
    if current:
        yield current
