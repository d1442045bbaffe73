"""The vocabulary, the split of a text, and the bundled text."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr

__all__ = [
    "UNKNOWN",
    "Parts",
    "Vocabulary",
    "bundled_text",
    "joined",
    "read_texts",
    "split_text",
    "text_of_bytes",
    "units_of",
]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every character that training has not seen
SHORTEST = 1000  # characters; with fewer there is nothing to hold out
SHORTEST_VALID = 50  # characters, as many as the parts of the shortest text
HELD_OUT = 0.05  # of the text for the validation, and as much again that training never looks at
FOLDER = Path(__file__).parent / "data"


def bundled_text() -> str:
    """The first 51 chapters of Moby-Dick (Melville 1851), a paragraph a line, in ASCII. Public domain.

    >>> bundled_text()[21:37]
    'Call me Ishmael.'
    """
    return gzip.decompress((FOLDER / "moby_dick_opening.txt.gz").read_bytes()).decode("ascii")


@dataclass(frozen=True)
class Vocabulary:
    """The characters that a model knows, `UNKNOWN` first.

    >>> vocabulary = Vocabulary.of("abba")
    >>> vocabulary.encode("abc").tolist(), vocabulary.unknown("abcdc")
    ([1, 2, 0], {'c': 2, 'd': 1})
    """

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """All characters of a text."""
        return cls(UNKNOWN + "".join(sorted(set(text) - {UNKNOWN})))

    def __len__(self) -> int:
        return len(self.characters)

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """All bytes, each as the character of its number."""
        return cls(UNKNOWN + "".join(map(chr, range(256))))

    def encode(self, text: str) -> Tensor:
        """Index of each character, int64 (T,); 0 for unknown ones."""
        return self.encode_small(text).long()

    def encode_small(self, text: str) -> Tensor:
        """The same in the smallest dtype that holds them, for a text that stays in memory."""
        known = _code_points(self.characters)
        order = np.argsort(known)
        codes = _code_points(text)
        found = order[np.minimum(np.searchsorted(known[order], codes), len(known) - 1)]
        found[known[found] != codes] = 0
        return torch.from_numpy(found.astype(np.uint8 if len(known) <= 256 else np.int32))

    def unknown(self, text: str) -> dict[str, int]:
        """The unknown characters of a text with their counts, the most frequent first."""
        known = set(self.characters)
        return dict(Counter(character for character in text if character not in known).most_common())


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def units_of(text: str, unit: str) -> str:
    """A text as a network reads it: its characters, or its bytes, each as the character of its number.

    >>> units_of("é", "characters"), units_of("é", "bytes")
    ('é', 'Ã©')
    """
    return text if unit == "characters" else text.encode("utf8", "surrogatepass").decode("latin-1")


def text_of_bytes(units: str) -> str:
    """The text of bytes; what is no UTF-8 becomes the replacement character."""
    return units.encode("latin-1", "replace").decode("utf8", "replace")


def read_texts(source: str | Path) -> str:
    """A text file in UTF-8, standard input for "-", or all .txt files of a folder and those in it, joined by newlines.

    Raises DataError: there is no such file, or one holds something else."""
    path = Path(source)
    if source == "-" or not path.is_dir():
        return read_text(source)
    files = sorted(each for each in path.rglob("*.txt") if each.is_file())
    if not files:
        raise DataError(f"there is no .txt file in the folder {path}")
    return "\n".join(read_text(each) for each in files)


def joined(texts: object) -> str:
    """A text, or several joined by newlines. Raises DataError for anything else.

    >>> joined(["One.", "Two."])
    'One.\\nTwo.'
    """
    if isinstance(texts, str):
        return texts
    if isinstance(texts, Iterable):
        several = list(texts)
        if all(isinstance(each, str) for each in several):
            return "\n".join(several)
    raise DataError(f"a text, or a list of texts, is needed, not {short_repr(texts)}")


@dataclass(frozen=True)
class Parts:
    """The parts of a text, in order: for training, for early stopping, and for the test.

    is_test: whether nothing has looked at `held_out`; if not, it is the validation part."""

    training: str
    validation: str
    held_out: str
    is_test: bool = True


def split_text(text: str, valid: str | None = None) -> Parts:
    """Split a text into its parts; with a validation text all of it is for training. Raises DataError if one is too
    short."""
    if len(text) < SHORTEST:
        raise DataError(
            f"training needs a text of at least {SHORTEST:,} characters; this one has {len(text):,}"
        )
    if valid is not None:
        if len(valid) < SHORTEST_VALID:
            raise DataError(
                f"the validation text needs at least {SHORTEST_VALID} characters; it has {len(valid):,}"
            )
        return Parts(text, valid, valid, is_test=False)
    size = int(len(text) * HELD_OUT)
    return Parts(text[: -2 * size], text[-2 * size : -size], text[-size:])
