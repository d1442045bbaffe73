"""Small texts and series whose classes can be learned in seconds."""

from __future__ import annotations

import numpy as np

SMALL = {"hidden_size": 6, "embedding_size": 6, "epochs": 2, "batch_size": 8, "min_count": 1}


def series(count: int = 40, seed: int = 0, channels: int = 2) -> tuple[list[np.ndarray], list[str]]:
    """Series of 3 to 12 steps; the first channel of those called "up" rises, that of "down" falls."""
    generator = np.random.default_rng(seed)
    values, labels = [], []
    for number in range(count):
        length = int(generator.integers(3, 13))
        slope = 1 if number % 2 else -1
        noise = generator.normal(size=(length, channels))
        noise[:, 0] = slope * np.arange(length) + 0.3 * noise[:, 0]
        values.append(100 + 10 * noise)
        labels.append("up" if slope > 0 else "down")
    return values, labels


def texts(count: int = 60, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences with a word that decides."""
    generator = np.random.default_rng(seed)
    good, bad = ["fine", "lovely", "great"], ["poor", "dull", "awful"]
    rest = ["the", "film", "is", "a", "story", "of", "two", "people"]
    made, labels = [], []
    for number in range(count):
        words = list(generator.choice(rest, int(generator.integers(2, 8))))
        words.insert(int(generator.integers(len(words))), str(generator.choice(good if number % 2 else bad)))
        made.append(" ".join(words))
        labels.append("positive" if number % 2 else "negative")
    return made, labels


def long_table(values: list[np.ndarray], labels: list[str]) -> str:
    """The same as CSV, a row for each series and step."""
    width = values[0].shape[1]
    rows = ["series,label,step," + ",".join(f"x{i + 1}" for i in range(width))]
    for number, (value, label) in enumerate(zip(values, labels, strict=True)):
        for step, row in enumerate(value):
            rows.append(f"s{number},{label},{step}," + ",".join(f"{each:.6f}" for each in row))
    return "\n".join(rows) + "\n"


def text_table(sentences: list[str], labels: list[str]) -> str:
    """Texts and labels as CSV."""
    return "text,label\n" + "".join(
        f'"{text}",{label}\n' for text, label in zip(sentences, labels, strict=True)
    )
