"""A translation memory beside the network: what was written, in the training, where the network was in the same state.

The next word is drawn from the network or, with a share that validation has shown to be right, from the memory: from
the words that follow, in the targets of the sources that are most alike, where the decoder is in nearly the same state
(Khandelwal et al. 2021, "Nearest Neighbor Machine Translation"; among the pairs that are near, as Gu et al. 2018). A
state knows what the attention looks at, so that a word is not taken over for its fluency alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cellwise.tasks.training.device import moved
from cellwise.tasks.translate.alignment import MOST_SENTENCES
from cellwise.tasks.translate.batches import Languages, collate, in_order
from cellwise.tasks.translate.near import NearSources
from cellwise.tasks.translate.network import TranslateNetwork
from cellwise.tasks.translate.pairs import TextPairs, as_pairs

__all__ = ["Gain", "Memory", "Recall", "rebuilt_memory", "stored_memory"]

NEAREST = 16  # pairs that are looked at
# Shares differ between these similarities of the nearest source, and squared distances of the nearest state in
# temperatures.
ALIKE = (0.3, 0.5, 0.7, 0.9)
AWAY = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
SHARES = len(ALIKE) + 1, len(AWAY) + 1
TEMPERATURES = (0.03, 0.06, 0.12, 0.24)  # that are tried, for each component of a state
DOUBT = 20.0  # words for which a share holds before any is seen
ROUNDS = 40
LEAST_GAIN = 0.01
MOST_KEPT = 4096  # pairs whose states are kept for the next call


class Gain(NamedTuple):
    """The mean negative log-likelihood of a word of the validation, in nats, without the memory and with it."""

    alone: float
    mixed: float


class _Place(NamedTuple):
    """Where in the memory a source finds something: states (P, E), the words (P,) that were written there, and how much
    their sources are alike (P,)."""

    states: Tensor
    words: Tensor
    alike: Tensor


@dataclass(eq=False)
class Memory:
    """The pairs that a network has learned from, and how much they count.

    shares (SHARES): by how much the nearest source is alike and how far the nearest state is away. temperature: of the
    squared distance between states."""

    network: TranslateNetwork
    languages: Languages
    pairs: TextPairs
    shares: Tensor
    temperature: float
    _sources: NearSources = field(init=False, repr=False)
    _kept: dict[int, tuple[Tensor, Tensor]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._sources = NearSources(self.pairs.sources, self.languages.source.unit)

    @classmethod
    def learn(
        cls, network: TranslateNetwork, languages: Languages, pairs: TextPairs, validation: TextPairs
    ) -> tuple[Self, Gain] | None:
        """A memory with the shares that suit the validation, which expectation maximisation finds; None where it does
        not help: what half of the validation teaches is measured on the other half."""
        first = pairs.rows(range(min(len(pairs), MOST_SENTENCES)))
        made = cls(network, languages, first, torch.zeros(SHARES), 1.0)
        own, states = made._followed(validation)
        places = made._places(validation.sources)
        chances = np.exp(np.concatenate(own))
        is_odd = np.repeat(np.arange(len(own)) % 2 == 1, [len(each) for each in own])
        best: Gain | None = None
        for temperature in (each * network.sizes.embedding_size for each in TEMPERATURES):
            made.temperature = temperature
            told, cell = made._told(validation, states, places)
            half = _learned(chances[~is_odd], told[~is_odd], cell[~is_odd])
            mixed = _mixed(half[cell[is_odd]], chances[is_odd], told[is_odd])
            gain = Gain(_loss(chances[is_odd]), _loss(mixed))
            if best is None or gain.mixed < best.mixed:
                best, chosen, shares = gain, temperature, _learned(chances, told, cell)
        if best is None or not best.mixed < best.alone - LEAST_GAIN:
            return None
        made.temperature, made.shares = chosen, torch.from_numpy(shares).float().view(SHARES)
        return made, best

    def recall(self, sources: Sequence[str]) -> Recall:
        """What the memory has for some sources."""
        places = self._places(sources)
        device = next(self.network.parameters()).device
        padded = [pad_sequence(list(each), batch_first=True).to(device) for each in zip(*places, strict=True)]
        return Recall(_Place(*padded), self.shares.to(device), self.temperature)

    def _places(self, sources: Sequence[str]) -> list[_Place]:
        near = [self._sources.find(source, NEAREST) for source in sources]
        self._keep([number for row in near for number, _ in row])
        made = []
        for row in near:
            states = [self._kept[number][0] for number, _ in row]
            words = [self._kept[number][1] for number, _ in row]
            alike = [torch.full((len(self._kept[number][1]),), float(how)) for number, how in row]
            # A first place that is alike to nothing, so that there is one.
            nothing = torch.zeros(1, self.network.sizes.embedding_size), torch.zeros(1, dtype=torch.long)
            made.append(
                _Place(
                    torch.cat([nothing[0], *states]),
                    torch.cat([nothing[1], *words]),
                    torch.cat([torch.zeros(1), *alike]),
                )
            )
        return made

    def _keep(self, numbers: Sequence[int]) -> None:
        """Have the states and words of these pairs at hand."""
        missing = [number for number in dict.fromkeys(numbers) if number not in self._kept]
        if len(self._kept) + len(missing) > MOST_KEPT:
            self._kept.clear()
            missing = list(dict.fromkeys(numbers))
        chosen = self.pairs.rows(missing)
        _, states = self._followed(chosen)
        rows = self.languages.pairs(chosen).values()
        for number, found, row in zip(missing, states, rows, strict=True):
            known = row.target < len(self.languages.target)  # another source may have no word to copy there
            self._kept[number] = found[known], row.target[known]

    @torch.no_grad()
    def _followed(self, pairs: TextPairs) -> tuple[list[np.ndarray], list[Tensor]]:
        """For each pair the log-probabilities of the target's words (T,), and the states that they follow (T, E)."""
        rows = list(self.languages.pairs(pairs).values())
        own: list[np.ndarray] = [np.empty(0)] * len(rows)
        states: list[Tensor] = [torch.empty(0)] * len(rows)
        device, training = next(self.network.parameters()).device, self.network.training
        self.network.eval()
        for chosen in in_order(rows):
            batch = moved(collate([rows[number] for number in chosen]), device)
            sizes = batch.target_lengths.tolist()
            found = zip(
                chosen,
                self.network.likelihoods(batch).double().cpu().split(sizes),
                self.network.states(batch).cpu().split(sizes),
                strict=True,
            )
            for number, chances, followed in found:
                own[number], states[number] = chances.numpy(), followed
        self.network.train(training)
        return own, states

    def _told(
        self, pairs: TextPairs, states: Sequence[Tensor], places: Sequence[_Place]
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each word of the targets (N,) how likely the memory thinks it, and the share that holds for it."""
        told, cells = [], []
        rows = self.languages.pairs(pairs).values()
        for row, own, place in zip(rows, states, places, strict=True):
            alone = Recall(_Place(*(each[None] for each in place)), self.shares, self.temperature)
            likely, cell = alone.likely(own[None], torch.zeros(1, dtype=torch.long))
            told.append((likely[0] * (place.words == row.target[:, None])).sum(-1))
            cells.append(cell[0])
        return torch.cat(told).double().numpy(), torch.cat(cells).numpy()


class Recall:
    """What a memory has for B sources, all places padded to P: states (B, P, E), words (B, P), and how much their
    sources are alike (B, P), 0 for what is no place."""

    def __init__(self, found: _Place, shares: Tensor, temperature: float) -> None:
        self._states, self._words, alike = found
        self._shares, self._temperature = shares.flatten(), temperature
        self._weights = 2 * alike.log()
        self._level = torch.bucketize(alike.amax(-1), alike.new_tensor(ALIKE)) * SHARES[1]
        self._away = alike.new_tensor(AWAY)

    def likely(self, states: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For K states (R, K, E) of each of the sources `rows` (R,): how likely the word of each place is next
        (R, K, P), all zero where there is none, and which of the shares holds (R, K)."""
        away = torch.cdist(states, self._states[rows]).square() / self._temperature
        logits = self._weights[rows][:, None] - away
        none = logits == -math.inf
        nearest = away.masked_fill(none, math.inf).amin(-1)
        chances = logits.masked_fill(none, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(none, 0.0)
        return chances, self._level[rows][:, None] + torch.bucketize(nearest, self._away)

    def mixed(self, scores: Tensor, states: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities (R, K, V) with the memory's share mixed in."""
        chances, cell = self.likely(states, rows)
        share = (self._shares[cell] * (chances.amax(-1) > 0)).to(scores.dtype)[..., None]
        index = self._words[rows][:, None].expand(chances.shape)
        told = torch.zeros_like(scores).scatter_add_(-1, index, chances.to(scores.dtype) * share)
        found = scores + torch.log1p(-share)
        # The memory has few of the words; the others need no logarithm of a sum.
        return found.scatter(
            -1, index, torch.logaddexp(found.gather(-1, index), told.gather(-1, index).log())
        )


def stored_memory(memory: Memory) -> dict[str, Tensor]:
    """The memory as tensors: its pairs as bytes of JSON (N,) uint8, its shares, and its temperature."""
    text = json.dumps([memory.pairs.sources, memory.pairs.targets], ensure_ascii=False)
    return {
        "memory": torch.frombuffer(bytearray(text.encode("utf8", "surrogatepass")), dtype=torch.uint8),
        "shares": memory.shares,
        "temperature": torch.tensor(memory.temperature, dtype=torch.float64),
    }


def rebuilt_memory(
    tensors: Mapping[str, Tensor], network: TranslateNetwork, languages: Languages
) -> Memory | None:
    """The inverse of `stored_memory`; None where there is none. Raises ValueError, KeyError or TypeError for what no
    translator wrote."""
    if "memory" not in tensors:
        return None
    sources, targets = json.loads(tensors["memory"].numpy().tobytes().decode("utf8", "surrogatepass"))
    shares, temperature = tensors["shares"], float(tensors["temperature"])
    if (
        shares.shape != SHARES
        or shares.dtype != torch.float32
        or not bool(((shares >= 0) & (shares < 1)).all())
    ):
        raise ValueError("the shares are none")
    if not 0 < temperature < math.inf:
        raise ValueError("the temperature is none")
    return Memory(network, languages, as_pairs(sources, targets, "remembered"), shares, temperature)


def _mixed(share: np.ndarray, own: np.ndarray, told: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = (1 - share) * own + share * told
    return mixed


def _loss(chances: np.ndarray) -> float:
    return float(-np.log(chances + 1e-300).mean()) if len(chances) else math.nan


def _learned(own: np.ndarray, told: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The share of each kind of place. own, told (N,): what the network and the memory gave to each word; cell (N,):
    its kind. Kinds of which the validation has few words take what holds for their distance."""
    rows, columns = SHARES
    by_distance = _maximised(own, told, cell % columns, np.zeros(columns))
    return _maximised(own, told, cell, np.tile(by_distance, rows))


def _maximised(own: np.ndarray, told: np.ndarray, cell: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Shares by expectation maximisation; each is drawn to `first` as by `DOUBT` words."""
    total = np.bincount(cell, minlength=len(first)) + DOUBT
    shares = np.full(len(first), 0.3)
    for _ in range(ROUNDS):
        part = shares[cell] * told / (_mixed(shares[cell], own, told) + 1e-300)
        shares = (np.bincount(cell, part, minlength=len(first)) + DOUBT * first) / total
    return shares
