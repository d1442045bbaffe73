"""Runs small calls in guarded memory, as a process of its own:

    python guarded_small.py end|begin

What a caller gives and gets, and all scratch memory as one piece, lies beside pages that nobody may touch. Results are
those of the way of all calls. Prints how many calls ran, and how many of them read weights where they lie.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from guarded import guarding, tell_of_faults
from guarded_runs import Case, drawn, everything, kernels_for
from torch import Tensor

from cellwise.backends.compiled import scratch
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import SmallCall
from cellwise.backends.compiled.time_schedule import schedule_of
from cellwise.backends.cpu import small_run
from cellwise.backends.cpu.target import Target, host

CELLS = ("lstm", "gru", "lstm-peephole", "time-aware-lstm", "fastgrnn")
# Of all widths of vectors some that are whole ones, and some with parts of a vector of all sizes.
HIDDEN, BATCHES, STEPS, INPUTS = (1, 8, 17, 37, 50, 100), (1, 2, 5), (1, 3), (1, 9, 33)


def cases() -> Iterator[tuple[str, Case]]:
    """Every size, cell and type; widths of vectors and the rest go round."""
    narrow, wide = (replace(host(), vector_bytes=n, registers=r) for n, r in ((16, 16), (64, 32)))
    targets: Any = itertools.cycle([host(), narrow, wide])
    inputs, resets = itertools.cycle(INPUTS), itertools.cycle([False, True, False, False, True])
    projected: Any = itertools.cycle([True, False, True])
    backwards, ragged = itertools.cycle([False, True, False]), itertools.cycle([False, False, False, True])
    sizes = itertools.product(HIDDEN, BATCHES, STEPS, CELLS, (torch.float32, torch.float64))
    for hidden, batch, steps, cell, dtype in sizes:
        target: Target = next(targets)
        rest = next(inputs), next(ragged), next(resets), next(backwards), 1, target
        size = max(1, hidden // 2) if cell == "lstm" and next(projected) else 0
        yield cell, Case(dtype, size, hidden, batch, steps, *rest)


def small(engine: CellKernels, case: Case, data: dict[str, Any]) -> dict[str, Tensor]:
    """What `guarded_runs.everything` has, by a plan for small calls."""
    schedule = schedule_of(data["offsets"], case.batch, case.backwards)
    weights, marks = list(data["weights"].values()), () if data["resets"] is None else (data["resets"],)
    beside = tuple(data["weights"][name].shape[1] for name in engine.graph.asked_inputs)
    lengths, device = (case.inputs, case.hidden, case.projected), torch.device("cpu")
    call = SmallCall(engine, True, lengths, schedule, None, True, device, case.resets, beside)
    plan = engine.compiler.small_pass(call)
    assert plan is not None
    given = data["x"], data["states"], weights
    alone, _, last, _ = plan.infer(*given, *marks)
    output, kept, finals, saved = plan.record(*given, *marks)
    found = {"output": output, "inference": alone}
    gradients: list[Any] = []
    if plan.differentiates:
        arriving = [data["arriving"], *data["gradients"]]
        dx, *gradients = plan.differentiate(*given, kept, saved, arriving, True, *marks)
        assert dx is not None
        found |= {"dx": dx}
    dstates, dweights = gradients[: len(data["states"])], gradients[len(data["states"]) :]
    found |= dict(zip(data["weights"], dweights, strict=False))
    for kind, each in (("state", finals), ("last", last), ("gradient", dstates)):
        found |= {f"{kind} {place}": state for place, state in enumerate(each)}
    return found


def main(at_end: bool) -> None:
    calls, in_place = 0, 0
    enter = small_run.SmallRun.enter

    def counted(run: Any, *given: Any) -> Any:
        nonlocal calls, in_place
        calls, in_place = calls + 1, in_place + run.kernel.reads_in_place
        return enter(run, *given)

    small_run.SmallRun.enter = counted  # type: ignore[method-assign]
    for name, case in cases():
        engine = kernels_for(name, case.dtype, case.target, case.projected > 0, False, "")
        wanted = everything(engine, case, drawn(engine, case))
        with guarding(at_end) as guards:
            guards.running = f"{name} ({case})"
            tell_of_faults(guards)
            scratch.SCRATCH._block = scratch._Block(0)  # of guarded memory, when it grows
            found = small(engine, case, drawn(engine, case))
        for key, value in found.items():
            near = 1e-4 if case.dtype is torch.float32 else 1e-11
            same = "gradient" in key or key in ("output", "inference") or key.startswith(("state", "last"))
            tolerance: dict[str, float] = {"rtol": 0, "atol": 0} if same else {"rtol": near, "atol": near}
            told = f"{name}, {case}: {key}"
            torch.testing.assert_close(value, wanted[key], **tolerance, msg=told)
    print(f"{calls} calls; {in_place}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["end", "begin"])
    main(parser.parse_args().side == "end")
