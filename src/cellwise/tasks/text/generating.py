"""Writing a text, one character after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.errors import OptionError
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.units import Units

__all__ = ["Choice", "samples_of", "write_ids"]

TEMPERATURES = (0.3, 0.7, 1.0)
WRITTEN = 300  # units of a sample
AT_ONCE = 4096  # random numbers that are drawn together


@dataclass(frozen=True)
class Choice:
    """How the next character is chosen from the predicted distribution.

    temperature: 0 takes the most likely, 1 the distribution as it is. top_k: only the k most likely. top_p: only the
    fewest that together have this probability (Holtzman et al. 2020). min_p: only those at least this share as likely
    as the most likely. Raises OptionError for a value that cannot be."""

    temperature: float = 0.7
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"generate needs a temperature of at least 0 (got {self.temperature:g})")
        if self.top_k is not None and self.top_k < 1:
            raise OptionError(f"top_k must be at least 1, not {self.top_k}")
        for name, value in (("top_p", self.top_p), ("min_p", self.min_p)):
            if value is not None and not 0 < value <= 1:
                raise OptionError(f"{name} must be above 0 and at most 1, not {value:g}")

    def draw(self, logits: np.ndarray, chances: Sequence[float]) -> np.ndarray:
        """Ids (B,) from logits (B, V) with one random number from 0 to 1 each. Never id 0: nobody can read it."""
        logits = logits.astype(np.float64)
        logits[:, 0] = -np.inf
        if self.temperature == 0:
            return logits.argmax(1)
        weights = np.exp((logits - logits.max(1, keepdims=True)) / self.temperature)
        if self.top_k is not None or self.top_p is not None or self.min_p is not None:
            weights = np.where(self._kept(weights), weights, 0.0)
        sums = weights.cumsum(1)
        ids = [row.searchsorted(chance * row[-1], "right") for row, chance in zip(sums, chances, strict=True)]
        return np.minimum(ids, logits.shape[1] - 1)

    def _kept(self, weights: np.ndarray) -> np.ndarray:
        """Which of the weights (B, V), whose largest is 1, may be drawn."""
        order = np.argsort(-weights, axis=1, kind="stable")
        ranked = np.take_along_axis(weights, order, 1)
        kept = ranked > 0
        if self.top_k is not None:
            kept &= np.arange(weights.shape[1]) < self.top_k
        if self.top_p is not None:
            shares = ranked / ranked.sum(1, keepdims=True)
            kept &= shares.cumsum(1) - shares < self.top_p
        if self.min_p is not None:
            kept &= ranked >= self.min_p
        placed = np.zeros_like(kept)
        np.put_along_axis(placed, order, kept, 1)
        return placed


def write_ids(
    network: CharacterNetwork, start: Tensor, samples: int, choice: Choice, seed: int
) -> Iterator[np.ndarray]:
    """The next ids (B,) of so many texts that go on from a start (T,), without an end."""
    network.eval()
    with torch.no_grad():
        output, state = network.layer(network.embed(start[:, None]))
    stream = network.layer.stream(samples)
    stream.state = _repeated(state, samples)
    table, weight = network.embed.weight.detach(), network.decode.weight.detach().T.contiguous()
    bias = network.decode.bias.detach()
    logits = torch.addmm(bias, output[-1].expand(samples, -1), weight)
    generator = torch.Generator().manual_seed(seed)
    while True:
        for chances in torch.rand(AT_ONCE, samples, generator=generator, dtype=torch.float64).tolist():
            ids = choice.draw(logits.cpu().numpy(), chances)
            yield ids
            read = table[int(ids[0])][None] if samples == 1 else table[torch.from_numpy(ids)]
            logits = torch.addmm(bias, stream(read), weight)


def samples_of(network: CharacterNetwork, units: Units, seed: int) -> dict[float, str]:
    """What a network writes now, from a new line on, by temperature."""
    training, start, made = network.training, units.encode("\n"), {}
    for temperature in TEMPERATURES:
        write = units.writer()
        drawn = islice(write_ids(network, start, 1, Choice(temperature), seed), WRITTEN)
        made[temperature] = "".join(write(int(ids[0])) for ids in drawn)
    network.train(training)
    return made


def _repeated(state: Any, samples: int) -> Any:
    """A state of one text for several."""
    if isinstance(state, Tensor):
        return state.repeat(1, samples, 1)
    return tuple(each.repeat(1, samples, 1) for each in state)
