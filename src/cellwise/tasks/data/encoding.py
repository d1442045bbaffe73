"""Bytes of a text file to UTF-8. An encoding is recognised where the bytes leave no doubt, and asked for
otherwise: nothing is ever replaced, since two names that differ in the replaced letter would become one."""

from __future__ import annotations

import codecs
import re
import zlib
from pathlib import Path
from shlex import quote

import numpy as np

from cellwise.tasks.errors import DataError, OptionError

__all__ = ["GZIP", "check_encoding", "line_at", "read_bytes", "to_utf8"]

# what the first bytes of other kinds of file are, and what to do with one
SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or name it .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as .xlsx or CSV",
    b"BZh": "packed with bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ\x00": "packed with xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstandard; unpack it, or pack it with gzip",
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; write it as Parquet or CSV",
    b"%PDF": "a PDF",
}
GZIP = b"\x1f\x8b"
# longest marks first: that of UTF-16 begins that of UTF-32
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
SAMPLE = 4096  # bytes that show whether every second one is zero
# A table of repeated values may shrink a lot, but not to this share; what does was made to fill a memory.
MOST_UNPACKED, SAFE_UNPACKED = 200, 256 * 2**20
CHUNK = 2**20
LETTERS = 8  # bytes that UTF-8 needs more than letters, in a text that is it without doubt
# no text holds these; a damaged one does
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked if they are gzip's. DataError if they are cut off, damaged, or plainly
    those of another kind of file."""
    raw = path.read_bytes()
    if raw.startswith(GZIP):
        raw = _unpack(raw, path)
    for signature, what in SIGNATURES.items():
        if raw.startswith(signature):
            raise DataError(f"{path} is no text: by its first bytes it is {what}")
    return raw


def _unpack(packed: bytes, path: Path) -> bytes:
    """gzip's members one after another, each with its checksum; bounded, whatever the file claims."""
    limit = max(SAFE_UNPACKED, MOST_UNPACKED * len(packed))
    parts, size, rest = [], 0, packed
    try:
        while rest.startswith(GZIP):
            member = zlib.decompressobj(wbits=31)
            pending = rest
            while pending and not member.eof:
                part = member.decompress(pending, CHUNK)
                pending = member.unconsumed_tail
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise DataError(
                        f"{path} unpacks to more than {MOST_UNPACKED} times its size; if that is meant, unpack it "
                        "first"
                    )
            if not member.eof:
                raise DataError(f"{path} is cut off: the packed data ends too soon; copy the file again")
            rest = member.unused_data
    except zlib.error as error:
        raise DataError(f"{path} is damaged: it cannot be unpacked ({error}); copy the file again") from error
    if rest.strip(b"\x00"):
        raise DataError(f"{path} is damaged: {len(rest):,} bytes after the packed data are none of it")
    return b"".join(parts)


def check_encoding(encoding: str | None) -> None:
    """OptionError unless Python knows the encoding."""
    if encoding is None:
        return
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, TypeError, ValueError):
        known = False
    if not known:
        raise OptionError(
            f"{encoding!r} is no encoding; write one such as utf-8, utf-16, cp1252 (Windows, Western Europe) or "
            "latin-1"
        )


def to_utf8(raw: bytes, path: Path, encoding: str | None = None) -> bytes:
    """The text as UTF-8 without a byte order mark, with line ends as they were or, where only carriage
    returns end the lines, as newlines."""
    check_encoding(encoding)
    chosen = codecs.lookup(encoding or _recognise(raw)).name
    if chosen in ("utf-8", "utf-8-sig"):
        data = raw.removeprefix(codecs.BOM_UTF8)
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            _refuse_control(path, data)  # what is no text at all is no text in another encoding
            raise DataError(_not_utf8(path, data, error, asked=encoding is not None)) from error
    else:
        try:
            data = raw.decode(chosen).removeprefix("\ufeff").encode("utf-8")
        except UnicodeError as error:
            position = f" at byte {error.start:,}" if isinstance(error, UnicodeDecodeError) else ""
            raise DataError(
                f"{path} cannot be read as {chosen}{position}: {getattr(error, 'reason', error)}; "
                + ("give its true encoding" if encoding else "it is damaged or cut off")
            ) from error
    _refuse_control(path, data)
    if b"\r" in data and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data


def _refuse_control(path: Path, data: bytes) -> None:
    control = CONTROL.search(data)
    if control:
        raise DataError(
            f"{path} holds the control character 0x{control.group()[0]:02x} in line "
            f"{line_at(data, control.start())}; it is damaged, or no text"
        )


def _recognise(raw: bytes) -> str:
    for mark, encoding in MARKS.items():
        if raw.startswith(mark):
            return encoding
    # Without a mark, UTF-16 shows by every second byte of its ASCII letters: a header holds little else.
    sample = np.frombuffer(raw[: SAMPLE - SAMPLE % 2], np.uint8)
    zero = sample[: len(sample) // 2 * 2].reshape(-1, 2) == 0
    if len(zero):
        high, low = zero.mean(axis=0)
        if low > 0.5 and high < 0.05:
            return "utf-16-le"
        if high > 0.5 and low < 0.05:
            return "utf-16-be"
    return "utf-8"


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError, asked: bool) -> str:
    byte = data[error.start]
    letter = bytes([byte]).decode("cp1252", errors="replace")
    guess = "" if letter == "\ufffd" else f" ({letter!r} in Windows' encoding of Western Europe, cp1252)"
    line = line_at(data, error.start)
    if len(data[: error.start].decode("utf-8")) <= error.start - LETTERS:  # no other encoding looks like that
        if error.reason == "unexpected end of data":
            return f"{path} is cut off: it ends within a letter of line {line}; copy the file again"
        return (
            f"{path} is UTF-8 up to line {line}, which holds the byte 0x{byte:02x}{guess}: it is damaged, or parts of "
            "two encodings were put together; correct that line"
        )
    found = f"line {line} holds the byte 0x{byte:02x}{guess}"
    if asked:
        return f"{path} is not UTF-8: {found}; give its true encoding"
    return (
        f"{path} is not UTF-8: {found}; give its encoding, as in encoding='cp1252' or --encoding cp1252, or save "
        f"it as UTF-8: iconv -f cp1252 -t utf-8 {quote(path.name)} > {quote('utf8-' + path.name)}"
    )


def line_at(data: bytes, position: int) -> int:
    """The number of the line that holds a byte; the first is 1."""
    ends = data.count(b"\n", 0, position) or data.count(b"\r", 0, position)
    return ends + 1
