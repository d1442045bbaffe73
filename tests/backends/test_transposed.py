"""Backward kernels that read weights where they lie compute what all others do, and are taken by size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_weights_in_place import everywhere
from torch import Tensor

import cellwise
from cellwise import cells
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.compiler import Carried, RunShape
from cellwise.backends.compiled.saved import make_sizes
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cpu.compile import load
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.target import with_vectors_of
from cellwise.backends.cpu.transposed_products import routine_name, transposed_routine
from cellwise.testing import Case, assert_as_good, assert_close, results

# --- the products by themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_products_of_all_sizes(width: int, kind: type) -> None:
    """Two terms, whose rows from a limit on lie elsewhere; runs; whole vectors and parts of one; some of the units."""
    size, target = np.dtype(kind).itemsize, with_vectors_of(width)
    lanes, draw = target.lanes(size), np.random.default_rng(0)
    function = load(routine_name(size, target), transposed_routine(size, target))
    for rows in range(1, 18):
        for units in (1, lanes, 5 * lanes + 3, 43 * lanes):
            first = lanes * (rows % 3) if units > 2 * lanes else 0
            lengths, limit = (3 + rows, 2 * lanes), rows // 2
            weights = [draw.standard_normal((length, units + 1)).astype(kind) for length in lengths]
            operands = [draw.standard_normal((rows, length + 2)).astype(kind) for length in lengths]
            others = [draw.standard_normal((rows, length + 2)).astype(kind) for length in lengths]
            padded = -(-units // lanes) * lanes
            room = np.full((rows + 1, padded), 7, kind)
            call = [rows, first, units, room.ctypes.data, padded, 2]
            wanted = np.zeros((rows, units))
            for operand, other, weight, length in zip(operands, others, weights, lengths, strict=True):
                call += [operand.ctypes.data, other.ctypes.data, limit, length + 2, length, 8]
                call += [weight.ctypes.data, units + 1]
                taken = np.concatenate([operand[:limit], other[limit:]])[:, :length]
                wanted += taken.astype(float) @ weight[:, :units].astype(float)
            words = np.array(call, np.int64)
            function(words.ctypes.data, 0)
            near = 1e-4 if size == 4 else 1e-12
            np.testing.assert_allclose(room[:rows, first:units], wanted[:, first:], rtol=near, atol=near)
            assert (room[:rows, :first] == 7).all()
            assert (room[:rows, units:] == 0).all()
            assert (room[rows] == 7).all()


# --- in kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", ["gru", "lstm-peephole"])
def test_a_row_has_the_same_bits_beside_any_others(cell: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = cellwise.Recurrent(cell, 5, 48, backend="cpu", dtype=dtype)
    x = torch.randn(3, 17, 5, dtype=dtype)

    def gradient(first: int, end: int) -> Tensor:
        """At the first states of these rows."""
        states = [torch.zeros(1, end - first, 48, dtype=dtype, requires_grad=True) for _ in layer.cell.states]
        output = layer(x[:, first:end].contiguous(), tuple(states) if len(states) > 1 else states[0])[0]
        return torch.stack(torch.autograd.grad(output.sum(), states))

    with everywhere(True) as taken:
        alone = torch.cat([gradient(row, row + 1) for row in range(17)], 2)
        for rows in (2, 3, 5, 8, 9, 17):
            assert torch.equal(gradient(0, rows), alone[:, :, :rows])
    assert any(kernel.program.name.endswith("backward") for kernel in taken)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gradients_are_as_good_as_torchs_with_vectors_of_every_width(cell: str, vector_bytes: int) -> None:
    """Of more terms than are added up at once, and of units that no block of vectors has to itself."""
    case = Case(cells.get(cell), steps=3, batch=3, input_size=7, hidden_size=208, initial=True)
    truth = results(case.layer("reference"), case.arguments())
    arguments = case.arguments(torch.float32)
    native = results(case.layer("native", torch.float32), arguments)
    with everywhere(True) as taken:
        assert_as_good(results(case.layer("cpu", torch.float32), arguments), native, truth)
        if vector_bytes > 16:  # where forward kernels can read numbers of float64 where they lie
            assert_close(results(case.layer("cpu"), case.arguments()), truth)
    assert any(kernel.program.name.endswith("backward") for kernel in taken)


def test_weights_that_change_by_any_way_are_read_anew() -> None:
    torch.manual_seed(0)
    layer, x = cellwise.GRU(16, 64, backend="cpu"), torch.randn(3, 2, 16)
    state = torch.randn(1, 2, 64, requires_grad=True)

    def found() -> Tensor:
        return torch.autograd.grad(layer(x, state)[0].sum(), state)[0]

    with everywhere(True):
        before = found()
        layer.weight_hh_l0.detach().numpy()[:] *= 2  # which nobody is told of
        layer.weight_ih_l0.data = torch.randn_like(layer.weight_ih_l0)
        after = found()
    assert not torch.equal(before, after)
    with everywhere(False):
        torch.testing.assert_close(after, found())


def is_taken(cell: str, *sizes: int, recompute: bool = False, width: int = 64, **given: Any) -> bool:
    """Whether the backward kernel for a shape T, B, D, H reads weights where they lie, with such vectors."""
    steps, batch, inputs, hidden = sizes
    graph, dtype = cells.get(cell).graph, given.get("dtype", torch.float32)
    kernels = kernels_for(graph, dtype, llvm_compiler(with_vectors_of(width)), False, recompute)
    carried = tuple(Carried.PAIR for _ in kernels.graph.states)
    made = make_sizes(kernels, inputs, hidden, 0)
    schedule = even_schedule(steps, batch, False)
    shape = RunShape(made, schedule, kernels.stems[True], carried, False, torch.device("cpu"))
    return kernels.backward.for_shape(shape).reads_in_place


def test_it_is_done_where_it_was_measured_to_be_faster() -> None:
    for cell in ("lstm", "gru", "rnn", "mgu"):
        assert is_taken(cell, 1, 1, 64, 128) and is_taken(cell, 8, 16, 64, 512)
        assert not is_taken(cell, 8, 17, 64, 128)
        assert is_taken(cell, 32, 1, 64, 384) and not is_taken(cell, 33, 1, 64, 384)
        assert is_taken(cell, 1, 9, 64, 48) and not is_taken(cell, 2, 9, 64, 48)  # sums wait for each other
        assert not is_taken(cell, 9, 1, 64, 400)  # a row of weights in more than one piece
        assert not is_taken(cell, 1, 1, 64, 100)  # no whole vectors
    assert is_taken("lstm", 8, 1, 64, 512, dtype=torch.float64) and is_taken("lstm", 8, 1, 64, 128, width=16)
    assert not is_taken("layernorm-lstm", 1, 1, 64, 128)  # sums over units
    # What computes the steps again reads weights both ways, and is taken where both are.
    assert is_taken("lstm", 4, 8, 64, 128, recompute=True)
    assert not is_taken("lstm", 5, 8, 64, 128, recompute=True)
