"""Every vector width on every machine: the kernels that a machine with SSE, AVX2 or AVX-512 would make.

Wider vectors than this machine has are lowered by LLVM to several; narrower ones are the code of a machine that has no
wider. CELLWISE_VECTOR_BYTES does the same to a whole run of the tests: `make widths`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_products import Call

import cellwise
from cellwise.backends.cpu.compile import load
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.products import routine, routine_name
from cellwise.backends.cpu.target import VARIABLE, WIDTHS, host, with_vectors_of
from cellwise.cells.gru import GRU
from cellwise.cells.lstm import LSTM
from cellwise.cells.rnn import RNN
from cellwise.errors import CellwiseError
from cellwise.testing import Case, assert_as_good, assert_close, cases_of, results

# An RNN's stage has one accumulator, an LSTM's four of one group, a GRU's several groups.
CASES = [case for cell in (RNN(), LSTM(), GRU()) for case in cases_of(cell) if case.situation != "no-rows"]


def test_layers_are_those_of_the_reference(vector_bytes: int) -> None:
    assert host().vector_bytes == vector_bytes
    for case in CASES:
        wanted = results(case.layer("reference"), case.arguments())
        assert_close(results(case.layer("cpu"), case.arguments()), wanted)


@pytest.mark.parametrize("hidden", [1, 8, 17, 40])
def test_float32_is_as_good_as_torchs(vector_bytes: int, hidden: int) -> None:
    """Where H is one vector or less, an odd number of them, and an even one."""
    case = Case(LSTM(), steps=20, batch=9, input_size=6, hidden_size=hidden, initial=True)
    truth = results(case.layer("reference"), case.arguments())
    torchs = results(case.layer("native", torch.float32), case.arguments(torch.float32))
    assert_as_good(results(case.layer("cpu", torch.float32), case.arguments(torch.float32)), torchs, truth)


def test_a_stream_is_the_layer(vector_bytes: int) -> None:
    layer = cellwise.Recurrent("gru", 3, 21, 2, backend="cpu")
    x = torch.randn(6, 3)
    stream = layer.stream()
    with torch.no_grad():
        wanted = layer(x)[0]
        for given, row in zip(x, wanted, strict=True):
            torch.testing.assert_close(stream(given).reshape(-1), row, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_padded_to_one_vector(width: int) -> None:
    compiler = llvm_compiler(with_vectors_of(width))
    lanes = width // 4
    assert [compiler.row_width(size, torch.float32) for size in (1, lanes, lanes + 1, 4 * lanes + 1)] == [
        lanes,
        lanes,
        2 * lanes,
        5 * lanes,
    ]


def test_vectors_of_64_bytes_where_there_are_none() -> None:
    """As on a machine with AVX2 alone."""
    target = replace(with_vectors_of(32), vector_bytes=64, registers=32)
    run = load(routine_name(4, 4, target), routine(4, 4, target))
    for rows in (1, 2, 5, 13):
        call = Call(rows, 3, 4, 16, [5, 33], np.float32)
        run(call.table.ctypes.data, 1)
        np.testing.assert_allclose(call.room[:, :rows], call.sums, rtol=1e-4, atol=1e-4)


def test_another_width_is_refused() -> None:
    own = host()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "24")
        host.cache_clear()
        with pytest.raises(CellwiseError, match="CELLWISE_VECTOR_BYTES is '24'; it must be 16, 32 or 64"):
            host()
    host.cache_clear()
    assert host() == own and own.vector_bytes in WIDTHS
