"""A text in its fixed parts, measured once on the last: what `cellwise reproduce moby-dick` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.published import mean_row
from cellwise.tasks.text.corpus import bundled_text, read_texts
from cellwise.tasks.text.model import LanguageModel

__all__ = ["Row", "moby_dick", "run"]


@dataclass(frozen=True)
class Row:
    """One method: its figure on the test part, and where it comes from."""

    method: str
    bits_per_character: float
    seconds: float | None = None
    source: str = "computed here"


def moby_dick(
    data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """The bundled opening of the book, or any text."""
    return run(bundled_text() if data is None else read_texts(data), seeds, options, say)


def run(text: str, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Train on the first nine tenths of a text with seeds 0, 1, ..., measure on its last twentieth, beside models
    without a network."""
    own: list[Row] = []
    adapting: list[Row] = []
    others: list[Row] = []
    for seed in range(seeds):
        model = LanguageModel(seed=seed, **options).fit(text, progress=False)
        if not others:
            others = [Row(name, bits) for name, bits in model.baselines_.items()]
        name = f"{model.model_name} of cellwise"
        own.append(Row(f"{name}, seed {seed}", model.evaluate(), model.seconds_))
        started = time.perf_counter()
        bits = model.evaluate(dynamic=True)
        adapting.append(Row(f"{name}, adapting, seed {seed}", bits, time.perf_counter() - started))
        say(
            f"{own[-1].method}: {own[-1].bits_per_character:.3f} bits per character, adapting {bits:.3f}, "
            f"{model.seconds_:.0f} s"
        )
    return [*others, *own, *adapting, mean_row(own), mean_row(adapting)]
