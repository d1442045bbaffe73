"""Streams on a GPU, emulated: what a step's graph holds, and what a step sees of weights, queues and callers."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from agreement import check
from emulated import Emulated, EmulatedMachine, machine
from recorded import Recorder
from steps import CELLS, CHANGES_OF_WEIGHTS, NAMES, assert_steps_agree, by_calls, drawn, made, run
from torch import Tensor

from cellwise.backends import registry
from cellwise.backends.cuda import stepper
from cellwise.backends.cuda.driver import StreamOrder
from cellwise.backends.cuda.layout import STEPWISE, Layout, trying
from cellwise.backends.cuda.machine import LateError
from cellwise.backends.reference.loop import run_direction
from cellwise.cells import SCRN
from cellwise.errors import InputError, LayerError
from cellwise.nn.layer import RecurrentLayer
from cellwise.testing import cases_of

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
EMULATED = Emulated(run_direction)
WIDE = Layout("wide", units=8, warps=2, hold=1)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))
    return Recorder(monkeypatch)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each whole call that a stream makes."""
    found: list[int] = []
    step = RecurrentLayer._stream_step
    monkeypatch.setattr(RecurrentLayer, "_stream_step", lambda *given: found.append(1) or step(*given))
    return found


def _made(cell: Any, hidden: int, options: dict[str, Any], **others: Any) -> RecurrentLayer:
    layer = made(cell, hidden, options, **others)
    layer.backend = "emulated"
    return layer


def _graphs(stream: Any) -> int:
    """How many graphs its stepper has recorded."""
    own = getattr(stream._stepper, "stepper", stream._stepper)
    return len(own._recorded)


@pytest.mark.parametrize(("cell", "hidden", "options"), CELLS, ids=NAMES)
def test_steps_are_those_of_calls(
    cell: Any, hidden: int, options: dict[str, Any], recorder: Recorder, calls: list[int]
) -> None:
    stream = assert_steps_agree(_made(cell, hidden, options), 9, 2, 1e-5)
    assert _graphs(stream) == 2 and not calls
    assert recorder.graphs[0].launches == recorder.graphs[1].launches > 0


@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "layout"),
    [
        ("lstm", 32, torch.bfloat16, None),
        ("gru", 17, torch.float16, None),
        ("lstm", 80, torch.float32, None),
        ("gru", 32, torch.float32, WIDE),
        ("lstm", 17, torch.bfloat16, WIDE),
        ("lstm", 32, torch.float32, STEPWISE),
        ("gru", 17, torch.bfloat16, STEPWISE),
        ("mingru", 16, torch.float32, None),
    ],
    ids=str,
)
def test_in_all_layouts(cell: str, hidden: int, dtype: torch.dtype, layout: Layout | None) -> None:
    atol = 1e-5 if dtype is torch.float32 else 8e-3
    with trying(layout, layout):
        stream = assert_steps_agree(_made(cell, hidden, {}, dtype=dtype), 7, 3, atol)
    assert _graphs(stream) == 2


def _by_numpy(layer: RecurrentLayer) -> None:
    layer.weight_ih_l0.detach().numpy()[:] *= -1


def _by_an_optimizer(layer: RecurrentLayer) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer.weight_hh_l0.grad = torch.ones_like(layer.weight_hh_l0)
    optimizer.step()


CHANGES = [*CHANGES_OF_WEIGHTS, _by_numpy, _by_an_optimizer]


# Read where the layer has them; packed within the graph; multiplied where they lie, step by step.
@pytest.mark.parametrize(("hidden", "layout"), [(32, None), (17, None), (32, STEPWISE)])
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_the_weights_is_seen_at_once(
    change: Callable[[RecurrentLayer], None], hidden: int, layout: Layout | None
) -> None:
    layer = _made("lstm", hidden, {})
    x, _ = drawn(layer, 6, 2)
    with trying(layout, layout):
        stream = layer.stream(2)
        run(stream, x, {})
        assert _graphs(stream) == 2
        state = stream.state
        change(layer)
        found = stream(x[0])
        with torch.no_grad():
            torch.testing.assert_close(found, layer(x[:1], state)[0][0], atol=1e-6, rtol=1e-5)


def test_weights_that_are_made_of_others_are_seen_as_far_as_torch_counts() -> None:
    layer = _made("antisymmetric-rnn", 16, {})
    x, _ = drawn(layer, 6, 1)
    stream = layer.stream()
    run(stream, x, {})
    assert not stream._stepper.reads_all
    for where, is_counted in ((lambda each: each, True), (lambda each: each.data, False)):
        state = stream.state
        with torch.no_grad():
            for each in layer.parameters():
                where(each).mul_(0.5)
            if not is_counted:
                stream.refresh()
            torch.testing.assert_close(stream(x[0]), layer(x[:1], state)[0][0], atol=1e-6, rtol=1e-5)


def test_streams_of_one_layer_copies_and_pickles_go_their_own_ways() -> None:
    layer = _made("gru", 17, {"num_layers": 2})
    x, _ = drawn(layer, 12, 2)
    first, second = layer.stream(2), layer.stream(2)
    run(first, x[:6], {})
    others = [copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    found = [run(each, x[6:], {}) for each in (second, *others, first)]
    torch.testing.assert_close(found[0], by_calls(layer, x[6:], {}), atol=1e-6, rtol=1e-5)
    wanted = by_calls(layer, x, {})[6:]
    for each in found[1:]:
        torch.testing.assert_close(each, wanted, atol=1e-6, rtol=1e-5)


def test_states_are_copies_are_set_and_are_zero_again(calls: list[int]) -> None:
    layer = _made("lstm", 17, {"num_layers": 2})
    x, _ = drawn(layer, 8, 2)
    stream = layer.stream(2)
    wanted = run(stream, x, {})
    own, state = stream._stepper, stream.state
    before = [each.clone() for each in state]
    again = run(stream, x[:1], {})
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    stream.state = state
    assert torch.equal(run(stream, x[:1], {}), again)
    stream.reset()
    assert torch.equal(run(stream, x, {}), wanted)
    assert stream._stepper is own and _graphs(stream) == 2 and not calls, "nothing was recorded anew"


def test_out_takes_a_step_and_what_does_not_fit_is_refused() -> None:
    layer = _made("gru", 17, {})
    x, _ = drawn(layer, 8, 2)
    stream, other = layer.stream(2), layer.stream(2)
    wanted = run(other, x, {})
    out = torch.empty(2, 17)
    for t in range(8):
        given = x[t].t().contiguous().t() if t % 2 else torch.nn.Parameter(x[t])
        assert stream(given, out) is out and torch.equal(out, wanted[t])
    for bad in (torch.empty(2, 16), torch.empty(17, 2).t(), torch.empty(2, 17, dtype=torch.float64)):
        with pytest.raises(InputError, match="out takes"):
            stream(x[0], bad)
    with pytest.raises(InputError, match="shape"):
        stream(x[0, :1])


@pytest.mark.parametrize(("cell", "options"), [("time-aware-lstm", {"num_layers": 2}), (SCRN(context=5), {})])
def test_replays_of_a_graph_of_the_callers_are_steps(
    cell: Any, options: dict[str, Any], recorder: Recorder, calls: list[int]
) -> None:
    layer = _made(cell, 17, options)
    x, beside = drawn(layer, 16, 2)
    stream, given = layer.stream(2), {"dt": 0.5} if beside else {}
    found = [run(stream, x[:5], {name: torch.full((16, 2), each) for name, each in given.items()})]
    held: list[Tensor] = []
    now = torch.empty(2, 5)
    replay = recorder.record(lambda: held.append(stream(now, **given)))

    def by_replays(times: range) -> None:
        for t in times:
            now.copy_(x[t])
            replay()
            found.append(held[0].clone()[None])

    # One step after another: by replays, of the stream's own, graphs of both sorts.
    by_replays(range(5, 7))
    found.append(torch.stack([stream(each, **given) for each in x[7:10]]))
    by_replays(range(10, 13))
    state = stream.state
    found.append(torch.stack([stream(each, **given) for each in x[13:15]]))
    stream.state = state
    found[-1] = torch.stack([stream(each, **given) for each in x[13:15]])
    by_replays(range(15, 16))
    beside = {name: torch.full((16, 2), each) for name, each in given.items()}
    torch.testing.assert_close(torch.cat(found), by_calls(layer, x, beside), atol=1e-5, rtol=1e-5)
    own = stream._stepper
    stream.refresh()
    assert own in stream._recorded and stream._stepper is not own and not calls, "the graph knows its memory"


def test_a_number_beside_x_is_put_there_by_each_replay(recorder: Recorder) -> None:
    layer = _made("time-aware-lstm", 17, {})
    x, _ = drawn(layer, 8, 2)
    stream, other = layer.stream(2), layer.stream(2)
    held: list[Tensor] = []
    run(stream, x[:4], {"dt": torch.full((4, 2), 0.5)})
    stream(x[4], dt=0.5)
    replay = recorder.record(lambda: held.append(stream(x[6], dt=0.5)))
    stream(x[5], dt=2.0)
    replay()
    found = stream(x[7], dt=2.0)
    for t, dt in enumerate((0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 0.5, 2.0)):
        wanted = other(x[t], dt=dt)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_numbers_and_tensors_beside_x_in_turns() -> None:
    layer = _made("time-aware-lstm", 17, {})
    x, beside = drawn(layer, 8, 2)
    stream, given = layer.stream(2), [0.5, beside["dt"][0], 0.5, 0.5, beside["dt"][1], 2.0, 2.0, 0.5]
    found = torch.stack([stream(now, dt=dt) for now, dt in zip(x, given, strict=True)])
    wanted = torch.stack([each if isinstance(each, Tensor) else torch.full((2,), each) for each in given])
    torch.testing.assert_close(found, by_calls(layer, x, {"dt": wanted}), atol=1e-6, rtol=1e-5)


def test_step_by_step_weights_are_multiplied_where_they_lie() -> None:
    layer = _made("gru", 32, {})
    x, _ = drawn(layer, 6, 2)
    with trying(STEPWISE, STEPWISE):
        stream = layer.stream(2)
        run(stream, x, {})
        (memory,) = stream._stepper._layers[0]._run._memory.values()
    assert {each.data_ptr() for each in memory._weights.values()} == {layer.weight_hh_l0.data_ptr()}


def test_what_was_not_compiled_yet_is_called_whole_in_a_graph(recorder: Recorder, calls: list[int]) -> None:
    layer = _made("gru", 17, {})
    x, _ = drawn(layer, 8, 2)
    stream = layer.stream(2)
    recorder.queue = None
    assert layer.stream(2)._stepper is None, "its memory would be the graph's"
    found = [stream(each) for each in x[:3]]
    assert len(calls) == 3
    recorder.queue = 0
    found += [stream(each) for each in x[3:]]
    assert len(calls) == 3
    torch.testing.assert_close(torch.stack(found), by_calls(layer, x, {}), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "situation"), [("lstm", "plain"), ("gru", "seventeen-units"), ("lstm", "projected-ragged")]
)
def test_calls_step_by_step_in_a_graph_of_the_callers(cell: str, situation: str, recorder: Recorder) -> None:
    recorder.queue = None
    case = next(case for case in cases_of(cell) if case.situation == situation)
    check(replace(case, hidden_size=32 if situation == "plain" else 17), "emulated", layout=STEPWISE)


def test_each_queue_has_graphs_of_its_own(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepper, "_MOST", 4)
    layer = _made("gru", 32, {})
    x, _ = drawn(layer, 40, 2)
    stream, found = layer.stream(2), []
    for t in range(40):
        recorder.queue = (0, 7, 9)[t // 7 % 3]
        found.append(stream(x[t]))
    torch.testing.assert_close(torch.stack(found), by_calls(layer, x, {}), atol=1e-5, rtol=1e-5)
    assert {queue for queue, *_ in stream._stepper._launched} == {0, 7, 9} and _graphs(stream) <= 4


def test_another_precision_of_products_is_recorded_anew() -> None:
    layer = _made("lstm", 32, {})
    x, _ = drawn(layer, 6, 2)
    stream, before = layer.stream(2), torch.get_float32_matmul_precision()
    run(stream, x, {})
    try:
        torch.set_float32_matmul_precision("high")
        stream.reset()
        found = run(stream, x, {})
        torch.testing.assert_close(found, by_calls(layer, x, {}), atol=1e-6, rtol=1e-6)
    finally:
        torch.set_float32_matmul_precision(before)
    assert _graphs(stream) == 4


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_autocast_of_the_caller_changes_nothing(precision: torch.dtype) -> None:
    layer = _made("gru", 32, {})
    x, _ = drawn(layer, 6, 2)
    stream = layer.stream(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16), torch.inference_mode():
        found = run(stream, x, {})
    torch.testing.assert_close(found.clone(), by_calls(layer, x, {}), atol=1e-6, rtol=1e-5)


def test_a_step_that_fails_leaves_the_state() -> None:
    layer = _made("gru", 17, {})
    x, _ = drawn(layer, 7, 2)
    stream = layer.stream(2)
    run(stream, x[:6], {})
    state = stream.state
    machine().late.fill_(1)
    with pytest.raises(LateError):
        stream(x[6])
    assert torch.equal(stream.state, state)
    torch.testing.assert_close(stream(x[6]), by_calls(layer, x, {})[6], atol=1e-6, rtol=1e-5)


def test_no_rows_no_other_device_and_no_two_directions(calls: list[int]) -> None:
    layer = _made("gru", 17, {})
    assert layer.stream(0)._stepper is None
    assert layer.stream(0)(torch.zeros(0, 5)).shape == (0, 17)
    stream = layer.stream(2)
    stream._stepper._index = 3  # as if x were on another GPU than the layer: the layer says so
    stream(torch.zeros(2, 5))
    assert len(calls) == 2
    with pytest.raises(LayerError, match="bidirectional"):
        _made("gru", 17, {"bidirectional": True}).stream()


def test_a_stream_of_the_devices_that_follows_another_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []

    class Event:
        def record(self, stream: Any) -> None:
            seen.append(("record", stream.number))

    class Stream:
        def __init__(self, number: int) -> None:
            self.number = number

        def wait_event(self, event: Event) -> None:
            seen.append(("wait", self.number))

    class Held:
        def record_stream(self, stream: Stream) -> None:
            seen.append(("keep", stream.number))

    now: list[int | None] = [1]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(now[0]))
    monkeypatch.setattr(EmulatedMachine, "stream", lambda _: now[0])
    order = StreamOrder(machine(), torch.device("cuda", 0))
    for each in (1, 1, 2, None, 1):
        now[0] = each
        assert order.begin(lambda: [Held()]) == each
        order.end()
    assert seen == [
        *(("keep", 1), ("record", 1), ("record", 1)),
        *(("wait", 2), ("keep", 2), ("record", 2)),
        *(("wait", 1), ("keep", 1), ("record", 1)),
    ]
