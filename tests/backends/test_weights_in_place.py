"""Kernels that read weights where they lie compute what all others do, and are taken by size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import cells
from cellwise.backends.compiled.backward_pass import backward_pass
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.compiler import Carried, RunShape
from cellwise.backends.compiled.forward_pass import forward_pass
from cellwise.backends.compiled.saved import make_sizes
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cpu import blocks, compiler, in_place
from cellwise.backends.cpu.compile import load
from cellwise.backends.cpu.compiler import Kernel, llvm_compiler
from cellwise.backends.cpu.in_place import can_be_in_place
from cellwise.backends.cpu.in_place_products import in_place_routine, routine_name
from cellwise.backends.cpu.target import with_vectors_of
from cellwise.nn import plain
from cellwise.testing import Case, assert_as_good, assert_close, cases_of, results


@contextmanager
def everywhere(which: bool) -> Iterator[list[Kernel]]:
    """While this lasts every kernel that can reads weights where they lie, or none does; yields those that do."""
    taken: list[Kernel] = []
    made = Kernel.in_place.func  # type: ignore[attr-defined]

    def is_taken(program: Any, shape: RunShape, _: int, lanes: int, ahead: bool) -> bool:
        return which and can_be_in_place(program) and min(shape.sizes.hidden, shape.sizes.output) >= lanes

    def noted(kernel: Kernel) -> Kernel:
        taken.append(kernel)
        return made(kernel)

    forget()
    with (
        mock.patch.object(compiler, "in_place", is_taken),
        mock.patch.object(Kernel, "in_place", property(noted)),
    ):
        yield taken
    forget()


def forget() -> None:
    """Runs and routes are remembered by shape."""
    for each in (forward_pass, backward_pass):
        each.cache_clear()
    plain._ROUTES.clear()


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-reset-before", "mgu", "lstm-peephole", "rhn"])
def test_every_case(name: str) -> None:
    """Ragged and padded rows, resets, stacks and projections too, by the way of all calls and by that of small ones."""
    ran = 0
    for case in cases_of(cells.get(name))[::3]:
        wanted = results(case.layer("reference"), case.arguments())
        with everywhere(True) as taken:
            assert_close(results(case.layer("cpu"), case.arguments()), wanted)
        ran += len(taken)
    for hidden in (32, 29):
        whole = Case(cells.get(name), steps=3, batch=5, input_size=19, hidden_size=hidden, initial=True)
        wanted = results(whole.layer("reference"), whole.arguments())
        with everywhere(True) as taken:
            assert_close(results(whole.layer("cpu"), whole.arguments()), wanted)
        assert taken


@pytest.mark.parametrize("hidden", [48, 45])
def test_every_width_of_vectors(hidden: int, vector_bytes: int) -> None:
    case = Case(cells.get("lstm"), steps=4, batch=3, input_size=37, hidden_size=hidden, initial=True)
    truth = results(case.layer("reference"), case.arguments())
    arguments = case.arguments(torch.float32)
    torchs = results(case.layer("native", torch.float32), arguments)
    with everywhere(True) as taken:
        assert_as_good(results(case.layer("cpu", torch.float32), arguments), torchs, truth)
    assert taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [32, 27])
def test_a_row_has_the_same_bits_beside_any_others(hidden: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = cellwise.LSTM(21, hidden, backend="cpu", dtype=dtype)
    x = torch.randn(3, 9, 21, dtype=dtype)
    with everywhere(True), torch.no_grad():
        alone = torch.cat([layer(x[:, row : row + 1].contiguous())[0] for row in range(9)], 1)
        for rows in (2, 3, 4, 5, 9):
            assert torch.equal(layer(x[:, :rows].contiguous())[0], alone[:, :rows])


def test_weights_that_change_by_any_way_are_read_anew() -> None:
    torch.manual_seed(0)
    layer, x = cellwise.GRU(16, 64, backend="cpu"), torch.randn(1, 2, 16)

    def found() -> Tensor:
        with torch.no_grad():
            return layer(x)[0]

    with everywhere(True) as taken:
        before = found()
        layer.weight_hh_l0.detach().numpy()[:] *= 2  # which nobody is told of
        layer.weight_ih_l0.data = torch.randn_like(layer.weight_ih_l0)
        after = found()
    assert taken and not torch.equal(before, after)
    with everywhere(False):
        torch.testing.assert_close(after, found())


@pytest.mark.parametrize(
    "layer",
    [
        cellwise.GRU(16, 32, bias=False, backend="cpu"),
        cellwise.LSTM(16, 64, proj_size=16, backend="cpu"),
        cellwise.LSTM(16, 37, proj_size=19, num_layers=2, backend="cpu"),
    ],
    ids=["without biases", "projected", "projected, no whole vectors"],
)
def test_layers_without_biases_and_projected_ones(layer: Any) -> None:
    torch.manual_seed(0)
    x, ours = torch.randn(2, 3, 16), {}
    for which in (True, False):
        with everywhere(which) as taken, torch.no_grad():
            ours[which] = layer(x)[0]
        assert bool(taken) is which
    torch.testing.assert_close(ours[True], ours[False], rtol=1e-5, atol=1e-6)


# --- where it is done ------------------------------------------------------------------------------------------------


def is_taken(
    cell: str, *sizes: int, dtype: torch.dtype = torch.float32, width: int = 64, projected: int = 0
) -> bool:
    """Whether the kernel for a shape T, B, D, H reads weights where they lie, with vectors of so many bytes."""
    steps, batch, inputs, hidden = sizes
    compiler = llvm_compiler(with_vectors_of(width))
    kernels = kernels_for(cells.get(cell).graph, dtype, compiler, projected > 0, False)
    carried = tuple(Carried.PAIR for _ in kernels.graph.states)
    made = make_sizes(kernels, inputs, hidden, projected)
    schedule = even_schedule(steps, batch, False)
    shape = RunShape(made, schedule, kernels.stems[True], carried, False, torch.device("cpu"))
    return kernels.inference.for_shape(shape).reads_in_place


def test_it_is_done_where_it_was_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "second_level_cache", lambda: 2**20)
    monkeypatch.setattr(in_place, "second_level_cache", lambda: 2**20)
    assert (
        is_taken("lstm", 1, 1, 64, 128)
        and is_taken("gru", 4, 8, 64, 128)
        and is_taken("rnn", 1, 48, 256, 256)
    )
    assert not is_taken("lstm", 5, 8, 64, 128) and not is_taken("rnn", 1, 49, 256, 256)
    assert is_taken("lstm", 1, 5, 16, 16) and not is_taken("lstm", 1, 6, 16, 16)
    assert is_taken("lstm", 4, 6, 64, 100) and not is_taken("lstm", 4, 7, 64, 100)
    assert is_taken("lstm", 1, 1, 64, 17) and not is_taken("lstm", 1, 1, 64, 15)  # less than a vector
    # The inputs of a block of steps would be multiplied at once.
    assert is_taken("lstm", 16, 1, 64, 128) and not is_taken("lstm", 17, 1, 64, 128)
    assert is_taken("lstm", 7, 1, 256, 256) and not is_taken("lstm", 8, 1, 256, 256)
    assert is_taken("lstm", 1, 12, 64, 128, dtype=torch.float64)
    assert not is_taken("lstm", 1, 13, 64, 128, dtype=torch.float64)
    assert is_taken("lstm", 1, 12, 64, 128, width=32) and not is_taken("lstm", 1, 13, 64, 128, width=32)
    assert not is_taken("lstm", 1, 1, 64, 128, width=16)
    assert not is_taken("layernorm-lstm", 1, 1, 64, 128)  # sums over units
    assert is_taken("lstm", 4, 4, 64, 128, projected=32) and not is_taken("lstm", 4, 5, 64, 128, projected=32)
    assert not is_taken("lstm", 1, 1, 64, 128, projected=15)


# --- the products by themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_products_of_all_sizes(missing: int, rows: int, width: int, kind: type) -> None:
    """Two accumulators of three tiles, the third without its other half, from two terms of which one has odd rows."""
    size, target = np.dtype(kind).itemsize, with_vectors_of(width)
    lanes, draw = target.lanes(size), np.random.default_rng(0)
    function = load(routine_name(size, target), in_place_routine(size, target))
    units, lengths = 3 * lanes - missing, (4 * lanes + 3, 9 * lanes)
    operands = [draw.standard_normal((rows, length)).astype(kind) for length in lengths]
    weights = [draw.standard_normal((2 * units, length)).astype(kind) for length in lengths]
    bias = draw.standard_normal(2 * units).astype(kind)
    wanted = sum(operand @ weight.T for operand, weight in zip(operands, weights, strict=True)) + bias
    for pair, tiles in ((0, 2), (1, 1)):
        room = np.full((4, rows + 1, lanes), 7, kind)  # a panel for each vector, and a row that nobody writes
        call = [rows, rows + 1, room.ctypes.data, 2, 3, 2, 1, 1, 2, units]
        for accumulator in range(2):
            call += [bias.ctypes.data + accumulator * units * size, 0]
        for operand, weight in zip(operands, weights, strict=True):
            length = operand.shape[1]
            call += [operand.ctypes.data, 0, rows, length, length]
            call += [weight.ctypes.data + accumulator * units * length * size for accumulator in range(2)]
        words = np.array(call, np.int64)
        function(words.ctypes.data, pair)
        for tile in range(2):
            for accumulator in range(2):
                found = room[2 * tile + accumulator]
                first = accumulator * units + (2 * pair + tile) * lanes
                there = max(0, min(lanes, units - (2 * pair + tile) * lanes))  # units of the tile
                own = np.full((rows, lanes), 0 if tile < tiles else 7, kind)
                if tile < tiles:
                    own[:, :there] = wanted[:, first : first + there]
                np.testing.assert_allclose(found[:rows], own, rtol=1e-4, atol=1e-4 if size == 4 else 1e-12)
                assert (found[rows] == 7).all()
