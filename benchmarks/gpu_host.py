"""What a call of a layer costs the host, and where its time on the device goes.

    python benchmarks/gpu_host.py                                # host: microseconds a call, ours and cuDNN's
    python benchmarks/gpu_host.py --kernels 256,64,512           # and every kernel of a training step, by its time
    python benchmarks/gpu_host.py --functions 256,64,512         # and functions of Python, by theirs
    python benchmarks/gpu_host.py --streams                      # a step of a stream, and nothing else

The host's time is that of calls with two steps, for which it never waits; so it is the least that a call takes.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu import DTYPES, STANDARD, both_ways, made, prepare

from cellwise.backends.cuda.compiler import CudaCompiler
from cellwise.nn import plain

STEPS, BATCH = 2, 16
STREAM_BATCHES = (1, 16)
_CALLS = 100  # after which the host waits for the device


def host_times(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Microseconds until a call returns: medians of rounds, in turns."""
    return [until_back for until_back, _ in times(runs, rounds)]


def times(runs: list[Callable[[], Any]], rounds: int) -> list[tuple[float, float]]:
    """Microseconds of a call until it returns, and until the device has done many of them, one after the other."""
    for run in runs * 3:
        run()
    found: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(rounds):
        for place, run in enumerate(runs):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(_CALLS):
                run()
            back = time.perf_counter()
            torch.cuda.synchronize()
            done = time.perf_counter()
            found[place].append(((back - start) / _CALLS * 1e6, (done - start) / _CALLS * 1e6))
    medians = [[statistics.median(each) for each in zip(*pairs, strict=True)] for pairs in found]
    return [(back, done) for back, done in medians]


def ways(cell: str, dtype: torch.dtype, T: int, B: int, H: int) -> list[Callable[[], Any]]:
    """Ours without gradients, forward, and both ways."""
    layer, x, at_output = made(cell, T, B, H, dtype)

    def infer() -> Any:
        with torch.no_grad():
            return layer(x)

    return [infer, *both_ways(layer, x, at_output)]


def host(cell: str, dtype: torch.dtype, hidden: int, rounds: int) -> str:
    runs = ways(cell, dtype, STEPS, BATCH, hidden)
    with generally():
        general = host_times(runs[1:], rounds)
    runs += [alone(runs[2])]
    if cell in STANDARD:
        theirs = STANDARD[cell](hidden, hidden).to("cuda", torch.float16 if dtype.itemsize == 2 else dtype)
        x = torch.randn(
            STEPS, BATCH, hidden, device="cuda", dtype=next(theirs.parameters()).dtype, requires_grad=True
        )
        forward, both = both_ways(theirs, x, torch.randn_like(x))
        runs += [forward, both, alone(both)]
    shown = "  ".join(f"{each:>7.0f}" for each in (*general, *host_times(runs, rounds)))
    return f"{cell:<16} {hidden:>5}  {shown}"


@torch.no_grad()
def stream_sides(cell: str, dtype: torch.dtype, batch: int, hidden: int) -> dict[str, Callable[[], Any]]:
    """A step of a stream of ours, in ways; and of cuDNN's layer, which is given the state that it left."""
    layer, x, _ = made(cell, 1, batch, hidden, dtype)
    x = x[0].detach()
    into, new, whole = (layer.stream(batch) for _ in range(3))
    whole._step = whole._stepper = None
    out = torch.empty_like(x)
    for _ in range(8):  # the first are not recorded yet
        wanted = whole(x)
        for found in (into(x, out), new(x)):
            torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-2)
    sides: dict[str, Callable[[], Any]] = {
        "out=": lambda: into(x, out),
        "new": lambda: new(x),
        "whole call": lambda: whole(x),
    }
    if cell not in STANDARD:
        return sides
    given = x[None].to(torch.float16 if dtype.itemsize == 2 else dtype)
    theirs = STANDARD[cell](hidden, hidden).to(given.device, given.dtype)
    state = theirs(given)[1]

    def step() -> Any:
        nonlocal state
        y, state = theirs(given, state)
        return y

    return {**sides, "cuDNN": step, "cuDNN, a graph": graphed(theirs, given)}


def graphed(layer: torch.nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    """The same as a CUDA graph of torch's, fed and read by copies."""
    held = x.clone()
    state = layer(held)[1]
    kept = tuple(each.clone() for each in (state if isinstance(state, tuple) else (state,)))

    def work() -> torch.Tensor:
        y, found = layer(held, kept if isinstance(state, tuple) else kept[0])
        for to, each in zip(kept, found if isinstance(found, tuple) else (found,), strict=True):
            to.copy_(each)
        return y

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = work()

    def step() -> Any:
        held.copy_(x)
        graph.replay()
        return y.clone()

    return step


def streams(cells: list[str], hidden: list[int], rounds: int) -> None:
    """A line for each shape: of each side the microseconds of a step until it returns, and until the device is done."""
    print("a step: until it returns / until the device is done; cuDNN in float16 beside bfloat16")
    names: list[str] = []
    for cell in cells:
        for kind in ("bfloat16", "float32"):
            prepare(kind)
            torch.backends.cudnn.allow_tf32 = kind != "float32"
            for H in hidden:
                for B in STREAM_BATCHES:
                    sides = stream_sides(cell, DTYPES[kind], B, H)
                    if list(sides) != names:
                        names = list(sides)
                        print(
                            f"{'cell':<12} {'dtype':<9} {'H':>5} {'B':>3}", *[f"{each:>15}" for each in names]
                        )
                    with torch.no_grad():
                        found = times(list(sides.values()), rounds)
                    shown = [f"{f'{back:.1f} / {done:.1f}':>15}" for back, done in found]
                    print(f"{cell:<12} {kind:<9} {H:>5} {B:>3}", *shown, flush=True)


@contextmanager
def generally() -> Iterator[None]:
    """Meanwhile layers go the general way, without a plan for their shape."""
    small_pass = CudaCompiler.small_pass
    CudaCompiler.small_pass = lambda *_: None  # type: ignore[method-assign]
    plain._ROUTES.clear()
    try:
        yield
    finally:
        CudaCompiler.small_pass = small_pass  # type: ignore[method-assign]
        plain._ROUTES.clear()


def alone(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with autograd in the thread that calls it, not in one of its own for the device."""

    def call() -> None:
        with torch.autograd.set_multithreading_enabled(False):
            run()

    return call


def kernels(cell: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> str:
    """What the device and the host do in three training steps."""
    run = ways(cell, dtype, *shape)[-1]
    for _ in range(3):
        run()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
    table = profile.key_averages()
    by_device = table.table(sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=70)
    by_host = table.table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=70)
    on_device = [each for each in profile.events() if each.device_type.name == "CUDA"]
    listed = [
        f"{(each.time_range.start - on_device[0].time_range.start):>10.1f} us {each.time_range.elapsed_us():>9.1f} us  "
        f"{each.name[:110]}"
        for each in on_device
    ]
    return "\n".join([by_device, by_host, *listed])


def functions(cell: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> str:
    """Functions of Python by their own time, of training steps of two steps' length."""
    run = ways(cell, dtype, STEPS, *shape[1:])[-1]
    for _ in range(3):
        run()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(200):
        run()
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(45)
    return text.getvalue()


def _shape(text: str) -> tuple[int, int, int]:
    T, B, H = map(int, text.split(","))
    return T, B, H


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cell", nargs="+", default=["lstm", "gru"])
    options.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    options.add_argument("--hidden", nargs="+", type=int)
    options.add_argument("--rounds", type=int, default=5)
    for name in ("kernels", "functions"):
        options.add_argument(f"--{name}", type=_shape, nargs="+", default=(), metavar="T,B,H")
    options.add_argument("--streams", action="store_true", help="steps of streams, and nothing else")
    given = options.parse_args()
    hidden_sizes = given.hidden or ([64, 128, 512, 1024] if given.streams else [64, 512])
    dtype = DTYPES[given.dtype]
    print(torch.cuda.get_device_name(0), "torch", torch.__version__, "- microseconds of the host for a call")
    if given.streams:
        streams(given.cell, hidden_sizes, given.rounds)
        return
    print(
        f"T={STEPS}, B={BATCH}; general: without a plan for the shape; alone: autograd in the calling thread"
    )
    print(
        "cell                 H general:    both    infer  forward     both    alone   cuDNN:    both    alone"
    )
    for cell in given.cell:
        for hidden in hidden_sizes:
            print(host(cell, dtype, hidden, given.rounds), flush=True)
    for work, shapes in ((kernels, given.kernels), (functions, given.functions)):
        for shape in shapes:
            print(
                f"\n{work.__name__}: {given.cell[0]}, {shape}\n{work(given.cell[0], dtype, shape)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
