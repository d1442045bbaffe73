"""Sentences in batches, those of a like length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cellwise.tasks.tag.network import NO_TAG, TagBatch
from cellwise.tasks.tag.vocabulary import Forms

__all__ = ["by_length", "collate", "shuffled"]

BLUR = 0.3  # a sentence counts as up to so much longer, so that its mates differ from epoch to epoch


def collate(forms: Forms, chosen: Sequence[int], tags: Sequence[Tensor] | None = None) -> TagBatch:
    """The sentences of these numbers as a batch."""
    sentences = [forms.sentences[i] for i in chosen]
    lengths = torch.tensor([len(each) for each in sentences])
    padded = _padded(sentences, 0)
    different, index = padded.unique(return_inverse=True)
    letters, letter_lengths = forms.letters_of(different)
    known = (
        _padded([tags[i] for i in chosen], NO_TAG) if tags is not None else torch.full_like(padded, NO_TAG)
    )
    return TagBatch(forms.words[padded], forms.shapes[padded], index, letters, letter_lengths, lengths, known)


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows of different lengths as columns of one tensor (T, B)."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), padding_value=value)


def shuffled(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Numbers of sentences, `batch_size` in a batch: those of nearly equal lengths, batches and mates drawn anew."""
    blurred = torch.tensor(lengths) * (1 + BLUR * torch.rand(len(lengths), generator=generator))
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
