"""The weights that kernels take, from the parameters of a layer: gates without a bias have zeros there.

So no kernel knows of them, and what does not exist has no parameter, no gradient and no place in a state_dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cellwise.backends.base import Weights
from cellwise.plan import PartialBias

_BEFORE = ("weight_ih", "weight_hh", "bias_ih")


def filled(
    weights: tuple[Weights, ...], partial: tuple[PartialBias, ...], hidden_size: int
) -> tuple[Weights, ...]:
    """The weights of all layers and directions, with whole biases."""
    if not partial:
        return weights
    return tuple([Weights(_filled(each.by_stem, partial, hidden_size)) for each in weights])


def filler(
    stems: Sequence[Sequence[str]], partial: tuple[PartialBias, ...], hidden_size: int
) -> Callable[[Sequence[Tensor]], list[Tensor]] | None:
    """The same for weights in a row, those of each layer and direction by their stems; None if all biases are whole."""
    if not partial:
        return None

    def fill(weights: Sequence[Tensor]) -> list[Tensor]:
        rest = iter(weights)
        found: list[Tensor] = []
        for each in stems:
            given = dict(zip(each, rest, strict=False))
            found += _filled(given, partial, hidden_size).values()
        return found

    return fill


def _filled(
    by_stem: Mapping[str, Tensor], partial: tuple[PartialBias, ...], hidden_size: int
) -> dict[str, Tensor]:
    first = next(iter(by_stem.values()))
    found = dict(by_stem)
    for stem, numbers in partial:
        bias = by_stem.get(stem)
        blocks: Sequence[Tensor] = () if bias is None else bias.split(hidden_size)
        zeros = first.new_zeros(hidden_size)
        found[stem] = torch.cat([zeros if number is None else blocks[number] for number in numbers])
    # In the order of a layer's parameters.
    names = [stem for stem in (*_BEFORE, "bias_hh") if stem in found]
    return {stem: found[stem] for stem in dict.fromkeys((*names, *found))}
