"""What an epoch's network is measured by: its greedy translations, and how likely it finds the targets."""

from __future__ import annotations

import math

from cellwise.tasks.training.device import moved
from cellwise.tasks.translate.batches import collate, in_order
from cellwise.tasks.translate.known import TranslateData
from cellwise.tasks.translate.metrics import error_rates, measure_texts
from cellwise.tasks.translate.network import TranslateNetwork
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.translating import Search, translations_of

__all__ = ["Validation"]

MOST = 1000  # pairs that are translated after an epoch, evenly drawn


class Validation:
    """Called after each epoch: the metrics of `network` on `pairs`; none if there are no pairs."""

    def __init__(
        self, network: TranslateNetwork, data: TranslateData, pairs: TextPairs | None, watch: str
    ) -> None:
        if pairs is not None and len(pairs) > MOST:
            step = len(pairs) / MOST
            pairs = pairs.rows(int(number * step) for number in range(MOST))
        self._network, self._data, self._pairs, self._watch = network, data, pairs, watch
        self._rows = [] if pairs is None else list(data.languages.pairs(pairs).values())

    def some(self, most: int) -> TextPairs | None:
        """About `most` of the pairs, each as far from the next."""
        pairs = self._pairs
        return None if pairs is None else pairs.rows(range(0, len(pairs), max(1, len(pairs) // most)))

    def __call__(self) -> dict[str, float]:
        if self._pairs is None:
            return {}
        found = {"cross_entropy": self._cross_entropy()}
        if self._watch == "cross_entropy":
            return found
        made = [
            each[0].text
            for each in translations_of(self._network, self._data, self._pairs.sources, Search(beam=1))
        ]
        by_letter = self._data.languages.target.unit == "characters"
        if self._watch in ("chrf", "bleu"):
            measured = measure_texts(self._pairs, made, by_letter=by_letter)
            return found | {name: measured[name] for name in ("chrf", "bleu")}
        measured = error_rates(self._pairs, made, by_letter=by_letter)
        return found | {name: measured[name] for name in ("word_error_rate", "symbol_error_rate")}

    def _cross_entropy(self) -> float:
        """The mean negative log-likelihood of a word of the targets."""
        total = count = 0.0
        device = next(self._network.parameters()).device
        for chosen in in_order(self._rows):
            own = self._network.likelihoods(moved(collate([self._rows[number] for number in chosen]), device))
            total, count = total - float(own.sum()), count + len(own)
        return total / count if count else math.nan  # none of the targets could be cut
