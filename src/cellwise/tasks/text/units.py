"""What a network reads and predicts: characters, the bytes of UTF-8, or subwords, as ids from 0."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.text.corpus import whole_lines

__all__ = ["UNKNOWN", "ByteUnits", "SubwordUnits", "Units", "Vocabulary", "learned_units", "restored_units"]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every character that training has not seen
CODES = 0x110000  # of Unicode
MOST_LEARNED = 20_000_000  # characters, evenly spread, that subwords are learned from
LINES = 10_000  # that are encoded together


class Units(ABC):
    """The vocabulary of a network. Id 0 stands for what it does not know, and is never written."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each id is called where people read it."""

    @abstractmethod
    def encode_small(self, text: str) -> Tensor:
        """Ids of a text (T,) in the smallest dtype that holds them, for one that stays in memory."""

    @abstractmethod
    def pieces(self, text: str) -> list[tuple[str, int]]:
        """A text in the smallest parts that are whole characters and whole units, with how many units each is."""

    @abstractmethod
    def writer(self) -> Callable[[int], str]:
        """What an id adds to a text, called with one after the other. A character comes with its last byte."""

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """As entries of config.json."""

    def encode(self, text: str) -> Tensor:
        """Ids of a text, int64 (T,)."""
        return self.encode_small(text).long()

    def unknown(self, text: str) -> dict[str, int]:
        """What of a text has no id, with counts, the most frequent first."""
        return {}


@dataclass(frozen=True)
class Vocabulary(Units):
    """Characters, `UNKNOWN` first.

    >>> vocabulary = Vocabulary.of("abba")
    >>> vocabulary.encode("abc").tolist(), vocabulary.unknown("abcdc")
    ([1, 2, 0], {'c': 2, 'd': 1})
    """

    characters: str

    @classmethod
    def of(cls, *texts: str) -> Vocabulary:
        """All characters of the texts."""
        return cls.of_blocks(texts)

    @classmethod
    def of_blocks(cls, blocks: Iterable[str]) -> Vocabulary:
        """All characters of a text that comes in blocks."""
        seen = np.zeros(CODES, bool)
        for block in blocks:
            seen[_code_points(block)] = True
        seen[ord(UNKNOWN)] = False
        return cls(UNKNOWN + "".join(map(chr, np.flatnonzero(seen).tolist())))

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def names(self) -> tuple[str, ...]:
        """The characters."""
        return tuple(self.characters)

    def encode_small(self, text: str) -> Tensor:
        """Index of each character; 0 for unknown ones."""
        return torch.from_numpy(self._ids[_code_points(text)])

    @cached_property
    def _ids(self) -> np.ndarray:
        """The id of each code point."""
        ids = np.zeros(CODES, np.uint8 if len(self) <= 256 else np.int32)
        ids[_code_points(self.characters)] = np.arange(len(self))
        ids[ord(UNKNOWN)] = 0
        return ids

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """The characters."""
        return [(character, 1) for character in text]

    def writer(self) -> Callable[[int], str]:
        """The character of each id."""
        return self.characters.__getitem__

    def stored(self) -> dict[str, Any]:
        """The characters."""
        return {"characters": self.characters}

    def unknown(self, text: str) -> dict[str, int]:
        """Unknown characters with their counts."""
        known = set(self.characters)
        return dict(Counter(character for character in text if character not in known).most_common())


@dataclass(frozen=True)
class ByteUnits(Units):
    """All bytes, each with its number and 1 as the id."""

    def __len__(self) -> int:
        return 257

    @property
    def characters(self) -> str:
        """The bytes as the characters of their numbers, behind the sign for what is unknown."""
        return UNKNOWN + "".join(map(chr, range(256)))

    @property
    def names(self) -> tuple[str, ...]:
        """The characters of the bytes' numbers."""
        return tuple(self.characters)

    def encode_small(self, text: str) -> Tensor:
        """The bytes of UTF-8; in int32, since there are 257 ids."""
        raw = np.frombuffer(text.encode("utf8", "surrogatepass"), np.uint8)
        return torch.from_numpy(raw.astype(np.int32) + 1)

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """The characters, with their bytes."""
        return [(character, len(character.encode("utf8", "surrogatepass"))) for character in text]

    def writer(self) -> Callable[[int], str]:
        """The text of the bytes; what is no UTF-8 becomes the replacement character."""
        return _text_writer(lambda i: bytes([i - 1]))

    def stored(self) -> dict[str, Any]:
        """The characters, as earlier versions wrote them."""
        return {"characters": self.characters}


@dataclass(frozen=True)
class SubwordUnits(Units):
    """Subwords, learned from the training text. No token crosses the end of a line."""

    subwords: Subwords

    def __len__(self) -> int:
        return len(self.subwords)

    @property
    def names(self) -> tuple[str, ...]:
        """The text of each; bytes that are no text by themselves in angle brackets."""
        return (UNKNOWN, *(_name(self.subwords.bytes_of(i)) for i in range(1, len(self))))

    def encode_small(self, text: str) -> Tensor:
        """The subwords of each line, its end included."""
        lines, found = text.splitlines(keepends=True), []
        for begin in range(0, len(lines), LINES):
            for row in self.subwords.encode(lines[begin : begin + LINES]):
                found.extend(row)
        return torch.tensor(found, dtype=torch.int32)

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """Subwords, and several that together are whole characters."""
        write, found, count = self.writer(), [], 0
        for i in self.encode_small(text).tolist():
            count += 1
            # The bytes of a character that is cut wait in the decoder; those before it are a piece with it.
            written = write(i)
            if written:
                found.append((written, count))
                count = 0
        return found

    def writer(self) -> Callable[[int], str]:
        """The text of the subwords."""
        return _text_writer(self.subwords.bytes_of)

    def stored(self) -> dict[str, Any]:
        """The merges."""
        return {"subwords": self.subwords.to_json()}


def learned_units(unit: str, size: int, blocks: Callable[[], Iterator[str]], characters: int) -> Units:
    """The units of a training text of so many characters, which comes in blocks each time it is asked for."""
    if unit == "bytes":
        return ByteUnits()
    if unit == "characters":
        return Vocabulary.of_blocks(blocks())
    every = max(1, -(-characters // MOST_LEARNED))
    lines = (
        line
        for n, block in enumerate(whole_lines(blocks()))
        if n % every == 0
        for line in block.splitlines(True)
    )
    return SubwordUnits(Subwords.learn(lines, size, (UNKNOWN,)))


def restored_units(unit: str, config: Mapping[str, Any]) -> Units:
    """Those of a run folder, with nothing in its config trusted. Raises ValueError or TypeError."""
    if unit == "subwords":
        subwords = Subwords.from_json(config["subwords"])
        if subwords.special != (UNKNOWN,):
            raise ValueError("its subwords have other special tokens than the sign for unknown ones")
        return SubwordUnits(subwords)
    characters = config["characters"]
    if not isinstance(characters, str):
        raise TypeError("its characters are no text")
    if characters[:1] != UNKNOWN or len(set(characters)) != len(characters):
        raise ValueError("it names a character twice, or not the sign for unknown ones")
    if unit == "characters":
        return Vocabulary(characters)
    if characters != ByteUnits().characters:
        raise ValueError("it names other characters than all bytes")
    return ByteUnits()


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _text_writer(bytes_of: Callable[[int], bytes]) -> Callable[[int], str]:
    decoder = codecs.getincrementaldecoder("utf8")("replace")
    return lambda i: decoder.decode(bytes_of(i))


def _name(token: bytes) -> str:
    try:
        return token.decode("utf8")
    except UnicodeDecodeError:
        return f"<{token.hex(' ')}>"
