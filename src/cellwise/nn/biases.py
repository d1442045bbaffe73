"""The weights that kernels take, from the parameters of a layer: gates without a bias have zeros there, and what is
made of other weights is made, once in a call.

So no kernel knows of them, and what does not exist has no parameter, no gradient and no place in a state_dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cellwise.backends.base import Weights
from cellwise.graph.forms import BLOCKS, FORMS, Form, made
from cellwise.nn.padding import padded_weights
from cellwise.nn.row_places import gatherer
from cellwise.plan import Filling, Padding

_BEFORE = ("weight_ih", "weight_hh", "bias_ih")


def filled(
    weights: tuple[Weights, ...], filling: Filling | None, padding: Padding | None = None, parts: int = 1
) -> tuple[Weights, ...]:
    """The weights of all layers and directions, as kernels take them.

    Args:
        parts: of a cell whose units fall into heads; with more than one the recurrent weight, of G gates, comes as
            (parts, G * H / parts, H / parts), without what is zero between them.
    """
    if padding is not None:
        return tuple(
            [
                Weights(padded_weights(each.by_stem, padding, place >= padding.directions))
                for place, each in enumerate(weights)
            ]
        )
    if filling is None:
        return weights
    return tuple([Weights(_filled(each.by_stem, filling, parts)) for each in weights])


def filler(
    stems: Sequence[Sequence[str]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
    filling: Filling | None,
    padding: Padding | None,
    dtype: torch.dtype,
) -> Callable[[Sequence[Tensor]], list[Tensor]] | None:
    """The same for weights in a row, those of each layer and direction by their stems; None if kernels take these."""
    if filling is None and padding is None:
        return None
    if padding is not None and not any(gate.kind for _, gates in padding.weights for gate in gates):
        return gatherer(stems, shapes, padding, dtype)

    def fill(weights: Sequence[Tensor]) -> list[Tensor]:
        rest = iter(weights)
        given = tuple([Weights(dict(zip(each, rest, strict=False))) for each in stems])
        return [weight for each in filled(given, filling, padding) for weight in each.by_stem.values()]

    return fill


def _filled(by_stem: Mapping[str, Tensor], filling: Filling, parts: int = 1) -> dict[str, Tensor]:
    first = next(iter(by_stem.values()))
    found = dict(by_stem)
    for stem, gates in filling.derived:
        if parts > 1 and stem == "weight_hh":
            found[stem] = _in_parts([(number, found.pop(name)) for _, number, (name,) in gates], parts)
            continue
        whole = by_stem.get(stem)
        blocks: Sequence[Tensor] = () if whole is None else whole.split(filling.hidden_size)
        rows = [
            made(Form(kind, number), [by_stem[each] for each in stems], filling.hidden_size, first)
            if kind
            else blocks[int(number)]
            for kind, number, stems in gates
        ]
        for _, _, stems in gates:
            for each in stems:
                del found[each]
        found[stem] = rows[0].contiguous() if len(rows) == 1 else torch.cat(rows)
    for stem, numbers in filling.partial:
        bias = by_stem.get(stem)
        blocks = () if bias is None else bias.split(filling.hidden_size)
        zeros = first.new_zeros(filling.hidden_size)
        found[stem] = torch.cat([zeros if number is None else blocks[number] for number in numbers])
    # In the order of a layer's parameters.
    names = [stem for stem in (*_BEFORE, "bias_hh") if stem in found]
    return {stem: found[stem] for stem in dict.fromkeys((*names, *found))}


def _in_parts(heads: Sequence[tuple[float | str, Tensor]], parts: int) -> Tensor:
    """The recurrent weight in parts, from the blocks of each gate and their number."""
    make = FORMS[BLOCKS].make
    rows = [make(int(number) // parts, blocks.unflatten(0, (parts, -1))) for number, blocks in heads]
    return torch.cat(rows, dim=1)
