"""The bundled digits, joined to numbers; see data/LICENSE.txt. The prompts of Asterisk, with a fixed split."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.audio import read_recording
from cellwise.tasks.speech.manifest import Listed

__all__ = ["digits", "prompts"]

FOLDER = Path(__file__).parent / "data"
NUMBERS = 300  # of the demo
LEAST_DIGITS, MOST_DIGITS = 2, 6
PAUSE_LOW, PAUSE_HIGH = 0.03, 0.2  # seconds around and between digits
HISS = 0.0005
_FIGURE = re.compile(r"(?<![\w.])\d(?!\w|\.\d)")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def _clips() -> tuple[dict[str, list[tuple[str, np.ndarray]]], int]:
    """Language -> the word and the sound of each digit, and the rate."""
    recording = read_recording(FOLDER / "digits.flac")
    made: dict[str, list[tuple[str, np.ndarray]]] = {}
    for row in csv.DictReader((FOLDER / "digits.csv").read_text("utf8").splitlines()):
        start = int(row["start"])
        sound = recording.samples[start : start + int(row["samples"])]
        made.setdefault(row["language"], []).append((row["word"], sound))
    return made, recording.rate


def digits(count: int = NUMBERS) -> Listed:
    """Numbers of two to six digits in English, Spanish, French, Italian and Russian, each digit always the same
    recording: the pauses, the loudness and the order differ."""
    clips, rate = _clips()
    languages = list(clips)
    draw = np.random.default_rng(2024)
    items, names, texts = [], [], []
    for number in range(count):
        language = languages[number % len(languages)]
        chosen = draw.integers(0, 10, size=int(draw.integers(LEAST_DIGITS, MOST_DIGITS + 1)))
        parts, words = [_pause(draw, rate)], []
        for digit in chosen:
            word, sound = clips[language][digit]
            words.append(word)
            parts += [sound, _pause(draw, rate)]
        whole = np.concatenate(parts) * draw.uniform(0.5, 1.0)
        items.append(((whole + HISS * draw.standard_normal(len(whole))).astype(np.float32), rate))
        names.append(f"{language}-{''.join(map(str, chosen))}")
        texts.append(" ".join(words))
    return Listed(tuple(items), tuple(names), tuple(texts), "digits")


def _pause(draw: np.random.Generator, rate: int) -> np.ndarray:
    return np.zeros(round(draw.uniform(PAUSE_LOW, PAUSE_HIGH) * rate), dtype=np.float32)


def prompts(folder: Path) -> dict[str, Listed]:
    """train, valid and test: the English prompts of Asterisk, from a folder into which the Debian packages
    asterisk-core-sounds-en and asterisk-core-sounds-en-wav were unpacked.

    Single figures are written out; prompts with other figures are left out. The part follows from an MD5 of the
    transcript, so that a text that was recorded twice is in one part. Raises DataError."""
    lists = sorted(folder.rglob("core-sounds-en.txt.gz"))
    recordings = {_key(path): path for path in sorted(folder.rglob("*.wav"))}
    if not lists or not recordings:
        raise DataError(
            f"{folder} does not hold the packages asterisk-core-sounds-en and asterisk-core-sounds-en-wav; unpack both "
            "into it: apt-get download NAME; dpkg -x FILE.deb FOLDER"
        )
    lines = gzip.decompress(lists[0].read_bytes()).decode("utf-8-sig").splitlines()
    halves = (line.partition(":") for line in lines if ":" in line and line[0] != ";")
    told = {key.strip(): text.strip() for key, _, text in halves}
    parts: dict[str, list[tuple[Path, str]]] = {"train": [], "valid": [], "test": []}
    for key, path in sorted(recordings.items(), key=lambda pair: str(pair[1])):
        text = told.get(key, "")
        said = _FIGURE.sub(lambda found: _WORDS[int(found[0])], text)
        plain = re.sub(r"[^a-z' ]", " ", said.lower().replace("\u2019", "'"))
        plain = " ".join(plain.split())
        if text[:1] in ("", "[", "(", "<") or re.search(r"\d|note:", said) or not plain:
            continue
        tenth = int(hashlib.md5(plain.encode(), usedforsecurity=False).hexdigest(), 16) % 10
        parts[{8: "valid", 9: "test"}.get(tenth, "train")].append((path, plain))
    return {
        name: Listed(
            tuple(path for path, _ in rows),
            tuple(str(path.relative_to(folder)) for path, _ in rows),
            tuple(text for _, text in rows),
            f"the prompts in {folder}",
        )
        for name, rows in parts.items()
    }


def _key(path: Path) -> str:
    """The name of a prompt: its path below the folder of the voice."""
    below = path.parts[path.parts.index("sounds") + 2 :] if "sounds" in path.parts else (path.name,)
    return "/".join(below)[:-4]
