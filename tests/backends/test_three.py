"""float32 products of three of bfloat16, where torch allows them and there are tile registers (here: loops)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from test_accuracy import Own, same_bits
from test_amx import loops  # noqa: F401  (a fixture)
from torch import nn

import cellwise
from cellwise.backends.cpu import amx_support
from cellwise.backends.cpu.amx_support import OFF, VARIABLE
from cellwise.testing import Arguments, results

# More rows in all than a small call has.
LENGTHS = torch.tensor([9, 9, 9, 9, 8, 8, 7, 7, 6, 5, 5, 4, 3, 2, 2, 1, 1] * 3)


@pytest.fixture
def high() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def error(found: dict[str, Any], truth: dict[str, Any]) -> float:
    """The largest distance of a result, as a part of its size."""
    return max(float((found[name].double() - truth[name]).norm() / truth[name].norm()) for name in truth)


def exact(layer: nn.Module, arguments: Arguments) -> dict[str, Any]:
    torch.set_float32_matmul_precision("highest")
    found = results(layer, arguments)
    torch.set_float32_matmul_precision("high")
    return found


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 130), (20, 37), (64, 64)])
@pytest.mark.parametrize("cell", ["lstm", "gru", Own])
@pytest.mark.usefixtures("loops", "high")
def test_about_16_bits(cell: Any, inputs: int, hidden: int) -> None:
    """Outputs, states and gradients: 2^-14 of their size at most, and farther off than float32, so that it was used."""
    torch.manual_seed(0)
    layer = cellwise.Recurrent(cell, inputs, hidden, bidirectional=True, backend="cpu")
    arguments = Arguments(torch.randn(9, len(LENGTHS), inputs), lengths=LENGTHS)
    wide = Arguments(arguments.x.double(), lengths=LENGTHS)
    truth = results(deepcopy(layer).double(), wide)
    found, in_float32 = results(layer, arguments), exact(layer, arguments)
    assert error(in_float32, truth) < 2**-18
    assert 2**-19 < error(found, truth) < 2**-14


@pytest.mark.usefixtures("loops", "high")
def test_a_call_goes_by_the_setting_that_holds_when_it_is_made() -> None:
    """The same layer, with plans that are kept: "highest" has the bits that it has without tiles."""
    layer = cellwise.Recurrent("gru", 24, 50, backend="cpu")
    arguments = Arguments(torch.randn(9, 40, 24))
    by_three, wanted = results(layer, arguments), exact(layer, arguments)
    assert not same_bits(by_three, wanted)
    assert same_bits(results(layer, arguments), by_three)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, OFF)
        amx_support.support.cache_clear()
        assert same_bits(results(deepcopy(layer), arguments), wanted)
    amx_support.support.cache_clear()


@pytest.mark.usefixtures("loops", "high")
def test_few_rows_and_other_settings_are_true_float32() -> None:
    layer, few = cellwise.Recurrent("mgu", 24, 50, backend="cpu"), Arguments(torch.randn(9, 7, 24))
    assert same_bits(results(layer, few), exact(layer, few))
    x = torch.randn(30, 90, 24)
    assert "float32 products of three of bfloat16, as torch's settings allow" in str(
        cellwise.explain(layer, x).detail
    )
    assert "three" not in str(cellwise.explain(layer, x[:, :7]).detail)


@pytest.mark.usefixtures("loops", "high")
@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 4, 4, 3, 3, 2, 2, 1, 1])])
def test_a_small_call_is_true_float32_by_any_way(lengths: torch.Tensor | None) -> None:
    """Rows of several lengths go by the chain once they have come twice, before that by the way of all calls."""
    layer = cellwise.Recurrent("gru", 24, 64, backend="cpu")
    arguments = Arguments(torch.randn(5, 9, 24), lengths=lengths)
    wanted = exact(deepcopy(layer), arguments)
    for _ in range(4):
        assert same_bits(results(layer, arguments), wanted)
    with torch.no_grad():
        found = [layer(arguments.x, lengths=lengths)[0] for _ in range(4)]
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.mark.usefixtures("high")
def test_without_tiles_nothing_changes() -> None:
    """As everywhere without AMX: three products by other instructions would take longer than one."""
    if amx_support.support().form:
        pytest.skip("this process has tile registers")
    layer, arguments = cellwise.Recurrent("gru", 24, 50, backend="cpu"), Arguments(torch.randn(9, 40, 24))
    assert same_bits(results(layer, arguments), exact(layer, arguments))


@pytest.mark.usefixtures("loops", "high")
def test_other_rows_change_no_bit() -> None:
    layer = cellwise.Recurrent("lstm", 24, 50, backend="cpu")
    x = torch.randn(5, 40, 24)
    wanted = layer(x)[0]
    x[:, 1:] = float("nan")
    assert torch.equal(layer(x)[0][:, 0], wanted[:, 0])
    assert torch.equal(layer(x[:, :9])[0][:, 0], wanted[:, 0])
