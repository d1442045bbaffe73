"""Kernels whose blocks wait for each other, under the worst turns and the worst memory that the emulation has.

Blocks and warps run far ahead of others, and each posted word arrives by itself in any order (`emulation.h`). Kernels
as they are written give the same bits whatever happens. Those from which a wait, a barrier or a change of buffers was
taken do not: so the emulation would see it if one were missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from emulated import BrokenRuleError, Emulated, EmulatedLauncher, EmulatedMachine, MemoryFaultError, Schedule
from torch import Tensor

from cellwise import Cell, Recurrent, sigmoid, tanh
from cellwise.backends import registry
from cellwise.backends.compiled import backward_pass
from cellwise.backends.cuda import launch
from cellwise.backends.cuda.layout import Layout, trying
from cellwise.backends.cuda.machine import LateError
from cellwise.backends.reference.loop import run_direction
from cellwise.nn import plain

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
EMULATED = Emulated(run_direction)
# Warps whose part of the inner dimension is other blocks' alone, and which so may run ahead of their own.
WIDE = Layout("wide", units=16, warps=4, hold=1)
SOLO = Layout("solo", warps=4)
LANES = Layout("lanes", warps=8, tiles=2)
SEEDS = range(1, 4)
FAULTS = (AssertionError, BrokenRuleError, LateError, MemoryFaultError)


class TwoStages(Cell):
    """A product of the state, and one of what came of it: two exchanges a step, and shared memory used twice."""

    gates = ("a", "b")
    states = ("h",)

    def step(self, x, h):
        a = sigmoid(x.a + h.a)
        return a * h + tanh(x.b + (a * h).b)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))
    yield
    Schedule.seed = 0
    EMULATED.compiler().machine(torch.device("cpu")).late.zero_()


def _outputs(layout: Layout, seeds: range) -> Iterator[Tensor]:
    """Of a layer's call in order, then as badly as each seed says."""
    torch.manual_seed(0)
    dtype = torch.float32 if layout.kind == "lanes" else torch.bfloat16
    layer = Recurrent(TwoStages, 3, 64, backend=EMULATED.name, dtype=dtype)
    x = torch.randn(3, 4, 3, dtype=dtype)
    with trying(layout, layout), torch.no_grad():
        for Schedule.seed in (0, *seeds):
            yield layer(x)[0]


@pytest.mark.parametrize("layout", [WIDE, SOLO, LANES], ids=str)
def test_whatever_turns_threads_take_the_bits_are_the_same(layout: Layout) -> None:
    wanted, *found = _outputs(layout, SEEDS)
    assert all(torch.equal(each, wanted) for each in found)


def test_a_row_has_the_same_bits_however_many_a_block_has() -> None:
    one, *others = (next(_outputs(replace(LANES, tiles=rows), range(0))) for rows in (1, 2, 4))
    assert all(torch.equal(each, one) for each in others)


class Linear(Cell):
    """A state whose gradient is multiplied as it is carried from step to step."""

    gates = ("a", "b")
    states = ("h", "c")

    def step(self, x, h, c):
        return tanh(x.b + h.b + c), c.a


def test_what_a_launch_begins_with_is_not_what_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that has ended writes what the steps left, while another still reads what they began with."""
    monkeypatch.setattr(backward_pass, "span_rows", lambda *_: 3)  # a launch for each step
    backward_pass.backward_pass.cache_clear()
    plain._ROUTES.clear()
    torch.manual_seed(0)
    layer = Recurrent(Linear, 3, 64, backend=EMULATED.name, dtype=torch.bfloat16)
    x, found = torch.randn(4, 4, 3, dtype=torch.bfloat16, requires_grad=True), []
    for Schedule.seed in (0, *SEEDS):
        with trying(WIDE, WIDE):
            y = layer(x, lengths=[4, 4, 2, 1])[0]  # rows that begin in each of the launches
            found.append(torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]))
    backward_pass.backward_pass.cache_clear()
    plain._ROUTES.clear()
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))


@contextmanager
def _mutated(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    build = EmulatedMachine.build

    def other(
        machine: EmulatedMachine, source: str, shared: int, arguments: tuple[str, ...]
    ) -> EmulatedLauncher:
        assert old in source
        return build(machine, source.replace(old, new), shared, arguments)

    with monkeypatch.context() as patched:
        _forget()
        patched.setattr(EmulatedMachine, "build", other)
        yield
    _forget()


def _forget() -> None:
    """Kernels are written anew, and calls decided."""
    launch._built.cache_clear()
    plain._ROUTES.clear()


@pytest.mark.parametrize(
    ("layout", "old", "new"),
    [
        (WIDE, "if (wait[n] && has_absent(to))", "if (false)"),
        (WIDE, "part ^= 1;", ""),
        (WIDE, "__syncthreads();", ""),
        (WIDE, "(i64)at * 1 * WIDTH", "(i64)0 * WIDTH"),
        (SOLO, "((i + 1) & 1) *", "0 *"),
        (SOLO, "__syncthreads();", ""),
        (SOLO, "wait_until_left<6>();", ""),
        (SOLO, "row[j] < count);", "true);"),
        (LANES, "((i + 1) & 1) *", "0 *"),
        (LANES, "__syncthreads();", ""),
    ],
)
def test_what_a_text_needs_is_missed_if_it_is_taken_away(
    layout: Layout, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = next(_outputs(layout, range(0)))
    with _mutated(old, new, monkeypatch), pytest.raises(FAULTS):
        for each in _outputs(layout, SEEDS):
            assert torch.equal(each, wanted)


def test_memory_that_was_not_marked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmulatedMachine, "mark", lambda _, rows: rows.zero_())
    with pytest.raises(BrokenRuleError, match="not marked"):
        next(_outputs(WIDE, range(0)))
