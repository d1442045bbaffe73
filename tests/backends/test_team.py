"""Work done by torch's own threads: each share once, whoever comes, and no waiting for who does not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import cellwise
from cellwise.backends.compiled import backward_pass, forward_pass
from cellwise.backends.cpu import by_units, team, threads
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.code import I64, POINTER, Code
from cellwise.backends.cpu.compile import compiled, load, object_code
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.team import Share, Team

pytestmark = pytest.mark.skipif(team.team() is None, reason="torch has no threads here that can be asked")
ARM = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)


@pytest.fixture(autouse=True)
def some_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(threads, "_PATIENCE", threads._Patience())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class _Count(Code):
    """void count(int64 *number, int64 added)"""

    kinds = (POINTER, I64)

    def emit(self) -> Any:
        number, added = self.function.args
        self.b.atomic_rmw("add", number, added, "seq_cst")
        self.b.ret_void()
        return self.module


@cache
def _count() -> Any:
    return load("count", object_code(_Count("count", 8, host()).emit(), host()))


def _adding(numbers: np.ndarray, place: int, added: int = 1) -> Share:
    return Share(_count(), numbers[place:].ctypes.data, added)


def _team() -> Team:
    found = team.team()
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_share_is_done_once_by_however_many(count: int) -> None:
    torch.set_num_threads(count)
    numbers = np.zeros(37, np.int64)
    for _ in range(50):
        times = _team().run([_adding(numbers, place) for place in range(37)])
        assert times.worked >= 0
        assert times.idle >= 0
    assert numbers.tolist() == [50] * 37


def test_a_chain_is_one_share() -> None:
    numbers = np.zeros(2, np.int64)
    each = [_adding(numbers, 0, 3), _adding(numbers, 1, 4), _adding(numbers, 0, 5)]
    chain = Chain([(one.function, one.first, one.second) for one in each])
    _team().run([chain.share, _adding(numbers, 1)])
    assert numbers.tolist() == [8, 5]


def test_two_that_wait_for_each_other_are_done_by_two_or_by_one_alone() -> None:
    numbers = np.zeros(3, np.int64)
    pair, alone = [_adding(numbers, 0), _adding(numbers, 1)], _adding(numbers, 2)
    _, is_shared = _team().pair(pair, alone, patience=20.0)
    assert is_shared
    assert numbers.tolist() == [1, 1, 0]
    torch.set_num_threads(1)  # a team of one: nobody else comes
    seconds, is_shared = _team().pair(pair, alone, patience=0.01)
    assert not is_shared
    assert seconds >= 0.01
    assert numbers.tolist() == [1, 1, 1]


def test_who_waited_for_the_team_does_without_it_for_a_while() -> None:
    numbers = np.zeros(2, np.int64)
    shares = [_adding(numbers, 0), _adding(numbers, 1)]
    with mock.patch.object(Team, "run", return_value=team.Times(0.001, 0.1)) as run:
        threads.together(shares)
        threads.together(shares)
    assert run.call_count == 1
    assert numbers.tolist() == [1, 1]


def test_what_does_both_is_done_for_a_while_where_no_second_thread_came() -> None:
    numbers = np.zeros(3, np.int64)
    pair, alone = [_adding(numbers, 0), _adding(numbers, 1)], _adding(numbers, 2)
    with mock.patch.object(Team, "pair", return_value=(0.0003, False)) as asked:
        threads.in_step(pair, alone, np.zeros(1, np.int64))
        threads.in_step(pair, alone, np.zeros(1, np.int64))
    assert asked.call_count == 1
    assert numbers.tolist() == [0, 0, 1]


def _everything(layer: Any, x: Tensor) -> list[Tensor]:
    """Outputs and all gradients, by runs that are opened anew."""
    forward_pass.forward_pass.cache_clear()
    backward_pass.backward_pass.cache_clear()
    x = x.clone().requires_grad_()
    output, _ = layer(x)
    return [output, *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize(
    ("rows", "both"), [(9, False), (9, True), (2, False)], ids=["rows", "directions", "units"]
)
def test_threads_of_our_own_give_the_same_bits(
    rows: int, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LEAST_WEIGHTS", "_LEAST_READ"):
        monkeypatch.setattr(by_units, name, 1)
    layer, x = cellwise.Recurrent("lstm", 7, 40, bidirectional=both, backend="cpu"), torch.randn(12, rows, 7)
    with (
        mock.patch.object(Team, "run", autospec=True, side_effect=Team.run) as run,
        mock.patch.object(Team, "pair", autospec=True, side_effect=Team.pair) as pair,
    ):
        found = _everything(layer, x)
    assert (pair if rows == 2 else run).called
    with mock.patch.object(team._Process, "forked", True), mock.patch.object(Team, "_region") as never:
        others = _everything(layer, x)
    assert not never.called
    assert all(torch.equal(a, b) for a, b in zip(found, others, strict=True))


@pytest.mark.parametrize("emit", [team.emit_shares, team.emit_pair])
def test_it_compiles_for_arm(emit: Any) -> None:
    assert compiled(str(emit(ARM)), ARM)
