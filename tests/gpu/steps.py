"""What a stream of steps on a GPU, or on what stands for one, is held to: calls of the layer, whole and of one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from agreement import Given, Normed, Several, ThreeProducts
from torch import Tensor

from cellwise import LSTM, Cell, Recurrent, sigmoid, tanh
from cellwise.cells import SCRN
from cellwise.nn.layer import RecurrentLayer


class Highway(Cell):
    """A state that gives way to x as it is."""

    gates = ("z",)

    def step(self, x, h):
        z = sigmoid(x.z + h.z)
        return z * h + (1 - z) * tanh(x)


# Cells with their H, and options of a layer. They have one state or more, which is the output or is not; values beside
# x, masks that evaluation does not draw, norms, several outputs, parameters of their own, x as it is, weights that are
# made of others, states of several widths, rows with padding and without.
CELLS: tuple[tuple[Any, int, dict[str, Any]], ...] = (
    ("rnn", 33, {}),
    ("lstm", 64, {"num_layers": 2}),
    ("gru", 17, {"num_layers": 2, "bias": False}),
    ("lstm", 17, {"proj_size": 5, "num_layers": 2}),
    ("lstm-peephole", 33, {}),
    ("mgu2", 17, {}),
    ("antisymmetric-rnn", 16, {}),
    ("zoneout-lstm", 17, {}),
    ("time-aware-lstm", 17, {}),
    ("layernorm-lstm", 33, {}),
    (ThreeProducts, 17, {"num_layers": 2}),
    (Several, 17, {"num_layers": 2}),
    (Given, 33, {}),
    (Normed, 17, {}),
    (Highway, 17, {"input_size": 17}),
    (SCRN(context=5), 17, {}),
)
NAMES = [f"{getattr(cell, '__name__', cell)}-{hidden}" for cell, hidden, _ in CELLS]


def made(cell: Any, hidden: int, options: Mapping[str, Any], **others: Any) -> RecurrentLayer:
    """A layer of D 5, the same each time."""
    torch.manual_seed(0)
    given = {"input_size": 5, **options}
    size = given.pop("input_size")
    if "proj_size" in given:  # an option of torch's LSTM
        return LSTM(size, hidden, **given, **others).eval()
    return Recurrent(cell, size, hidden, **given, **others).eval()


def drawn(layer: RecurrentLayer, steps: int, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
    """x (T, B, D), and what stands beside it, one a row."""
    like = next(layer.parameters())
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like.device, like.dtype)

    inputs = layer.cell.inputs
    return draw(steps, batch, layer.input_size), {name: draw(steps, batch).abs() for name in inputs}


def side_by_side(output: Any) -> Tensor:
    """The outputs of a call or of a step."""
    return torch.cat(tuple(output), -1) if isinstance(output, tuple) else output


def run(stream: Any, x: Tensor, beside: Mapping[str, Tensor], times: Iterable[int] | None = None) -> Tensor:
    """The outputs of steps."""
    times = range(len(x)) if times is None else times
    return torch.stack(
        [side_by_side(stream(x[t], **{name: each[t] for name, each in beside.items()})) for t in times]
    )


@torch.no_grad()
def whole(
    layer: RecurrentLayer, x: Tensor, beside: Mapping[str, Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The outputs and final states of one call."""
    output, state = layer(x, **beside)
    return side_by_side(output), state if isinstance(state, tuple) else (state,)


@torch.no_grad()
def by_calls(layer: RecurrentLayer, x: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
    """The outputs of a call for each step, which round what they leave as steps do."""
    found, state = [], None
    for t in range(len(x)):
        output, state = layer(x[t : t + 1], state, **{name: each[t : t + 1] for name, each in beside.items()})
        found.append(side_by_side(output)[0])
    return torch.stack(found)


def assert_steps_agree(layer: RecurrentLayer, steps: int, batch: int, atol: float) -> Any:
    """A stream gives what calls give, and ends where they end."""
    x, beside = drawn(layer, steps, batch)
    stream = layer.stream(batch)
    found = run(stream, x, beside)
    torch.testing.assert_close(found, by_calls(layer, x, beside), atol=atol, rtol=atol)
    states = stream.state if isinstance(stream.state, tuple) else (stream.state,)
    if next(layer.parameters()).dtype is torch.float32:  # in fewer digits a whole call rounds less often
        wanted, finals = whole(layer, x, beside)
        torch.testing.assert_close(found, wanted, atol=atol, rtol=atol)
        torch.testing.assert_close(states, finals, atol=atol, rtol=atol)
    return stream


__all__ = ["CELLS", "NAMES", "assert_steps_agree", "by_calls", "drawn", "made", "run", "whole"]


def in_place(layer: RecurrentLayer) -> None:
    with torch.no_grad():
        layer.weight_hh_l0.mul_(0.5)


def through_data(layer: RecurrentLayer) -> None:
    layer.bias_hh_l0.data.add_(0.25)


def other_data(layer: RecurrentLayer) -> None:
    layer.weight_hh_l0.data = layer.weight_hh_l0.data * 0.5


def loaded(layer: RecurrentLayer) -> None:
    layer.load_state_dict({name: each * 0.5 for name, each in layer.state_dict().items()})


CHANGES_OF_WEIGHTS = (in_place, through_data, other_data, loaded)
