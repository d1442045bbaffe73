"""The numerical contract: how far results lie from float64, what is the same to the last bit, and what may change it.

`benchmarks/accuracy.py` prints the errors by T, B, D and H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cellwise
from cellwise import Cell, Scalar, Vector, sigmoid, tanh
from cellwise.backends.cpu import threads
from cellwise.testing import Arguments, Results, assert_as_good, pooled, results

TORCHS: dict[str, type[nn.Module]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Own(Cell):
    """A Vector and a Scalar, and a product within the step."""

    gates = ("z", "n")
    v = Vector((0.5, 1.5))
    k = Scalar(0.7)

    def step(self, x, h):
        z = sigmoid(x.z + h.z + self.v * h)
        return (1 - z) * tanh(x.n + self.k * h.n) + z * h


def layers_of(cell: Any, sizes: tuple[int, int], **options: Any) -> tuple[nn.Module, nn.Module]:
    """torch's layer, or the reference where torch has none; and the kernels', with the same weights."""
    other: nn.Module
    if isinstance(cell, str):
        other = TORCHS[cell](*sizes, **options)
        ours = getattr(cellwise, cell.upper())(*sizes, **options, backend="cpu")
        ours.load_state_dict(other.state_dict())
    else:
        ours = cellwise.Recurrent(cell, *sizes, **options, backend="cpu")
        other = cellwise.Recurrent(cell, *sizes, **options, backend="reference")
        other.load_state_dict(ours.state_dict())
    return other, ours


def given(other: nn.Module, steps: int, batch: int) -> Arguments:
    hidden, first = other.hidden_size, other.proj_size or other.hidden_size
    states = [torch.randn(1, batch, first)]
    if isinstance(other, nn.LSTM):
        states.append(torch.randn(1, batch, hidden))
    return Arguments(
        torch.randn(steps, batch, other.input_size), tuple(states) if len(states) > 1 else states[0]
    )


def in_float64(arguments: Arguments) -> Arguments:
    wide = tuple(state.double() for state in arguments.states)
    return Arguments(arguments.x.double(), wide if len(wide) > 1 else wide[0])


def check(
    cell: Any, steps: int, batch: int, inputs: int, hidden: int, draws: int = 1, **options: Any
) -> None:
    """Every result in float32 is at most twice as far from float64 as the other layer's, of several draws together."""
    found, others, truths = [], [], []
    for seed in range(draws):
        torch.manual_seed(seed)
        other, ours = layers_of(cell, (inputs, hidden), **options)
        arguments = given(other, steps, batch)
        found.append(results(ours, arguments))
        others.append(results(other, arguments))
        truths.append(results(other.double(), in_float64(arguments)))
    assert_as_good(pooled(found), pooled(others), pooled(truths))


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "batch"), [(2500, 200), (50, 10_000)])
@pytest.mark.parametrize("cell", TORCHS)
def test_every_gradient_of_half_a_million_steps(cell: str, steps: int, batch: int) -> None:
    check(cell, steps, batch, inputs=3, hidden=8)


@pytest.mark.slow
def test_own_parameters_of_half_a_million_steps() -> None:
    check(Own, 100, 5000, inputs=3, hidden=8)


@pytest.mark.parametrize("cell", TORCHS)
def test_one_row_for_thousands_of_steps(cell: str) -> None:
    check(cell, 5000, 1, inputs=1, hidden=2)


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("cell", TORCHS)
def test_wide_layers(cell: str, batch: int) -> None:
    check(cell, 6, batch, inputs=32, hidden=1024)


@pytest.mark.parametrize("cell", TORCHS)
def test_wide_inputs(cell: str) -> None:
    check(cell, 6, 4, inputs=4096, hidden=24)


def test_wide_projections() -> None:
    check("lstm", 6, 4, inputs=24, hidden=1024, proj_size=600)


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 32), (8, 16), (7, 1), (100, 3)])
@pytest.mark.parametrize("cell", TORCHS)
def test_narrow_sides_of_weights(cell: str, inputs: int, hidden: int) -> None:
    """What MKL sums row by row: 6e-6 at 130,000 rows where torch's LSTM has 5e-7."""
    check(cell, 100, 500, inputs, hidden, draws=3)


# --- bits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    torch.set_num_threads(2)


def layer_and_call(cell: Any, batch: int, hidden: int) -> tuple[nn.Module, Arguments]:
    other, ours = layers_of(cell, (5, hidden))
    return ours, given(other, 9, batch)


def same_bits(found: Results, wanted: Results) -> bool:
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_the_same_call_gives_the_same_bits(cell: Any) -> None:
    layer, arguments = layer_and_call(cell, 40, 50)
    wanted = results(layer, arguments)
    assert all(same_bits(results(layer, arguments), wanted) for _ in range(3))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_the_same_call_gives_the_same_bits_in_two_threads(cell: Any) -> None:
    layer, arguments = layer_and_call(cell, 40, 50)
    wanted = results(layer, arguments)
    assert all(same_bits(results(layer, arguments), wanted) for _ in range(5))


def rows_of(layer: nn.Module, arguments: Arguments, rows: Sequence[int]) -> list[Tensor]:
    """Outputs, final states and the gradients at x and initial states of some rows, called by themselves."""
    x = arguments.x[:, rows].clone().requires_grad_()
    states = tuple(state[:, rows].clone().requires_grad_() for state in arguments.states)
    output, final = layer(x, states if len(states) > 1 else states[0])
    finals = final if isinstance(final, tuple) else (final,)
    return [output, *finals, *torch.autograd.grad(output.square().sum() + finals[0].sum(), (x, *states))]


@pytest.mark.parametrize("batch", [2, 3, 20])
@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_the_numbers_of_other_rows_change_nothing(cell: Any, batch: int) -> None:
    layer, arguments = layer_and_call(cell, batch, 50)
    wanted = rows_of(layer, arguments, range(batch))
    for value in (3.0, float("nan"), float("inf")):
        arguments.x[:, 1:] = value
        found = rows_of(layer, arguments, range(batch))
        assert all(torch.equal(a[:, 0], b[:, 0]) for a, b in zip(found, wanted, strict=True)), value


@pytest.mark.parametrize("hidden", [7, 50])
@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_from_eight_rows_on_their_number_changes_no_bit_of_a_row(cell: Any, hidden: int) -> None:
    """Of what the kernels compute: outputs and states. With fewer rows sums are split further, to keep a core busy."""
    layer, arguments = layer_and_call(cell, 61, hidden)
    wanted = rows_of(layer, arguments, range(61))
    states = len(arguments.states)
    for first, count in ((0, 8), (3, 9), (10, 13), (20, 24), (1, 60)):
        found = rows_of(layer, arguments, range(first, first + count))
        for a, b in zip(found[: 1 + states], wanted[: 1 + states], strict=True):
            assert torch.equal(a, b[:, first : first + count]), count


@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_fewer_rows_change_the_last_places_alone(cell: Any) -> None:
    layer, arguments = layer_and_call(cell, 20, 50)
    wanted = rows_of(layer, arguments, range(20))
    for count in (1, 2, 3, 7):
        for a, b in zip(rows_of(layer, arguments, range(count)), wanted, strict=True):
            torch.testing.assert_close(a, b[:, :count], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("cell", [*TORCHS, Own])
def test_threads_change_no_bit_of_outputs_and_states(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, arguments = layer_and_call(cell, 40, 50)
    alone = results(layer, arguments)
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    torch.set_num_threads(2)
    together = results(layer, arguments)
    for name, value in alone.items():
        if "gradient" not in name or "initial" in name:
            assert torch.equal(together[name], value), name
        else:
            torch.testing.assert_close(together[name], value, rtol=2e-5, atol=2e-5)
