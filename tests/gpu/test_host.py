"""What surrounds the kernels for a GPU in a call, without one: plans for a shape, two directions at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import emulated
import pytest
import torch
from agreement import Several, ThreeProducts, check
from emulated import Emulated, EmulatedLauncher, EmulatedMachine
from torch import Tensor

from cellwise import Cell, Recurrent, Scalar, Vector, sigmoid, tanh
from cellwise.backends import registry
from cellwise.backends.base import CallContext, LayerSpec
from cellwise.backends.cuda import direct
from cellwise.backends.cuda.layout import STEPWISE, Layout, trying
from cellwise.backends.cuda.machine import LateError, Machine, RefusedError
from cellwise.backends.reference.loop import run_direction
from cellwise.testing import cases_of

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
EMULATED = Emulated(run_direction)
WIDE = Layout("wide", units=8, warps=2, hold=1)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))


class Own(Cell):
    """Parameters of its own, gates of the state in another order than those of the input, and one of each alone."""

    gates = ("a", "b", "d")
    states = ("h",)
    leak = Vector()
    scale = Scalar(0.5)

    def step(self, x, h):
        b = sigmoid(x.b + h.d)
        n = tanh(x.a + self.scale * h.b + self.leak * h)
        return b * h + (1 - b) * n


class Twice(Cell):
    """A gate whose weights multiply two operands."""

    gates = ("a",)
    states = ("h",)

    def step(self, x, h):
        n = tanh(x.a + h.a)
        return tanh(n + (n * h).a)


@pytest.mark.parametrize(
    ("cell", "hidden", "number", "layout"),
    [
        ("lstm", 17, "float32", None),
        ("lstm", 32, "float16", None),
        ("gru", 32, "float32", WIDE),
        ("mingru", 17, "bfloat16", None),
        (ThreeProducts, 32, "float32", None),
        (Several, 17, "bfloat16", WIDE),
        (Own, 17, "float32", None),
        (Twice, 32, "float32", None),
    ],
)
def test_a_plan_gives_what_the_general_way_gives(
    cell: str | type[Cell], hidden: int, number: str, layout: Layout | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    run = direct.DirectBackward.run
    monkeypatch.setattr(direct.DirectBackward, "run", lambda *given: ran.append(1) or run(*given))
    case = replace(cases_of(cell)[0], steps=3, batch=2, hidden_size=hidden, bidirectional=True)
    for initial in (False, True):
        check(replace(case, initial=initial), "emulated", number, layout)
    assert ran


def test_a_plan_goes_the_general_way_where_another_layout_is_wanted_meanwhile() -> None:
    layer = Recurrent(Several, 3, 16, backend="emulated")
    x, state = torch.randn(3, 2, 3, requires_grad=True), torch.randn(2, 1, 2, 16)

    def run() -> list[Tensor]:
        output, finals = layer(x, tuple(state))
        output = torch.cat(output, -1)
        score = output.square().sum() + sum(each.sum() for each in finals)
        return [output, *finals, *torch.autograd.grad(score, [x, *layer.parameters()])]

    wanted = run()
    with trying(STEPWISE, STEPWISE):
        found = run()
        with torch.no_grad():
            torch.testing.assert_close(layer(x, tuple(state))[1], tuple(wanted[1:3]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, (3, 1)])
def test_what_a_device_does_not_start_together_goes_step_by_step_and_explain_says_so(
    lengths: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, refusals = EmulatedLauncher.launch, []

    def refused(launcher: EmulatedLauncher, *given: Any) -> None:
        if given[-1]:
            refusals.append(1)
            raise RefusedError("blocks of another process hold it")
        launch(launcher, *given)

    monkeypatch.setattr(emulated, "machine", cache(EmulatedMachine))
    # Room for the blocks of a layer whose weights one block does not hold.
    emulated.machine().device = replace(emulated.machine().device, multiprocessors=8)
    monkeypatch.setattr(EmulatedLauncher, "launch", refused)
    case = replace(cases_of("gru")[0], steps=3, batch=2, hidden_size=128, lengths=lengths, initial=True)
    for _ in range(2):
        check(case, "emulated")
    assert len(refusals) == 2, "forward and backward, once"
    stack, context = LayerSpec(case.cell.graph, 5, 128), CallContext(torch.device("cpu"), torch.float32)
    told = EMULATED.compiler().described(stack, context, 3, 2, emulated.machine())
    assert told.startswith("stepwise") and told.endswith(", since blocks of another process hold it")


@pytest.mark.parametrize("number", ["float32", "bfloat16"])
def test_one_step_from_states_of_zero_leaves_no_gradient_unwritten(number: str) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # memory that nobody wrote to is NaN
    try:
        check(replace(cases_of("gru-reset-before")[0], steps=1, batch=2, hidden_size=17), "emulated", number)
    finally:
        torch.use_deterministic_algorithms(before)


def test_what_comes_of_a_call_without_a_short_way_may_be_changed_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EMULATED, "shortcut", lambda *_: None)
    layer = Recurrent("lstm", 3, 17, backend="emulated")
    y, finals = layer(torch.randn(3, 2, 3))
    for each in (y, *finals):
        each.mul_(2)
    (y.sum() + finals[1].sum()).backward()


def test_outputs_that_nobody_wants_a_gradient_at_give_none() -> None:
    layer = Recurrent(Several, 3, 17, dtype=torch.bfloat16)
    x = torch.randn(6, 4, 3, dtype=torch.bfloat16)
    found = []
    for layer.backend in ("emulated", "reference"):
        with trying(WIDE, WIDE):
            (_, c) = layer(x)[1]
            found.append(torch.autograd.grad(c.sum(), list(layer.parameters())))
    torch.testing.assert_close(*found, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("cell", ["gru", Own], ids=str)
def test_a_caller_may_write_to_what_it_gets(cell: str | type[Cell]) -> None:
    layer = Recurrent(cell, 3, 32, backend="emulated")
    x = torch.randn(3, 2, 3, requires_grad=True)
    sources = [x, *layer.parameters()]
    wanted = torch.autograd.grad(layer(x)[0].sum(), sources)
    y, final = layer(x)
    score = y.sum()
    assert torch.equal(y[-1:], final)
    y.detach().zero_()
    final.detach().zero_()
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(score, sources), wanted, strict=True))


def test_directions_run_beside_each_other_where_both_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    @contextmanager
    def beside() -> Iterator[None]:
        seen.append("enter")
        yield
        seen.append("leave")

    def fork(_: Machine, tensors: list[Tensor]) -> object:
        seen.append(len(tensors))
        return beside()

    monkeypatch.setattr(EmulatedMachine, "fork", fork)
    layer = Recurrent("gru", 3, 8, bidirectional=True, backend="emulated")
    with torch.no_grad():
        layer(torch.randn(2, 3, 3))
        assert seen == [5, "enter", "leave"], "the input and the second direction's weights"
        layer(torch.randn(2, 40, 3))
        assert seen == [5, "enter", "leave"], "more blocks than this machine runs at once"


def test_a_machine_that_was_first_asked_in_inference_mode_says_that_a_block_gave_up() -> None:
    with torch.inference_mode():
        made = EmulatedMachine()
        made.late.fill_(1)
    with pytest.raises(LateError, match="gave up"):
        made.check()
    made.check()
