"""Sentences as columns: a word a line with its tag beside it, an empty line between sentences, as CoNLL's tasks have
them; CoNLL-U too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr

__all__ = ["CONLLU", "Sentences", "has_columns", "read_conll", "to_conll"]

CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
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
    """Whether a text is in columns rather than running: by the ending of its name, by tabs in every line, or by lines
    of one width with empty lines among them."""
    if name.lower().endswith(ENDINGS):
        return True
    lines = [line for line in text.split("\n")[:200] if line.strip() and not line.startswith("# ")]
    by_tabs = bool(lines) and all("\t" in line for line in lines)
    widths = {len(_cells(line, by_tabs)) for line in lines}
    return len(widths) == 1 and (by_tabs or (len(lines) >= 5 and "\n\n" in text.strip()))


def read_conll(
    source: str | Path, word: str | None = None, tag: str | None = None, *, needs_tags: bool = True
) -> Sentences:
    """A file, or standard input for "-".

    word, tag: columns by number, counted from 1, or by name (of CoNLL-U, or as a `# global.columns =` line gives them);
    None: the first and the last, in CoNLL-U FORM and UPOS. needs_tags: whether a file of words alone is refused.
    Raises DataError with the line that is wrong."""
    name = "standard input" if str(source) == "-" else str(source)
    return parse_conll(read_text(source), name, word, tag, needs_tags=needs_tags)


def parse_conll(
    text: str, name: str, word: str | None = None, tag: str | None = None, *, needs_tags: bool = True
) -> Sentences:
    """The sentences of a text in columns; `name` is what messages call it."""
    rows, names = _rows(text, name)
    if not rows:
        raise DataError(
            f"{name} holds no words; it needs a word and its tag a line, sentences apart by empty lines"
        )
    width = len(rows[0][0][1])
    columns = _choose(name, width, names, word, tag, needs_tags)
    words = tuple(tuple(cells[columns[0]] for _, cells in sentence) for sentence in rows)
    if len(columns) == 1:
        return Sentences(words, None)
    for sentence in rows:
        for line, cells in sentence:
            if not cells[columns[1]]:
                raise DataError(f"{name}, line {line}: the word {short_repr(cells[columns[0]])} has no tag")
    return Sentences(words, tuple(tuple(cells[columns[1]] for _, cells in sentence) for sentence in rows))


Row = tuple[int, list[str]]


def _rows(text: str, name: str) -> tuple[list[list[Row]], tuple[str, ...]]:
    """Sentences as numbered lines of cells, all of one width; and the names of the columns, where the file has them."""
    sentences: list[list[Row]] = []
    current: list[Row] = []
    names: tuple[str, ...] = ()
    by_tabs = any("\t" in line for line in text.splitlines()[:1000])
    first: Row | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            if current:
                sentences.append(current)
            current = []
            continue
        cells = _cells(line, by_tabs)
        if _is_comment(line, cells, first):
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
        if names[:1] == ("ID",) and not cells[0].isdigit():
            continue  # a range of words, or an empty node
        current.append((number, cells))
    if current:
        sentences.append(current)
    return sentences, names


def _cells(line: str, by_tabs: bool) -> list[str]:
    return [cell.strip() for cell in line.rstrip("\n").split("\t")] if by_tabs else line.split()


def _is_comment(line: str, cells: Sequence[str], first: Row | None) -> bool:
    """A line that begins with "#" and is not a word of that name: it has another width than the words."""
    if not line.startswith("#"):
        return False
    if first is None:
        return len(cells) == 1 or line.startswith("# ")
    return len(cells) != len(first[1]) or (line.startswith("# ") and len(cells) == 1)


def _columns(count: int) -> str:
    return f"{count} column" if count == 1 else f"{count} columns"


def _choose(
    name: str, width: int, names: tuple[str, ...], word: str | None, tag: str | None, needs_tags: bool
) -> list[int]:
    default = ("FORM", "UPOS") if names[:1] == ("ID",) else ("1", str(width))
    columns = [_index(name, word or default[0], width, names, "word")]
    if width > 1 or tag is not None:
        columns.append(_index(name, tag or default[1], width, names, "tag"))
    if needs_tags and (len(columns) == 1 or columns[0] == columns[1]):
        raise DataError(f"{name} has {_columns(width)}; it needs one with words and one with their tags")
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
