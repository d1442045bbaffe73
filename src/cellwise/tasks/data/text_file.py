"""Text files."""

from __future__ import annotations

import sys
from pathlib import Path

from cellwise.tasks.data.standard_input import STDIN
from cellwise.tasks.errors import DataError

__all__ = ["read_text"]


def read_text(source: str | Path) -> str:
    """A text file in UTF-8, or standard input for "-".

    Raises DataError: there is no such file, or it holds something else."""
    name = "standard input" if source == STDIN else str(source)
    try:
        text = _bytes(source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is no text in UTF-8 (byte {error.start:,} is not); convert it first"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(source: str | Path) -> bytes:
    if source == STDIN:
        return sys.stdin.buffer.read()
    path = Path(source)
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a text file")
    return path.read_bytes()
