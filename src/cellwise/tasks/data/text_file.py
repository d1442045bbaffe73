"""Text files, whole or in blocks."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import BinaryIO

from cellwise.tasks.data.encoding import GZIP, MARKS, SIGNATURES
from cellwise.tasks.data.standard_input import STDIN
from cellwise.tasks.errors import DataError

__all__ = ["BLOCK", "read_text", "text_blocks"]

BLOCK = 2**20  # bytes that are decoded at a time
PACKED = {GZIP: "packed with gzip; unpack it"}


def read_text(source: str | Path) -> str:
    """A text file, or standard input for "-", as `text_blocks` reads it."""
    if source != STDIN:
        return "".join(text_blocks(Path(source)))
    return "".join(_blocks(sys.stdin.buffer, "standard input"))


def text_blocks(path: Path) -> Iterator[str]:
    """A text file in parts that fit any memory: in UTF-8, or in UTF-16 or UTF-32 with their mark, which is left out.
    The ends of lines are newlines, whatever they were.

    Raises DataError: there is no such file, or it holds something else."""
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a text file")
    if not path.is_file():
        raise DataError(f"{path} is no regular file")
    with path.open("rb") as file:
        yield from _blocks(file, str(path))


def _blocks(file: BinaryIO, name: str) -> Iterator[str]:
    raw = file.read(BLOCK)
    encoding = next((each for mark, each in MARKS.items() if raw.startswith(mark)), "utf-8")
    for signature, what in (SIGNATURES | PACKED).items():
        if raw.startswith(signature):
            raise DataError(f"{name} is no text: by its first bytes it is {what}")
    bytes_ = codecs.getincrementaldecoder(encoding)("strict")
    ends = io.IncrementalNewlineDecoder(None, translate=True)
    begin = 0
    while True:
        waiting = len(bytes_.getstate()[0])
        try:
            text = ends.decode(bytes_.decode(raw, final=not raw), final=not raw)
        except UnicodeDecodeError as error:
            if encoding.startswith("utf-8"):  # in UTF-16 half of the bytes may be zero
                _refuse_zeros(name, b"\0" in raw, begin + len(raw))
            raise DataError(_no_text(name, encoding, error, begin - waiting)) from error
        _refuse_zeros(name, "\0" in text, begin + len(raw))
        if text:
            yield text
        if not raw:
            return
        begin += len(raw)
        raw = file.read(BLOCK)


def _refuse_zeros(name: str, holds: bool, until: int) -> None:
    if holds:
        raise DataError(f"{name} is no text: it holds zero bytes (in the first {until:,} bytes)")


def _no_text(name: str, encoding: str, error: UnicodeDecodeError, begin: int) -> str:
    kind = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    letter = error.object[error.start : error.start + 1].decode("cp1252", "replace")
    found = f"{name} is no text in {kind} (byte {begin + error.start:,} is not); convert it first"
    if kind != "UTF-8" or letter == "\ufffd":
        return found
    return (
        f"{found}, as from Windows' encoding, in which that byte is {letter!r}: iconv -f cp1252 -t utf-8 {quote(name)} "
        f"> {quote('utf8-' + Path(name).name)}"
    )
