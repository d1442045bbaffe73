"""Texts: one in memory, or files of any size that are read block by block; their parts, and the bundled text."""

from __future__ import annotations

import gzip
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cellwise.tasks.data.text_file import read_text, text_blocks
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr

__all__ = [
    "IN_MEMORY",
    "Parts",
    "Passage",
    "TextFiles",
    "TextSource",
    "as_source",
    "bundled_text",
    "files_of",
    "fingerprint_of",
    "read_texts",
    "split_text",
    "whole_lines",
]

SHORTEST = 1000  # characters; with fewer there is nothing to hold out
SHORTEST_VALID = 50  # characters, as many as the parts of the shortest text
HELD_OUT = 0.05  # of the text for the validation, and as much again that training never looks at
MOST_HELD_OUT = 1_000_000  # characters of each: enough to tell models apart, and measured in minutes
IN_MEMORY = 64 * 2**20  # bytes of files that are read whole
BLOCK = 2**20  # characters
LONGEST_LINE = 2**20  # characters; longer ones are cut where blocks end
FOLDER = Path(__file__).parent / "data"


def bundled_text() -> str:
    """The first 51 chapters of Moby-Dick (Melville 1851), a paragraph a line, in ASCII. Public domain.

    >>> bundled_text()[21:37]
    'Call me Ishmael.'
    """
    return gzip.decompress((FOLDER / "moby_dick_opening.txt.gz").read_bytes()).decode("ascii")


class TextSource(ABC):
    """A text that is had in blocks, as often as one asks."""

    @abstractmethod
    def blocks(self) -> Iterator[str]:
        """The text in order, in parts of any length."""

    @abstractmethod
    def __len__(self) -> int:
        """Characters."""

    def within(self, begin: int, end: int) -> Iterator[str]:
        """The blocks from a character to another."""
        position = 0
        for block in self.blocks():
            if position >= end:
                return
            part = block[max(0, begin - position) : end - position]
            position += len(block)
            if part:
                yield part


@dataclass(frozen=True)
class OneText(TextSource):
    """A text in memory."""

    text: str

    def __len__(self) -> int:
        return len(self.text)

    def blocks(self) -> Iterator[str]:
        """Its parts, so that what is made of one is small."""
        return self.within(0, len(self))

    def within(self, begin: int, end: int) -> Iterator[str]:
        """Without a look at what is before."""
        return (self.text[at : min(end, at + BLOCK)] for at in range(begin, min(end, len(self)), BLOCK))


@dataclass(frozen=True)
class TextFiles(TextSource):
    """Text files, one after another, each from a line of its own on; never read whole."""

    paths: tuple[Path, ...]

    def blocks(self) -> Iterator[str]:
        """The blocks of each file. Raises DataError as `text_blocks`."""
        is_first = True
        for path in self.paths:
            for number, block in enumerate(text_blocks(path)):
                if not number and not is_first:
                    yield "\n"
                is_first = False
                yield block

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return sum(map(len, self.blocks()))

    @property
    def bytes(self) -> int:
        """The size of the files."""
        return sum(path.stat().st_size for path in self.paths)

    @property
    def empty(self) -> tuple[Path, ...]:
        """Those that hold nothing."""
        return tuple(path for path in self.paths if not path.stat().st_size)


def files_of(source: str | Path) -> TextFiles:
    """A text file, or all .txt files of a folder and those in it, in the order of their names. DataError for none."""
    path = Path(source)
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if not path.is_dir():
        return TextFiles((path,))
    paths = tuple(sorted(each for each in path.rglob("*.txt") if each.is_file()))
    if not paths:
        raise DataError(
            f"there is no .txt file in the folder {path}; name its texts so, or give one of its files"
        )
    return TextFiles(paths)


def read_texts(source: str | Path) -> str:
    """A text file, standard input for "-", or all .txt files of a folder and those in it, joined by newlines.

    Raises DataError: there is no such file, or one holds something else."""
    return read_text(source) if source == "-" else "".join(files_of(source).blocks())


def as_source(texts: object) -> TextSource:
    """A text; several, each on lines of its own; the path of a file or folder; or what is a source already.

    Raises DataError for anything else.

    >>> "".join(as_source(["One.", "Two."]).blocks())
    'One.\\nTwo.'
    """
    if isinstance(texts, TextSource):
        return texts
    if isinstance(texts, str):
        return OneText(texts)
    if isinstance(texts, Path):
        return files_of(texts)
    if isinstance(texts, Iterable):
        several = list(texts)
        if all(isinstance(each, str) for each in several):
            return OneText("\n".join(several))
    raise DataError(f"a text, a list of texts, or the Path of a file is needed, not {short_repr(texts)}")


def whole_lines(blocks: Iterator[str]) -> Iterator[str]:
    """The blocks cut at ends of lines, so that what a text is encoded to does not depend on its blocks."""
    rest = ""
    for block in blocks:
        cut = block.rfind("\n") + 1
        if not cut and len(rest) < LONGEST_LINE:
            rest += block
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def fingerprint_of(source: TextSource, valid: TextSource | None) -> str:
    """A digest of the training text, and of the validation text if there is one."""
    digest = hashlib.sha256()
    for block in source.blocks():
        digest.update(block.encode("utf8", "surrogatepass"))
    if valid is not None:
        digest.update(b"\0valid\0")
        for block in valid.blocks():
            digest.update(block.encode("utf8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Passage:
    """A part of a text, from one character to another."""

    source: TextSource
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def blocks(self) -> Iterator[str]:
        """Its blocks."""
        return self.source.within(self.begin, self.end)

    def text(self, most: int | None = None) -> str:
        """Its text, or the last of it."""
        begin = self.begin if most is None else max(self.begin, self.end - most)
        return "".join(self.source.within(begin, self.end))


@dataclass(frozen=True)
class Parts:
    """The parts of a text, in order: for training, for early stopping, and for the test.

    is_test: whether nothing has looked at `held_out`; if not, it is the validation part."""

    training: Passage
    validation: str
    held_out: str
    is_test: bool = True


def split_text(text: TextSource, valid: TextSource | None = None) -> Parts:
    """Split a text into its parts; with a validation text all of it is for training. Raises DataError if one is too
    short."""
    count = len(text)
    if count < SHORTEST:
        raise DataError(f"training needs a text of at least {SHORTEST:,} characters; this one has {count:,}")
    if valid is not None:
        if len(valid) < SHORTEST_VALID:
            raise DataError(
                f"the validation text needs at least {SHORTEST_VALID} characters; it has {len(valid):,}"
            )
        beginning = Passage(valid, 0, min(len(valid), MOST_HELD_OUT)).text()
        return Parts(Passage(text, 0, count), beginning, beginning, is_test=False)
    size = min(int(count * HELD_OUT), MOST_HELD_OUT)
    ends = [count - 2 * size, count - size, count]
    validation, held_out = (Passage(text, *pair).text() for pair in ((ends[0], ends[1]), (ends[1], ends[2])))
    return Parts(Passage(text, 0, ends[0]), validation, held_out)
