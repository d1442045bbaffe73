"""The gradients of weights and of the input from those at gates: every size, width of vectors and number of threads."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from torch import Tensor

from cellwise.backends.compiled.gradients import BlockSlice, at_operand, at_weight
from cellwise.backends.cpu import gradient_products
from cellwise.backends.cpu.block_products import MADE_BY
from cellwise.backends.cpu.gradient_products import CpuGradientProducts
from cellwise.backends.cpu.target import WIDTHS, with_vectors_of

# Rows, units of a gate, how far apart gates are, numbers of an input, rows of the first states.
SIZES = (
    (1, 1, 4, 1, 1),
    (7, 5, 8, 3, 3),
    (130, 40, 40, 17, 130),
    (129, 16, 16, 64, 20),
    (300, 65, 68, 33, 64),
    (257, 150, 152, 150, 1),
)


def padded(rows: int, width: int, dtype: torch.dtype, more: int) -> Tensor:
    """Numbers with NaN beside each row, and behind the last."""
    wide = torch.full((rows + 1, width + more), float("nan"), dtype=dtype)
    wide[:rows, :width] = torch.randn(rows, width, dtype=torch.float64).to(dtype)
    return wide[:rows, :width]


def asked(size: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Any], list[Any], list[Tensor]]:
    """What is asked of the gradients at a recurrent weight, at another and at x, and what is there before: three gates,
    of which the recurrent weight knows two, the second of them in front."""
    torch.manual_seed(0)
    rows, units, apart, inputs, begin = size
    gates = padded(rows, 3 * apart, dtype, 0)
    for gate in range(3):
        gates[:, gate * apart + units : (gate + 1) * apart] = float("nan")
    first, history, x = (
        padded(begin, units, dtype, 3),
        padded(rows, units, dtype, 1),
        padded(rows, inputs, dtype, 2),
    )
    places = [slice(gate * units, (gate + 1) * units) for gate in range(3)]
    columns = [slice(gate * apart, gate * apart + units) for gate in range(3)]
    recurrent = [BlockSlice(places[0], columns[2]), BlockSlice(places[1], columns[1], add=True)]
    operand = [(slice(0, begin), first)]
    if begin < rows:
        # As it is where steps go backwards.
        operand.insert(begin % 2, (slice(begin, rows), history[: rows - begin]))
    whole = [BlockSlice(*each) for each in zip(places, columns, strict=True)]
    weight = padded(3 * units, inputs, dtype, 0)
    outs = [
        padded(2 * units, units, dtype, 0),
        padded(3 * units, inputs, dtype, 0),
        padded(rows, inputs, dtype, 0),
    ]
    return [(gates, recurrent, operand), (gates, whole, [(slice(None), x)])], [gates, whole, weight], outs


def made(size: tuple[int, ...], dtype: torch.dtype, vector_bytes: int) -> list[Tensor]:
    products = CpuGradientProducts(dtype, with_vectors_of(vector_bytes))
    (recurrent, at_x), by_weight, outs = asked(size, dtype)
    products.at_weight(*recurrent, outs[0], add=False)
    products.at_weight(*at_x, outs[1], add=True)
    products.at_operand(*by_weight, outs[2])
    products.run()
    return outs


def wanted(size: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    (recurrent, at_x), by_weight, outs = asked(size, dtype)
    at_weight(*recurrent, outs[0])
    at_weight(*at_x, outs[1], add=True)
    at_operand(*by_weight, outs[2])
    return outs


@pytest.mark.parametrize("vector_bytes", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_they_are_what_torchs_products_are(
    size: tuple[int, ...], dtype: torch.dtype, vector_bytes: int
) -> None:
    near = 1e-4 if dtype is torch.float32 else 1e-12
    for own, other in zip(made(size, dtype, vector_bytes), wanted(size, dtype), strict=True):
        torch.testing.assert_close(own, other, rtol=near, atol=near)


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_threads_change_no_bit(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = made(size, torch.float32, 64)
    monkeypatch.setattr(gradient_products, "threads_for", lambda work: 3)
    assert all(map(torch.equal, alone, made(size, torch.float32, 64)))


def test_long_sums_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (300, 20, 20, 33, 64)
    monkeypatch.setattr(gradient_products, "_LONG", 100)
    for own, other in zip(made(size, torch.float64, 64), wanted(size, torch.float64), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_all_that_makes_the_code_is_watched() -> None:
    names = {f"cellwise.backends.cpu.{file.stem}" for file in MADE_BY}
    for file in MADE_BY:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellwise.backends"):
                assert node.module in names | {"cellwise.backends.cpu.compile"}, file.name
