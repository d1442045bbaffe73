"""Transcripts of a folder of recordings that stand in one file for many, as published corpora have them.

LibriSpeech (Panayotov et al. 2015): `84-121123.trans.txt`, an id and its text a line. LJ Speech (Ito and Johnson 2017):
`metadata.csv`, `id|text|text with numbers in words`. Kaldi (Povey et al. 2011): `text` and `wav.scp`, an id and its
text, or its file, a line. An id is a recording's name without its ending."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError

__all__ = ["LJ", "is_lj", "kaldi", "transcripts_in"]

LIBRI, LJ, KALDI = "*.trans.txt", "metadata.csv", ("text", "wav.scp")
BAR = "|"


def transcripts_in(folder: Path, files: Sequence[Path]) -> list[str] | None:
    """What is said in each recording of a folder by LibriSpeech's or LJ Speech's files; None where there are none.

    DataError: an id stands there twice, or a recording has none."""
    libri = sorted(folder.rglob(LIBRI))
    if libri:
        said = _by_id((_named(line) for file in libri for line in _lines(file)), folder)
    elif is_lj(folder / LJ):
        said = _by_id(_bars(folder / LJ), folder)
    else:
        return None
    for file in files:
        if file.stem not in said:
            raise DataError(
                f"{file} has no transcript in {(libri or [folder / LJ])[0]}; add it, or move the file away"
            )
    return [said[file.stem] for file in files]


def is_lj(path: Path) -> bool:
    """Whether a file has bars and no header, as LJ Speech's."""
    if path.name != LJ or not path.is_file():
        return False
    first = next(iter(_lines(path)), "")
    return BAR in first and "path" not in first.lower().split(BAR)


def kaldi(folder: Path) -> tuple[list[Path], list[str], list[str]] | None:
    """Recordings, their ids and what is said, of a folder of Kaldi's; None if it is none.

    DataError: an id has no recording, or one that a command makes."""
    text, places = (folder / name for name in KALDI)
    if not (text.is_file() and places.is_file()):
        return None
    said = _by_id((_named(line) for line in _lines(text)), text)
    files = _by_id((_named(line) for line in _lines(places)), places)
    for each in said:
        if each not in files:
            raise DataError(f"{places} has no recording for {each!r}, which {text} has")
        if files[each].endswith(BAR):
            raise DataError(
                f"{places} has a command for {each!r}; write its output to a file, and the file's name here"
            )
    return [folder / files[each] for each in said], list(said), list(said.values())


def _named(line: str) -> tuple[str, str]:
    name, *rest = line.split(maxsplit=1)
    return name, "".join(rest)


def _bars(path: Path) -> Iterable[tuple[str, str]]:
    for line in _lines(path):
        name, *texts = line.split(BAR)
        yield name, texts[-1] if texts and texts[-1].strip() else "".join(texts[:1])


def _lines(path: Path) -> Iterable[str]:
    return (line.strip() for line in read_text(path).split("\n") if line.strip())


def _by_id(pairs: Iterable[tuple[str, str]], where: Path) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, text in pairs:
        if name in found:
            raise DataError(f"{where} has two lines for {name!r}; each recording has one")
        found[name] = text.strip()
    return found
