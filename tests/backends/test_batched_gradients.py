"""Many gradients at once through the kernels: as many calls, one by one, would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cellwise
from cellwise import Recurrent

CELLS = ("rnn", "gru", "lstm", "indrnn", "lstm-peephole")
SITUATIONS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": [2, 3]},
    "resets": {"resets": torch.tensor([[False, False], [True, False], [False, True]])},
}
Run = Callable[[Tensor], Tensor]


@pytest.fixture(params=CELLS)
def layer(request: pytest.FixtureRequest) -> Recurrent:
    return Recurrent(request.param, 2, 3, bidirectional=True, backend="cpu", dtype=torch.float64)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)


def one_by_one(results: Any, sources: Any, seeds: Tensor) -> list[Tensor]:
    each = [torch.autograd.grad(results, sources, seed, retain_graph=True) for seed in seeds]
    return [torch.stack(gradients) for gradients in zip(*each, strict=True)]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_gradients_of_every_input_batched_and_by_vmap(layer: Recurrent, x: Tensor, situation: str) -> None:
    output, _ = layer(x, **SITUATIONS[situation])
    sources, seeds = [x, *layer.parameters()], torch.randn(4, *output.shape, dtype=x.dtype)
    wanted = one_by_one(output, sources, seeds)
    batched = torch.autograd.grad(output, sources, seeds, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(list(batched), wanted)

    def backward(seed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, sources, seed, retain_graph=True)

    torch.testing.assert_close(list(torch.func.vmap(backward)(seeds)), wanted)


def test_gradients_of_final_states_alone(layer: Recurrent, x: Tensor) -> None:
    _, final = layer(x)
    last = final[-1] if isinstance(final, tuple) else final
    seeds = torch.randn(4, *last.shape, dtype=x.dtype)
    (found,) = torch.autograd.grad(last, x, seeds, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close([found], one_by_one(last, x, seeds))


def test_frozen_weights_need_none(x: Tensor) -> None:
    layer = cellwise.GRU(2, 3, backend="cpu", dtype=torch.float64).requires_grad_(False)
    layer.weight_hh_l0.requires_grad_()
    output, _ = layer(x)
    seeds = torch.randn(4, *output.shape, dtype=x.dtype)
    (found,) = torch.autograd.grad(
        output, layer.weight_hh_l0, seeds, is_grads_batched=True, retain_graph=True
    )
    torch.testing.assert_close([found], one_by_one(output, layer.weight_hh_l0, seeds))


def test_jacobian_and_hessian_vectorized(layer: Recurrent, x: Tensor) -> None:
    def run(x: Tensor) -> Tensor:
        return layer(x, lengths=[2, 3])[0]

    for derivative, function in (
        (torch.autograd.functional.jacobian, run),
        (torch.autograd.functional.hessian, lambda x: run(x).square().sum()),
    ):
        torch.testing.assert_close(derivative(function, x, vectorize=True), derivative(function, x))


def test_second_derivatives_batched_and_by_vmap(layer: Recurrent, x: Tensor) -> None:
    output, _ = layer(x)
    seed = torch.randn_like(output).requires_grad_()
    (first,) = torch.autograd.grad(output, x, seed, create_graph=True)
    sources, seeds = [x, seed, *layer.parameters()], torch.randn(4, *first.shape, dtype=x.dtype)
    options: dict[str, Any] = {"retain_graph": True, "materialize_grads": True}
    each = [torch.autograd.grad(first, sources, one, **options) for one in seeds]
    wanted = [torch.stack(gradients) for gradients in zip(*each, strict=True)]
    batched = torch.autograd.grad(first, sources, seeds, is_grads_batched=True, **options)
    torch.testing.assert_close(list(batched), wanted)
    found = torch.func.vmap(lambda one: torch.autograd.grad(first, sources, one, **options))(seeds)
    torch.testing.assert_close(list(found), wanted)


def test_torchs_own_check(layer: Recurrent, x: Tensor) -> None:
    def run(x: Tensor) -> Tensor:
        return layer(x, lengths=[2, 3])[0]

    assert torch.autograd.gradcheck(run, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, x, check_batched_grad=True)


def test_as_torchs_layers_with_projection_and_steps_recomputed() -> None:
    theirs = nn.LSTM(2, 4, num_layers=2, proj_size=3, dtype=torch.float64)
    ours = cellwise.LSTM(2, 4, num_layers=2, proj_size=3, dtype=torch.float64, backend="cpu")
    ours.load_state_dict(theirs.state_dict())
    ours.recompute = True
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    wanted, found = (
        torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x)[0], x, vectorize=True)
        for layer in (theirs, ours)
    )
    torch.testing.assert_close(found, wanted)
