"""Layouts for sizes on a device: weights that no registers hold, proj_size, graphs of many steps; scans over time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from agreement import ThreeProducts, check, on_streams
from torch import Tensor

from cellwise import Cell, Recurrent
from cellwise.backends.cuda import layout as layouts
from cellwise.backends.cuda.layout import STEPWISE
from cellwise.nn import explain
from cellwise.testing import CASES, Case, cases_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

LARGE: list[tuple[str, int, str | type[Cell]]] = [
    ("bfloat16", 1100, "lstm"),
    ("float32", 1100, "lstm"),
    ("float16", 1100, ThreeProducts),
    ("tf32", 1100, "gru-reset-before"),
]
PROJECTED = [case for case in CASES if case.proj_size]


@pytest.mark.parametrize(("number", "hidden", "cell"), LARGE, ids=str)
def test_a_layer_of_any_size_agrees(number: str, hidden: int, cell: str | type[Cell]) -> None:
    case = replace(cases_of(cell)[0], steps=21, batch=13, input_size=40, hidden_size=hidden, initial=True)
    check(case, "cuda", number, device="cuda")


@pytest.mark.parametrize("number", ["float32", "bfloat16"])
@pytest.mark.parametrize("situation", ["resets-ragged-both-ways", "seventeen-units", "no-rows"])
def test_small_layers_agree_step_by_step(situation: str, number: str) -> None:
    case = next(each for each in cases_of(ThreeProducts) if each.situation == situation)
    check(replace(case, recompute=number == "float32"), "cuda", number, STEPWISE, "cuda")


@pytest.mark.parametrize("case", PROJECTED, ids=str)
def test_projected_states_agree(case: Case) -> None:
    check(case, "cuda", device="cuda")


def test_lengths_and_resets_of_a_large_layer() -> None:
    lengths = tuple(1 + 7 * row % 21 for row in range(9))
    case = replace(
        cases_of("lstm")[0], steps=21, batch=9, hidden_size=1100, initial=True, resets=True, lengths=lengths,
        bidirectional=True,
    )  # fmt: skip
    check(case, "cuda", "bfloat16", device="cuda")


def _run(layer: Recurrent, x: Tensor) -> list[Tensor]:
    y = layer(x)[0]
    return [y, *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])]


def test_runs_repeat_to_the_bit_and_layers_share_memory() -> None:
    made = {"device": "cuda", "dtype": torch.bfloat16, "backend": "cuda"}
    one, other = (Recurrent("lstm", 32, 1536, **made) for _ in range(2))
    x = torch.randn(100, 16, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    first = _run(one, x)
    _run(other, x)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, _run(one, x), strict=True))


def test_streams_and_graphs_of_the_callers() -> None:
    layer = Recurrent("lstm", 16, 1536, device="cuda", dtype=torch.bfloat16, backend="cuda")
    x = torch.randn(70, 16, 16, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        wanted = layer(x)[0]
        found = on_streams(layer, x, 2)
        assert all(torch.equal(each, wanted) for each in found)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)[0]
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(y, layer(x)[0], atol=1e-2, rtol=1e-2)


def test_auto_takes_it_for_a_large_cell_of_ones_own_and_says_so() -> None:
    layer = Recurrent(ThreeProducts, 8, 2048, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(3, 2, 8, device="cuda", dtype=torch.bfloat16)
    explained = explain(layer, x)
    assert explained.chosen == "cuda" and "stepwise" in str(explained)
    assert layer(x)[0].isfinite().all()


@pytest.mark.parametrize(
    ("cell", "number"), [("mingru", "bfloat16"), ("mingru", "float32"), ("indrnn", "float32")]
)
def test_stretches_of_time_agree(cell: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "LONG", 500)
    lengths = (700, 3, 0, 650, 699)
    case = replace(cases_of(cell)[0], steps=700, batch=5, hidden_size=65, initial=True, lengths=lengths)
    layer = case.layer("cuda", torch.float32).cuda()
    assert "scan" in str(explain(layer, case.arguments(torch.float32).x.cuda()))
    check(case, "cuda", number, device="cuda")
