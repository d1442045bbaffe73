"""Texts to classify, one a line: what a person pipes into `predict`."""

from __future__ import annotations

from pathlib import Path

from cellwise.tasks.classify.examples import TEXT, Examples
from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.errors import DataError

__all__ = ["is_lines", "read_lines"]


def is_lines(path: Path, is_piped: bool, kind: str, text_column: str) -> bool:
    """Whether a file holds a text a line, rather than a table: it is called .txt or was piped, the network reads texts,
    and its first line does not name the column of texts."""
    if (
        kind != TEXT
        or not path.is_file()
        or not (is_piped or path.name.lower().endswith((".txt", ".txt.gz")))
    ):
        return False
    if path.name.endswith(".parquet"):
        return False
    first = to_utf8(read_bytes(path), path).decode("utf8").lstrip("\n").partition("\n")[0]
    names = [name.strip().strip('"') for mark in ",;\t|" for name in first.split(mark)]
    return text_column not in names


def read_lines(path: Path) -> Examples:
    """A text a line; lines without anything in them are left out."""
    lines = to_utf8(read_bytes(path), path).decode("utf8").splitlines()
    texts = tuple(line for line in lines if line.strip())
    if not texts:
        raise DataError(f"{path} holds no text")
    return Examples(TEXT, texts, tuple(str(row + 1) for row in range(len(texts))))
