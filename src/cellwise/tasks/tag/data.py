"""From what people have to sentences: files in columns, lists of words and of tags, running text."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.tag.conll import PLAIN, Layout, Sentences, has_columns, parse_conll, read_conll
from cellwise.tasks.tag.schemes import encode, entities
from cellwise.tasks.tag.vocabulary import Forms, Ragged

__all__ = [
    "Parts",
    "TagPlan",
    "TagTraining",
    "as_sentences",
    "bundled",
    "hold_out",
    "read_words",
    "tokenize",
    "words_of",
]

FOLDER = Path(__file__).parent / "data"
HELD_OUT = 10  # every so many sentences are held out, where no validation data is given
FEWEST = 20  # sentences; with fewer, none are held out
_TOKEN = re.compile(r"https?://\S+|[@#]\w+|\w+(?:[-'’.]\w+)*|\.{2,}|[^\w\s]")
_END = re.compile(r"(?<=[.!?…])\s+(?=[^\W\d_a-z])|(?<=[。！？])|\n+")


@dataclass(frozen=True)
class TagPlan:
    """How tags are learned: the scheme they came in, None if they mark no entities, and which are the legal ones."""

    scheme: str | None

    @property
    def has_entities(self) -> bool:
        """Whether tags mark entities."""
        return self.scheme is not None

    def learned(self, tags: Sequence[str]) -> list[str]:
        """Tags as the network learns them: entities in BIOES, which tells the ends of each (Ratinov and Roth 2009)."""
        return encode(entities(tags), len(tags), "BIOES") if self.has_entities else list(tags)

    def restored(self, tags: Sequence[str]) -> list[str]:
        """Tags of the network in the scheme that the data came in."""
        return list(tags) if self.scheme is None else encode(entities(tags), len(tags), self.scheme)


@dataclass(frozen=True, eq=False)
class TagTraining:
    """The forms and tags of the sentences to learn from; sentences to validate on (None: nothing is held out)."""

    forms: Forms
    tags: Ragged
    validation: Sentences | None


@dataclass(frozen=True)
class Parts:
    """Sentences to learn from, to decide when to stop, and to measure on; None where there are too few."""

    training: Sentences
    validation: Sentences | None
    test: Sentences | None


def as_sentences(data: Any, target: Any, layout: Layout = PLAIN, what: str = "training") -> Sentences:
    """Sentences with tags: of a file in columns, of two lists of lists (words, tags), or of one list of lists of (word,
    tag) pairs. Raises DataError."""
    if isinstance(data, Sentences):
        made = data
    elif isinstance(data, str | Path):
        made = read_conll(data, layout)
    elif target is None:
        made = _pairs(_lists(data, "sentences"))
    else:
        made = _beside(_words(data), _lists(target, "tags"))
    if not made.words:
        raise DataError(f"there is no sentence for {what}")
    if made.tags is None:
        raise DataError(f"the sentences for {what} have no tags; give them too")
    return made


def words_of(data: Any) -> tuple[tuple[str, ...], ...]:
    """Words of each sentence: of `Sentences`, of a list of lists, or of running text, which is split into sentences."""
    if isinstance(data, Sentences):
        return data.words
    if isinstance(data, str):
        return tokenize(data)
    return _words(data)


def read_words(text: str, name: str, layout: Layout = PLAIN) -> Sentences:
    """A text in columns, with or without tags, or running text."""
    if has_columns(text, name):
        return parse_conll(text, name, layout, needs_tags=False)
    words = tokenize(text)
    if not words:
        raise DataError(f"{name} holds no words")
    return Sentences(words, None)


def tokenize(text: str) -> tuple[tuple[str, ...], ...]:
    """Running text as sentences of words: a new line ends a sentence, and a full stop before a capital.

    >>> tokenize("The dog barks (loudly). It's 3.14, e.g. at @paul!")[1]
    ("It's", '3.14', ',', 'e.g', '.', 'at', '@paul', '!')
    """
    sentences = (tuple(_TOKEN.findall(part)) for part in _END.split(text))
    return tuple(sentence for sentence in sentences if sentence)


def hold_out(sentences: Sentences) -> Parts:
    """Every tenth sentence for the validation, and another for the test; nothing of few."""
    if len(sentences) < FEWEST:
        return Parts(sentences, None, None)
    held = {HELD_OUT - 1: "validation", HELD_OUT // 2 - 1: "test"}
    rows: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for i in range(len(sentences)):
        rows[held.get(i % HELD_OUT, "training")].append(i)
    tags = sentences.tags or ()
    return Parts(
        **{
            name: Sentences(tuple(sentences.words[i] for i in chosen), tuple(tags[i] for i in chosen))
            for name, chosen in rows.items()
        }
    )


def _lists(data: Any, what: str) -> list[Any]:
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise DataError(f"{what} must be a list of lists, one for each sentence, not {short_repr(data)}")
    return list(data)


def _words(data: Any) -> tuple[tuple[str, ...], ...]:
    made = []
    for number, sentence in enumerate(_lists(data, "sentences"), 1):
        if isinstance(sentence, str) or not isinstance(sentence, Iterable):
            raise DataError(f"sentence {number} must be a list of words, not {short_repr(sentence)}")
        words = tuple(sentence)
        if not words:
            raise DataError(f"sentence {number} has no words; leave it out")
        for word in words:
            if not isinstance(word, str) or not word:
                raise DataError(f"sentence {number} holds {short_repr(word)} where a word should be")
        made.append(words)
    return tuple(made)


def _beside(words: tuple[tuple[str, ...], ...], tags: list[Any]) -> Sentences:
    if len(words) != len(tags):
        raise DataError(
            f"there are {len(words):,} sentences and {len(tags):,} lists of tags; each needs its own"
        )
    for number, (sentence, own) in enumerate(zip(words, tags, strict=True), 1):
        if isinstance(own, str) or not isinstance(own, Iterable):
            raise DataError(f"the tags of sentence {number} must be a list, not {short_repr(own)}")
        if len(sentence) != len(own := list(own)):
            raise DataError(f"sentence {number} has {len(sentence)} words and {len(own)} tags")
        for tag in own:
            if not isinstance(tag, str) or not tag:
                raise DataError(f"sentence {number} holds {short_repr(tag)} where a tag should be")
    return Sentences(words, tuple(tuple(each) for each in tags))


def _pairs(sentences: list[Any]) -> Sentences:
    for number, sentence in enumerate(sentences, 1):
        pairs = sentence if isinstance(sentence, Sequence) and not isinstance(sentence, str) else ()
        if not pairs or not all(
            isinstance(each, Sequence) and len(each) == 2 and not isinstance(each, str) for each in pairs
        ):
            raise DataError(
                f"without tags beside them sentences must be lists of (word, tag) pairs; sentence {number} is "
                f"{short_repr(sentence)}"
            )
    return _beside(
        _words([[word for word, _ in each] for each in sentences]),
        [[tag for _, tag in each] for each in sentences],
    )


def bundled() -> Sentences:
    """Conversations of the Hong Kong Cantonese Corpus with parts of speech (Luke and Wong 2015; CC BY 4.0)."""
    text = gzip.decompress((FOLDER / "hkcancor.conll.gz").read_bytes()).decode("utf8")
    return parse_conll(text, "hkcancor")
