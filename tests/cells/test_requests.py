"""What people asked torch, TensorFlow and haste for, each as a cell of a few lines beside a plain torch loop.

Compared are outputs, final states and the gradient of everything, in float64, by the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, sigmoid, tanh

import cellwise
from cellwise import Cell, Recurrent, Vector, dropout, layer_norm, silu, zoneout

D, H, T, B = 3, 4, 5, 6
Step = Callable[..., tuple[Tensor, ...]]


def layer_of(cell: Any, **options: Any) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(cell, D, H, backend="cpu", dtype=torch.float64, **options)


def check(layer: Recurrent, step: Step) -> None:
    """The layer's outputs, final states and gradients, against a loop over `step(weights, x, *states)`."""
    torch.manual_seed(2)
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(1, B, H, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states)
    output, final = layer(x, states if len(states) > 1 else states[0])
    found = (output, *(final if isinstance(final, tuple) else (final,)))
    weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    carried, outputs = tuple(state[0] for state in states), []
    for row in x:
        carried = step(weights, row, *carried)
        outputs.append(carried[0])
    wanted = (torch.stack(outputs), *(state[None] for state in carried))
    torch.testing.assert_close(found, wanted)
    arriving = [torch.randn_like(each) for each in wanted]
    read = (x, *states, *layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, read, arriving), torch.autograd.grad(wanted, read, arriving)
    )


def of_x(w: dict[str, Tensor], x: Tensor) -> Tensor:
    return F.linear(x, w["weight_ih"], w["bias_ih"])


def of_h(w: dict[str, Tensor], h: Tensor) -> Tensor:
    return F.linear(h, w["weight_hh"], w["bias_hh"])


def test_pytorch_6760_layer_norm_in_an_lstm() -> None:
    class NormalizedLSTM(Cell):
        gates = ("i", "f", "g", "o")
        states = ("h", "c")

        def step(self, x, h, c):
            i, f, g, o = layer_norm((x.i + h.i, x.f + h.f, x.g + h.g, x.o + h.o))
            c = cellwise.sigmoid(f) * c + cellwise.sigmoid(i) * cellwise.tanh(g)
            return cellwise.sigmoid(o) * cellwise.tanh(layer_norm(c)), c

    def loop(w, x, h, c):
        i, f, g, o = F.layer_norm(of_x(w, x) + of_h(w, h), (4 * H,)).chunk(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(F.layer_norm(c, (H,))), c

    check(layer_of(NormalizedLSTM), loop)


def test_pytorch_630_peepholes() -> None:
    class Peepholes(Cell):
        gates = ("i", "f", "g", "o")
        states = ("h", "c")
        p_i, p_f, p_o = Vector(), Vector(), Vector()

        def step(self, x, h, c):
            i = cellwise.sigmoid(x.i + h.i + self.p_i * c)
            f = cellwise.sigmoid(x.f + h.f + self.p_f * c)
            c = f * c + i * cellwise.tanh(x.g + h.g)
            return cellwise.sigmoid(x.o + h.o + self.p_o * c) * cellwise.tanh(c), c

    def loop(w, x, h, c):
        i, f, g, o = (of_x(w, x) + of_h(w, h)).chunk(4, -1)
        c = sigmoid(f + w["p_f"] * c) * c + sigmoid(i + w["p_i"] * c) * tanh(g)
        return sigmoid(o + w["p_o"] * c) * tanh(c), c

    check(layer_of(Peepholes), loop)


class ZoneoutLSTM(Cell):
    """pytorch#561 for h; for c as well, haste#29."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    of_h: float = 0.25
    of_c: float = 0.0

    def step(self, x, h, c):
        i, f, o = (cellwise.sigmoid(gate) for gate in (x.i + h.i, x.f + h.f, x.o + h.o))
        new = f * c + i * cellwise.tanh(x.g + h.g)
        return zoneout(o * cellwise.tanh(new), h, self.of_h), zoneout(new, c, self.of_c)


def lstm(w: dict[str, Tensor], x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (of_x(w, x) + of_h(w, h)).chunk(4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


@pytest.mark.parametrize("of_c", [0.0, 0.4], ids=["pytorch#561", "haste#29"])
def test_zoneout(of_c: float) -> None:
    layer = layer_of(ZoneoutLSTM(of_c=of_c))

    def mean(w, x, h, c):
        new_h, new_c = lstm(w, x, h, c)
        return 0.25 * h + 0.75 * new_h, of_c * c + (1 - of_c) * new_c

    check(layer.eval(), mean)
    # In training each unit is the new one or the old one, in the proportion that was asked for.
    rows = 2000
    x, old = torch.randn(1, rows, D).double(), tuple(torch.randn(2, 1, rows, H).double())
    _, states = layer.train()(x, old)
    weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    plain = lstm(weights, x[0], old[0][0], old[1][0])
    for new, before, wanted, p in zip(states, old, plain, (0.25, of_c), strict=True):
        stayed = new[0] == before[0]
        torch.testing.assert_close(new[0][~stayed], wanted[~stayed])
        assert abs(float(stayed.double().mean()) - p) < 0.02


class KeptOut(Cell):
    """Recurrent dropout as in Keras: the gates see the state through a mask, one for all steps of a sequence."""

    gates = ("r", "z", "n")
    p: float = 0.5

    def step(self, x, h):
        seen = dropout(h, self.p, per_sequence=True)
        r, z = cellwise.sigmoid(x.r + seen.r), cellwise.sigmoid(x.z + seen.z)
        return z * h + (1 - z) * cellwise.tanh(x.n + r * seen.n)


def test_tensorflow_40944_recurrent_dropout_in_a_fused_gru() -> None:
    layer = layer_of(KeptOut)

    def gru(w, x, h, seen):
        (xr, xz, xn), (hr, hz, hn) = of_x(w, x).chunk(3, -1), of_h(w, seen).chunk(3, -1)
        z = sigmoid(xz + hz)
        return z * h + (1 - z) * tanh(xn + sigmoid(xr + hr) * hn)

    check(layer.eval(), lambda w, x, h: (gru(w, x, h, h),))
    # One mask a sequence: some mask of each row explains both steps.
    x, state = torch.randn(2, 1, D).double(), torch.randn(1, 1, H).double()
    output, _ = layer.train()(x, state)
    weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 2.0]).double()] * H)
    first = gru(weights, x[0], state[0], state[0] * masks)
    second = gru(weights, x[1], first, first * masks)
    matches = (first - output[0]).abs().amax(1) + (second - output[1]).abs().amax(1) < 1e-9
    assert matches.sum() == 1


def test_haste_29_recurrent_dropout() -> None:
    class Written(Cell):
        """What is written to the memory is dropped, the memory is not (Semeniuta et al. 2016)."""

        gates = ("i", "f", "g", "o")
        states = ("h", "c")

        def step(self, x, h, c):
            i, f, o = (cellwise.sigmoid(gate) for gate in (x.i + h.i, x.f + h.f, x.o + h.o))
            c = f * c + i * dropout(cellwise.tanh(x.g + h.g), 0.5)
            return o * cellwise.tanh(c), c

    layer = layer_of(Written)
    check(layer.eval(), lstm)
    x, zero = torch.randn(1, 2000, D).double(), torch.zeros(2000, H).double()
    _, (_, memory) = layer.train()(x)
    weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    plain = lstm(weights, x[0], zero, zero)[1]
    dropped = memory[0] == 0
    torch.testing.assert_close(memory[0][~dropped], 2 * plain[~dropped])
    assert abs(float(dropped.double().mean()) - 0.5) < 0.02


def test_pytorch_711_a_cell_of_ones_own_in_all_that_layers_do() -> None:
    class Own(Cell):
        gates = ("f", "n")

        def step(self, x, h):
            f = cellwise.sigmoid(x.f + h.f)
            return f * h + (1 - f) * cellwise.tanh(x.n + (f * h).n)

    def loop(w, x, h):
        (xf, xn), (uf, un), (bf, bn) = of_x(w, x).chunk(2, -1), w["weight_hh"].chunk(2), w["bias_hh"].chunk(2)
        f = sigmoid(xf + F.linear(h, uf, bf))
        return (f * h + (1 - f) * tanh(xn + F.linear(f * h, un, bn)),)

    check(layer_of(Own), loop)
    both = layer_of(Own, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5).eval()
    x, lengths = torch.randn(B, T, D).double(), torch.tensor([5, 1, 3, 0, 2, 4])
    output, state = both(x, lengths=lengths)
    assert output.shape == (B, T, 2 * H) and state.shape == (4, B, H)
    for row, length in enumerate(lengths.tolist()):
        if length:
            torch.testing.assert_close(output[row : row + 1, :length], both(x[row : row + 1, :length])[0])
        assert not output[row, length:].any()
    again = Recurrent(
        Own, D, H, 2, batch_first=True, dropout=0.5, bidirectional=True, dtype=torch.float64
    ).eval()
    again.load_state_dict(both.state_dict())
    torch.testing.assert_close(again(x, lengths=lengths), (output, state))


def test_pytorch_9572_activation_norm_and_recurrent_dropout_in_one_cell() -> None:
    class Wished(Cell):
        """Another activation, layer norm and recurrent dropout: the first three wishes of the list."""

        gates = ("i", "f", "g", "o")
        states = ("h", "c")

        def step(self, x, h, c):
            i, f, g, o = layer_norm((x.i + h.i, x.f + h.f, x.g + h.g, x.o + h.o))
            c = cellwise.sigmoid(f) * c + cellwise.sigmoid(i) * dropout(silu(g), 0.25)
            return cellwise.sigmoid(o) * silu(c), c

    def loop(w, x, h, c):
        i, f, g, o = F.layer_norm(of_x(w, x) + of_h(w, h), (4 * H,)).chunk(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * F.silu(g)
        return sigmoid(o) * F.silu(c), c

    layer = layer_of(Wished)
    check(layer.eval(), loop)
    # In training the same seed gives the same masks, and another one others.
    x = torch.randn(T, B, D).double()
    first, same, other = (_seeded(layer.train(), x, seed) for seed in (3, 3, 4))
    assert torch.equal(first, same) and not torch.equal(first, other)


def _seeded(layer: Recurrent, x: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    output: Tensor = layer(x)[0]
    return output
