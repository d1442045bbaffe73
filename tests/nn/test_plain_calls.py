"""Calls that torch's operator runs: they cost no more than torch.nn's, and are nothing but those."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_pairs import CLASSES

import cellwise
from cellwise.errors import InputError
from cellwise.nn import plain
from cellwise.nn.layer import RecurrentLayer

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "stacked": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    plain._ROUTES.clear()
    yield
    plain._ROUTES.clear()


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call that takes the way of all calls."""
    seen: list[int] = []
    run = RecurrentLayer._run

    def counted(self: RecurrentLayer, *args: Any) -> Any:
        seen.append(1)
        return run(self, *args)

    monkeypatch.setattr(RecurrentLayer, "_run", counted)
    return seen


def pair(kind: str, **options: Any) -> tuple[nn.Module, Any]:
    theirs, ours = (side(3, 4, **options) for side in CLASSES[kind])
    ours.load_state_dict(theirs.state_dict())
    ours.backend = "native"  # calls as small as these would go to the kernels
    return theirs, ours


def flat(result: Any) -> list[torch.Tensor]:
    output, final = result
    return [output, *(final if isinstance(final, tuple) else (final,))]


def assert_same(theirs: nn.Module, ours: nn.Module, *args: Any) -> None:
    for one, other in zip(flat(theirs(*args)), flat(ours(*args)), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def states_of(layer: nn.Module, final: Any) -> Any:
    if isinstance(final, tuple):
        return tuple(torch.randn_like(each) for each in final)
    return torch.randn_like(final)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", CLASSES)
def test_results_are_torchs_in_every_form(kind: str, options: str, general: list[int]) -> None:
    theirs, ours = pair(kind, **OPTIONS[options])
    for shape in ((2, 2, 3), (2, 3)):
        x = torch.randn(shape)
        states = states_of(ours, theirs(x)[1])
        for _ in range(2):  # decided, then known
            assert_same(theirs, ours, x)
            assert_same(theirs, ours, x, states)
    assert not general


def test_a_projected_lstm_too(general: list[int]) -> None:
    theirs, ours = pair("LSTM", proj_size=2)
    assert_same(theirs, ours, torch.randn(1, 1, 3))
    assert not general


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_are_torchs(kind: str, general: list[int]) -> None:
    theirs, ours = pair(kind)
    x = torch.randn(1, 1, 3)
    for layer in (theirs, ours):
        layer(x)[0].sum().backward()
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert not general


@pytest.mark.parametrize("kind", CLASSES)
def test_it_calls_no_more_functions_than_torch(kind: str) -> None:
    theirs, ours = pair(kind)
    x = torch.randn(1, 1, 3)
    assert calls(ours, x) <= calls(theirs, x)


def calls(layer: nn.Module, x: torch.Tensor) -> int:
    """Functions that one call of a layer calls, of Python and of C."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    layer(x)
    before = sys.getprofile()
    sys.setprofile(profile)
    layer(x)
    sys.setprofile(before)
    return count


# --- weights that are no parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_weights_are_those_of_the_moment(kind: str, general: list[int]) -> None:
    theirs, ours = pair(kind)
    x = torch.randn(1, 1, 3)
    assert_same(theirs, ours, x)
    with torch.no_grad():
        for layer in (theirs, ours):
            layer.weight_hh_l0 = nn.Parameter(torch.ones_like(layer.weight_hh_l0))
            layer.bias_ih_l0.data = torch.ones_like(layer.bias_ih_l0)
    assert_same(theirs, ours, x)
    given = {name: torch.randn_like(weight) for name, weight in ours.named_parameters()}
    for one, other in zip(
        flat(functional_call(theirs, given, (x,))), flat(functional_call(ours, given, (x,))), strict=True
    ):
        assert torch.equal(one, other)
    assert_same(theirs, ours, x)
    assert_same(theirs.double(), ours.double(), x.double())
    assert not general


@pytest.mark.parametrize("kind", CLASSES)
def test_parametrized_weights_are_used_and_not_kept(kind: str) -> None:
    theirs, ours = pair(kind)
    for layer in (theirs, ours):
        nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    x = torch.randn(1, 1, 3)
    assert_same(theirs, ours, x)
    copied = copy.deepcopy(ours)  # which torch cannot after a call that keeps what it computed
    assert_same(ours, copied, x)


# --- what goes another way ------------------------------------------------------------------------------------------


def test_what_no_backend_has_a_short_way_for_goes_the_way_of_all_calls(general: list[int]) -> None:
    layer, x = cellwise.GRU(3, 4), torch.randn(1, 1, 3)
    layer(x)
    assert not general
    for _ in range(2):
        cellwise.GRU(3, 4, backend="cpu")(torch.randn(2, 2, 3), lengths=[2, 1])
        cellwise.GRU(3, 4, backend="cpu")(x, lengths=[1])
        layer(x, resets=torch.ones(1, 1, dtype=torch.bool))
    assert not general
    torch.func.vmap(lambda each: layer(each)[0])(torch.randn(2, 1, 1, 3))
    assert len(general) == 1
    layer.backend = "reference"
    layer(x)
    assert len(general) == 2
    layer.backend = "native"
    layer(x)
    layer.backend = "cpu"
    layer(x)
    layer.recompute = True
    layer(x)
    assert len(general) == 2


def test_mistakes_are_named_as_ever(general: list[int]) -> None:
    layer, x = cellwise.LSTM(3, 4), torch.randn(1, 2, 3)
    layer(x)
    for wrong in (torch.randn(1, 2, 5), torch.randn(1, 2, 3, dtype=torch.float64), torch.randn(0, 2, 3)):
        with pytest.raises(InputError):
            layer(wrong)
    with pytest.raises(InputError, match="Expected hidden"):
        layer(x, (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(InputError, match="2 tensors"):
        layer(x, torch.zeros(1, 2, 4))


def test_many_shapes_are_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_MOST", 5)
    layer = cellwise.RNN(3, 4)
    for batch in range(1, 20):
        layer(torch.zeros(1, batch, 3))
    assert len(plain._ROUTES) <= 5


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_weights_are_looked_at_though_the_call_was_decided_before(kind: str) -> None:
    ours = pair(kind)[1]
    x = torch.randn(1, 1, 3)
    ours(x)
    good = ours.weight_hh_l0
    for wrong in (good[:, :2], good[:-1], good.double(), good.to("meta")):
        with pytest.raises(InputError, match="weight_hh_l0"):
            functional_call(ours, {"weight_hh_l0": wrong.detach()}, (x,))
    ours(x)
