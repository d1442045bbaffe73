"""Pairs of sources and targets: from a file with tabs, from two aligned files, from lists."""

from __future__ import annotations

import gzip
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.data.standard_input import STDIN
from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.translate.table import is_table, read_columns

__all__ = ["Parts", "TextPairs", "as_pairs", "bundled", "hold_out", "read_pairs", "read_sources", "two_files"]

FOLDER = Path(__file__).parent / "data"
HELD_OUT, FEWEST = 10, 20  # every so many sources are held out; of fewer, none
BUNDLED_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class TextPairs:
    """Sources and their targets, side by side. A source may stand there several times, with different targets."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def rows(self, chosen: Iterable[int]) -> TextPairs:
        """Some of the pairs, by number."""
        kept = list(chosen)
        return TextPairs(tuple(self.sources[i] for i in kept), tuple(self.targets[i] for i in kept))

    def variants(self) -> dict[str, list[str]]:
        """The targets of each different source, in the order in which they stand there."""
        found: dict[str, list[str]] = {}
        for source, target in zip(self.sources, self.targets, strict=True):
            found.setdefault(source, []).append(target)
        return found


@dataclass(frozen=True)
class Parts:
    """Pairs to learn from, to decide when to stop, and to measure on; None where there are too few."""

    training: TextPairs
    validation: TextPairs | None
    test: TextPairs | None


def two_files(source: str | Path) -> tuple[Path, Path] | None:
    """Two files that are named as one, with a comma between them; None if it is one file."""
    first, comma, second = str(source).partition(",")
    if not comma or not first or not second or Path(source).exists():
        return None
    return Path(first), Path(second)


def read_pairs(source: str | Path) -> TextPairs:
    """A file with a source, a tab and its target a line; a table with a column of each (CSV, JSON Lines, Excel,
    Parquet); or two files, as "a.en,a.de", with a text a line.

    Empty lines are skipped. Raises DataError."""
    files = two_files(source)
    if files is not None:
        return _aligned(*files)
    if source != STDIN and is_table(Path(source)):
        found, others = read_columns(Path(source))
        if others is None or not found:
            raise DataError(f"{source} holds no pairs; it needs a column of sources and one of targets")
        return TextPairs(tuple(found), tuple(others))
    name = "standard input" if source == STDIN else str(source)
    sources, targets = [], []
    for number, line in enumerate(read_text(source).split("\n"), 1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 2:
            ways = "two aligned files are named with a comma between them"
            if len(columns) > 2 and source != STDIN:  # as Anki's decks and Tatoeba's sentences have more
                ways = f"cut -f1,2 {shlex.quote(name)} > pairs.tsv keeps the first two columns"
            raise DataError(
                f"line {number:,} of {name} has {_columns(len(columns))}; a line is a source, one tab, and its "
                f"target ({ways})"
            )
        sources.append(columns[0].strip())
        targets.append(columns[1].strip())
    if not sources:
        raise DataError(f"{name} holds no pairs")
    return TextPairs(tuple(sources), tuple(targets))


def _columns(count: int) -> str:
    return "no tab" if count == 1 else f"{count - 1} tabs"


def _aligned(first: Path, second: Path) -> TextPairs:
    sources, targets = (read_text(path).rstrip("\n").split("\n") for path in (first, second))
    if len(sources) != len(targets):
        raise DataError(
            f"{first} has {len(sources):,} lines and {second} {len(targets):,}; aligned files have equally many"
        )
    kept = [(a.strip(), b.strip()) for a, b in zip(sources, targets, strict=True) if a.strip() or b.strip()]
    if not kept:
        raise DataError(f"{first} holds no text")
    return TextPairs(tuple(a for a, _ in kept), tuple(b for _, b in kept))


def read_sources(source: str | Path) -> TextPairs | tuple[str, ...]:
    """What may be translated: texts, one a line; or pairs, whose targets are known."""
    if two_files(source) is not None:
        return read_pairs(source)
    if source != STDIN and is_table(Path(source)):
        found, others = read_columns(Path(source))
        return tuple(found) if others is None else TextPairs(tuple(found), tuple(others))
    lines = read_text(source).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    rows = [line.split("\t") for line in lines]
    if rows and all(len(row) == 2 for row, line in zip(rows, lines, strict=True) if line.strip()):
        kept = [row for row, line in zip(rows, lines, strict=True) if line.strip()]
        if kept:
            return TextPairs(tuple(a.strip() for a, _ in kept), tuple(b.strip() for _, b in kept))
    return tuple(line.partition("\t")[0].strip() for line in lines)


def as_pairs(data: Any, target: Any = None, what: str = "training") -> TextPairs:
    """Pairs of a file, of a list of (source, target), or of two lists. Raises DataError."""
    if isinstance(data, TextPairs):
        made = data
    elif isinstance(data, str | Path):
        if target is None:
            made = read_pairs(data)
        elif isinstance(target, str | Path):
            made = _aligned(Path(data), Path(target))
        else:
            raise DataError("sources are a file and targets are none; give two files, or two lists")
    elif target is None:
        made = _of_rows(data, what)
    else:
        sources, targets = texts_of(data, "sources"), texts_of(target, "targets")
        if len(sources) != len(targets):
            raise DataError(f"there are {len(sources):,} sources and {len(targets):,} targets for {what}")
        made = TextPairs(sources, targets)
    if not len(made):
        raise DataError(f"there are no pairs for {what}")
    return made


def _of_rows(data: Any, what: str) -> TextPairs:
    if not isinstance(data, Iterable):
        raise DataError(f"pairs for {what} must be a list of (source, target), not {short_repr(data)}")
    rows = list(data)
    for number, row in enumerate(rows, 1):
        is_pair = isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2
        if not is_pair or not all(isinstance(each, str) for each in row):
            raise DataError(
                f"pair {number} must be two texts, a source and its target, not {short_repr(row)}"
            )
    return TextPairs(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def texts_of(data: Any, what: str = "sources") -> tuple[str, ...]:
    """A list of texts. Raises DataError."""
    if isinstance(data, TextPairs):
        return data.sources
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise DataError(f"{what} must be a list of texts, not {short_repr(data)}")
    texts = tuple(data)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"text {number} of the {what} is none: {short_repr(text)}")
    return texts


def hold_out(pairs: TextPairs) -> Parts:
    """Every tenth source, with all its targets, for the validation, and another for the test; nothing of few."""
    different = {source: number for number, source in enumerate(dict.fromkeys(pairs.sources))}
    if len(different) < FEWEST:
        return Parts(pairs, None, None)
    places = {HELD_OUT - 1: "validation", HELD_OUT // 2 - 1: "test"}
    rows: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for number, source in enumerate(pairs.sources):
        rows[places.get(different[source] % HELD_OUT, "training")].append(number)
    return Parts(**{name: pairs.rows(chosen) for name, chosen in rows.items()})


def bundled(part: str | None = None) -> TextPairs:
    """Short verses of the Bible in English (King James) and Spanish (Sagradas Escrituras), both in the public domain.

    part: "train", "valid" or "test"; None: all of them."""
    lines = gzip.decompress((FOLDER / "kjv12.tsv.gz").read_bytes()).decode("utf8").splitlines()
    rows = [line.split("\t") for line in lines]
    kept = [row for row in rows if part is None or row[0] == part]
    return TextPairs(tuple(row[1] for row in kept), tuple(row[2] for row in kept))
