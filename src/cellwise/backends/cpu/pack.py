"""Weights as the kernels read them: (tile of units, k, accumulator, lane), padding of units zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from cellwise.plan.program import ProgramStage, WeightBlock


def pack_weight(weight: Tensor, rows: Sequence[str], block: WeightBlock, hidden: int, lanes: int) -> Tensor:
    """Pack the rows of some gates of `weight` (G*H, K), whose gates are `rows`."""
    gates = weight.view(len(rows), hidden, -1)
    chosen = [rows.index(gate) for gate in block.gates]
    if chosen != list(range(len(rows))):
        gates = gates[chosen]
    if block.transposed:
        gates = gates.transpose(1, 2)  # units are now the columns
    gates = F.pad(gates, (0, 0, 0, -hidden % lanes))
    tiles = gates.unflatten(1, (-1, lanes))  # (gate, tile, lane, k)
    return tiles.permute(1, 3, 0, 2).contiguous()


def pack_biases(
    stage: ProgramStage,
    biases: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[str]],
    hidden: int,
    lanes: int,
    like: Tensor,
) -> Tensor:
    """The numbers that each accumulator starts from, (tile, accumulator, lane)."""
    total = like.new_zeros(len(stage.accumulators), hidden + -hidden % lanes)
    for place, terms in enumerate(stage.biases):
        for stem, gate in terms:
            if stem in biases:
                number = rows[stem].index(gate)
                total[place, :hidden] += biases[stem][number * hidden : (number + 1) * hidden]
    return total.unflatten(1, (-1, lanes)).transpose(0, 1).contiguous()
