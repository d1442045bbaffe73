"""What is recorded is what the layer computes, and connectivity is what autograd says, for any cell."""

from __future__ import annotations

import pytest
import torch

import cellwise
from cellwise import Cell, Recurrent, Scalar, Vector, cells, sigmoid, tanh
from cellwise.graph.functions import clamp, maximum, where
from cellwise.understand.trace import record, sensitivity
from cellwise.understand.trace.errors import TraceError

T, D, H = 9, 3, 5


class Odd(Cell):
    """A cell nobody has seen: an output of its own, two products one after the other, a parameter of each kind."""

    gates = ("a", "b", "n")
    states = ("h", "m")
    output = "y"
    p = Vector()
    s = Scalar(0.7)

    def step(self, x, h, m):
        open_ = sigmoid(x.a + h.a + self.p * m)
        kept = clamp(open_ * h, -0.5, 0.5)
        candidate = tanh(x.n + kept.n)
        m = maximum(m * self.s, candidate)
        h = where(candidate < 0, open_ * candidate, sigmoid(x.b) * m)
        return h + m.b, h, m


class Forgetful(Cell):
    """No product in time, a state that is passed on unchanged, no variable."""

    gates = ("n",)
    states = ("h", "last")

    def step(self, x, h, last):
        return 0.5 * last + tanh(x.n), h


CELLS = [*cells.FAMILIAR, Odd, Forgetful]


def layer_of(cell: object, **options: object) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(cell, D, H, dtype=torch.float64, backend="reference", **options).eval()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_recorded_outputs_and_states_are_those_of_the_layer(cell: object, layers: int) -> None:
    layer = layer_of(cell, num_layers=layers)
    x = torch.randn(T, D, dtype=torch.float64)
    recording = record(layer, x)
    output, final = layer(x)
    torch.testing.assert_close(recording.output, output, rtol=1e-12, atol=1e-14)
    finals = final if isinstance(final, tuple) else (final,)
    for number, each in enumerate(recording.layers):
        for name, state in zip(layer.cell.states, finals, strict=True):
            torch.testing.assert_close(each.signal(name).values[-1], state[number], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", ["native", "cpu"])
def test_the_recording_in_float32_agrees_with_the_fast_backends(backend: str) -> None:
    layer = Recurrent("lstm", D, 20, num_layers=2, backend=backend)
    x = torch.randn(50, D)
    torch.testing.assert_close(record(layer, x).output, layer(x)[0], rtol=1e-5, atol=1e-6)


def test_gates_have_the_values_of_their_equations() -> None:
    layer = layer_of("lstm")
    x = torch.randn(T, D, dtype=torch.float64)
    recorded = record(layer, x).layers[0]
    h, c = torch.zeros(H, dtype=torch.float64), torch.zeros(H, dtype=torch.float64)
    for t in range(T):
        rows = layer.weight_ih_l0 @ x[t] + layer.bias_ih_l0 + layer.weight_hh_l0 @ h + layer.bias_hh_l0
        i, f, g, o = rows.chunk(4)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}.items():
            torch.testing.assert_close(
                recorded.signal(name).values[t], value.detach(), rtol=1e-12, atol=1e-14
            )


def test_kinds_and_bounds_come_from_the_equations() -> None:
    found = {
        each.name: (each.kind, each.bounds)
        for each in record(layer_of(Odd), torch.randn(T, D).double()).layers[0].signals
    }
    assert found == {
        "h": ("state", None),
        "m": ("state", None),
        "open_": ("gate", (0.0, 1.0)),
        "kept": ("value", None),
        "candidate": ("value", (-1.0, 1.0)),
        "y": ("value", None),
    }
    gru = [
        (each.name, each.kind)
        for each in record(layer_of("gru"), torch.randn(T, D).double()).layers[0].signals
    ]
    assert gru == [("h", "state"), ("r", "gate"), ("z", "gate"), ("n", "value")]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_connectivity_is_the_gradient_of_each_output_by_each_input(cell: object, layers: int) -> None:
    layer = layer_of(cell, num_layers=layers)
    x = torch.randn(T, D, dtype=torch.float64, requires_grad=True)
    seeds = torch.randn(2, T, H, dtype=torch.float64)
    found = sensitivity(record(layer, x.detach()), seeds)
    output, _ = layer(x)
    for k in range(2):
        for s in range(T):
            (gradient,) = torch.autograd.grad(output[s] @ seeds[k, s], x, retain_graph=True)
            torch.testing.assert_close(found[k, s], gradient.norm(dim=-1), rtol=1e-9, atol=1e-14)
    assert (found[:, 0, 1:] == 0).all()
    assert (found[:, -1] > 0).any()


def test_a_layer_of_torch_nn_made_faster_can_be_recorded() -> None:
    layer = cellwise.GRU(D, H)
    recording = record(layer, torch.randn(4, D))
    assert len(recording) == 4


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ({"bidirectional": True}, (4, D), "a bidirectional layer cannot be traced"),
        ({}, (4, 2, D), r"needs one sequence \(T, 3\) of at least one step, not \(4, 2, 3\)"),
        ({}, (0, D), "of at least one step"),
        ({}, (4, D + 1), r"not \(4, 4\)"),
    ],
)
def test_what_cannot_be_recorded_is_said(options: dict[str, bool], shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        record(Recurrent("gru", D, H, **options), torch.zeros(shape))


def test_a_projected_layer_is_refused() -> None:
    with pytest.raises(TraceError, match="projected"):
        record(cellwise.LSTM(D, H, proj_size=2), torch.zeros(4, D))


def test_an_unknown_signal_names_those_that_are_there() -> None:
    with pytest.raises(KeyError, match="recorded are h, r, z, n"):
        record(layer_of("gru"), torch.zeros(2, D).double()).layers[0].signal("f")
