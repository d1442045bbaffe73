"""What the sentences of a language are cut into, and the numbers of the pieces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cellwise.tasks.data.subwords import BYTES, Subwords
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.translate.network import END

__all__ = ["FEW", "SIGNS", "UNITS", "Vocabulary", "choose_unit", "cut", "joined"]

UNITS = ("words", "symbols", "characters", "subwords")
SIGNS = ("<unknown>", "<begin>", "<end>")  # the first ids
JOINER = "\uffed"  # on a piece that was written without a blank before or after it
FEW = 200  # different words; a language with no more has symbols, such as letters or sounds
_WORD = re.compile(r"\w+|[^\w\s]")

Piece = Hashable  # a text, or the bytes of a subword


def cut(text: str) -> list[str]:
    """Words and punctuation of a text; punctuation shows on which side a blank is missing.

    >>> [piece.replace(JOINER, "~") for piece in cut('And God said, "Light."')]
    ['And', 'God', 'said', '~,', '"~', 'Light', '~.', '~"']
    """
    pieces: list[str] = []
    before = None
    for found in _WORD.finditer(text):
        piece = found[0]
        if before is not None and before.end() == found.start():
            if piece[0].isalnum() and not before[0][0].isalnum() and not pieces[-1].startswith(JOINER):
                pieces[-1] += JOINER
            else:
                piece = JOINER + piece
        pieces.append(piece)
        before = found
    return pieces


def joined(pieces: Sequence[str]) -> str:
    """The text of pieces from `cut`.

    >>> joined(cut('rock-solid ("really")')) == 'rock-solid ("really")'
    True
    """
    return " ".join(pieces).replace(f"{JOINER} ", "").replace(f" {JOINER}", "").replace(JOINER, "")


_CUT: Mapping[str, Callable[[str], list[str]]] = {"words": cut, "symbols": str.split, "characters": list}
_JOIN: Mapping[str, Callable[[Sequence[str]], str]] = {
    "words": joined,
    "symbols": " ".join,
    "characters": "".join,
}


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of one language, or of two together, and their ids: the SIGNS, then the pieces.

    unit: one of UNITS. known: pieces in the order of their ids; for subwords None, and `subwords` has them."""

    unit: str
    known: tuple[str, ...] = ()
    subwords: Subwords | None = None

    @classmethod
    def learn(cls, texts: Sequence[str], unit: str, size: int) -> Vocabulary:
        """Of training texts: the most frequent pieces, at most `size` with the signs."""
        if unit == "subwords":
            least = BYTES + len(SIGNS)
            return cls(unit, (), Subwords.learn([f" {text}" for text in texts], max(size, least), SIGNS))
        counts = Counter(piece for text in texts for piece in _CUT[unit](text))
        order = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(unit, tuple(order[: max(1, size - len(SIGNS))]))

    def __len__(self) -> int:
        return len(SIGNS) + len(self.known) if self.subwords is None else len(self.subwords)

    @cached_property
    def _index(self) -> dict[Piece, int]:
        if self.subwords is None:
            return {piece: number for number, piece in enumerate(self.known, len(SIGNS))}
        return {self.subwords.bytes_of(number): number for number in range(len(SIGNS), len(self))}

    def id_of(self, piece: Piece) -> int | None:
        """The id of a piece; None if it is unknown."""
        return self._index.get(piece)

    def cut(self, texts: Sequence[str]) -> list[list[Piece]]:
        """The pieces of each text."""
        if self.subwords is None:
            return [list(_CUT[self.unit](text)) for text in texts]
        encoded = self.subwords.encode([f" {text}" if text else "" for text in texts])
        return [[self.subwords.bytes_of(number) for number in row] for row in encoded]

    def forms(self, text: str) -> list[list[Piece]]:
        """The pieces of a text, as it may stand within another: punctuation with and without a blank before it."""
        (row,) = self.cut([text.strip()])
        first = text.strip()[:1]
        if first.isalnum() or self.unit not in ("words", "subwords"):
            return [row]
        if self.subwords is not None:
            (joined_on,) = self.subwords.encode([text.strip()])
            return [row, [self.subwords.bytes_of(number) for number in joined_on]]
        joiners = (JOINER, "") if len(row) == 1 else ("",)
        return [
            [f"{before}{row[0]}{after}" if len(row) == 1 else f"{before}{row[0]}", *row[1:]]
            for before in (JOINER, "")
            for after in joiners
        ]

    def piece(self, number: int) -> Piece:
        """The piece of an id; an unknown one and the signs are empty."""
        if self.subwords is not None:
            return self.subwords.bytes_of(number)
        return self.known[number - len(SIGNS)] if number > END else ""

    def text(self, pieces: Sequence[Any]) -> str:
        """The text of some pieces; blanks around it are left out."""
        if self.subwords is not None:
            return b"".join(_bytes(piece) for piece in pieces).decode("utf-8", "replace").strip()
        return _JOIN[self.unit]([_text(piece) for piece in pieces if piece]).strip()

    @classmethod
    def of_chunks(cls, unit: str, chunks: Iterable[Sequence[Piece]]) -> Vocabulary:
        """Whose pieces are the texts of chunks, the most frequent first; that of an empty one is empty."""
        counts = Counter(_JOIN[unit]([_text(piece) for piece in chunk]) for chunk in chunks)
        return cls(unit, tuple(sorted(counts, key=lambda piece: (-counts[piece], piece))))

    def chunk(self, pieces: Sequence[Piece]) -> str:
        """The piece of a chunk, where the vocabulary has chunks."""
        return _JOIN[self.unit]([_text(piece) for piece in pieces])

    def stored(self) -> dict[str, Any]:
        """As JSON holds it."""
        subwords = None if self.subwords is None else self.subwords.to_json()
        return {"unit": self.unit, "known": list(self.known), "subwords": subwords}

    @classmethod
    def restored(cls, stored: Any) -> Vocabulary:
        """The inverse, with nothing in it trusted. Raises ValueError, KeyError or TypeError."""
        unit, known = stored["unit"], tuple(stored["known"])
        if unit not in UNITS or not all(isinstance(piece, str) for piece in known):
            raise ValueError(f"a vocabulary of {short_repr(unit)} cannot be")
        if len(set(known)) != len(known) or (unit == "subwords") != (stored["subwords"] is not None):
            raise ValueError("a piece stands there twice, or is of another kind")
        if unit != "subwords":
            return cls(unit, known)
        subwords = Subwords.from_json(stored["subwords"])
        if subwords.special != SIGNS:
            raise ValueError("the vocabulary has other signs")
        return cls(unit, (), subwords)


def _bytes(piece: Any) -> bytes:
    """A piece among subwords; what was copied from other units is a word of its own."""
    return piece if isinstance(piece, bytes) else f" {piece}".encode("utf-8", "surrogatepass")


def _text(piece: Any) -> str:
    return piece.decode("utf-8", "replace").strip() if isinstance(piece, bytes) else piece


def choose_unit(texts: Sequence[str]) -> str:
    """What suits the texts of a language: characters for single words, symbols where there are few different ones,
    subwords for sentences.

    >>> choose_unit(["hello", "world"]), choose_unit(["HH AH L OW", "W ER L D"])
    ('characters', 'symbols')
    """
    words = [text.split() for text in texts]
    count = sum(map(len, words))
    if not count:
        raise DataError("there is no word in the texts of one side")
    if count < 1.5 * len(texts):
        return "characters"
    return "symbols" if len({word for row in words for word in row}) <= FEW else "subwords"
