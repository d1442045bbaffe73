"""Speech for tests: each letter is a tone of its own, so that a small network learns it in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
TONES = {"a": 350, "b": 600, "c": 1000, "d": 1600, "e": 2500}
WORDS = ("ab", "cd", "bad", "ace", "dab", "bee", "cab", "ebb", "add", "deed")


def spoken(text: str, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone of 80 ms for each letter, and a pause for a space, float32 (N,)."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(int(0.05 * rate))]
    for letter in text:
        steps = np.arange(int(0.08 * rate)) / rate
        tone = np.sin(2 * np.pi * TONES.get(letter, 1) * steps) * np.hanning(len(steps))
        parts += [tone * (0.3 if letter in TONES else 0), np.zeros(int(0.03 * rate))]
    whole = np.concatenate(parts)
    return (whole + 0.001 * draw.standard_normal(len(whole))).astype(np.float32)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Two words each."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=2)) for _ in range(count)]


def manifest(folder: Path, texts: list[str], name: str = "train.csv", seed: int = 0) -> Path:
    """Recordings of these texts, and a table of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "text"])
        for number, text in enumerate(texts):
            own = f"{Path(name).stem}{number}.wav"
            soundfile.write(folder / own, spoken(text, seed=seed + number), RATE)
            rows.writerow([own, text])
    return folder / name
