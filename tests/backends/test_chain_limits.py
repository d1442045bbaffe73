"""Up to which work a call of few rows is one chain in one thread, where two threads could share it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise.backends.cpu import small_run, threads
from cellwise.nn import plain

BOTH, TRAINING, NEITHER = (True, True), (False, True), (False, False)


@pytest.fixture(params=[2])
def _threads(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads._PATIENCE, "_NOTABLE", 1e9)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)
    plain._ROUTES.clear()


def chains(layer: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[bool, bool]:
    """Whether a call without gradients was one chain, and whether both passes of one with gradients were."""
    entered: list[int] = []
    enter = small_run.SmallRun.enter
    with monkeypatch.context() as patch:
        patch.setattr(small_run.SmallRun, "enter", lambda *each: entered.append(1) or enter(*each))
        with torch.no_grad():
            layer(x, **given)
        alone = len(entered)
        output, _ = layer(x, **given)
        output.sum().backward()
    count = 2 if layer.bidirectional else 1
    assert alone in (0, count) and len(entered) - alone in (0, 2 * count)
    return alone > 0, len(entered) > alone


# Multiply-adds are in the comments, in millions.
LSTMS = {
    (8, 8, 64, 64): BOTH,  # 2.2
    (20, 8, 64, 128): TRAINING,  # 16
    (16, 16, 128, 128): NEITHER,  # 34
    (100, 3, 64, 64): None,  # more than 256 rows
    (50, 3, 64, 128): BOTH,  # 15: few rows are dearer to share
    (75, 3, 64, 128): TRAINING,  # 23
    (60, 1, 64, 192): TRAINING,  # 12: a single row, whose units are shared
    (200, 1, 64, 128): NEITHER,  # 20
}


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("shape", LSTMS, ids=str)
def test_a_call_goes_where_it_is_done_sooner(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    *rows, width, hidden = shape
    layer, x = cellwise.LSTM(width, hidden, backend="cpu"), torch.randn(*rows, width)
    assert chains(layer, x, monkeypatch) == (LSTMS[shape] or NEITHER)


@pytest.mark.usefixtures("_threads")
def test_a_single_row_that_no_thread_can_share_is_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    x, marks = torch.randn(200, 1, 64), torch.zeros(200, 1, dtype=torch.bool)
    layer = cellwise.LSTM(64, 128, backend="cpu")
    assert chains(layer, x, monkeypatch, resets=marks) == BOTH


@pytest.mark.parametrize("_threads", [1], indirect=True)
def test_one_thread_does_all_in_one_chain(_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = cellwise.LSTM(128, 128, backend="cpu"), torch.randn(16, 16, 128)
    assert chains(layer, x, monkeypatch) == BOTH


@pytest.mark.usefixtures("_threads")
def test_directions_run_at_once_sooner_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, wanted in {
        (8, 8, 64, 64): BOTH,
        (20, 4, 64, 160): TRAINING,
        (16, 16, 128, 128): NEITHER,
    }.items():
        *rows, width, hidden = shape
        layer = cellwise.LSTM(width, hidden, bidirectional=True, backend="cpu")
        assert chains(layer, torch.randn(*rows, width), monkeypatch) == wanted


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=str)
@pytest.mark.parametrize("given", [False, True])
def test_the_results_are_those_of_one_thread(given: bool, options: dict[str, Any]) -> None:
    """Inference by two threads, and training in a chain, of the same layer."""
    torch.manual_seed(0)
    layer = cellwise.LSTM(64, 128, backend="cpu", **options).double()
    count = layer.num_layers * (1 + layer.bidirectional)
    x = torch.randn(20, 8, 64, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(count, 8, 128, dtype=torch.float64, requires_grad=True) for _ in range(2))
    inputs = [x, *layer.parameters(), *(states if given else ())]
    found = []
    for number in (2, 1):
        torch.set_num_threads(number)
        with torch.no_grad():
            alone, _ = layer(x, states if given else None)
        output, finals = layer(x, states if given else None)
        total = output.sin().sum() + sum(each.cos().sum() for each in finals)
        found.append([alone, output, *finals, *torch.autograd.grad(total, inputs)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
