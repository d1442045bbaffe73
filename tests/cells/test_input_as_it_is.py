"""Cells that take numbers of the input as they are: x itself, unit by unit, and gates that arrive ready."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear as affine

from cellwise import Cell, Recurrent, Vector, ready, sigmoid, tanh
from cellwise.errors import CellDefinitionError, LayerError, ShapeError
from cellwise.graph.stored import restore, store
from cellwise.plan.cost import cost_of
from cellwise.plan.polynomial import b, h, t
from cellwise.understand.backward_equations import gradient_text
from cellwise.understand.diagram.picture import INPUT_ID, picture_of

H = 3


class Highway(Cell):
    """A state that gives way to the input (Srivastava et al. 2015, through time)."""

    gates = ("z",)

    def step(self, x, h):
        z = sigmoid(x.z + h.z)
        return z * h + (1 - z) * x


class Ready(Cell):
    """A light GRU whose gates arrive ready."""

    gates = ("z", "n")

    def step(self, x, h):
        z = sigmoid(ready(x.z) + h.z)
        return z * h + (1 - z) * tanh(ready(x.n) + h.n)


def _highway(p: dict[str, Tensor], layer: int, x: Tensor, h: Tensor) -> Tensor:
    z = affine(x, p[f"weight_ih_l{layer}"], p[f"bias_ih_l{layer}"])
    z = (z + affine(h, p[f"weight_hh_l{layer}"], p[f"bias_hh_l{layer}"])).sigmoid()
    return z * h + (1 - z) * x


def _ready(p: dict[str, Tensor], layer: int, x: Tensor, h: Tensor) -> Tensor:
    of_z, of_n = affine(h, p["weight_hh_l0"], p["bias_hh_l0"]).chunk(2, -1)
    for_z, for_n = x.chunk(2, -1)
    z = (for_z + of_z).sigmoid()
    return z * h + (1 - z) * (for_n + of_n).tanh()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("cell", "step", "layers"), [(Highway, _highway, 2), (Ready, _ready, 1)])
def test_it_is_what_a_loop_in_torch_computes(cell: Any, step: Any, layers: int, backend: str) -> None:
    torch.manual_seed(1)
    width = H * len(cell().graph.input_parts)
    layer = Recurrent(cell, width, H, num_layers=layers, backend=backend, dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    x = torch.randn(4, 2, width, dtype=torch.float64, requires_grad=True)
    found, final = layer(x)

    sequence: Any = x
    for number in range(layers):
        state, outputs = torch.zeros(2, H, dtype=torch.float64), []
        for row in sequence:
            state = step(parameters, number, row, state)
            outputs.append(state)
        sequence = torch.stack(outputs)
    torch.testing.assert_close(found, sequence, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(final[-1], sequence[-1], rtol=1e-10, atol=1e-12)
    factor, sources = torch.randn_like(found), [x, *parameters.values()]
    pair = [torch.autograd.grad((each * factor).sum(), sources) for each in (found, sequence)]
    for ours, wanted in zip(*pair, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-11)


class _Pushed(Cell):
    """Parts of x, which are all that it takes of it, beside a value of the call's."""

    gates = ("z", "n")
    inputs = {"push": 0.25}  # noqa: RUF012

    def step(self, x, h, push):
        z = sigmoid(ready(x.z) + h.z)
        return z * h + (1 - z) * tanh(ready(x.n) + h.n + push)


class _Two(Highway):
    outputs = ("h", "z")

    def step(self, x, h):
        z = sigmoid(x.z + h.z)
        return z, z * h + (1 - z) * x


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("hidden", [3, 16])
@pytest.mark.parametrize(("cell", "layers"), [(Highway, 2), (Ready, 1), (_Pushed, 1), (_Two, 3)])
def test_a_stream_steps_by_kernels(
    cell: Any, layers: int, hidden: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole vectors they are read where x lies; else, and in no other memory, from a copy."""
    width = hidden * len(cell().graph.input_parts)
    layer = Recurrent(cell, width, hidden, layers, backend="cpu")
    stream = layer.stream(batch)
    monkeypatch.setattr(Recurrent, "_stream_step", None)  # whole calls
    x = torch.randn(5, batch, width)
    steps = [stream(each.clone()) for each in x]
    output, state = layer(x)
    outputs = output if isinstance(output, tuple) else (output,)
    rows = zip(*steps, strict=True) if isinstance(output, tuple) else (steps,)
    for one, each in zip(outputs, rows, strict=True):
        torch.testing.assert_close(torch.stack(list(each)), one.detach())
    torch.testing.assert_close(stream.state, state.detach())
    table, weight = torch.randn(7, width), torch.randn(hidden, 7)
    assert stream.follower(table, weight, 2) is None  # which follows x alone


def test_a_ready_gate_has_no_weight_of_the_input() -> None:
    assert [name for name, _ in Recurrent(Ready, 2 * H, H).named_parameters()] == [
        "weight_hh_l0",
        "bias_hh_l0",
    ]


@pytest.mark.parametrize(
    ("cell", "sizes", "said"),
    [
        (
            Highway,
            {"input_size": 2},
            r"takes x itself.*got input_size=2 and hidden_size=3.*Linear\(2, 3\).*\* x",
        ),
        (Highway, {"input_size": 3, "num_layers": 2, "bidirectional": True}, r"second layer is given 6"),
        (Ready, {"input_size": 3}, r"gates z, n of x ready.*6 together; got input_size=3"),
        (Ready, {"input_size": 6, "num_layers": 2}, r"second layer is given 3.*Linear\(3, 6\)"),
    ],
)
def test_a_layer_of_other_widths_is_refused(cell: Any, sizes: Any, said: str) -> None:
    with pytest.raises(LayerError, match=f"(?s){said}"):
        Recurrent(cell, hidden_size=H, **sizes)


class _Mixed(Cell):
    gates = ("z", "n")

    def step(self, x, h):
        return tanh(ready(x.z) + x.n + h.n)


class _Clash(Cell):
    gates = ("z",)
    x_z = Vector()

    def step(self, x, h):
        return tanh(ready(x.z) + h.z + self.x_z)


class _NoGate(Cell):
    gates = ("z",)

    def step(self, x, h):
        return tanh(ready(h.z))


class _Nothing(Cell):
    gates = ()

    def step(self, x, h):
        return x * h


@pytest.mark.parametrize(
    ("cell", "error", "said"),
    [
        (_Mixed, CellDefinitionError, "asks the input for more"),
        (_Clash, ShapeError, "called x_z, and so is something else"),
        (_NoGate, ShapeError, "no gate of the input"),
        (_Nothing, CellDefinitionError, "nothing to learn"),
    ],
)
def test_what_cannot_be_said_is_refused(cell: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        _ = cell().graph


def test_outside_of_a_step_ready_says_so() -> None:
    with pytest.raises(TypeError, match=r"inside a Cell\.step"):
        ready(torch.zeros(2))


@pytest.mark.parametrize("cell", [Highway, Ready])
def test_its_text_is_the_same_cell(cell: Any) -> None:
    assert restore(store(cell().graph)).fingerprint == cell().graph.fingerprint
    assert Highway().graph.fingerprint != Ready().graph.fingerprint


def test_the_views_know_of_it() -> None:
    assert Highway().equations.endswith("h' = z ⊙ h + (1 − z) ⊙ x")
    assert "z = σ(x_z + W_hz h + b_hz)" in Ready().equations
    told = gradient_text(Highway().graph).splitlines()
    assert "δx = W_izᵀ δx_z + δh' ⊙ (1 − z)" in told, "one gradient of x, by both ways"
    assert "δx_n = δh_n" in gradient_text(Ready().graph).splitlines()
    for cell in (Highway, Ready):
        assert picture_of(cell().graph).outputs(INPUT_ID)
    cost = cost_of(Ready().graph)
    assert cost.parameters == 2 * h * (h + 1)
    assert cost.training_memory["input"] == 2 * b * t * h
