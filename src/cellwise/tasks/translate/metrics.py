"""How good translations are: BLEU and chrF by sacrebleu, errors by word and by symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cellwise.tasks.data.optional import require
from cellwise.tasks.translate.pairs import TextPairs

__all__ = [
    "PACKAGE",
    "TITLES",
    "are_metrics",
    "edit_distance",
    "error_rates",
    "measure_texts",
    "sentence_chrf",
    "signatures",
]

PACKAGE = ("'sacrebleu>=2.4'",)  # the extra `translate`
TITLES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "word_error_rate": "wrong targets",
    "symbol_error_rate": "wrong symbols",
    "exact_match": "exact",
}


def measure_texts(pairs: TextPairs, made: Sequence[str], *, by_letter: bool) -> dict[str, float]:
    """`bleu` (sacreBLEU, Post 2018) and `chrf` (Popovic 2015), 0 to 100, each pair a segment; and of each different
    source, against the best of its targets, `word_error_rate`: the share that is not exactly right,
    `symbol_error_rate`: insertions, deletions and replacements to a symbol of the target, `exact_match`.

    made: a translation for each pair. by_letter: symbols are characters, and not what stands between blanks.
    NaN for all if there are no pairs."""
    names = ("bleu", "chrf", "word_error_rate", "symbol_error_rate", "exact_match")
    if not len(pairs):
        return dict.fromkeys(names, float("nan"))
    bleu, chrf = _metrics()
    references = [list(pairs.targets)]
    return {
        "bleu": float(bleu.corpus_score(list(made), references).score),
        "chrf": float(chrf.corpus_score(list(made), references).score),
        **error_rates(pairs, made, by_letter=by_letter),
    }


def _metrics() -> tuple[Any, Any]:
    package = require("sacrebleu.metrics", PACKAGE)
    return package.BLEU(force=True), package.CHRF()  # force: no advice on tokens


def signatures() -> dict[str, str]:
    """What sacrebleu says of how BLEU and chrF are counted."""
    bleu, chrf = _metrics()
    for metric in (bleu, chrf):
        metric.corpus_score(["a"], [["a"]])  # it knows them after a count
    return {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}


def sentence_chrf(made: Sequence[str], targets: Sequence[str]) -> list[float]:
    """chrF of each translation by itself."""
    _, chrf = _metrics()
    return [
        float(chrf.sentence_score(own, [target]).score) for own, target in zip(made, targets, strict=True)
    ]


@dataclass(frozen=True)
class _Best:
    distance: int
    length: int


def error_rates(pairs: TextPairs, made: Sequence[str], *, by_letter: bool) -> dict[str, float]:
    """`word_error_rate`, `symbol_error_rate` and `exact_match`, as in `measure_texts`."""
    own = dict(zip(reversed(pairs.sources), reversed(list(made)), strict=True))  # the first of each source
    wrong = distances = lengths = 0
    variants = pairs.variants()
    for source, targets in variants.items():
        written = _symbols(own[source], by_letter)
        best = min(
            (_Best(edit_distance(written, symbols), len(symbols)) for symbols in _each(targets, by_letter)),
            key=lambda found: found.distance,
        )
        wrong += own[source] not in targets
        distances, lengths = distances + best.distance, lengths + best.length
    share = wrong / len(variants)
    return {
        "word_error_rate": share,
        "symbol_error_rate": distances / lengths if lengths else float(distances > 0),
        "exact_match": 1 - share,
    }


def _each(targets: Sequence[str], by_letter: bool) -> list[list[str]]:
    return [_symbols(target, by_letter) for target in targets]


def _symbols(text: str, by_letter: bool) -> list[str]:
    return list(text) if by_letter else text.split()


def edit_distance(made: Sequence[str], target: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements that turn one into the other (Levenshtein 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(target) + 1))
    for number, symbol in enumerate(made, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(target, 1):
            above = row[place]
            row[place] = min(above + 1, row[place - 1] + 1, diagonal + (symbol != other))
            diagonal = above
    return row[-1]


def are_metrics(found: Any) -> bool:
    """Whether a value read from a file is what `measure_texts` returns."""
    return (
        isinstance(found, dict)
        and set(found) == set(TITLES)
        and all(type(x) is float for x in found.values())
    )
