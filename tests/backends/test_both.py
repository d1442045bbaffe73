"""The two directions of a layer at once: the bits of one after the other, and what may happen on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise.backends.cpu import launch, threads
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.errors import InputError
from cellwise.nn import plain

STEPS, INPUT, HIDDEN = 7, 5, 20


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(threads._PATIENCE, "_NOTABLE", 1e9)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _in_turn(rows: int) -> ExitStack:
    """One direction after the other, each in one thread; a single row is never shared."""
    plain._ROUTES.clear()
    stack = ExitStack()
    stack.enter_context(mock.patch.object(LlvmCompiler, "runs_at_once", lambda *_: False))
    stack.enter_context(mock.patch.object(LlvmCompiler, "small_pass", lambda *_: None))
    if rows > 1:
        torch.set_num_threads(1)
    return stack


def _everything(layer: Any, x: Tensor, *state: Tensor, **options: Any) -> list[Tensor]:
    """Outputs, final states and all gradients of a call that is recorded, and of one that is not."""
    inputs = [each.clone().requires_grad_() for each in (x, *state)]

    def called() -> list[Tensor]:
        torch.manual_seed(0)
        given = tuple(inputs[1:]) if len(inputs) > 2 else inputs[1] if state else None
        output, finals = layer(inputs[0], given, **options)
        return [output, *(finals if isinstance(finals, tuple) else (finals,))]

    found = called()
    total = sum((i + 1) * each.square().sum() for i, each in enumerate(found))
    gradients = torch.autograd.grad(total, [*inputs, *layer.parameters()])  # type: ignore[arg-type]
    with torch.no_grad():
        return [*found, *gradients, *called()]


CASES: dict[str, Callable[[], tuple[Any, tuple[Tensor, ...], dict[str, Any]]]] = {
    "one row": lambda: (_layer("lstm"), (_x(1),), {}),
    "states": lambda: (_layer("gru"), (_x(3), torch.randn(2, 3, HIDDEN)), {}),
    "lengths": lambda: (_layer("lstm-peephole"), (_x(3),), {"lengths": [2, 7, 0]}),
    "resets": lambda: (_layer("gru"), (_x(2),), {"resets": torch.rand(STEPS, 2) < 0.3}),
    "layers": lambda: (_layer("rnn", num_layers=2, dropout=0.5), (_x(2),), {}),
    "projection": lambda: (_projected(), (_x(2),), {}),
    "float64": lambda: (_layer("gru", dtype=torch.float64), (_x(2).double(),), {}),
    "bfloat16": lambda: (_layer("lstm", dtype=torch.bfloat16), (_x(2).bfloat16(),), {}),
    "recomputed": lambda: (_layer("lstm", recompute=True), (_x(2),), {}),
}


def _layer(cell: str, recompute: bool = False, **options: Any) -> cellwise.Recurrent:
    layer = cellwise.Recurrent(cell, INPUT, HIDDEN, bidirectional=True, backend="cpu", **options)
    layer.recompute = recompute
    return layer


def _projected() -> Any:
    return cellwise.LSTM(INPUT, HIDDEN, bidirectional=True, proj_size=6, backend="cpu")


def _x(rows: int) -> Tensor:
    return torch.randn(STEPS, rows, INPUT)


@pytest.mark.parametrize("name", CASES)
def test_both_at_once_have_the_bits_of_one_after_the_other(name: str, two_threads: None) -> None:
    layer, given, options = CASES[name]()
    with mock.patch.object(
        LlvmCompiler, "launch", autospec=True, side_effect=LlvmCompiler.launch
    ) as launched:
        found = _everything(layer, *given, **options)
    assert launched.call_count >= 3 * layer.num_layers
    with _in_turn(given[0].shape[1]):
        wanted = _everything(layer, *given, **options)
    assert len(found) == len(wanted)
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(a, b), place


def test_four_threads_are_shared_by_the_directions(two_threads: None) -> None:
    layer, x = _layer("lstm"), _x(16)
    found = _everything(layer, x)
    torch.set_num_threads(4)
    with mock.patch.object(launch, "row_shares", wraps=threads.row_shares) as shares:
        shared = _everything(layer, x)
    assert {call.args[1] for call in shares.call_args_list} == {2}
    assert torch.equal(shared[0], found[0])
    torch.testing.assert_close(
        shared, found, rtol=1e-5, atol=1e-5
    )  # what is summed over rows is in other shares


def test_second_derivatives_and_many_gradients_at_once(two_threads: None) -> None:
    layer, x = _layer("gru", dtype=torch.float64), _x(2).double().requires_grad_()

    def found() -> list[Tensor]:
        output, _ = layer(x)
        (first,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), [x, *layer.parameters()])
        output, _ = layer(x)
        many = torch.autograd.grad(output, x, torch.stack([output, output.cos()]), is_grads_batched=True)
        return [first, *second, *many]

    at_once = found()
    with _in_turn(2):
        for a, b in zip(at_once, found(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_hooks_bring_back_is_read_and_checked(two_threads: None) -> None:
    layer, x = _layer("lstm"), _x(3)
    wanted = _everything(layer, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each.double(), lambda each: each.float()):
        found = _everything(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each, lambda each: each[:1]):
        output, _ = layer(x)
    with pytest.raises(InputError):
        output.sum().backward()


def test_gradients_of_one_final_state_alone(two_threads: None) -> None:
    layer, x = _layer("lstm"), _x(2)

    def found() -> list[Tensor]:
        _, (_, c) = layer(x)
        return list(torch.autograd.grad(c[1].sum(), list(layer.parameters())))

    at_once = found()
    with _in_turn(2):
        assert all(torch.equal(a, b) for a, b in zip(at_once, found(), strict=True))


# --- threads of our own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_one_of_them_raises_arrives_when_the_others_are_done(wrong: int) -> None:
    begun, done = threading.Event(), []

    def fails() -> None:
        begun.wait(5)
        raise ValueError("no")

    def works() -> None:
        begun.set()
        time.sleep(0.02)
        done.append(True)

    with pytest.raises(ValueError, match="no"):
        threads.on_own_threads([fails, works] if wrong == 0 else [works, fails])
    assert done == [True]


def test_nothing_runs_any_more_when_ctrl_c_arrives() -> None:
    begun, done = threading.Event(), []

    def interrupted() -> None:
        assert begun.wait(5)
        raise KeyboardInterrupt

    def works() -> None:
        begun.set()
        time.sleep(0.05)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        threads.on_own_threads([interrupted, works])
    assert done == [True]


def test_each_call_is_made_once_though_no_thread_has_time() -> None:
    held, made, here = threading.Event(), [], threading.get_ident()
    pool = threads._pool(1)
    blocking = pool.submit(held.wait, 5)
    threads.on_own_threads(
        [lambda: made.append((0, threading.get_ident())), lambda: made.append((1, threading.get_ident()))]
    )
    held.set()
    blocking.result()
    assert made == [(0, here), (1, here)]


def test_a_thread_that_had_to_wait_does_its_work_alone_for_a_while() -> None:
    patience = threads._Patience()
    patience.waited(1.0, 0.9)  # no longer than others worked
    assert not patience.is_over()
    patience.waited(0.001, 0.1)
    assert patience.is_over()
    begun, idents = threading.Event(), []

    def call() -> None:
        begun.set()
        idents.append(threading.get_ident())

    with mock.patch.object(threads, "_PATIENCE", patience):
        threads.together([lambda: None, call])
    assert idents == [threading.get_ident()]
