"""Writing a text, one character after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cellwise.tasks.errors import OptionError
from cellwise.tasks.text.network import CharacterNetwork

__all__ = ["Choice", "write_ids"]

FIRST = 32  # steps whose noise is made at first, then of twice as many, ...
AT_ONCE = 100_000  # random numbers that are made together at most
AHEAD = 32  # steps that a single text is written ahead
MOST_ROWS = 50_000  # embeddings that are held one by one
COLDEST = 1e-4  # temperatures below take the most likely


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

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely is always taken."""
        return self.temperature < COLDEST

    @property
    def scale(self) -> float:
        """What logits are multiplied by."""
        return 1.0 if self.is_greedy else 1 / self.temperature

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return self.top_k is None and self.top_p is None and self.min_p is None

    def kept(self, logits: Tensor) -> Tensor:
        """Scaled logits (B, V) with those that must not be drawn at -inf."""
        if self.min_p is not None:
            logits = logits.masked_fill(
                logits < logits.amax(1, keepdim=True) + math.log(self.min_p), -torch.inf
            )
        if self.top_k is None and self.top_p is None:
            return logits
        ranked, order = logits.sort(dim=1, descending=True, stable=True)
        shares = ranked.softmax(1)
        if self.top_k is not None:
            ranked[:, self.top_k :] = -torch.inf
        if self.top_p is not None:
            ranked.masked_fill_(shares.cumsum(1) - shares >= self.top_p, -torch.inf)
        return torch.empty_like(logits).scatter_(1, order, ranked)


def write_ids(
    network: CharacterNetwork, start: Tensor, samples: int, choice: Choice, seed: int
) -> Iterator[list[int]]:
    """The next ids (B,) of so many texts that go on from a start (T,), without an end. Never id 0: nobody can read it.

    The largest of logits and Gumbel noise is a draw from their softmax (Gumbel 1954; Maddison, Tarlow, Minka 2014):
    noise for many steps is made at once, with the bias in it. A single text is then written by compiled code alone,
    some steps ahead of its reader. Between two steps of a large layer, whose weights push everything else out of the
    cache, each operation of torch costs several times what it does in a loop of its own."""
    network.eval()
    table = network.embed.weight.detach()
    with torch.no_grad():
        output, state = network.layer(network.embed(start.to(table.device)[:, None]))
        weight = network.decode.weight.detach().T.contiguous() * choice.scale
        bias = network.decode.bias.detach() * choice.scale
    bias[0] = -torch.inf
    stream = network.layer.stream(samples)
    stream.state = _repeated(state, samples)
    rows = table.split(1) if samples == 1 and len(table) <= MOST_ROWS else None
    read, is_plain = output[-1].expand(samples, -1), choice.takes_all
    noises = _noise(choice, samples, bias if is_plain else torch.zeros_like(bias), seed)
    write = stream.follower(table.contiguous(), weight, AHEAD) if is_plain and samples == 1 else None
    if write is not None:
        begin: Tensor | None = read[0]
        for part in (part for many in noises for part in many[:, 0].split(AHEAD)):
            for each in write(begin, part):
                yield [each]
            begin = None
    for noise in (noise for many in noises for noise in many):
        if is_plain:
            ids = torch.addmm(noise, read, weight).argmax(1)
        else:
            ids = choice.kept(torch.addmm(bias, read, weight)).add_(noise).argmax(1)
        yield (drawn := ids.tolist())
        read = stream(table[ids] if rows is None else rows[drawn[0]])


def _noise(choice: Choice, samples: int, bias: Tensor, seed: int) -> Iterator[Tensor]:
    """A bias (V,) and Gumbel noise, (steps, B, V) at a time, without an end; no noise if the most likely is taken."""
    most, steps = max(1, AT_ONCE // (samples * len(bias))), FIRST
    generator = torch.Generator().manual_seed(seed)
    while True:
        many = torch.zeros(min(steps, most), samples, len(bias))
        steps *= 2
        if not choice.is_greedy:
            many = many.exponential_(generator=generator).log_().neg_()
        yield many.to(bias).add_(bias)


def _repeated(state: Any, samples: int) -> Any:
    """A state of one text for several."""
    if isinstance(state, Tensor):
        return state.repeat(1, samples, 1)
    return tuple(each.repeat(1, samples, 1) for each in state)
