"""Texts as numbers, and pairs of them in batches, those of like lengths together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cellwise.tasks.translate.alignment import WordPairs
from cellwise.tasks.translate.monotone import Aligner
from cellwise.tasks.translate.network import END, NO_COPY, UNKNOWN, Pairs
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.vocabulary import Piece, Vocabulary

__all__ = ["Languages", "Row", "collate", "in_order", "shuffled"]

MOST_WORDS = 16_384  # of sources that are translated together
BLUR = 0.2  # a pair counts as up to so much longer, so that its mates differ from epoch to epoch


@dataclass(frozen=True)
class Row:
    """A source and perhaps its target as ids, both with END.

    copies: what copying each position writes. extra: pieces of the source that the targets' vocabulary lacks; the first
    has the id after its last."""

    source: Tensor
    copies: Tensor
    extra: tuple[Piece, ...]
    target: Tensor


@dataclass(frozen=True)
class Languages:
    """The vocabularies of sources and targets.

    monotone: each piece of a source writes one of the targets' vocabulary, whose pieces are chunks. aligner: what cuts
    targets into them; None in a translator that was loaded, which asks for no such cut."""

    source: Vocabulary
    target: Vocabulary
    copies: bool
    monotone: bool = False
    aligner: Aligner | None = field(default=None, compare=False)

    @classmethod
    def in_turn(
        cls, source: Vocabulary, unit: str, pairs: TextPairs, copies: bool, anyway: bool
    ) -> Languages | None:
        """Those of a monotone translator; None if the pairs do not look as if sources wrote targets in turn, unless
        they are wanted anyway. unit: what targets are made of."""
        cut, written = source.cut(pairs.sources), Vocabulary(unit).cut(pairs.targets)
        aligner = Aligner(cut, written)
        if not (anyway or aligner.goes_in_turn):
            return None
        chunks = (chunk for row in aligner.cut(cut, written) for chunk in row or ())
        target = Vocabulary.of_chunks(unit, chunks)
        return cls(source, target, copies, monotone=True, aligner=aligner)

    @property
    def are_joint(self) -> bool:
        """Whether both sides have one vocabulary."""
        return self.source == self.target

    @property
    def are_sentences(self) -> bool:
        """Whether targets are sentences, and not spellings or sounds."""
        return self.target.unit in ("words", "subwords")

    @property
    def about(self) -> str:
        """What the vocabularies are, in words."""
        source, target = self.source, self.target
        if self.are_joint:
            return f"both sides have one vocabulary of {len(source):,} {source.unit}"
        each = "groups of " if self.monotone else ""
        return f"sources have {len(source):,} different {source.unit}, targets {len(target):,} {each}{target.unit}"

    def rows(self, sources: Sequence[str]) -> list[Row]:
        """Sources as numbers."""
        return [self._row(source, ()) for source in self.source.cut(sources)]

    def pairs(self, pairs: TextPairs) -> dict[int, Row]:
        """Pairs as numbers, by their places. Without those whose target cannot be cut into what the source's pieces
        write, if that is asked for."""
        cut = self.source.cut(pairs.sources)
        if self.aligner is None:
            written: Sequence[Sequence[Piece] | None] = self.target.cut(pairs.targets)
        else:
            chunks = self.aligner.cut(cut, self.target.cut(pairs.targets))
            written = [None if row is None else [self.target.chunk(chunk) for chunk in row] for row in chunks]
        both = enumerate(zip(cut, written, strict=True))
        return {number: self._row(source, target) for number, (source, target) in both if target is not None}

    def _row(self, source: Sequence[Piece], target: Sequence[Piece]) -> Row:
        ids = [self.source.id_of(piece) for piece in source]
        extra: dict[Piece, int] = {}
        copies = [UNKNOWN] * len(ids)
        if self.copies:
            size = len(self.target)
            known = [self.target.id_of(piece) for piece in source]
            for piece, number in zip(source, known, strict=True):
                if number is None:
                    extra.setdefault(piece, size + len(extra))
            copies = [extra[p] if n is None else n for p, n in zip(source, known, strict=True)]
        own = [self.target.id_of(piece) for piece in target]
        aims = [extra.get(p, UNKNOWN) if n is None else n for p, n in zip(target, own, strict=True)]
        return Row(
            torch.tensor([*(UNKNOWN if n is None else n for n in ids), END]),
            torch.tensor([*copies, END]),  # so that all that a source offers sums to one
            tuple(extra),
            torch.tensor([*aims, END]),
        )

    def pieces(
        self, row: Row, source: Sequence[Piece], ids: Sequence[int], places: Sequence[int]
    ) -> list[Piece]:
        """The pieces of a translation. An unknown one is replaced by that of the source that was attended to.

        source: its pieces, to which `places` refer."""
        made: list[Piece] = []
        size = len(self.target)
        for number, place in zip(ids, places, strict=True):
            if number >= size:
                made.append(row.extra[number - size])
            elif number == UNKNOWN and place < len(source):
                made.append(source[place])
            else:
                made.append(self.target.piece(number))
        return made


def collate(
    rows: Sequence[Row], words: WordPairs | None = None, *, guided: bool = True, lexical: bool = False
) -> Pairs:
    """Rows as a batch. words: what tells which word belongs to which to the attention, if it is guided, and to a
    lexicon, if the network has one."""
    made = Pairs(
        pad_sequence([row.source for row in rows], padding_value=END),
        torch.tensor([len(row.source) for row in rows]),
        pad_sequence([row.copies for row in rows], padding_value=NO_COPY),
        pad_sequence([row.target for row in rows], padding_value=END),
        torch.tensor([len(row.target) for row in rows]),
    )
    if words is None:
        return made
    steps, places = torch.arange(len(made.targets))[:, None], torch.arange(len(made.sources))[:, None]
    ends, stops = made.source_lengths - 1, made.target_lengths - 1
    inside = (steps < stops)[:, None] & (places < ends)  # the end is not told
    sources, targets = made.sources.numpy(), made.targets.numpy()
    told: dict[str, Tensor] = {}
    if guided:
        told["alignments"] = torch.from_numpy(words.aligned(sources, targets)).float() * inside
    if lexical:
        both_end = (steps == stops)[:, None] & (places == ends)
        told["lexical"] = torch.from_numpy(words.by_others(sources, targets)).float() * inside + both_end
    return dataclasses.replace(made, **told)


def shuffled(rows: Sequence[Row], batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Numbers of all rows, `batch_size` in a batch; batches and mates are drawn anew."""
    lengths = torch.tensor([[len(row.target), len(row.source)] for row in rows], dtype=torch.float64)
    blurred = lengths * (1 + BLUR * torch.rand(len(rows), 1, generator=generator))
    order = (blurred[:, 0] + 0.5 * blurred[:, 1]).argsort()
    batches = order.split(batch_size)
    for number in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[number].tolist()


def in_order(rows: Sequence[Row], most: int = 128) -> Iterator[list[int]]:
    """Numbers of all rows by the length of their sources, at most so many together, fewer of long ones."""
    current: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number].source)):
        if len(current) >= most or ((len(current) + 1) * len(rows[number].source) > MOST_WORDS and current):
            yield current
            current = []
        current.append(number)
    if current:
        yield current
