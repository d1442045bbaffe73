"""What a network wrote as it learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from cellwise.tasks.text.generating import Choice, write_ids
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.units import Units

__all__ = ["TEMPERATURES", "Sample", "chosen", "restored_samples", "samples_of"]

TEMPERATURES = (0.3, 0.7, 1.0)
WRITTEN = 120  # units of a sample
MOST_EPOCHS = 6  # whose samples are kept with a run
MOST, LONGEST = 100, 100_000  # samples, and characters of one, that are believed to be from here


class Sample(NamedTuple):
    """A text that was written after an epoch."""

    epoch: int
    temperature: float
    text: str


def samples_of(network: CharacterNetwork, units: Units, epoch: int, seed: int) -> list[Sample]:
    """What a network writes now from a new line on, by temperature, always with the same random numbers.

    Nothing on an accelerator, on which single steps are slow."""
    if network.embed.weight.device.type != "cpu":
        return []
    training, start, made = network.training, units.encode("\n"), []
    for temperature in TEMPERATURES:
        write = units.writer()
        drawn = islice(write_ids(network, start, 1, Choice(temperature), seed), WRITTEN)
        made.append(Sample(epoch, temperature, "".join(write(ids[0]) for ids in drawn)))
    network.train(training)
    return made


def chosen(samples: Sequence[Sample]) -> list[Sample]:
    """Those of a few epochs, evenly spread, with the first and the last."""
    epochs = sorted({each.epoch for each in samples})
    if not epochs:
        return []
    places = np.linspace(0, len(epochs) - 1, min(MOST_EPOCHS, len(epochs))).round().astype(int)
    kept = {epochs[place] for place in places}
    return [each for each in samples if each.epoch in kept]


def restored_samples(stored: Any) -> list[Sample]:
    """Those that a summary holds; none if it holds what cannot be some."""
    if not isinstance(stored, list) or len(stored) > MOST:
        return []
    found = [Sample(*each) for each in stored if isinstance(each, list) and len(each) == len(Sample._fields)]
    is_whole = all(
        type(each.epoch) is int
        and type(each.temperature) is float
        and math.isfinite(each.temperature)
        and isinstance(each.text, str)
        and len(each.text) <= LONGEST
        for each in found
    )
    return found if is_whole and len(found) == len(stored) else []
