"""What a step asks of the driver and of torch's CUDA streams, which `played.py` plays."""

from __future__ import annotations

import shutil
import threading

import pytest
import torch
from played import CapturedGraph, Machine, Played, played
from steps import by_calls, drawn, made
from torch import Tensor

__all__ = ["played"]  # a fixture

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")


@pytest.mark.parametrize("cell", ["lstm", "time-aware-lstm"])
def test_steps_on_two_streams_and_in_a_graph_of_the_callers(cell: str, played: Played) -> None:
    layer = made(cell, 17, {"num_layers": 2}, backend="played")
    x, beside = drawn(layer, 24, 2)
    stream, found, now, held = layer.stream(2), [], x[0].clone(), list[Tensor]()

    def step(t: int) -> None:
        found.append(stream(x[t], **{name: each[t] for name, each in beside.items()}))

    for t in range(18):
        played.now = 0 if t < 7 else 5
        step(t)
    state = stream.state
    graph = CapturedGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    held.append(stream(now, **{name: each[18] for name, each in beside.items()}))
    graph.capture_end()
    stream.state = state
    now.copy_(x[18])
    graph.graph.replay()
    found.append(held[0].clone())
    played.now = 0
    for t in range(19, 24):
        step(t)
    torch.testing.assert_close(torch.stack(found), by_calls(layer, x, beside), atol=1e-5, rtol=1e-5)

    of = [[note for note in played.notes if note[0] == kind] for kind in ("record", "replay", "wait", "keep")]
    records, replays, waits, keeps = of
    own = [on for _, on, _ in records if on != 5]
    # Each of two streams has one for recording, on which the first graph lends its memory to two others.
    assert len(own) == 6 and len(set(own)) == 2
    assert all(len({shared for _, on, shared in records if on == each}) == 1 for each in set(own))
    assert {stream for _, _, stream in replays} == {0, 5} and len(replays) == 3 + 7 + 5
    # A graph waits to be recorded for those at work, and to be replayed; steps wait where streams change.
    assert [w for w in waits if own[0] in w] == [("wait", own[0], 0), ("wait", 0, own[0])] * 2
    assert [w for w in waits if w[1:] in ((5, 0), (0, 5))] == [("wait", 5, 0), ("wait", 0, 5)]
    assert {on for _, on in keeps} == {0, 5}


def test_threads_that_record_at_once_take_turns(played: Played) -> None:
    machine, seen, begun = Machine(), [], threading.Event()

    def work() -> None:
        seen.append(len(played.capturing))
        begun.wait(0.05)

    threads = [threading.Thread(target=machine.record, args=(work,)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == [1, 1, 1] and not played.capturing


def test_a_release_of_torch_without_handles_of_graphs_replays_them(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(CapturedGraph, "raw_cuda_graph_exec")
    monkeypatch.setattr(CapturedGraph, "replay", lambda self: self.graph.replay(), raising=False)
    x = torch.zeros(2)
    again = Machine().record(lambda: x.add_(1))
    again()
    again()
    assert x.tolist() == [2, 2] and not any(kind == "replay" for kind, *_ in played.notes)
