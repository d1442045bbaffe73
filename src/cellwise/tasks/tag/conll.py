"""Sentences as columns: a word a line with its tag beside it, an empty line between sentences, as CoNLL's tasks have
them; CoNLL-U too. And sentences as lines of words with their tags, `The/DT cat/NN`, as the Brown corpus has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.data.standard_input import STDIN, file_of
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr

__all__ = [
    "CONLLU",
    "PLAIN",
    "Layout",
    "Sentences",
    "has_columns",
    "name_of",
    "parse_conll",
    "read_conll",
    "read_file",
    "to_conll",
]

CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
MARKS = ("/", "_")  # between a word and its tag, in a line of several
SAMPLE = 200  # lines that show how a file is laid out
ENDINGS = (".conll", ".conllu", ".conllup", ".iob", ".iob2", ".bio")
_COLUMNS = "# global.columns ="  # names of the columns, as CoNLL-U Plus has them


@dataclass(frozen=True)
class Sentences:
    """Words of each sentence, and their tags, None where a file has none."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...] | None

    def __len__(self) -> int:
        return len(self.words)

    @property
    def count(self) -> int:
        """Words in all."""
        return sum(map(len, self.words))


def has_columns(text: str, name: str = "") -> bool:
    """Whether a text is in columns rather than running: by the ending of its name, by tabs in every line, by lines
    of one width with empty lines among them, or by a tag behind every word."""
    if name.lower().endswith(ENDINGS) or _mark(text) is not None:
        return True
    lines = [line for line in text.split("\n")[:SAMPLE] if line.strip() and not line.startswith("# ")]
    by_tabs = bool(lines) and all("\t" in line for line in lines)
    widths = {len(_cells(line, by_tabs)) for line in lines}
    return len(widths) == 1 and (by_tabs or (len(lines) >= 5 and "\n\n" in text.strip()))


class Layout(NamedTuple):
    """How a file is read: its columns of words and of tags, by number from 1 or by name, and its encoding; None:
    recognised."""

    word: str | None = None
    tag: str | None = None
    encoding: str | None = None


PLAIN = Layout()


def read_conll(source: str | Path, layout: Layout = PLAIN, *, needs_tags: bool = True) -> Sentences:
    """A file, or standard input for "-".

    layout: columns by number, counted from 1, or by name (of CoNLL-U, or as a `# global.columns =` line gives them);
    None: the first and the last, in CoNLL-U FORM and UPOS. needs_tags: whether a file of words alone is refused.
    Raises DataError with the line that is wrong."""
    return parse_conll(read_file(source, layout), name_of(source), layout, needs_tags=needs_tags)


def read_file(source: str | Path, layout: Layout) -> str:
    """The text of a file, or of standard input for "-". Raises DataError: there is none, or it is no text."""
    with file_of(str(source)) as path:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file")
        if not path.exists():
            raise DataError(f"there is no file {path}")
        text = to_utf8(read_bytes(path), path, layout.encoding).decode("utf8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def name_of(source: str | Path) -> str:
    """What messages call it."""
    return "standard input" if str(source) == STDIN else str(source)


def parse_conll(text: str, name: str, layout: Layout = PLAIN, *, needs_tags: bool = True) -> Sentences:
    """The sentences of a text in columns, or of lines such as `The/DT cat/NN`; `name` is what messages call it."""
    mark = _mark(text) if layout.word is None and layout.tag is None else None
    if mark is not None:
        return _pairs(text, name, mark)
    words: list[tuple[str, ...]] = []
    tags: list[tuple[str, ...]] = []
    columns: list[int] = []
    once: dict[str, str] = {}  # one string for all places of a word: a corpus repeats few words often
    for sentence in _rows(text, name):
        if not columns:
            columns = _choose(name, len(sentence.rows[0][1]), sentence.names, layout, needs_tags)
        words.append(
            tuple([once.setdefault(cells[columns[0]], cells[columns[0]]) for _, cells in sentence.rows])
        )
        if len(columns) > 1:
            tags.append(tuple([_tag(name, row, columns, once) for row in sentence.rows]))
    if not words:
        raise DataError(
            f"{name} holds no words; it needs a word and its tag a line, sentences apart by empty lines"
        )
    return Sentences(tuple(words), tuple(tags) if len(columns) > 1 else None)


def _mark(text: str) -> str | None:
    """What stands between each word of a line and its tag; None for a text in columns, or without tags."""
    lines = [line.split() for line in text.split("\n", SAMPLE)[:SAMPLE]]
    words = [word for line in lines for word in line]
    if "\t" in text[:100_000] or max(map(len, lines), default=0) < 2:
        return None
    return next((mark for mark in MARKS if all(all(word.rpartition(mark)) for word in words)), None)


def _pairs(text: str, name: str, mark: str) -> Sentences:
    """The sentences of lines of words, each with a mark and its tag; of several marks in a word, the last."""
    words, tags = [], []
    once: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        parts = [word.rpartition(mark) for word in line.split()]
        for word, between, tag in parts:
            if not (word and between and tag):
                raise DataError(
                    f"{name}, line {number}: {short_repr(word + between + tag)} is no word with {mark!r} and its tag, "
                    "as those before it are"
                )
        if parts:
            words.append(tuple(once.setdefault(word, word) for word, _, _ in parts))
            tags.append(tuple(once.setdefault(tag, tag) for _, _, tag in parts))
    return Sentences(tuple(words), tuple(tags))


def _tag(name: str, row: Row, columns: Sequence[int], once: dict[str, str]) -> str:
    line, cells = row
    tag = cells[columns[1]]
    if not tag:
        raise DataError(f"{name}, line {line}: the word {short_repr(cells[columns[0]])} has no tag")
    return once.setdefault(tag, tag)


Row = tuple[int, list[str]]


@dataclass(frozen=True)
class _Block:
    """A sentence as numbered lines of cells; and the names of the columns, where the file has them."""

    rows: list[Row]
    names: tuple[str, ...]


def _rows(text: str, name: str) -> Iterator[_Block]:
    """The sentences; all lines of one width."""
    current: list[Row] = []
    names: tuple[str, ...] = ()
    by_tabs = "\t" in text[:100_000]
    first: Row | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            if current:
                yield _Block(current, names)
            current = []
            continue
        cells = _cells(line, by_tabs)
        if line[0] == "#" and _is_comment(line, cells, first):
            if line.startswith(_COLUMNS):
                names = tuple(line[len(_COLUMNS) :].split())
            continue
        if cells[0] == "-DOCSTART-":
            continue
        if first is None:
            first = number, cells
            if not names and len(cells) == len(CONLLU) and cells[0].partition("-")[0].isdigit():
                names = CONLLU
        if len(cells) != len(first[1]):
            raise DataError(
                f"{name}, line {number} has {_columns(len(cells))}, line {first[0]} has {len(first[1])}: "
                f"{short_repr(line)}; every word needs the same"
            )
        if names and names[0] == "ID" and not cells[0].isdigit():
            continue  # a range of words, or an empty node
        current.append((number, cells))
    if current:
        yield _Block(current, names)


def _cells(line: str, by_tabs: bool) -> list[str]:
    if not by_tabs:
        return line.split()
    cells = line.split("\t")
    return [cell.strip() for cell in cells] if " " in line or "\r" in line else cells


def _is_comment(line: str, cells: Sequence[str], first: Row | None) -> bool:
    """Whether a line that begins with "#" is no word of that name: it has another width than the words."""
    if first is None:
        return len(cells) == 1 or line.startswith("# ")
    return len(cells) != len(first[1]) or (line.startswith("# ") and len(cells) == 1)


def _columns(count: int) -> str:
    return f"{count} column" if count == 1 else f"{count} columns"


def _choose(name: str, width: int, names: tuple[str, ...], layout: Layout, needs_tags: bool) -> list[int]:
    default = ("FORM", "UPOS") if names[:1] == ("ID",) else ("1", str(width))
    columns = [_index(name, layout.word or default[0], width, names, "word")]
    if width > 1 or layout.tag is not None:
        columns.append(_index(name, layout.tag or default[1], width, names, "tag"))
    if needs_tags and (len(columns) == 1 or columns[0] == columns[1]):
        raise DataError(
            f"{name} has {_columns(width)}; it needs one with words and one with their tags, with tabs or spaces "
            "between them"
        )
    return columns if len(columns) > 1 and columns[0] != columns[1] else columns[:1]


def _index(name: str, wanted: str, width: int, names: tuple[str, ...], what: str) -> int:
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    known = f" ({', '.join(names)})" if names else ""
    raise DataError(f"{name} has no column {wanted!r} for the {what}s; it has {_columns(width)}{known}")


def to_conll(words: Iterable[Sequence[str]], tags: Iterable[Sequence[str]]) -> str:
    """A word, a tab and its tag a line, an empty line after each sentence."""
    parts = []
    for sentence, own in zip(words, tags, strict=True):
        parts += [f"{word}\t{tag}\n" for word, tag in zip(sentence, own, strict=True)]
        parts.append("\n")
    return "".join(parts)
