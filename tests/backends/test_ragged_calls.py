"""Calls whose rows have several lengths, mostly others each time: one chain, which is told where the rows of each step
begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_small_calls import OPTIONS, PROJECTED, drawn, flat, given_to
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import cellwise
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu import small_run
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.backends.cpu.small_jobs import LayOut, StepRows, Table
from cellwise.backends.cpu.step_rows import TIMES, lay_out, step_rows
from cellwise.backends.cpu.target import host
from cellwise.errors import InputError
from cellwise.nn import plain


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    plain._RAGGED.clear()
    yield
    plain._RAGGED.clear()


RAGGED: dict[str, tuple[Any, str, tuple[int, ...], tuple[str, ...]]] = {
    "some without a step": ("lstm", "steps", (2, 0, 4), ()),
    "equally long ones": ("gru", "batch first", (3, 4, 3), ()),
    "none with all steps, resets": ("rnn", "steps", (1, 3, 0), ("resets",)),
    "both ways": ("lstm", "stacked, both ways", (3, 1), ("resets",)),
    "both ways, one without a step": ("gru", "stacked, both ways", (0, 2), ()),
    "times": ("time-aware-lstm", "steps", (4, 1, 2), ("dt",)),
    "recomputed": ("gru", "recomputed", (1, 4), ()),
    "one step of some": ("lstm", "one step", (1, 0, 1, 1, 0), ()),
    "no whole vectors": ("lstm", "no whole vectors", (2, 0, 4), ("resets",)),
    "projected": ("lstm", "projected, no whole vectors", (1, 3), ("resets",)),
    "of many rows": ("gru", "many rows", tuple(40 - row for row in range(31)), ("resets",)),
    "of many rows, projected": ("lstm", "many rows, projected", tuple(40 - row for row in range(31)), ()),
    "times, no whole vectors": ("time-aware-lstm", "less than a vector, both ways", (1, 3), ("dt",)),
}


SIZES = OPTIONS | PROJECTED
SIZES["many rows"] = {
    "shape": (40, 31),
    "initial": True,
    "hidden": 24,
    "num_layers": 2,
    "bidirectional": True,
}
SIZES["many rows, projected"] = {"shape": (40, 31), "hidden": 21, "proj_size": 6, "initial": True}


def called(layer: Any, x: Tensor, state: Any, beside: dict[str, Any], packed: bool) -> list[Tensor]:
    """What comes out without a tape and with one, and every gradient."""
    own = state if isinstance(state, tuple) else () if state is None else (state,)
    sources = [x, *layer.parameters(), *own, *([beside["dt"]] if "dt" in beside else [])]

    def results() -> list[Tensor]:
        if not packed:
            return flat(layer(x, state, **beside))
        taken = pack_padded_sequence(
            x, torch.tensor(beside["lengths"]), layer.batch_first, enforce_sorted=False
        )
        output, states = layer(taken, state)
        return [output.data, *(states if isinstance(states, tuple) else (states,))]

    with torch.no_grad():
        inferred = results()
    found = results()
    seeds = [torch.linspace(-1, 1, each.numel(), dtype=x.dtype).view(each.shape) for each in found]
    gradients = torch.autograd.grad(found, sources, seeds, allow_unused=True, materialize_grads=True)
    return [*inferred, *(each.detach() for each in found), *gradients]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", RAGGED)
def test_a_chain_computes_what_the_way_of_all_calls_computes(
    case: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results to the last bit, and the same bits however often these lengths were met; gradients of few rows are sums
    in another order.
    """
    cell, options, lengths, names = RAGGED[case]
    layer, x, state = drawn(cell, torch.float64, SIZES[options])
    if packed and (names or 0 in lengths):
        return  # which is given nothing by name, and packs no empty row
    beside = given_to(layer, x, names) | {"lengths": list(lengths)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    entered: list[int] = []
    enter = small_run.SmallRun.enter
    with monkeypatch.context() as patch:
        patch.setattr(small_run.SmallRun, "enter", lambda *each: entered.append(1) or enter(*each))
        one, other = (called(layer, x, state, beside, packed) for _ in range(2))
    assert len(entered) == 2 * 3 * layer.num_layers * (2 if layer.bidirectional else 1)
    assert all(map(torch.equal, one, other))
    plain._RAGGED.clear()
    with monkeypatch.context() as patch:
        patch.setattr(plain, "call", lambda *_: None)
        patch.setattr(LlvmCompiler, "small_pass", lambda *_: None)
        wanted = called(layer, x, state, beside, packed)
    torch.set_num_threads(threads)
    results = 2 * (1 + len(layer.cell.states))
    is_same = sum(lengths) > 256  # then products are those of all calls
    for place, (mine, theirs) in enumerate(zip(one, wanted, strict=True)):
        near = 0 if place < results or is_same else 1e-12
        torch.testing.assert_close(mine, theirs, rtol=near, atol=near)


def test_other_lengths_need_no_other_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, _ = drawn("gru", torch.float32, OPTIONS["steps"])
    made: list[int] = []
    make = small_run.SmallRun.__init__
    monkeypatch.setattr(small_run.SmallRun, "__init__", lambda *each: made.append(1) or make(*each))

    def train(lengths: Any) -> None:
        layer(x, lengths=lengths)[0].sum().backward()

    def train_all() -> int:
        for lengths in itertools.product(range(3), range(4), (3, 4)):
            train(list(lengths))
            train(torch.tensor(lengths, dtype=torch.int32))
        return len(made)

    # Of few rows, which read transposed weights as they lie, and of more.
    assert train_all() <= 4
    made.clear()
    assert not train_all()
    assert len(plain._RAGGED) == 1
    for wrong in ([5, 1, 2], [1, 2], [1.0, 1, 2], [-1, 1, 2]):
        with pytest.raises(InputError, match="lengths"):
            layer(x, lengths=wrong)
    output, state = layer(x, lengths=[0, 0, 0])
    assert not output.any()
    assert not state.any()


def test_the_fields_of_a_packed_sequence_are_looked_at_in_every_call() -> None:
    layer = cellwise.GRU(5, 16, backend="cpu")
    x = pack_padded_sequence(torch.randn(4, 3, 5), torch.tensor([4, 1, 2]), enforce_sorted=False)
    layer(x)
    for sizes in ([3, 2, 1, 2], [3, 2, 2, 0], [3, 2, 1], [4, 1, 1, 1]):
        wrong = PackedSequence(x.data, torch.tensor(sizes), x.sorted_indices, x.unsorted_indices)
        with pytest.raises(InputError, match="PackedSequence"):
            layer(wrong)
    with pytest.raises(InputError, match="unsorted_indices"):
        layer(PackedSequence(x.data, x.batch_sizes, x.sorted_indices, torch.arange(2)))


def test_several_calls_before_a_backward_pass_keep_what_each_needs() -> None:
    layer, x, state = drawn("lstm", torch.float64, OPTIONS["no whole vectors"])
    each = [[4, 0, 2], [1, 4, 4], [4, 4, 4]]
    alone = [torch.autograd.grad(layer(x, state, lengths=n)[0].sin().sum(), [x])[0] for n in each]
    outputs = [layer(x, state, lengths=n)[0] for n in each]
    found = torch.autograd.grad(sum(output.sin().sum() for output in reversed(outputs)), [x])[0]
    torch.testing.assert_close(found, sum(alone), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("lengths", [[4, 1], [3, 3]])
def test_derivatives_of_derivatives_and_many_at_once(lengths: list[int]) -> None:
    layer, x, _ = drawn("gru", torch.float64, {"shape": (4, 2), "hidden": 3})
    assert torch.autograd.gradgradcheck(lambda x: layer(x, lengths=lengths)[0], (x,))
    output = layer(x, lengths=lengths)[0]
    seeds = torch.randn(3, *output.shape, dtype=x.dtype)
    batched = torch.autograd.grad(output, [x], seeds, is_grads_batched=True, retain_graph=True)[0]
    for one, seed in zip(batched, seeds, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(output, [x], seed, retain_graph=True)[0])


def test_auto_decides_by_what_these_lengths_ask_for() -> None:
    """And not by those that were met first."""
    layer, x = cellwise.LSTM(64, 128), torch.randn(40, 3, 64)
    each = ([1, 2, 1], [40, 38, 39], [40, 40, 40], [1, 1, 2])
    for lengths in each:
        layer(x, lengths=lengths)
    (routes,) = plain._RAGGED.values()
    assert len(routes.by_work) == 3  # the last has as much to do as the first
    for lengths in each:
        examined = layer._examined(x, None, lengths)
        number = plain.dispatch.dispatch_id("auto", examined.stack, examined.context, examined.workload)
        found = routes.by_work[max(lengths), sum(lengths), len(set(lengths)) == 1]
        assert found == (number, 1)


LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any).map(lambda each: sorted(each)[::-1])


def schedule_for(lengths: list[int], backwards: bool) -> TimeSchedule:
    sizes = [sum(each > step for each in lengths) for step in range(lengths[0])]
    return TimeSchedule(np.cumsum([0, *sizes]), len(lengths), backwards)


def run(table: Table, function: Any, where: dict[str, Any]) -> None:
    words, addresses = table.table()
    for name, index, behind in addresses:
        value = where[name]
        words[index] = behind + (value if isinstance(value, int) else value.__array_interface__["data"][0])
    function(words.ctypes.data, 0)


def laid_out(schedule: TimeSchedule) -> dict[str, Any]:
    """By name, the arrays over time."""
    table = LayOut(schedule.batch, schedule.backwards, schedule.steps)
    where: dict[str, Any] = {name: np.full(room // 8, -1) for name, room in table.room.items()}
    where |= {"schedule offsets": schedule.offsets, "schedule steps": schedule.steps}
    run(table, lay_out(8, host()), where)
    return where


@given(LENGTHS, st.booleans())
def test_a_chain_lays_out_what_a_schedule_has(lengths: list[int], backwards: bool) -> None:
    schedule = schedule_for(lengths, backwards)
    found, other = laid_out(schedule), schedule.reversed
    names = ("limits", "before", "pair_before", "pair_after")
    wanted = [*(getattr(schedule, name) for name in names), other.limits, other.before]
    for name, array in zip(TIMES, wanted, strict=True):
        assert (found[f"schedule {name}"] == array).all(), name


@settings(deadline=None)
@given(LENGTHS, st.booleans(), st.integers(1, 20), st.sampled_from([np.float32, np.float64]))
def test_what_rows_have_before_a_step_and_after_the_last(
    lengths: list[int], backwards: bool, width: int, kind: Any
) -> None:
    own = schedule_for(lengths, backwards)
    forward, batch, rows = own.reversed, len(lengths), own.rows  # as a backward pass has them
    draw = np.random.default_rng(width)
    history, first, pair, arriving = (
        draw.standard_normal((count, each)).astype(kind)
        for count, each in ((rows, width + 3), (batch, width), (2 * batch, width + 3), (batch, width))
    )
    before, end = np.zeros((rows + 1, width), kind), np.zeros((batch + 1, width), kind)
    table = StepRows(kind(0).itemsize)
    table.before("before", ("history", width + 3), ("first", width), width)
    table.end("end", ("pair", width + 3), ("arriving", width), width, "pair after", batch)
    where = laid_out(own) | {"before": before, "end": end, "history": history, "first": first}
    run(table, step_rows(kind(0).itemsize, host()), where | {"pair": pair, "arriving": arriving})
    places, begins, row = (each.numpy() for each in forward.predecessors)
    wanted = history[places, :width]
    wanted[begins] = first[row]
    assert (before[:rows] == wanted).all()
    finals = own.finals(torch.from_numpy(pair), torch.from_numpy(arriving), pair=True)
    assert (end[:batch] == finals.numpy()).all()
    assert not before[rows:].any()
    assert not end[batch:].any()
