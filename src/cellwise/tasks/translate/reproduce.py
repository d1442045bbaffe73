"""Pairs in fixed parts, measured once on the test part: what `cellwise reproduce kjv-spanish` prints, for example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.folders import cache_folder
from cellwise.tasks.errors import DataError
from cellwise.tasks.published import mean_row
from cellwise.tasks.translate import cmudict
from cellwise.tasks.translate.options import SOUNDS, VERSES
from cellwise.tasks.translate.pairs import TextPairs, bundled, read_pairs
from cellwise.tasks.translate.report import beside
from cellwise.tasks.translate.translator import Translator

__all__ = ["Row", "g2p_cmudict", "kjv_spanish", "parts_of", "run"]

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Row:
    """One method: figures on the test part, rates in percent, and where they come from."""

    method: str
    bleu: float | None = None
    chrf: float | None = None
    word_errors: float | None = None
    symbol_errors: float | None = None
    seconds: float | None = None
    source: str = "computed here"


def parts_of(folder: Path | None) -> dict[str, TextPairs]:
    """The bundled verses, or train.tsv, valid.tsv and test.tsv of a folder. Raises DataError."""
    if folder is None:
        return {part: bundled(part) for part in PARTS}
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one with {', '.join(f'{part}.tsv' for part in PARTS)}")
    return {part: read_pairs(folder / f"{part}.tsv") for part in PARTS}


def kjv_spanish(
    data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """Verses in English and Spanish."""
    settings = options if data is not None else {**VERSES, **options}
    return run(parts_of(data), seeds, settings, say)


def g2p_cmudict(
    data: Path | None, seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """Words and how they are spoken."""
    path = cmudict.fetch(cache_folder()) if data is None else data
    return run(cmudict.read_parts(path), seeds, {**SOUNDS, **options}, say)


def run(
    parts: Mapping[str, TextPairs], seeds: int, options: Mapping[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """Train on the training part with seeds 0, 1, ..., measure on the test part, beside simple methods."""
    train, valid, test = (parts[part] for part in PARTS)
    say(
        f"{len(train):,} pairs to train on, {len(valid):,} to decide when to stop, {len(test):,} for the test"
    )
    own: list[Row] = []
    others: list[Row] = []
    for seed in range(seeds):
        model = Translator(seed=seed, **options).fit(train, valid=valid, progress=False)
        if not others:
            others = [_row(name, figures) for name, figures in beside(model, train, test).items()]
        method = f"{model.model_name} of cellwise, seed {seed}"
        own.append(_row(method, model.measure(test), model.seconds_))
        say(
            f"{method}: BLEU {own[-1].bleu:.1f}, chrF {own[-1].chrf:.1f}, wrong targets {own[-1].word_errors:.1f} %, "
            f"{model.seconds_:.0f} s"
        )
    return [*others, *own, mean_row(own)]


def _row(method: str, figures: Mapping[str, float], seconds: float | None = None) -> Row:
    return Row(
        method,
        figures["bleu"],
        figures["chrf"],
        100 * figures["word_error_rate"],
        100 * figures["symbol_error_rate"],
        seconds,
    )
