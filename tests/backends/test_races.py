"""Several callers at once: threads that train together, processes that compile the same kernels into one cache."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise.backends.cpu import by_units, threads


def _gradients(layer: torch.nn.Module, x: Tensor, lengths: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output, _ = layer(x, lengths=lengths)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("shared", [False, True], ids=["two layers", "one layer"])
def test_python_threads_may_train_at_once(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each call shares its work with a thread of the engine's: the first layer of the one by rows, the second by units;
    # the other one has two directions.
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    for name, value in (("_MOST_ROWS", 6), ("_LEAST_WEIGHTS", 2000), ("_LEAST_READ", 1)):
        monkeypatch.setattr(by_units, name, value)
    torch.set_num_threads(2)
    layers = [
        cellwise.Recurrent(name, 3, 20, 2, bidirectional=both, backend="cpu")
        for name, both in (("gru", False), ("lstm-peephole", True))
    ]
    layers = [layers[1], layers[1]] if shared else layers
    lengths = torch.tensor([12, 9, 9, 5, 2, 0])
    inputs = [torch.randn(12, 6, 3) for _ in layers]
    rounds = 20
    wanted = [_gradients(layer, x, lengths) for layer, x in zip(layers, inputs, strict=True)]
    found: list[list[list[Tensor]]] = [[], []]
    start = threading.Barrier(len(layers))

    def work(place: int) -> None:
        torch.set_num_threads(2)
        start.wait()
        for _ in range(rounds):
            found[place].append(_gradients(layers[place], inputs[place], lengths))

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(layers))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for place, each in enumerate(found):
        assert len(each) == rounds
        for result in each:
            assert all(torch.equal(a, b) for a, b in zip(result, wanted[place], strict=True))


_RACER = """
import sys, torch, cellwise
torch.manual_seed(0)
layer = cellwise.Recurrent("gru", 3, 17, backend="cpu")
x = torch.randn(4, 5, 3, requires_grad=True)
print("ready", flush=True)
sys.stdin.readline()
layer(x)[0].square().sum().backward()
numbers = [x.grad, *(p.grad for p in layer.parameters())]
print(" ".join(each.numpy().tobytes().hex() for each in numbers))
"""


def _raced(cache: Path, count: int) -> list[str]:
    environment = os.environ | {"CELLWISE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    found = [racer.communicate()[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * count
    return found


def _files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "kernels").iterdir()}


@pytest.mark.slow
def test_processes_may_compile_into_an_empty_cache_at_once(tmp_path: Path) -> None:
    (alone,) = _raced(tmp_path / "alone", 1)
    together = _raced(tmp_path / "together", 3)
    assert len(alone) > 1000
    assert together == [alone] * 3
    files = _files(tmp_path / "together")
    assert files.keys() == _files(tmp_path / "alone").keys()  # no temporary file is left
    for content in files.values():
        assert hashlib.sha256(content[32:]).digest() == content[:32]


_FORKS = """
import os, torch, cellwise
torch.manual_seed(0)
torch.set_num_threads(2)
layer = cellwise.Recurrent("gru", 64, 48, backend="cpu", bidirectional=True)
x = torch.randn(80, 4, 64)  # so small that what torch does with it goes in one thread: its team does not survive a fork
with torch.no_grad():
    wanted = layer(x)[0]                      # torch's threads are running from here on
    child = os.fork()
    same = torch.equal(layer(x)[0], wanted)   # in both processes
if child == 0:
    os._exit(0 if same else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
raise SystemExit(status or (0 if same else 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_computes_what_its_parent_does() -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORKS]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(timeout=40) == 0
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # the child too
