"""Streams on a device: steps that are replayed as graphs, beside calls of the layer. `make test-gpu`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from steps import CELLS, CHANGES_OF_WEIGHTS, NAMES, assert_steps_agree, by_calls, drawn, made, run

from cellwise.backends.cuda.layout import STEPWISE, trying
from cellwise.errors import InputError, LayerError
from cellwise.nn.layer import RecurrentLayer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CUDA: dict[str, Any] = {"device": "cuda", "backend": "cuda"}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each whole call that a stream makes."""
    found: list[int] = []
    step = RecurrentLayer._stream_step
    monkeypatch.setattr(RecurrentLayer, "_stream_step", lambda *given: found.append(1) or step(*given))
    return found


def _graphs(stream: Any) -> int:
    return len(getattr(stream._stepper, "stepper", stream._stepper)._recorded)


def _near(dtype: torch.dtype) -> float:
    return 1e-5 if dtype is torch.float32 else 8e-3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("cell", "hidden", "options"), CELLS, ids=NAMES)
def test_steps_are_those_of_calls(
    cell: Any, hidden: int, options: dict[str, Any], dtype: torch.dtype, calls: list[int]
) -> None:
    stream = assert_steps_agree(made(cell, hidden, options, dtype=dtype, **CUDA), 11, 3, _near(dtype))
    assert _graphs(stream) == 2 and not calls


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", [33, 100, 256, 512, 1024])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_steps_of_larger_layers(cell: str, hidden: int, dtype: torch.dtype, batch: int) -> None:
    layer = made(cell, hidden, {"num_layers": 2, "input_size": 40}, dtype=dtype, **CUDA)
    assert _graphs(assert_steps_agree(layer, 20, batch, _near(dtype))) == 2


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_steps_of_the_stepwise_layout(dtype: torch.dtype) -> None:
    with trying(STEPWISE, STEPWISE):
        for cell, hidden in (("lstm", 64), ("gru-reset-before", 17)):
            assert_steps_agree(
                made(cell, hidden, {"num_layers": 2}, dtype=dtype, **CUDA), 12, 3, _near(dtype)
            )


def test_tf32_and_float32_in_turns() -> None:
    layer = made("lstm", 128, {}, **CUDA)
    x, _ = drawn(layer, 8, 4)
    stream = layer.stream(4)
    for precision in ("highest", "high", "highest"):
        torch.set_float32_matmul_precision(precision)
        stream.reset()
        torch.testing.assert_close(run(stream, x, {}), by_calls(layer, x, {}), atol=1e-5, rtol=1e-5)
    assert _graphs(stream) == 4


def _by_a_fused_optimizer(layer: RecurrentLayer) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=True)
    for each in layer.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()


@pytest.mark.parametrize("change", [*CHANGES_OF_WEIGHTS, _by_a_fused_optimizer])
@pytest.mark.parametrize("hidden", [17, 64, 256])
def test_each_change_of_the_weights_is_seen_at_once(
    change: Callable[[RecurrentLayer], None], hidden: int
) -> None:
    layer = made("lstm", hidden, {}, **CUDA)
    x, _ = drawn(layer, 6, 2)
    stream = layer.stream(2)
    run(stream, x, {})
    assert _graphs(stream) == 2
    for _ in range(6):  # what became of the memory of weights that were replaced is written to meanwhile
        state = stream.state
        change(layer)
        torch.full((2**20,), float("nan"), device="cuda")
        with torch.no_grad():
            torch.testing.assert_close(stream(x[0]), layer(x[:1], state)[0][0], atol=1e-5, rtol=1e-5)


def test_two_streams_of_one_layer_copies_and_pickles() -> None:
    layer = made("lstm", 64, {"num_layers": 2}, **CUDA)
    x, _ = drawn(layer, 16, 2)
    first, second = layer.stream(2), layer.stream(2)
    for t in range(8):
        first(x[t])
        if t % 2:
            second(x[t])
    others = [copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    wanted = by_calls(layer, x, {})[8:]
    for each in (first, *others):
        torch.testing.assert_close(run(each, x[8:], {}), wanted, atol=1e-5, rtol=1e-5)
    mixed = torch.cat([x[1:8:2], x[8:]])
    found = run(second, x[8:], {})
    torch.testing.assert_close(found, by_calls(layer, mixed, {})[4:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hidden", [33, 256])
def test_on_whichever_stream_of_the_devices_is_current(hidden: int) -> None:
    """Steps change streams while earlier ones are still at work, and nobody waits but the stream of steps itself."""
    layer = made("gru", hidden, {"num_layers": 2}, **CUDA)
    x, _ = drawn(layer, 60, 16)
    wanted = by_calls(layer, x, {})
    stream, streams = (
        layer.stream(16),
        [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()],
    )
    torch.cuda.synchronize()
    found = []
    for t in range(60):
        with torch.cuda.stream(streams[t // 7 % 3]):
            torch.cuda._sleep(200_000)
            found.append(stream(x[t]))
    torch.cuda.synchronize()
    torch.testing.assert_close(torch.stack(found), wanted, atol=1e-5, rtol=1e-5)


def test_a_stream_that_is_let_go_of_while_it_works_elsewhere() -> None:
    layer = made("lstm", 33, {}, **CUDA)
    x, _ = drawn(layer, 6, 16)
    wanted = by_calls(layer, x, {})
    torch.cuda.synchronize()
    for _ in range(20):
        stream, side = layer.stream(16), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        out = torch.empty(16, 33, device="cuda")
        with torch.cuda.stream(side):
            for t in range(6):
                if t == 5:
                    torch.cuda._sleep(2_000_000)
                stream(x[t], out)
        del stream
        # On the stream that made its memory, which is given out again.
        torch.full((2**18,), float("nan"), device="cuda")
        for size in (80, 16 * 48, 16 * 33, 16 * 64):
            torch.full((size,), float("nan"), device="cuda")
        torch.cuda.synchronize()
        torch.testing.assert_close(out, wanted[5], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("cell", "hidden"), [("gru", 64), ("lstm", 33), ("lstm", 256)])
def test_inside_a_graph_of_the_callers(cell: str, hidden: int, calls: list[int]) -> None:
    layer = made(cell, hidden, {"num_layers": 2}, **CUDA)
    x, _ = drawn(layer, 16, 2)
    stream, now = layer.stream(2), x[0].clone()
    found = [run(stream, x[:5], {})]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = stream(now)
    for times in (range(5, 7), range(10, 13)):
        for t in times:
            now.copy_(x[t])
            graph.replay()
            found.append(y.clone()[None])
        found.append(run(stream, x[times.stop : times.stop + 3], {}))
    torch.testing.assert_close(torch.cat(found), by_calls(layer, x, {}), atol=1e-5, rtol=1e-5)
    assert not calls


def test_reset_states_and_out(calls: list[int]) -> None:
    layer = made("lstm", 33, {}, **CUDA)
    x, _ = drawn(layer, 8, 2)
    stream, out = layer.stream(2), torch.empty(2, 33, device="cuda")
    wanted = run(stream, x, {})
    own, state = stream._stepper, stream.state
    again = stream(x[0]).clone()
    stream.state = state
    assert stream(x[0], out) is out
    torch.testing.assert_close(out, again, atol=1e-6, rtol=1e-5)
    stream.reset()
    found = run(stream, x.transpose(0, 1).contiguous().transpose(0, 1), {})
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert stream._stepper is own and not calls
    for bad in (torch.empty(2, 33), torch.empty(33, 2, device="cuda").t(), out.half()):
        with pytest.raises(InputError, match="out takes"):
            stream(x[0], bad)
    with pytest.raises(InputError):
        stream(x[0].cpu())
    with pytest.raises(LayerError, match="bidirectional"):
        made("lstm", 33, {"bidirectional": True}, **CUDA).stream()


def test_a_step_waits_for_nothing() -> None:
    layer = made("lstm", 64, {}, **CUDA)
    x, _ = drawn(layer, 8, 2)
    stream = layer.stream(2)
    run(stream, x, {})
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(50_000_000)
        before = torch.cuda.Event()
        before.record()
        for each in x:
            stream(each)
        assert not before.query(), "the steps were asked for while the device was still at work"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_in_threads() -> None:
    layer = made("lstm", 64, {}, **CUDA)
    x, _ = drawn(layer, 10, 2)
    wanted = by_calls(layer, x, {})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run(layer.stream(2), x, {}), range(12)))
    for each in found:
        torch.testing.assert_close(each, wanted, atol=1e-5, rtol=1e-5)


def test_a_layer_that_is_moved_takes_its_stream_along() -> None:
    layer = made("gru", 33, {}, backend="auto")
    x, _ = drawn(layer, 12, 2)
    wanted = by_calls(layer, x, {})
    stream = layer.stream(2)
    found = [run(stream, x[:4], {})]
    layer.cuda()
    found += [run(stream, x[4:10].cuda(), {}).cpu()]
    assert type(stream._stepper).__name__ == "CudaStepper"
    layer.cpu()
    found += [run(stream, x[10:], {})]
    torch.testing.assert_close(torch.cat(found), wanted, atol=1e-5, rtol=1e-5)


def test_under_autocast_and_inference_mode() -> None:
    layer = made("gru", 64, {}, **CUDA)
    x, _ = drawn(layer, 8, 2)
    stream = layer.stream(2)
    with torch.autocast("cuda", torch.bfloat16), torch.inference_mode():
        found = run(stream, x, {}).clone()
    torch.testing.assert_close(found, by_calls(layer, x, {}), atol=1e-5, rtol=1e-5)
