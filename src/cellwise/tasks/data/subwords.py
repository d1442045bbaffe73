"""Subwords: a vocabulary of frequent pieces of words, learned by byte-pair encoding (Gage 1994; Sennrich, Haddow, Birch
2016) over the bytes of UTF-8, so that any text can be written in it, and is had back exactly.

    subwords = Subwords.learn(texts, 8000, special=("<pad>", "<begin>", "<end>"))
    ids = subwords.encode(["a text", "another"])
    texts = subwords.decode(ids)
    again = Subwords.from_json(subwords.to_json())
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Self

from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.options import short_repr

__all__ = ["BYTES", "LARGEST", "LONGEST", "Subwords"]

BYTES = 256  # each is a token: the smallest vocabulary
LARGEST = 1_000_000  # tokens of a vocabulary
LONGEST = 64  # bytes of a token; merges that double one another would fill any memory
MOST_SPECIAL, LONGEST_NAME = 100, 60
PACKAGE = ("'tokenizers>=0.20'",)  # the extra `subwords`; Apache-2.0, Hugging Face's, in Rust

# Bytes as the package writes them: printable characters of Latin-1 stand for themselves, others for those from 256 on.
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, BYTES))
_REST = tuple(byte for byte in range(BYTES) if byte not in _PRINTABLE)
_LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(BYTES + i) for i, byte in enumerate(_REST)}
_VALUES = {letter: byte for byte, letter in _LETTERS.items()}


@dataclass(frozen=True)
class Subwords:
    """A vocabulary of subwords. Its ids: the special tokens, in their order; the 256 bytes; what was merged.

    special: names that the caller keeps ids for (padding, unknown, begin, end), whose meaning is the caller's. No text
    is ever encoded to one, not even its name. merges: pairs of tokens, counted without the special ones, that are
    joined where they meet, the first pair first. Words are split before, with the blank before a word as part of it,
    so that no token crosses from one word to the next.

    Raises ValueError or TypeError for what is no such vocabulary."""

    special: tuple[str, ...]
    merges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check_special(self.special)
        if len(self.merges) > LARGEST:
            raise ValueError(f"{len(self.merges):,} merges; at most {LARGEST:,} are possible")
        _ = self._tokens

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, special: Sequence[str] = ()) -> Self:
        """Learn from texts, which are read once and not kept; equal texts give equal vocabularies.

        size: tokens, with the special ones; few texts give fewer. Raises DataError without any text, or for what is
        none; OptionError for a size or special tokens that cannot be; TaskError if the package is not there."""
        try:
            _check_special(tuple(special))
        except (TypeError, ValueError) as error:
            raise OptionError(f"special tokens: {error}") from error
        least = BYTES + len(special)
        if type(size) is not int or not least <= size <= LARGEST:
            raise OptionError(
                f"a vocabulary of subwords needs a size from {least} (all bytes, and the special tokens) to "
                f"{LARGEST:,}, not {short_repr(size)}"
            )
        package = require("tokenizers", PACKAGE)
        checked = _checked(texts)
        first = next(checked, None)
        if first is None:
            raise DataError("there is no text to learn subwords from")
        made = _tokenizer(package, package.models.BPE())
        trainer = package.trainers.BpeTrainer(
            vocab_size=size - len(special),
            min_frequency=2,
            show_progress=False,
            initial_alphabet=list(_VALUES),
            max_token_length=LONGEST,
        )
        made.train_from_iterator(chain((first,), checked), trainer)
        return cls(tuple(special), _merges_of(made))

    def __len__(self) -> int:
        return len(self.special) + len(self._tokens)

    def id_of(self, special: str) -> int:
        """The id of a special token. Raises ValueError if there is none of that name."""
        return self.special.index(special)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; those of an empty one are empty.

        Raises DataError for what is no text: other values, or halves of surrogate pairs; TaskError if the package is
        not there."""
        shift = len(self.special)
        encoded = self._package.encode_batch_fast(list(_checked(texts)))
        return [[i + shift for i in each.ids] for each in encoded]

    def decode(self, ids: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids, without the special tokens; bytes that are no UTF-8 become U+FFFD.

        Needs no package. Raises ValueError for an id that is not in the vocabulary."""
        return [b"".join(map(self.bytes_of, row)).decode("utf-8", "replace") for row in ids]

    def bytes_of(self, token: int) -> bytes:
        """The bytes of UTF-8 that an id stands for; those of a special token are empty."""
        if not 0 <= token < len(self):
            raise ValueError(f"there is no token {token}; the vocabulary has {len(self):,}")
        return b"" if token < len(self.special) else self._tokens[token - len(self.special)]

    def to_json(self) -> dict[str, Any]:
        """As JSON may hold it, for `from_json`."""
        return {"special": list(self.special), "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """The inverse of `to_json`, with nothing in it trusted. Raises ValueError or TypeError."""
        if not isinstance(stored, Mapping) or set(stored) != {"special", "merges"}:
            raise ValueError("a vocabulary of subwords has special tokens and merges")
        if not isinstance(stored["special"], list) or not isinstance(stored["merges"], list):
            raise TypeError("special tokens and merges must be lists")
        if not all(isinstance(pair, list) for pair in stored["merges"]):
            raise TypeError("a merge must be a list of two tokens")
        return cls(tuple(stored["special"]), tuple(map(tuple, stored["merges"])))

    @cached_property
    def _tokens(self) -> tuple[bytes, ...]:
        """The bytes of each token that is not special. Different merges may make the same token."""
        tokens = [bytes([byte]) for byte in range(BYTES)]
        known, pairs = set(tokens), set()
        for pair in self.merges:
            if len(pair) != 2 or any(type(each) is not int for each in pair):
                raise TypeError(f"a merge must be two tokens, not {short_repr(pair)}")
            left, right = pair
            if not 0 <= min(pair) <= max(pair) < len(tokens):
                raise ValueError(f"the merge {short_repr(pair)} names a token that is not there yet")
            if pair in pairs:
                raise ValueError(f"the merge {short_repr(pair)} stands there twice")
            pairs.add(pair)
            joined = tokens[left] + tokens[right]
            if len(joined) > LONGEST:
                raise ValueError(f"the merge {short_repr(pair)} makes a token of more than {LONGEST} bytes")
            if joined not in known:
                known.add(joined)
                tokens.append(joined)
        return tuple(tokens)

    @cached_property
    def _package(self) -> Any:
        """The same vocabulary as the package has it."""
        package = require("tokenizers", PACKAGE)
        written = ["".join(map(_LETTERS.__getitem__, token)) for token in self._tokens]
        vocabulary = {token: number for number, token in enumerate(written)}
        merges = [(written[left], written[right]) for left, right in self.merges]
        return _tokenizer(package, package.models.BPE(vocabulary, merges))


def _tokenizer(package: Any, model: Any) -> Any:
    made = package.Tokenizer(model)
    made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return made


def _merges_of(trained: Any) -> tuple[tuple[int, int], ...]:
    """The merges that a tokenizer of the package has learned, by the numbers that the tokens have here."""
    numbers = dict(_VALUES)
    merges = []
    for left, right in json.loads(trained.to_str())["model"]["merges"]:
        merges.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return tuple(merges)


def _check_special(special: Sequence[Any]) -> None:
    """Raise TypeError or ValueError unless these are names of special tokens."""
    if not all(isinstance(each, str) for each in special):
        raise TypeError("they must be names")
    if len(special) > MOST_SPECIAL or not all(0 < len(each) <= LONGEST_NAME for each in special):
        raise ValueError(f"at most {MOST_SPECIAL} names of 1 to {LONGEST_NAME} characters are possible")
    if len(set(special)) != len(special):
        raise ValueError("a name stands there twice")


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts one by one. Raises DataError at the first that is none."""
    if isinstance(texts, str):
        raise DataError("several texts are needed, as a list; one text must stand in a list too")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"text {number} is none: {short_repr(text)}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"text {number} holds half of a surrogate pair at character {error.start + 1}, which no file in "
                "UTF-8 can hold; decode it again from its source"
            ) from error
        yield text
