"""Layers of a stack beside each other: what layers one after the other give, whoever does which task, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import cells
from cellwise.backends.compiled import stack as stacked
from cellwise.backends.cpu import small_stack, threads
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.backends.cpu.masks import multiply
from cellwise.backends.cpu.small_products import small_products
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.wave import Wave, emit_wave
from cellwise.nn import plain

ARM = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)
# T, B, D, H, layers, and what else: few rows and many, whole vectors and not, shorter than a vector, a single step.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "whole vectors": ((12, 3, 5, 16, 2), {}),
    "states": ((12, 2, 5, 16, 3), {"initial": True}),
    "no whole vectors": ((9, 4, 20, 37, 3), {"initial": True}),
    "less than a vector": ((7, 2, 3, 5, 2), {"bias": False}),
    "a single step": ((1, 5, 7, 16, 2), {"initial": True}),
    "a single row": ((40, 1, 16, 48, 4), {"batch_first": True}),
    "batch first": ((14, 3, 6, 21, 2), {"batch_first": True, "initial": True}),
    "many rows": ((70, 9, 24, 64, 2), {"initial": True}),
    "many rows, no whole vectors": ((60, 11, 7, 50, 3), {}),
    "recomputed": ((20, 3, 8, 24, 2), {"recompute": True, "initial": True}),
    "many rows, recomputed": ((70, 9, 24, 64, 2), {"recompute": True}),
    "resets": ((15, 4, 8, 32, 2), {"resets": True, "initial": True}),
    "dropout": ((16, 3, 8, 32, 3), {"dropout": 0.4, "initial": True}),
    "dropout, no whole vectors": ((16, 3, 8, 19, 3), {"dropout": 0.4}),
    "dropout, many rows": ((70, 9, 24, 50, 2), {"dropout": 0.5, "resets": True}),
}


@pytest.fixture(autouse=True)
def some_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(small_stack, "_WORTH_SHARING", 0)
    monkeypatch.setattr(threads, "_PATIENCE", threads._Patience())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    plain._ROUTES.clear()
    yield
    plain._ROUTES.clear()
    torch.set_num_threads(before)


def flat(result: Any) -> list[Tensor]:
    return [each for part in result for each in (part if isinstance(part, tuple) else (part,))]


def layer_of(
    cell: Any, case: str, dtype: torch.dtype = torch.float32
) -> tuple[Any, Tensor, Any, dict[str, Any]]:
    torch.manual_seed(0)
    (T, B, D, H, layers), options = CASES[case]
    given = {**options}
    initial, resets, recompute = (given.pop(name, False) for name in ("initial", "resets", "recompute"))
    layer = cellwise.Recurrent(cell, D, H, layers, backend="cpu", dtype=dtype, **given)
    layer.recompute = recompute
    lead = (B, T) if layer.batch_first else (T, B)
    x = torch.randn(*lead, D, dtype=dtype, requires_grad=True)
    states = tuple(torch.randn(layers, B, H, dtype=dtype, requires_grad=True) for _ in layer.cell.states)
    state: Any = (states if len(states) > 1 else states[0]) if initial else None
    return layer, x, state, {"resets": torch.rand(lead) < 0.2} if resets else {}


def everything(layer: Any, x: Tensor, state: Any, more: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """What comes out without a tape and with one; and all gradients, of everything and of the last state alone."""
    torch.manual_seed(1)
    with torch.no_grad():
        results = flat(layer(x, state, **more))
    recorded = flat(layer(x, state, **more))
    seeds = [torch.linspace(-1, 1, each.numel(), dtype=x.dtype).view(each.shape) for each in recorded]
    states = () if state is None else state if isinstance(state, tuple) else (state,)
    sources = [x, *states, *layer.parameters()]
    found = list(torch.autograd.grad(recorded, sources, seeds, retain_graph=True))
    found += torch.autograd.grad(
        recorded[-1].sum(), [*layer.parameters()], allow_unused=True, materialize_grads=True
    )
    return [*results, *[each.detach() for each in recorded]], found


def assert_as_layer_by_layer(found: list[Tensor], again: Callable[[], list[Tensor]]) -> None:
    """Fail unless these float64 results are those of the same work with layers that run one by one."""
    plain._ROUTES.clear()
    with mock.patch.object(LlvmCompiler, "small_stack", lambda *_: None):
        wanted = again()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def one_by_one(*given: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The same of layers that one thread does one after the other."""
    plain._ROUTES.clear()
    torch.set_num_threads(1)
    with mock.patch.object(LlvmCompiler, "small_stack", lambda *_: None):
        found = everything(*given)
    torch.set_num_threads(2)
    plain._ROUTES.clear()
    return found


def compare(cell: Any, case: str, dtype: torch.dtype = torch.float32) -> None:
    """Results to the last bit; gradients come of products that add up in another order."""
    given = layer_of(cell, case, dtype)
    run, ran = small_stack._Lanes.run, []
    with mock.patch.object(
        small_stack._Lanes, "run", lambda lanes: ran.append(len(lanes.runs)) or run(lanes)
    ):
        results, gradients = everything(*given)
    # Where torch draws masks and nobody keeps a tape, layers go one by one.
    assert ran == [given[0].num_layers] * (3 if given[0].dropout else 4)
    wanted, others = one_by_one(*given)
    for one, other in zip(results, wanted, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
    near = 1e-5 if dtype is torch.float32 else 1e-12
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_at_once_give_what_layers_one_by_one_give(cell: str, case: str) -> None:
    compare(cell, case)


@pytest.mark.parametrize("case", ["states", "no whole vectors", "many rows"])
@pytest.mark.parametrize(
    "cell",
    [*(each for each in cells.FAMILIAR if each not in ("lstm", "gru")), "fastrnn"],
)
def test_so_do_those_of_every_cell(cell: str, case: str) -> None:
    compare(cell, case)


@pytest.mark.parametrize("case", ["no whole vectors", "many rows", "dropout"])
def test_so_they_do_in_float64(case: str) -> None:
    compare("lstm", case, torch.float64)


def test_memory_that_nobody_wrote_to_is_not_read() -> None:
    given = layer_of("lstm", "dropout, no whole vectors")
    wanted = everything(*given)
    torch.use_deterministic_algorithms(True)
    try:
        found = everything(*given)
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip([*found[0], *found[1]], [*wanted[0], *wanted[1]], strict=True):
        assert torch.equal(one, other)


def _as_bits(found: tuple[list[Tensor], list[Tensor]]) -> list[bytes]:
    return [each.numpy().tobytes() for each in (*found[0], *found[1])]


@pytest.mark.parametrize("case", ["a single row", "no whole vectors", "many rows"])
def test_bits_do_not_depend_on_who_does_what(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer_of("lstm", case)
    wanted = _as_bits(everything(*given))
    for _ in range(5):
        assert _as_bits(everything(*given)) == wanted
    with monkeypatch.context() as patch:  # on this thread alone
        patch.setattr(threads._PATIENCE, "is_over", lambda: True)
        assert _as_bits(everything(*given)) == wanted
    with monkeypatch.context() as patch:  # threads of our own
        patch.setattr(threads, "team", lambda: None)
        assert _as_bits(everything(*given)) == wanted


def test_threads_of_python_may_call_a_stack_at_once() -> None:
    layer, x, _, _ = layer_of("lstm", "a single row")
    inputs = [x.detach() * number for number in range(1, 4)]

    def found(given: Tensor) -> list[Tensor]:
        output = layer(given)[0]
        return [output.detach(), *torch.autograd.grad(output.sum(), [*layer.parameters()])]

    wanted, wrong = [found(each) for each in inputs], []

    def work(number: int) -> None:
        for _ in range(50):
            if not all(map(torch.equal, found(inputs[number]), wanted[number])):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


_FORKS = """
import os, torch, cellwise
torch.manual_seed(0)
torch.set_num_threads(2)
layer, x = cellwise.GRU(32, 64, 2, backend="cpu"), torch.randn(60, 2, 32)

def found():
    output = layer(x)[0]
    return [output, *torch.autograd.grad(output.sum(), list(layer.parameters()))]

wanted = found()
child = os.fork()
same = all(map(torch.equal, found(), wanted))  # in both processes
if child == 0:
    os._exit(0 if same else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
raise SystemExit(status or (0 if same else 2))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_goes_on() -> None:
    """Of x no gradient is asked: torch's own products wait for threads that a fork leaves behind."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKS], check=True, timeout=60)


@pytest.mark.parametrize("case", ["states", "resets", "dropout"])
def test_second_derivatives_are_those_of_layers_one_by_one(case: str) -> None:
    layer, x, state, more = layer_of("gru", case, torch.float64)

    def found() -> list[Tensor]:
        torch.manual_seed(1)
        output, _ = layer(x, state, **more)
        sources = [x, state, *layer.parameters()]
        first = torch.autograd.grad((output**2).sum(), sources, create_graph=True)
        return [*first, *torch.autograd.grad(sum((each**3).sum() for each in first), sources)]

    again, ran = stacked._again, []
    with mock.patch.object(stacked, "_again", lambda *each: ran.append(1) or again(*each)):
        one = found()
    assert ran
    assert_as_layer_by_layer(one, found)


def test_a_weight_that_made_the_input_has_its_own_gradient_alone() -> None:
    """In a derivative of a derivative x is a function of a weight of the layer."""
    layer, x, _, _ = layer_of("gru", "whole vectors", torch.float64)
    scale = layer.weight_ih_l0

    def found() -> list[Tensor]:
        output, _ = layer(x * scale.sum())
        first = torch.autograd.grad((output**2).sum(), [scale], create_graph=True)
        return [*first, *torch.autograd.grad((first[0] ** 2).sum(), [scale])]

    assert_as_layer_by_layer(found(), found)


def test_gradients_may_come_as_a_batch() -> None:
    layer, x, state, _ = layer_of("gru", "states", torch.float64)
    output, _ = layer(x, state)
    seeds = torch.randn(3, *output.shape, dtype=torch.float64)
    found = torch.autograd.grad(output, [x, state], seeds, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(output, [x, state], seed, retain_graph=True) for seed in seeds]
    for one, others in zip(found, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(one, torch.stack(others), rtol=1e-10, atol=1e-10)


def _ran(layer: Any, x: Tensor, **options: Any) -> int:
    """How many waves ran."""
    run, ran = small_stack._Lanes.run, []
    with mock.patch.object(small_stack._Lanes, "run", lambda lanes: ran.append(1) or run(lanes)):
        layer(x, **options)
    return len(ran)


def test_where_layers_go_one_by_one() -> None:
    layer, x, _, _ = layer_of("gru", "whole vectors")
    assert _ran(layer, x) == 1
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each, lambda each: each):
        assert _ran(layer, x) == 0  # who sees what each layer keeps
    for weight in (layer.weight_ih_l0, layer.weight_hh_l0):
        weight.requires_grad_(False)
    assert _ran(layer, x) == 0  # the first layer needs no tape
    assert _ran(layer, x, lengths=[12, 5, 3]) == 0
    with torch.no_grad():
        assert _ran(layer, x) == 1
    assert _ran(cellwise.GRU(5, 16, 2, bidirectional=True, backend="cpu"), x) == 0
    assert _ran(cellwise.GRU(5, 16, backend="cpu"), x) == 0
    assert _ran(cellwise.GRU(5, 600, 2, backend="cpu"), x) == 0  # more weights than a cache holds


def test_what_a_caller_writes_to_an_output_is_not_read_again() -> None:
    layer, x, state, _ = layer_of("gru", "states")
    wanted = torch.autograd.grad(layer(x, state)[0].sum(), layer.parameters())
    output, final = layer(x, state)
    seed = torch.ones_like(output)
    with torch.no_grad():
        output.detach().zero_()
        final.detach().zero_()
    for one, other in zip(torch.autograd.grad(output, layer.parameters(), seed), wanted, strict=True):
        assert torch.equal(one, other)


def test_a_weight_that_was_changed_before_the_backward_pass_is_told() -> None:
    layer, x, _, _ = layer_of("gru", "whole vectors")
    output, _ = layer(x)
    with torch.no_grad():
        layer.weight_hh_l1.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# --- the wave itself -----------------------------------------------------------------------------------------------

LANES, BLOCKS = 5, 40


class Moves:
    """Lanes whose blocks move a number from the lane before: it is there if that block is done, else it is old."""

    def __init__(self, count: int) -> None:
        self.numbers = np.zeros((LANES + 1, BLOCKS), np.int64)
        self.ends = np.zeros((2, LANES), np.int64)
        self.given = np.ones(1, np.int64)
        self._tables: list[np.ndarray] = []
        lanes = []
        for lane in range(LANES):
            tasks = [self._chain(self.ends[0, lane:], self.given)]
            tasks += [
                self._chain(self.numbers[lane + 1, block:], self.numbers[lane, block:])
                for block in range(BLOCKS)
            ]
            lanes.append([*tasks, self._chain(self.ends[1, lane:], self.numbers[lane + 1, BLOCKS - 1 :])])
        self.wave = Wave(lanes, count)

    def _chain(self, to: np.ndarray, source: np.ndarray) -> Chain:
        table = np.array([0, 0, 1, 0, to.ctypes.data, source.ctypes.data, 1], np.int64)
        self._tables.append(table)
        return Chain([(small_products(4, host()), table.ctypes.data, 0)])

    def run(self, number: int) -> None:
        self.given[0] = self.numbers[0, :] = number
        threads.in_wave(self.wave)
        assert (self.numbers == number).all()
        assert (self.ends == number).all()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_block_begins_when_that_of_the_lane_before_is_done(
    count: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own:
        monkeypatch.setattr(threads, "team", lambda: None)
    monkeypatch.setattr(threads._PATIENCE, "is_over", lambda: False)
    torch.set_num_threads(min(count, 4))
    moves = Moves(count)
    for number in range(1, 100):
        moves.run(number)


def test_threads_that_sleep_are_not_woken_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    moves, counts = Moves(2), []
    monkeypatch.setattr(threads._PATIENCE, "is_over", lambda: False)
    monkeypatch.setattr(threads, "together", lambda shares: (counts.append(len(shares)), shares[0]()))
    moves.run(1)
    moves.wave.at_best = 1e-5
    monkeypatch.setattr(threads._Last, "used", 0.0)
    moves.run(2)
    moves.run(3)
    moves.wave.at_best = 1.0
    monkeypatch.setattr(threads._Last, "used", 0.0)
    moves.run(4)
    assert counts == [2, 1, 2, 2]


def test_after_a_long_wait_a_wave_is_done_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    moves, lost = Moves(2), []
    monkeypatch.setattr(threads._PATIENCE, "lost", lost.append)
    monkeypatch.setattr(threads._PATIENCE, "is_over", lambda: False)
    monkeypatch.setattr(threads, "together", lambda shares: (threads.time.sleep(0.002), shares[0]()))
    moves.run(1)
    moves.wave.at_best = 1.0
    moves.run(2)
    assert not lost
    moves.wave.at_best = 0.0
    moves.run(3)
    assert len(lost) == 1


@pytest.mark.parametrize("target", [host(), ARM])
def test_the_code_is_valid_for_other_processors(target: Target) -> None:
    assert "define void @" in str(emit_wave(target)).replace('"', "")


def test_numbers_are_multiplied_and_nothing_behind_them() -> None:
    left, right, to = torch.randn(37), torch.randn(37), torch.full((40,), 7.0)
    table = np.array([1, to.data_ptr(), left.data_ptr(), right.data_ptr(), 37], np.int64)
    multiply(4, host())(table.ctypes.data, 0)
    assert torch.equal(to[:37], left * right)
    assert (to[37:] == 7.0).all()
