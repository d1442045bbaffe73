"""Cells with reductions over units, as people asked for them, beside plain torch loops: values and all gradients.

Each was asked for, or shared as a loop, in a public tracker. Here it is a few lines.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cellwise
from cellwise import (
    Cell,
    Recurrent,
    Scalar,
    Vector,
    cells,
    exp,
    layer_norm,
    rms_norm,
    sigmoid,
    softmax,
    tanh,
    where,
)
from cellwise.cells import LayerNormGRU, LayerNormLSTM
from cellwise.testing import Arguments, results

D, H = 4, 5
W = dict[str, Tensor]
Step = Callable[..., tuple[Tensor, ...]]


class NormalizedInputsLSTM(Cell):
    """haste#1: both inputs normalized over all gates, the memory cell on its way out; one bias after that."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    shift_i, shift_f, shift_g, shift_o = Vector(0.0), Vector(0.0), Vector(0.0), Vector(0.0)

    def step(self, x, h, c):
        pairs = zip(
            layer_norm((x.i, x.f, x.g, x.o)),
            layer_norm((h.i, h.f, h.g, h.o)),
            (self.shift_i, self.shift_f, self.shift_g, self.shift_o),
            strict=True,
        )
        i, f, g, o = (a + b + shift for a, b, shift in pairs)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(layer_norm(c)), c


class BasicLSTM(Cell):
    """tensorflow's LayerNormBasicLSTMCell: each gate's sum by itself, and the memory cell that is carried."""

    gates = ("i", "j", "f", "o")
    states = ("h", "c")
    gain_i, gain_f, gain_c, shift_c = Vector(1.0), Vector(1.0), Vector(1.0), Vector(0.0)

    def step(self, x, h, c):
        i = sigmoid(layer_norm(x.i + h.i, self.gain_i, eps=1e-3))
        f = sigmoid(layer_norm(x.f + h.f, self.gain_f, eps=1e-3) + 1)
        c = c * f + i * tanh(layer_norm(x.j + h.j, eps=1e-3))
        c = layer_norm(c, self.gain_c, self.shift_c, eps=1e-3)
        return tanh(c) * sigmoid(x.o + h.o), c


class RMSGRU(Cell):
    """pytorch#7032, an argument for the norm of a cell: any, such as the root of the mean square."""

    gates = ("r", "z", "n")
    gain = Vector(1.0)

    def step(self, x, h):
        r, z = (sigmoid(each) for each in rms_norm((x.r + h.r, x.z + h.z), (self.gain, self.gain)))
        n = tanh(x.n + r * rms_norm(h.n))
        return (1 - z) * n + z * h


class SoftGates(Cell):
    """Gates of a row that sum to one, and an update scaled by the largest unit and the length of the state."""

    gates = ("a", "n")

    def step(self, x, h):
        a = softmax(x.a + h.a)
        n = tanh(x.n + h.n) / (1 + cellwise.amax(abs(h)) + cellwise.sqrt(cellwise.sum(h * h) + 1))
        return a * n + (1 - a) * h


def sums(w: W, kind: str, value: Tensor) -> tuple[Tensor, ...]:
    count = w[f"weight_{kind}"].shape[0] // H
    return F.linear(value, w[f"weight_{kind}"], w[f"bias_{kind}"]).chunk(count, -1)


def normalized(parts: tuple[Tensor, ...], gains: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
    """Several parts as one row, by torch's own function."""
    row = torch.cat(parts, -1)
    found = F.layer_norm(row, row.shape[-1:], None if gains is None else torch.cat(gains))
    return found.chunk(len(parts), -1)


def own(w: W, stem: str, gates: str) -> tuple[Tensor, ...]:
    return tuple(w[f"{stem}{gate}"] for gate in gates)


def layernorm_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    of_x = normalized(sums(w, "ih", x), own(w, "gain_x", "ifgo"))
    of_h = normalized(sums(w, "hh", h), own(w, "gain_h", "ifgo"))
    i, f, g, o = (a + b + s for a, b, s in zip(of_x, of_h, own(w, "shift_", "ifgo"), strict=True))
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * F.layer_norm(c, (H,), w["gain_c"], w["shift_c"]).tanh(), c


def layernorm_gru(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    (xr, xz, xn), (hr, hz, hn) = sums(w, "ih", x), sums(w, "hh", h)
    of_x, of_h = (
        normalized((xr, xz), own(w, "gain_x", "rz")),
        normalized((hr, hz), own(w, "gain_h", "rz")),
    )
    r, z = ((a + b + s).sigmoid() for a, b, s in zip(of_x, of_h, own(w, "shift_", "rz"), strict=True))
    n = F.layer_norm(xn, (H,), w["gain_xn"], w["shift_xn"])
    n = (n + r * F.layer_norm(hn, (H,), w["gain_hn"], w["shift_hn"])).tanh()
    return ((1 - z) * n + z * h,)


def normalized_inputs_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    both = zip(
        normalized(sums(w, "ih", x)), normalized(sums(w, "hh", h)), own(w, "shift_", "ifgo"), strict=True
    )
    i, f, g, o = (a + b + s for a, b, s in both)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * F.layer_norm(c, (H,)).tanh(), c


def basic_lstm(w: W, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, j, f, o = (a + b for a, b in zip(sums(w, "ih", x), sums(w, "hh", h), strict=True))
    i, f = F.layer_norm(i, (H,), w["gain_i"], eps=1e-3), F.layer_norm(f, (H,), w["gain_f"], eps=1e-3)
    c = c * (f + 1).sigmoid() + i.sigmoid() * F.layer_norm(j, (H,), eps=1e-3).tanh()
    c = F.layer_norm(c, (H,), w["gain_c"], w["shift_c"], eps=1e-3)
    return c.tanh() * o.sigmoid(), c


def rms_gru(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    (xr, xz, xn), (hr, hz, hn) = sums(w, "ih", x), sums(w, "hh", h)
    row = torch.cat((xr + hr, xz + hz), -1)
    r, z = F.rms_norm(row, (2 * H,), torch.cat((w["gain"], w["gain"])), eps=1e-5).sigmoid().chunk(2, -1)
    n = (xn + r * F.rms_norm(hn, (H,), eps=1e-5)).tanh()
    return ((1 - z) * n + z * h,)


def soft_gates(w: W, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    (xa, xn), (ha, hn) = sums(w, "ih", x), sums(w, "hh", h)
    a = (xa + ha).softmax(-1)
    length = (h.square().sum(-1, keepdim=True) + 1).sqrt()
    return (a * (xn + hn).tanh() / (1 + h.abs().amax(-1, keepdim=True) + length) + (1 - a) * h,)


LOOPS: dict[type[Cell], Step] = {
    LayerNormLSTM: layernorm_lstm,
    LayerNormGRU: layernorm_gru,
    NormalizedInputsLSTM: normalized_inputs_lstm,
    BasicLSTM: basic_lstm,
    RMSGRU: rms_gru,
    SoftGates: soft_gates,
}


def by_torch(step: Step, layer: Recurrent, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs (T, B, H), then the final states."""
    w = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    outputs = []
    for each in x:
        states = step(w, each, *states)
        outputs.append(states[0])
    return torch.stack(outputs), *states


@pytest.mark.parametrize("cell", LOOPS, ids=lambda cell: cell.__name__)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_values_and_gradients_are_those_of_a_plain_loop(cell: type[Cell], backend: str) -> None:
    layer = Recurrent(cell, D, H, backend=backend, dtype=torch.float64)
    with torch.no_grad():
        for name in layer.cell.vectors:
            getattr(layer, f"{name}_l0").add_(torch.randn(H, dtype=torch.float64) / 3)
    x = torch.randn(6, 3, D, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(3, H, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states)
    given = tuple(state.unsqueeze(0) for state in states)
    output, final = layer(x, given if len(given) > 1 else given[0])
    found = (output, *(each[0] for each in (final if isinstance(final, tuple) else (final,))))
    wanted = by_torch(LOOPS[cell], layer, x, states)
    inputs = (x, *states, *layer.parameters())
    arriving = [torch.randn_like(each) for each in wanted]
    for name, a, b in zip(("output", *layer.cell.states), found, wanted, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-11, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )
    pairs = zip(
        torch.autograd.grad(found, inputs, arriving),
        torch.autograd.grad(wanted, inputs, arriving),
        strict=True,
    )
    names = ("x", *layer.cell.states, *(name for name, _ in layer.named_parameters()))
    for name, (a, b) in zip(names, pairs, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_units_of_padding_have_no_part_in_a_row() -> None:
    """H 1 to 17 fill no, one or several vectors; what lies behind them, of other rows, must never be taken in."""

    class Plain(Cell):
        """All reductions of what is large and negative, so that a zero would show."""

        gates = ("n",)

        def step(self, x, h):
            low = -5 - abs(x.n)
            return cellwise.amax(low) + cellwise.mean(low) + cellwise.sum(low) + 0 * h

    for size in (1, 3, 8, 16, 17):
        layer = Recurrent(Plain(), 2, size, backend="cpu", dtype=torch.float32)
        x = torch.randn(3, 5, 2)
        low = -5 - F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0).abs()
        wanted = low.amax(-1) + low.mean(-1) + low.sum(-1)
        torch.testing.assert_close(layer(x)[0], wanted.unsqueeze(-1).expand(3, 5, size))


class Tempered(Cell):
    """Learned numbers that only numbers of a row are made with, kept ones among them, and a comparison."""

    gates = ("a",)
    q, r = Scalar(0.3), Scalar(0.5)

    def step(self, x, h):
        least = tanh(self.q) * 2
        size = where(cellwise.mean(h) < least, cellwise.mean(x.a) * exp(self.r), tanh(self.q + self.r))
        return tanh(x.a + h.a) * size + 0.5 * h


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("batch", [2, 40])
def test_learned_numbers_that_only_numbers_of_a_row_are_made_with(batch: int, recompute: bool) -> None:
    layer = Recurrent(Tempered, 3, 5, dtype=torch.float64)
    arguments = Arguments(torch.randn(6, batch, 3, dtype=torch.float64))
    found = {}
    for layer.backend in ("reference", "cpu"):
        layer.recompute = recompute and layer.backend == "cpu"
        found[layer.backend] = results(layer, arguments)
    for name, wanted in found["reference"].items():
        torch.testing.assert_close(found["cpu"][name], wanted, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_the_gradient_is_that_of_the_definition() -> None:
    layer = Recurrent("layernorm-gru", 2, 3, backend="cpu", dtype=torch.float64)
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], x)


def test_torch_func_sees_rows() -> None:
    layer = Recurrent("layernorm-lstm", 2, 3, backend="reference", dtype=torch.float64)
    x = torch.randn(4, 3, 1, 2, dtype=torch.float64)
    each = torch.stack([layer(one)[0] for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda one: layer(one)[0])(x), each)
    _, tangent = torch.func.jvp(lambda one: layer(one)[0], (x[0],), (x[1],))
    step = 1e-6
    difference = (layer(x[0] + step * x[1])[0] - layer(x[0] - step * x[1])[0]) / (2 * step)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-7)


def test_a_stream_gives_what_the_layer_gives() -> None:
    for name in ("layernorm-lstm", "layernorm-gru"):
        layer = Recurrent(cells.get(name), D, 7, num_layers=2, backend="cpu")
        x = torch.randn(5, 2, D)
        stream = layer.stream(batch_size=2)
        torch.testing.assert_close(torch.stack([stream(each) for each in x]), layer(x)[0])


def test_a_cell_says_what_no_layer_norm_can_be_of() -> None:
    with pytest.raises(TypeError, match=r"cellwise\.mean writes equations"):
        layer_norm(torch.zeros(3))
