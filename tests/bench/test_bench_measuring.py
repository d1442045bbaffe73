"""What is compared before it is timed, on real layers; what is wrong is refused."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import cellwise
from cellwise.bench import measure, memory, onnx, peak
from cellwise.bench.background_load import all_cores_busy
from cellwise.bench.check import mismatch
from cellwise.bench.comparisons import comparison_of
from cellwise.bench.implementations import AGAIN, LOOP, PADDED, TORCH, implementations_of, products
from cellwise.bench.settings import MODES, BenchError, Settings, Shape

SMALL = Shape(6, 4, 3, 5)


def settings(*cells, modes=tuple(MODES), shapes=(SMALL,), **given):
    return Settings({name: cellwise.cells.get(name) for name in cells}, shapes, modes, 3, 1e-6, **given)


@pytest.mark.parametrize("cell", cellwise.cells.FAMILIAR)
def test_every_cell_is_compared_and_timed_in_every_mode(cell):
    rows = list(measure.rows(settings(cell)))
    assert [row.mismatch for row in rows] == [None] * len(MODES)
    assert {row.mode for row in rows} == set(MODES)
    other = TORCH if cell in ("gru", "lstm", "rnn") else LOOP
    beside = {row.mode: {times.name for times in row.times[1:]} - {onnx.NAME} for row in rows}
    assert beside == {
        "forward": {other},
        "train": {other},
        "step": {other},
        "step-out": {other},
        "small-forward": {other},
        "small-train": {other},
        "recompute": {AGAIN},
        "ragged": {other, PADDED},
        "ragged-forward": {other, PADDED},
    }
    assert all(len(times.seconds) == 3 and min(times.seconds) > 0 for row in rows for times in row.times)
    assert all(len(rows) == measure.count(settings(cell)) for _ in rows)


def test_all_sides_multiply_in_the_precision_that_is_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        measure, "_first_mismatch", lambda _: seen.append(torch.get_float32_matmul_precision()) or "not timed"
    )
    for precision in ("high", "highest"):
        list(measure.rows(settings("rnn", modes=("forward",), precision=precision)))
    assert seen == ["high", "highest"] and torch.get_float32_matmul_precision() == "highest"


def spoilt(monkeypatch, spoil):
    """Benchmarks see layers of which one was tampered with; nothing may then be timed."""

    def make(cell, shape, **given):
        implementations = implementations_of(cell, shape, **given)
        spoil(implementations.ours)
        return implementations

    def timed(*given):
        raise AssertionError("a wrong result was timed")

    monkeypatch.setattr(measure, "implementations_of", make)
    monkeypatch.setattr(measure, "interleaved", timed)


def test_a_wrong_output_is_refused_in_every_mode(monkeypatch):
    def spoil(layer):
        with torch.no_grad():
            layer.weight_hh_l0.mul_(1.01)

    spoilt(monkeypatch, spoil)
    monkeypatch.setattr(measure, "_load_compiler", lambda _: None)
    rows = list(measure.rows(settings("gru", modes=("forward", "train", "ragged"))))
    assert [row.mode for row in rows] == ["forward", "train", "ragged"]
    assert all("output is off by" in row.mismatch and not row.times for row in rows)


@pytest.mark.parametrize("parameter", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_a_wrong_gradient_is_refused_even_where_forward_alone_is_asked(monkeypatch, parameter):
    spoilt(
        monkeypatch, lambda layer: getattr(layer, parameter).register_hook(lambda gradient: gradient * 1.01)
    )
    monkeypatch.setattr(measure, "_load_compiler", lambda _: None)
    (row,) = measure.rows(settings("lstm", modes=("forward",)))
    assert row.mismatch.startswith(f"train: gradient of {parameter} is off by")


def test_a_wrong_step_is_refused(monkeypatch):
    def spoil(layer):
        with torch.no_grad():
            layer.bias_ih_l0.add_(0.01)

    spoilt(monkeypatch, spoil)
    monkeypatch.setattr(measure, "_load_compiler", lambda _: None)
    (row,) = measure.rows(settings("rnn", modes=("step",)))
    assert row.mismatch.startswith("step: output of step 0 is off by")


def test_what_counts_as_wrong():
    good = {"output": torch.ones(2, 3), "gradient of x": torch.ones(2)}
    assert mismatch(good, good) is None
    assert "off by" in mismatch(good | {"output": torch.full((2, 3), torch.nan)}, good)
    assert "has shape" in mismatch(good | {"output": torch.ones(3, 2)}, good)
    assert "gradient of x on one side only" in mismatch({"output": torch.ones(2, 3)}, good)
    assert mismatch(good | {"output": torch.ones(2, 3) * (1 + 1e-6)}, good) is None


def test_lengths_are_spread_evenly():
    lengths = implementations_of(cellwise.cells.get("rnn"), Shape(100, 50, 1, 1)).batch.lengths
    assert sorted(lengths.tolist()) == list(range(1, 101, 2))
    assert lengths.tolist() != sorted(lengths.tolist())


def test_products_are_counted():
    gru, minimal = (cellwise.cells.get(name) for name in ("gru", "mingru"))
    graph = implementations_of(gru, SMALL).ours.cell.graph
    assert products(graph, SMALL) == 2 * 6 * 4 * 5 * (3 * 3 + 3 * 5)
    assert products(graph, SMALL, steps=10) == 2 * 10 * 5 * (3 * 3 + 3 * 5)
    assert products(implementations_of(minimal, SMALL).ours.cell.graph, SMALL) == 2 * 6 * 4 * 5 * 2 * 3


def test_the_cache_folder_is_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    list(measure.rows(settings("rnn", modes=("forward",))))
    assert os.environ["CELLWISE_CACHE"] == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_under_load_all_is_timed_again():
    (row,) = measure.rows(settings("rnn", modes=("forward",), load=True))
    assert [len(times.seconds) for times in row.loaded] == [3] * len(row.times)
    assert set(row.slowdowns()) >= {"cellwise", TORCH}


# --- load -------------------------------------------------------------------------------------------------------


def ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:  # a zombie, whose parent did not wait for it
        with open(f"/proc/{pid}/stat", encoding="utf8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_busy_processes_run_and_end():
    with all_cores_busy(2) as running:
        assert [process.poll() for process in running] == [None, None]
    assert all(process.returncode is not None and ended(process.pid) for process in running)


def test_busy_processes_end_on_ctrl_c():
    kept = []
    with pytest.raises(KeyboardInterrupt), all_cores_busy(1) as running:
        kept += running
        raise KeyboardInterrupt
    assert ended(kept[0].pid)


def test_busy_processes_end_with_a_parent_that_was_killed():
    script = (
        "from cellwise.bench.background_load import all_cores_busy\nimport time\n"
        "with all_cores_busy(1) as running:\n    print(running[0].pid, flush=True)\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    assert not ended(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(600):
        if ended(pid):
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("a busy process outlived its parent")


# --- peak -------------------------------------------------------------------------------------------------------


def test_the_kernel_of_the_peak_does_its_work():
    import ctypes

    kernel, _engine, lanes = peak._kernel()
    out = (ctypes.c_float * lanes)()
    kernel(out, 1000)
    assert list(out) == [float(peak._CHAINS)] * lanes  # every chain has gone to 1
    kernel(out, 1)
    assert out[0] == sum(1 + (place - 1) / 2**peak._ROUNDS for place in range(peak._CHAINS))


def test_the_peak_has_a_spread():
    found = peak.measure(threads=2, runs=3, seconds=1e-4)
    assert len(found.gflops) == 3
    assert found.best == max(found.gflops) > 0
    assert found.to_json()["threads"] == 2


# --- memory -----------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's mark of the peak is Linux's"
)


@linux
def test_the_peak_of_memory_is_seen_though_it_is_given_back():
    found, method = memory._peak(lambda: None, lambda: np.ones(2**26, dtype=np.uint8).sum())
    assert method == memory.KERNEL_MARK
    assert abs(found - 2**26) < 2**23


LEAK = """
import numpy as np
from cellwise.bench import memory

kept = []
print(memory._growth(lambda: None, 100)[0], memory._growth(lambda: kept.append(np.ones(2**14)), 100)[0])
"""


@linux
def test_a_leak_is_seen():
    # In a process of its own: in one that has freed much, what leaks is put there, and nothing grows.
    done = subprocess.run([sys.executable, "-c", LEAK], capture_output=True, text=True, check=True)
    without, leaking = map(int, done.stdout.split())
    assert without < 2**20
    assert leaking >= 100 * 2**14 * 8 * 0.9


def test_a_probe_says_what_it_found():
    import json

    for words in (["peak", "cellwise", "6,4,3,5", "1"], ["growth", "torch.nn", "5,2,8,16", "3"]):
        found = json.loads(memory.run_probe(cellwise.cells.get("gru"), words))
        assert isinstance(found["bytes"], int)
    with pytest.raises(BenchError):
        memory.run_probe(cellwise.cells.get("gru"), ["valley"])


def test_a_probe_that_fails_is_one_sentence():
    failing = [sys.executable, "-c", "raise SystemExit('no room')"]
    with pytest.raises(BenchError, match="peak memory of gru at 6,4,3,5 failed: no room"):
        list(memory.probes("gru", cellwise.cells.get("gru"), [SMALL], 3, lambda words: failing))


# --- onnxruntime ------------------------------------------------------------------------------------------------

RELU = cellwise.cells.RNN(nonlinearity="relu")


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn", RELU], ids=["gru", "lstm", "rnn", "relu"])
@pytest.mark.parametrize("mode", ["forward", "step"])
def test_onnxruntime_computes_the_same(cell, mode):
    pytest.importorskip("onnxruntime")
    comparison = comparison_of(mode, implementations_of(cellwise.cells.get(cell), SMALL))
    assert onnx.NAME in [candidate.name for candidate in comparison.candidates]
    assert comparison.mismatch() is None


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_wrong_order_of_gates_would_be_seen(cell, monkeypatch):
    pytest.importorskip("onnxruntime")
    wrong = {kind: (name, tuple(range(len(order)))) for kind, (name, order) in onnx._OPERATORS.items()}
    monkeypatch.setattr(onnx, "_OPERATORS", wrong)
    found = comparison_of("forward", implementations_of(cellwise.cells.get(cell), SMALL)).mismatch()
    assert found is not None and "onnxruntime" in found


def test_without_onnxruntime_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(onnx, "version", lambda: None)
    comparison = comparison_of("forward", implementations_of(cellwise.cells.get("gru"), SMALL))
    assert [candidate.name for candidate in comparison.candidates] == ["cellwise", TORCH]
