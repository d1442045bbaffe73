"""Kernels that multiply the inputs of a block of steps at once compute what all others do, and are taken by size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from cellwise import Cell, cells, sigmoid, tanh
from cellwise.backends.compiled.backward_pass import backward_pass
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.compiler import Carried, RunShape
from cellwise.backends.compiled.forward_pass import forward_pass
from cellwise.backends.compiled.saved import make_sizes
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cpu import blocks, compiler, threads
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.target import host
from cellwise.plan.backward import backward_plan
from cellwise.plan.hoist import hoisted
from cellwise.testing import Case, assert_as_good, assert_close, cases_of, results


@contextmanager
def in_blocks_of(rows: int) -> Iterator[None]:
    """While this lasts every kernel with inputs multiplies them for blocks of so many rows."""
    with (
        mock.patch.object(compiler, "in_blocks", lambda program, *_: hoisted(program) is not program),
        mock.patch.object(blocks, "_ROWS", rows),
        mock.patch.object(threads, "_WORTH_A_THREAD", 1),
    ):
        passes = (forward_pass, backward_pass)  # which remember the runs of each shape
        for each in passes:
            each.cache_clear()
        try:
            yield
        finally:
            for each in passes:
                each.cache_clear()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Twice(Cell):
    """An input's product that is an operand, and one that two stages read."""

    gates = ("a", "b", "n")

    def step(self, x, h):
        r = sigmoid(x.a + h.a)
        return tanh(x.n + (r * h).n + x.b * (x.b).b)


# One stage of one group; two stages; no product of a state; what only a hoisted program copies.
CASES = {
    name: cases_of(cell)[::every]
    for name, cell, every in (
        ("lstm", cells.get("lstm"), 1),
        ("gru-reset-before", cells.get("gru-reset-before"), 3),
        ("mingru", cells.get("mingru"), 4),
        ("twice", Twice(), 4),
    )
}


@pytest.mark.parametrize("name", CASES)
def test_every_case(name: str, two_threads: None) -> None:
    for number, case in enumerate(CASES[name]):
        wanted = results(case.layer("reference"), case.arguments())
        layer = case.layer("cpu")
        layer.recompute = number % 2 == 1
        with in_blocks_of(1 + 6 * (number % 3)):
            assert_close(results(layer, case.arguments()), wanted)


def test_every_width_of_vectors(vector_bytes: int) -> None:
    case = Case(cells.get("gru"), steps=20, batch=3, input_size=37, hidden_size=40, initial=True)
    arguments = case.arguments(torch.float32)
    truth = results(case.layer("reference"), case.arguments())
    torchs = results(case.layer("native", torch.float32), arguments)
    layer = case.layer("cpu", torch.float32)
    with in_blocks_of(10):
        found = results(layer, arguments)
        again = results(layer, arguments)
    assert_as_good(found, torchs, truth)
    assert all(torch.equal(again[name], each) for name, each in found.items())


def is_taken(cell: str, *sizes: int, dtype: torch.dtype = torch.float32, backward: bool = False) -> bool:
    """Whether the kernel for a shape T, B, D, H multiplies its inputs in blocks."""
    steps, batch, inputs, hidden = sizes
    kernels = kernels_for(cells.get(cell).graph, dtype, llvm_compiler(host()), False, False)
    kernel = kernels.backward if backward else kernels.inference
    carried = tuple(Carried.PAIR for _ in kernels.graph.states)
    schedule = even_schedule(steps, batch, False)
    made = make_sizes(kernels, inputs, hidden, 0)
    shape = RunShape(made, schedule, kernels.stems[True], carried, False, torch.device("cpu"))
    return bool(kernel.open(shape).kernel.program.before_loop)


def test_it_is_done_where_it_was_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "second_level_cache", lambda: 2**20)
    assert is_taken("lstm", 100, 1, 512, 256) and is_taken("gru", 100, 1, 64, 128)
    assert not is_taken("lstm", 100, 2, 64, 128)  # the weights are in the cache
    assert is_taken("lstm", 100, 15, 512, 256) and is_taken("lstm", 35, 64, 1024, 1024)
    assert not is_taken("lstm", 35, 65, 1024, 1024) and not is_taken("lstm", 100, 16, 512, 256)
    assert is_taken("lstm", 100, 6, 128, 192, dtype=torch.float64) and not is_taken("lstm", 100, 6, 128, 192)
    assert not is_taken("lstm", 1, 1, 512, 256)  # a step alone
    assert not is_taken("lstm", 100, 1, 4, 256)  # hardly an input
    monkeypatch.setattr(blocks, "second_level_cache", lambda: 2**22)
    assert is_taken("lstm", 100, 1, 512, 256) and not is_taken("lstm", 100, 4, 512, 256)


def test_a_backward_pass_multiplies_inputs_where_it_recomputes() -> None:
    assert not is_taken("gru", 100, 1, 512, 256, backward=True)
    graph = cells.get("gru").graph
    assert hoisted(backward_plan(graph, recompute=True).program).before_loop


def test_the_size_of_a_cache_is_one() -> None:
    assert 2**17 <= blocks.second_level_cache() <= 2**27
