"""How well a network predicts a text, character by character."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cellwise.tasks.errors import DataError
from cellwise.tasks.text.corpus import TextSource, whole_lines
from cellwise.tasks.text.dynamic import adapting_bits
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.ngrams import NGrams
from cellwise.tasks.text.units import Units

__all__ = ["bits_of_each", "bits_of_lines", "bits_of_source"]

RUN_UP = 200  # characters that a piece reads before those that it is measured on
STREAMS, PIECE = 16, 2000  # most pieces side by side, and the fewest characters in one
CHUNK = 500  # steps whose logits are in memory at once
LINES = 64  # lines that are read side by side


def bits_of_each(network: CharacterNetwork, ids: Tensor) -> Tensor:
    """Bits of each character of a text (T,) but the first, float64 (T - 1,).

    A long text is read in pieces side by side, each with the characters before it as a run-up."""
    count = len(ids) - 1
    streams = max(1, min(STREAMS, count // PIECE))
    size = math.ceil(count / streams)
    run_up = 0 if streams == 1 else RUN_UP
    # Each column predicts `size` characters after its run-up; the first has no characters for one, and reads zeros.
    starts = torch.arange(streams) * size - run_up
    places = starts + torch.arange(run_up + size + 1)[:, None]
    pieces = ids[places.clamp(0, count)]
    bits = _bits(network, pieces.long(), run_up)
    if run_up:  # the first column begins where the text begins, not in a run-up of its first character
        head = _bits(network, ids[: size + 1, None].long(), 0)
        bits[:, :1] = head
    return bits.T.flatten()[:count]


def bits_of_source(
    network: CharacterNetwork,
    units: Units,
    source: TextSource,
    dynamic: bool = False,
    beside: NGrams | None = None,
) -> float:
    """Bits per character of a text of any length, whatever the units: the first unit is not predicted, and what it
    stands for is not counted. A long text is read block by block, each after the end of the one before.

    dynamic: by a network that learns as it reads, for which the whole text is held. beside: what is mixed with the
    network. Raises DataError for a text without
    a second character."""
    total, count, before = 0.0, 0, ""
    blocks = ["".join(source.blocks())] if dynamic else whole_lines(source.blocks())
    for block in blocks:
        known = len(units.encode(before)) if before else 1
        ids = units.encode(before + block)
        if len(ids) > 1:
            bits = adapting_bits(network, ids) if dynamic else bits_of_each(network, ids)
            bits = bits if beside is None else beside.mixed(bits, ids)
            total += float(bits[known - 1 :].sum())
        count += len(block)
        if not before and block:
            count -= len(units.pieces(block[:RUN_UP])[0][0])
        before = block[-RUN_UP:]
    if count < 1:
        raise DataError(f"measuring needs at least two characters; the text has {len(before)}")
    return total / count


def bits_of_lines(network: CharacterNetwork, lines: Sequence[Tensor]) -> list[Tensor]:
    """Bits of the characters of each line (T,) but the first, each read by itself."""
    order = sorted(range(len(lines)), key=lambda i: len(lines[i]))
    found: list[Tensor] = [torch.empty(0)] * len(lines)
    for begin in range(0, len(order), LINES):
        chosen = order[begin : begin + LINES]
        longest = len(lines[chosen[-1]])
        # What stands behind the end of a line is read after it, and changes nothing before it.
        batch = torch.stack([functional.pad(lines[i], (0, longest - len(lines[i]))) for i in chosen], 1)
        bits = _bits(network, batch.long(), 0)
        for column, i in enumerate(chosen):
            found[i] = bits[: len(lines[i]) - 1, column].clone()
    return found


def _bits(network: CharacterNetwork, pieces: Tensor, run_up: int) -> Tensor:
    """Bits (T - 1 - run_up, B) of pieces (T, B), after the run-up."""
    device = next(network.parameters()).device
    training, state, made = network.training, None, []
    network.eval()
    with torch.no_grad():
        for begin in range(0, len(pieces) - 1, CHUNK):
            part = pieces[begin : begin + CHUNK + 1].to(device)
            logits, state = network(part[:-1], state)
            nats = functional.cross_entropy(logits.flatten(0, 1), part[1:].flatten(), reduction="none")
            made.append(nats.view(part[1:].shape).double().cpu() / math.log(2))
    network.train(training)
    return torch.cat(made)[run_up:]
