"""Products of float32 numbers with fewer bits, as torch's two kinds of settings allow them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import cellwise
from cellwise.backends.cpu import amx_support
from cellwise.backends.cpu.three_run import goes_by_three
from cellwise.backends.cuda.numbers import F32, TF32, number_of
from cellwise.backends.cuda_preference import _numbers
from cellwise.backends.precision import allows_tf32, allows_two_parts


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    # Torch's own helpers for tests, which some tests load, freeze these settings.
    with torch.backends.__allow_nonbracketed_mutation():
        before = torch.get_float32_matmul_precision()
        yield
        torch.set_float32_matmul_precision(before)
        for set_to in (_global, _on_gpus, _on_cpus):  # each library as all are told, as torch begins
            set_to("none")


def _global(value: str) -> None:
    torch.backends.fp32_precision = value


def _on_gpus(value: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = value


def _on_cpus(value: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = value


def _allow_tf32(value: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = value == "True"


@pytest.mark.parametrize(
    ("set_to", "value", "on_gpus", "on_cpus"),
    [
        (torch.set_float32_matmul_precision, "highest", False, False),
        (torch.set_float32_matmul_precision, "high", True, True),
        (torch.set_float32_matmul_precision, "medium", True, True),
        (_allow_tf32, "True", True, False),
        (_allow_tf32, "False", False, False),
        (_global, "tf32", True, True),
        (_global, "ieee", False, False),
        (_on_gpus, "tf32", True, False),
        (_on_gpus, "ieee", False, False),
        (_on_cpus, "tf32", False, True),
        (_on_cpus, "bf16", False, True),
    ],
)
def test_whatever_way_torch_is_told(set_to, value, on_gpus, on_cpus, monkeypatch) -> None:
    monkeypatch.setenv(amx_support.VARIABLE, amx_support.LOOPS)
    amx_support.support.cache_clear()
    set_to(value)
    assert (allows_tf32(), allows_two_parts()) == (on_gpus, on_cpus)
    assert number_of(torch.float32) is (TF32 if on_gpus else F32)
    assert _numbers(torch.float32) == ("tf32" if on_gpus else "float32")
    assert goes_by_three(10_000) == on_cpus
    layer, x = cellwise.Recurrent("mgu", 24, 50, backend="cpu"), torch.randn(30, 90, 24)
    assert ("three of bfloat16" in str(cellwise.explain(layer, x).detail)) == on_cpus
    layer(x)[0].sum().backward()
    amx_support.support.cache_clear()
