"""A layer of several widths laid out in rows of one: its weights, states and values beside x as kernels take them, and
what comes of the kernels in true sizes.

A value of M units has at unit j what it has at unit j mod M (`cellwise.passes.padding`). All is made by torch's
operators once in a call, so gradients come back in true sizes, twice too, on every backend and in exported programs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.graph.forms import Form, made, rows_of_text
from cellwise.plan import PaddedGate, Padding
from cellwise.runtime.compiling import constant_result

constant_result(rows_of_text)  # a program holds the numbers of a given matrix


def padded_weights(by_stem: Mapping[str, Tensor], padding: Padding, deeper: bool) -> dict[str, Tensor]:
    """The weights of one layer in one direction.

    Args:
        deeper: whether its input is the output of another layer, in such rows.
    """
    found = {}
    true = true_blocks(by_stem, padding)
    for stem, gates in padding.weights:
        blocks = []
        for gate, block in zip(gates, true[stem], strict=True):
            if stem == "weight_hh":
                block = F.pad(block, (0, padding.width - gate.columns))
            elif deeper:
                block = _columns_of_below(block, padding)
            blocks.append(copied(block, padding.width))
        found[stem] = torch.cat(blocks)
    for stem, rows in padding.biases:
        found[stem] = _bias(by_stem, stem, rows, padding.width)
    found |= {name: copied(by_stem[name], padding.width) for name, _ in padding.vectors}
    like = next(iter(by_stem.values()))
    for name, units in padding.masks:
        found[name] = torch.cat([like.new_ones(units), like.new_zeros(padding.width - units)])
    return found | {name: by_stem[name] for name in padding.scalars}


def true_blocks(by_stem: Mapping[str, Tensor], padding: Padding) -> dict[str, list[Tensor]]:
    """The weights of one layer in one direction in true sizes, gate by gate, whatever they are made of."""
    found: dict[str, list[Tensor]] = {}
    for stem, gates in padding.weights:
        place = 0
        for gate in gates:
            found.setdefault(stem, []).append(_block(by_stem, stem, gate, place))
            place += 0 if gate.stems else gate.rows
    return found


def _block(by_stem: Mapping[str, Tensor], stem: str, gate: PaddedGate, place: int) -> Tensor:
    """The weight of a gate in its true size."""
    if gate.kind:
        parameters = [by_stem[each] for each in gate.stems]
        return made(Form(gate.kind, gate.number), parameters, gate.rows, next(iter(by_stem.values())))
    return by_stem[gate.stems[0]] if gate.stems else by_stem[stem].narrow(0, place, gate.rows)


def _columns_of_below(block: Tensor, padding: Padding) -> Tensor:
    """With a column for each number of the rows below, which hold so many directions: zeros where those are copies."""
    units = padding.outputs[0]
    parts = block.unflatten(1, (padding.directions, units))
    return F.pad(parts, (0, padding.width - units)).flatten(1)


def _bias(
    by_stem: Mapping[str, Tensor], stem: str, gates: tuple[tuple[int, bool], ...], width: int
) -> Tensor:
    place, blocks = 0, []
    for rows, is_there in gates:
        if is_there:
            blocks.append(copied(by_stem[stem].narrow(0, place, rows), width))
            place += rows
        else:
            blocks.append(next(iter(by_stem.values())).new_zeros(width))
    return torch.cat(blocks)


def copied(value: Tensor, width: int, dim: int = 0) -> Tensor:
    """A dimension of M numbers as one of `width`, again and again."""
    units = value.shape[dim]
    if units == width:
        return value
    times = [1] * value.dim()
    times[dim] = -(-width // units)
    return value.repeat(times).narrow(dim, 0, width)


def copied_again(weight: Tensor, padding: Padding) -> Tensor:
    """A recurrent weight that was changed number by number, the copies of each row made anew."""
    gates = next(gates for stem, gates in padding.weights if stem == "weight_hh")
    blocks = weight.split(padding.width)
    return torch.cat(
        [copied(block[: gate.rows], padding.width) for block, gate in zip(blocks, gates, strict=True)]
    )


def padded_states(states: tuple[Tensor, ...], padding: Padding | None) -> tuple[Tensor, ...]:
    """States (..., size) as kernels take them."""
    if padding is None:
        return states
    return tuple([copied(state, padding.width, state.dim() - 1) for state in states])


def true_states(states: tuple[Tensor, ...], padding: Padding | None) -> tuple[Tensor, ...]:
    """What kernels give, in true sizes."""
    if padding is None:
        return states
    sizes = zip(states, padding.states, strict=True)
    return tuple([_first(state, size) for state, size in sizes])


def output_widths(padding: Padding | None) -> tuple[int, ...] | None:
    """The sizes of outputs that lie side by side, all directions of each; None if all are of one size."""
    return None if padding is None else tuple([padding.directions * size for size in padding.outputs])


def true_output(output: Tensor, padding: Padding | None) -> Tensor:
    """What kernels give (..., outputs * directions * width), side by side in true sizes."""
    if padding is None or set(padding.outputs) == {padding.width}:
        return output
    sides = output.unflatten(-1, (len(padding.outputs), padding.directions, padding.width)).unbind(-3)
    parts = [side[..., :size].flatten(-2) for side, size in zip(sides, padding.outputs, strict=True)]
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, -1)


def _first(value: Tensor, size: int) -> Tensor:
    return value if value.shape[-1] == size else value.narrow(-1, 0, size).contiguous()
