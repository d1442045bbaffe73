"""The derivative through time against torch's own autograd, and the experiment that is built on it."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

import cellwise
from cellwise import Cell, cells, sigmoid, stop_gradient, tanh
from cellwise.experiments.initialization import add_forget_bias, gate_rows, orthogonal_
from cellwise.understand.gates import carry_gates
from cellwise.understand.jacobians import (
    NORMS,
    GradientError,
    gradient_flow,
    rate_per_step,
    step_jacobians,
)

T, B, D, H = 7, 3, 2, 4


class MGU(Cell):
    """One gate, and the new state as the old one plus a change."""

    gates = ("f", "n")

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        return h + f * (tanh(x.n + (f * h).n) - h)


class WithOutput(Cell):
    """An output that is no state, and a state that forgets by a gate with the opposite sign inside."""

    gates = ("a", "n")
    states = ("u", "v")
    output = "y"

    def step(self, x, u, v):
        keep = sigmoid(-x.a - v.a)
        u_new = keep * u + (1 - keep) * tanh(x.n + v.n)
        v = tanh(u_new + 0.5 * stop_gradient(v))
        return u_new * v, u_new, v


class Linear(Cell):
    """h' = x + W h: the derivative over k steps is the k-th power of W."""

    gates = ("n",)

    def step(self, x, h):
        return x.n + h.n


class Forgetful(Cell):
    """Takes no notice of its past."""

    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n)


def states_of_one(state):
    return state if isinstance(state, tuple) else (state,)


def whole_jacobian(layer, x, lag):
    """d(all states at T) / d(all states at T - lag) of one sequence x (T, D), by torch's autograd through the layer."""
    S = len(layer.cell.graph.states)
    if lag == len(x):
        start = tuple(torch.zeros(1, 1, H, dtype=torch.float64) for _ in range(S))
    else:
        start = states_of_one(layer(x[: len(x) - lag].unsqueeze(1))[1])

    def run(flat):
        pieces = tuple(piece.reshape(1, 1, H) for piece in flat.chunk(S))
        _, last = layer(x[len(x) - lag :].unsqueeze(1), pieces if S > 1 else pieces[0])
        return torch.cat([piece.flatten() for piece in states_of_one(last)])

    return jacobian(run, torch.cat([piece.detach().flatten() for piece in start]))


@pytest.mark.parametrize("cell", [*cells.FAMILIAR, MGU, WithOutput])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_equal_those_of_torchs_autograd(cell, norm):
    layer = cellwise.Recurrent(cell, D, H, backend="reference", dtype=torch.float64).eval()
    x = torch.randn(T, B, D, dtype=torch.float64)
    flow = gradient_flow(layer, x, norm=norm)
    names = layer.cell.graph.states
    order, scale = {"spectral": (2, 1.0), "frobenius": ("fro", 1.0)}[norm]
    for lag in range(1, T + 1):
        for b in range(B):
            expected = whole_jacobian(layer, x[:, b], lag)

            def size(matrix):
                value = torch.linalg.matrix_norm(matrix, ord=order)
                return value / (matrix.shape[0] ** 0.5 if norm == "frobenius" else scale)

            torch.testing.assert_close(flow.whole[lag, b], size(expected), rtol=1e-8, atol=1e-12)
            for i, later in enumerate(names):
                for j, earlier in enumerate(names):
                    block = expected[i * H : (i + 1) * H, j * H : (j + 1) * H]
                    torch.testing.assert_close(
                        flow.blocks[later, earlier][lag, b], size(block), rtol=1e-8, atol=1e-12
                    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_norms_equal_those_of_torchs_own_layers(kind):
    """Through torch.nn itself, with none of our code in the way: every state by every earlier one."""
    theirs = getattr(torch.nn, kind)(D, H, dtype=torch.float64)
    ours = getattr(cellwise, kind)(D, H)
    ours.load_state_dict(theirs.state_dict())
    ours.double().load_state_dict(theirs.state_dict())
    x = torch.randn(T, 1, D, dtype=torch.float64)
    S = 2 if kind == "LSTM" else 1
    begun = states_of_one(theirs(x[:2])[1])

    def run(*start):
        return states_of_one(theirs(x[2:], start if S > 1 else start[0])[1])

    rows = jacobian(run, begun)
    matrix = torch.cat([torch.cat([piece.reshape(H, H) for piece in row], dim=1) for row in rows])
    flow = gradient_flow(ours, x)
    torch.testing.assert_close(flow.whole[T - 2, 0], torch.linalg.matrix_norm(matrix, 2), rtol=1e-8, atol=0)


def test_jacobians_of_the_steps_multiply_to_the_whole():
    layer = cellwise.Recurrent("lstm", D, H, dtype=torch.float64)
    x = torch.randn(T, B, D, dtype=torch.float64)
    jacobians = step_jacobians(layer, x)
    assert jacobians.shape == (T, B, 2 * H, 2 * H)
    product = torch.eye(2 * H, dtype=torch.float64)
    for t in range(T):
        product = jacobians[t, 1] @ product
    layer.backend = "reference"
    torch.testing.assert_close(product, whole_jacobian(layer, x[:, 1], T), rtol=1e-10, atol=1e-14)


def test_a_long_sequence_taken_in_pieces_is_the_same(monkeypatch):
    layer = cellwise.Recurrent("gru", D, H)
    x = torch.randn(T, B, D)
    expected = gradient_flow(layer, x).whole
    monkeypatch.setattr("cellwise.understand.jacobians._HELD", 3 * B * H**2)
    torch.testing.assert_close(gradient_flow(layer, x).whole, expected, rtol=1e-13, atol=0)


def test_a_given_state_is_where_the_sequence_begins():
    layer = cellwise.Recurrent("gru", D, H, dtype=torch.float64, backend="reference")
    x, state = torch.randn(T, 1, D, dtype=torch.float64), torch.randn(1, 1, H, dtype=torch.float64)
    expected = torch.linalg.matrix_norm(
        jacobian(lambda s: layer(x, s)[1].flatten(), state).reshape(H, H), ord=2
    )
    torch.testing.assert_close(gradient_flow(layer, x, state).whole[T, 0], expected, rtol=1e-10, atol=0)
    assert gradient_flow(layer, x).whole[T, 0] != expected


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.0, 1.1])
def test_a_linear_cell_gives_its_spectral_radius(radius):
    layer = cellwise.Recurrent(Linear, D, H)
    assert orthogonal_(layer)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(radius)
    norms = gradient_flow(layer, torch.randn(60, 1, D)).whole[:, 0]
    expected = radius ** torch.arange(61, dtype=torch.float64)
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=0)  # float32 weights, 60 times over
    assert rate_per_step(norms) == pytest.approx(radius, abs=1e-5)


def test_a_cell_without_a_past_has_no_derivative():
    flow = gradient_flow(cellwise.Recurrent(Forgetful, D, H), torch.randn(T, B, D))
    assert (flow.whole[0] == 1).all()
    assert not flow.whole[1:].any()
    assert math.isnan(rate_per_step(flow.whole[:, 0]))


def test_the_layer_is_left_as_it_was():
    layer = cellwise.Recurrent("lstm", D, H, backend="cpu")
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    gradient_flow(layer, torch.randn(T, B, D))
    assert layer.backend == "cpu"
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("options", "shape", "norm", "said"),
    [
        ({"num_layers": 2}, (T, B, D), "spectral", "one layer in one direction"),
        ({"bidirectional": True}, (T, B, D), "spectral", "one layer in one direction"),
        ({}, (T, D), "spectral", r"inputs of shape \(T, B, D\)"),
        ({}, (T, B, D), "nuclear", "no norm called 'nuclear'; there are: spectral, frobenius"),
    ],
)
def test_what_cannot_be_measured_is_said(options, shape, norm, said):
    with pytest.raises(GradientError, match=said):
        gradient_flow(cellwise.Recurrent("gru", D, H, **options), torch.randn(shape), norm=norm)


def test_states_that_explode_are_said():
    layer = cellwise.Recurrent(Linear, D, H)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(1e30)
    with pytest.raises(GradientError, match="not finite before step"):
        gradient_flow(layer, torch.randn(40, B, D))


def test_a_derivative_that_explodes_is_said():
    layer = cellwise.Recurrent(Linear, D, H, bias=False)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(1e30)
    with pytest.raises(GradientError, match="beyond the range of float64 at a lag of 11 steps"):
        gradient_flow(layer, torch.zeros(40, B, D))


# --- gates that keep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("rnn", []),
        ("indrnn", []),
        ("lstm", ["f keeps c"]),
        ("lstm-peephole", ["f keeps c"]),
        ("gru", ["z keeps h"]),
        ("gru-reset-before", ["z keeps h"]),
        ("mingru", ["z replaces h"]),
        (MGU, ["f replaces h"]),
        (WithOutput, ["a replaces u"]),
    ],
)
def test_the_gate_that_keeps_is_read_off_the_equations(cell, expected):
    assert [str(gate) for gate in carry_gates(cells.get(cell).graph)] == expected


@pytest.mark.parametrize(
    "cell", ["lstm", "gru", "gru-reset-before", "mingru", "lstm-peephole", MGU, WithOutput]
)
def test_a_bias_on_that_gate_keeps_more(cell):
    """The sign is right: with a large bias the state's own past comes through nearly whole, otherwise it does not."""
    layer = cellwise.Recurrent(cell, D, 16)
    x = torch.randn(30, B, D)
    state = carry_gates(layer.cell.graph)[0].state
    before = gradient_flow(layer, x).blocks[state, state][30].mean()
    assert add_forget_bias(layer, 9.0)
    after = gradient_flow(layer, x).blocks[state, state][30].mean()
    assert before < 0.01
    assert after > 0.5


def test_only_that_gates_rows_change():
    layer = cellwise.Recurrent("lstm", D, H)
    before = layer.bias_ih_l0.detach().clone()
    add_forget_bias(layer, 2.0)
    changed = (layer.bias_ih_l0 - before).detach()
    rows = gate_rows(layer, "ih", "f")
    assert torch.allclose(changed[rows], torch.full((H,), 2.0))
    assert not torch.cat([changed[: rows.start], changed[rows.stop :]]).any()


def test_a_cell_without_such_a_gate_or_bias_is_left_alone():
    for layer in (cellwise.Recurrent("rnn", D, H), cellwise.Recurrent("lstm", D, H, bias=False)):
        before = [p.detach().clone() for p in layer.parameters()]
        assert not add_forget_bias(layer, 1.0)
        assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_orthogonal_rows_are_orthogonal_gate_by_gate():
    layer = cellwise.Recurrent("gru", D, H)
    assert orthogonal_(layer)
    for block in layer.weight_hh_l0.chunk(3):
        torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-5)
    assert not orthogonal_(cellwise.Recurrent("mingru", D, H))
