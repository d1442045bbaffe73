"""Runs the kernels of a cell in guarded memory, as a process of its own:

    python guarded_runs.py CELL end|begin [--short BUFFER,BUFFER,...]

Prints how many kernels ran and the names of all buffers. With --short it does so for each BUFFER in a process of its
own, whose kernels are told a place one element late (or early) for it, as if it had been made one element short; that
must not go well. Prints how each ended.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from guarded import Guards, guarding, tell_of_faults
from torch import Tensor

from cellwise import cells
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.plain import run_backward, run_forward
from cellwise.backends.compiled.time_schedule import schedule_of
from cellwise.backends.cpu import blocks, by_units, launch, pack, threads
from cellwise.backends.cpu.amx import LOOPS
from cellwise.backends.cpu.compiler import Kernel, llvm_compiler
from cellwise.backends.cpu.in_place import STEMS, can_be_in_place
from cellwise.backends.cpu.kernel import ADDRESSES, size_names
from cellwise.backends.cpu.stepper import CpuStepper
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.tiles import groups_of
from cellwise.plan.backward import projects
from cellwise.plan.program import Program

KERNELS = ("inference", "training", "backward")
HIDDEN, BATCHES, STEPS, INPUTS = (1, 50, 65), (1, 2, 5, 20), (1, 3), (1, 4, 9)


@dataclass(frozen=True)
class Case:
    dtype: torch.dtype
    projected: int
    hidden: int
    batch: int
    steps: int
    inputs: int
    ragged: bool
    resets: bool
    backwards: bool
    threads: int
    target: Target
    recompute: bool = False
    blocks: bool = False
    three: bool = False
    in_place: bool = False

    def __str__(self) -> str:
        sizes = f"T {self.steps}, B {self.batch}, D {self.inputs}, H {self.hidden}, P {self.projected}"
        sizes += f", vectors of {self.target.vector_bytes} bytes{', tiles' if self.target.tiles else ''}"
        names = ("ragged", "resets", "backwards", "recompute", "blocks", "three", "in_place")
        flags = [name for name in names if getattr(self, name)]
        return f"{self.dtype}, {sizes}, {self.threads} threads {' '.join(flags)}".rstrip()


def cases(can_project: bool) -> Iterator[Case]:
    """Every size in float32 and in another dtype; vector widths, directions and the rest go round."""
    ragged = itertools.cycle([False, True, True, False, True])
    resets = itertools.cycle([False, False, True])
    # Code shaped for other registers; LLVM makes it from the instructions that this machine has.
    narrow, wide = (replace(host(), vector_bytes=n, registers=r) for n, r in ((16, 16), (64, 32)))
    targets = itertools.cycle([host(), narrow, host(), wide])
    tiles = itertools.cycle([LOOPS, "", LOOPS])  # of kernels of bfloat16
    inputs, counts = itertools.cycle(INPUTS), itertools.cycle([1, 2, 1, 1])
    recompute = itertools.cycle([False, False, True, False, False, True, False])
    blocks = itertools.cycle([True, False, False])
    others = itertools.cycle([torch.float64, torch.bfloat16, torch.bfloat16])
    directions = itertools.cycle([False, True, True, False, True, False, False])
    for is_single in (True, False):
        for hidden, batch, steps in itertools.product(HIDDEN, BATCHES, STEPS):
            for projected in (0, max(1, hidden // 2)) if can_project else (0,):
                dtype, target = torch.float32 if is_single else next(others), next(targets)
                if dtype is torch.bfloat16:
                    target = replace(target, tiles=next(tiles))
                yield Case(
                    dtype,
                    projected,
                    hidden,
                    batch,
                    steps,
                    next(inputs),
                    next(ragged),
                    next(resets),
                    next(directions),
                    next(counts),
                    target,
                    next(recompute),
                    next(blocks),
                )
    # Rows that are whole tiles are read where they lie.
    for is_ragged, backwards in ((False, False), (True, True)):
        where = (is_ragged, False, backwards, 1, replace(host(), tiles=LOOPS))
        yield Case(torch.bfloat16, 0, 64, 20, 3, 32, *where)
        for hidden, inputs in ((64, 32), (50, 9)):
            yield Case(torch.float32, 0, hidden, 20, 3, inputs, *where, three=True)
    # Weights are read where they lie; of rows of one vector, and of an odd number of them.
    few = replace(host(), vector_bytes=32, registers=16)
    for hidden, batch, recompute in ((16, 1, False), (48, 2, True), (80, 5, False), (208, 9, False)):
        for dtype, target in ((torch.float32, wide), (torch.float64, few), (torch.float32, few)):
            given = (next(ragged), next(resets), next(directions), next(counts), target, recompute)
            yield Case(dtype, 0, hidden, batch, 3, INPUTS[batch % 3], *given, in_place=True)


def buffers(program: Program, kernel: Kernel) -> list[str]:
    """What a kernel's pointers are, in order; kernel.py says so in words."""
    names = [f"{a.name} {part}".strip() for a in program.buffers for part in ADDRESSES.get(a.storage, ("",))]
    if kernel.reads_in_place:
        return [*names, *STEMS, "room", "offsets", "resets"]
    for stage in program.all_stages:
        for group in groups_of(stage, kernel.target):
            names += [f"packed {term.weight.stem}" for term in group.terms] + ["packed biases"]
    return [*names, "room", "offsets", "resets"]


class Watched:
    """An engine whose kernels look at their pointers before they run: each must lie in guarded memory."""

    def __init__(self, engine: CellKernels, guards: Guards, short: str | None) -> None:
        self.guards, self.short = guards, short
        self.seen: set[str] = set()
        self.calls = 0
        self.failed: list[AssertionError] = []
        self.element, self.sign = engine.dtype.itemsize, 1 if guards.at_end else -1
        self.engine = replace(engine)
        for name in KERNELS:
            kernel = getattr(engine, name)
            watched = replace(kernel, call=self._addressed(self._kernel(kernel)))
            watched.__dict__["pack"] = self._addressed(self._pack(kernel.pack))
            if kernel.reads_in_place:
                watched.__dict__["in_place"] = watched
            self.engine.__dict__[name] = watched

    def _addressed(self, function: Callable[[int, int], None]) -> Any:
        """With an address, as compiled functions have: a stream's step calls them in a chain, from compiled code, which
        no exception passes through."""

        def call(first: int, second: int) -> None:
            try:
                function(first, second)
            except AssertionError as error:
                self.failed.append(error)

        made: Any = function
        made.callback = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(call)
        made.address = ctypes.cast(made.callback, ctypes.c_void_p).value
        return made

    def _kernel(self, kernel: Kernel) -> Callable[[int, int], None]:
        names = buffers(kernel.program, kernel)

        def call(pointers: int, sizes: int) -> None:
            self.guards.names = dict(self.known)
            given = _int64(pointers, len(names))
            for place, name in enumerate(names):
                address = int(given[place])
                if name == self.short:
                    given[place] += self.sign * _size(name, self.element)
                self._look(name, address)
            self._look("pointers", pointers)
            self._look("sizes", sizes)
            self.calls += 1
            self.guards.running = f"{kernel.program.name} ({self.case})"
            words = len(size_names(kernel.program))
            assert len(_int64(sizes, words)) == words
            kernel.call(pointers, sizes)

        return call

    def _pack(self, function: Callable[[int, int], None]) -> Callable[[int, int], None]:
        columns = pack.COLUMNS

        def call(jobs: int, bounds: int) -> None:
            self.guards.names = dict(self.known)
            self._look("range", bounds)
            first, end, start = _int64(bounds, 3).tolist()
            if first == end:
                return  # a cell without a product backward has nothing to pack
            self._look("jobs", jobs)
            table = _int64(jobs, end * len(columns)).reshape(-1, len(columns))[first:]
            source, to, units, weight = (columns.index(name) for name in ("source", "to", "units", "weight"))
            weights = _int64(bounds, 4 + int(table[:, weight].max()))[3:]
            for job in table:
                self._look("", start + int(job[to]))
                if job[units] > 0:  # else nothing is read
                    self._look("", int(weights[job[weight]]) + int(job[source]))
            for place, address in enumerate(weights):
                if self._weight(int(address)) == self.short:
                    weights[place] += self.sign * self.element
            self.calls += 1
            self.guards.running = f"pack ({self.case})"
            function(jobs, bounds)

        return call

    def _look(self, name: str, address: int) -> None:
        if address == 0:
            return
        assert self.guards.holds(address), f"{name or 'a weight'} is not in guarded memory ({self.case})"
        if name:
            same = self.guards.names.get(address)
            self.guards.names[address] = f"{same} = {name}" if same else name
            self.seen.add(name)

    def _weight(self, address: int) -> str:
        found = self.guards.near(address, beside=0)
        return self.guards.names.get(found[0], "") if found else ""

    def run(self, case: Case, data: dict[str, Any]) -> dict[str, Tensor]:
        self.case = case
        self.known = {each.data_ptr(): stem for stem, each in data["weights"].items()}
        self.seen |= set(data["weights"])
        found = everything(self.engine, case, data)
        if self.failed:
            raise self.failed[0]
        return found


def _int64(address: int, count: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_int64 * count).from_address(address), np.int64)


def _size(name: str, element: int) -> int:
    """The bytes of an element of a kernel's buffer."""
    if name == "resets":
        return 1
    return 8 if name == "offsets" or name.endswith((" rows", " limits")) else element


def drawn(engine: CellKernels, case: Case) -> dict[str, Any]:
    """The arguments of a run."""
    generator = np.random.default_rng(case.hidden * 100 + case.batch)

    def numbers(*shape: int) -> Tensor:
        return torch.from_numpy(generator.standard_normal(shape)).to(case.dtype)

    lengths = np.full(case.batch, case.steps)
    if case.ragged:
        lengths = np.sort(generator.integers(0, case.steps + 1, case.batch))[::-1]
        lengths[0] = case.steps
    sizes = [int((lengths > t).sum()) for t in range(case.steps)]
    offsets = torch.tensor([0, *np.cumsum(sizes)])
    count = int(offsets[-1])
    marks = torch.from_numpy(generator.random(count) < 0.4).to(torch.uint8)
    if case.backwards:
        marks[: sizes[0]] = 0
    output = case.projected or case.hidden
    graph, hidden = engine.graph, case.hidden
    states = [output, *[hidden] * (len(graph.states) - 1)]
    gates = {"ih": len(graph.input_gates) * hidden, "hh": len(graph.state_gates) * hidden}
    shapes: dict[str, tuple[int, ...]] = {f"bias_{kind}": (rows,) for kind, rows in gates.items()}
    shapes |= {"weight_ih": (gates["ih"], case.inputs), "weight_hh": (gates["hh"], output)}
    shapes |= {"weight_hr": (output, hidden)} | dict.fromkeys(graph.vectors, (hidden,))
    shapes |= dict.fromkeys(graph.scalars, ())
    beside = {
        name: numbers(count, hidden).abs() for name in graph.given
    }  # times, of which none is below zero
    return {
        "x": numbers(count, case.inputs),
        "offsets": offsets,
        "resets": marks if case.resets else None,
        "states": [numbers(case.batch, size) for size in states],
        "weights": {
            stem: beside[stem] if stem in beside else numbers(*shapes[stem]) / hidden
            for stem in engine.stems[True]
        },
        "arriving": numbers(count, output),
        "gradients": [numbers(case.batch, size) for size in states],
    }


def everything(engine: CellKernels, case: Case, data: dict[str, Any]) -> dict[str, Tensor]:
    """All that inference, training and the backward pass compute."""
    weights = list(data["weights"].values())
    schedule = schedule_of(data["offsets"], case.batch, case.backwards)
    call = (engine, True, schedule, data["x"], data["states"], weights, data["resets"])
    torch.set_num_threads(case.threads)
    alone, last, _ = run_forward(*call, tape=False)
    output, finals, kept = run_forward(*call, tape=True)
    dx, dstates, dweights = run_backward(
        *call, output, kept, data["arriving"], data["gradients"], wants_input=True
    )
    assert dx is not None
    found = dict(zip(data["weights"], dweights, strict=True))
    named = {"output": output, "inference": alone, "dx": dx, **found}
    others = case.ragged, case.resets, case.backwards, case.blocks, case.three, case.in_place
    plain = not (any(others) or engine.graph.given)
    if plain and case.dtype is not torch.bfloat16:
        named |= {"stream": streamed(engine, case, data)}
    for kind, each in (("state", finals), ("last", last), ("gradient", dstates)):
        named |= {f"{kind} {place}": state for place, state in enumerate(each)}
    return named


def streamed(engine: CellKernels, case: Case, data: dict[str, Any]) -> Tensor:
    """The outputs of two layers fed step by step; the upper one reads what the lower one writes."""
    size = case.projected or case.hidden
    stack: Any = SimpleNamespace(
        input_size=case.inputs, hidden_size=case.hidden, proj_size=case.projected, bias=True
    )
    lower = data["weights"]
    upper = dict(lower)
    if "weight_ih" in lower:
        upper["weight_ih"] = lower["weight_ih"][:, :1].expand(-1, size).clone()
    weights = [[*lower.values()], [*upper.values()]]
    stepper = CpuStepper(engine, stack, weights, case.batch, [*weights[0], *weights[1]])
    given = [x.clone() for x in data["x"].split(case.batch)]
    width = size * (1 + len(engine.graph.others))
    found = [x.new_empty(case.batch, width) for x in given]
    for x, y in zip(given, found, strict=True):
        stepper.step(x, y)
    return torch.cat([torch.stack(found).flatten(), stepper.states[0].flatten()])


@cache
def kernels_for(
    name: str, dtype: torch.dtype, target: Target, projected: bool, recompute: bool, form: str
) -> CellKernels:
    """All of them in another form, if one is named and they can have it: "hoisted" multiplies the inputs of a block of
    steps at once, "by_three" numbers of float32 as three products of bfloat16, "in_place" packs no weights.
    """
    made = CellKernels(cells.get(name).graph, dtype, llvm_compiler(target), projected, recompute)
    for name in KERNELS if form else ():
        kernel = getattr(made, name)
        if form != "in_place" or can_be_in_place(kernel.program):
            made.__dict__[name] = getattr(kernel, form)
    return made


def form_of(case: Case) -> str:
    if case.in_place or case.three:
        return "in_place" if case.in_place else "by_three"
    return "hoisted" if case.blocks and case.dtype is not torch.bfloat16 else ""


def engine_of(name: str, case: Case) -> CellKernels:
    return kernels_for(
        name,
        case.dtype,
        case.target,
        case.projected > 0,
        case.recompute,
        form_of(case),
    )


def prepare(name: str) -> None:
    """Load the kernels of the first cases, once for all processes that are forked."""
    for case in itertools.islice(cases(projects(cells.get(name).graph)), 16):
        engine = engine_of(name, case)
        for kernel in KERNELS:
            _ = getattr(engine, kernel).pack


def main(name: str, at_end: bool, short: str | None) -> None:
    graph = cells.get(name).graph
    calls, seen = 0, set[str]()
    # Two threads share the units of a single row, and more rows than that.
    limits = {"_MOST_ROWS": 1, "_LEAST_WEIGHTS": 1, "_LEAST_READ": 1}
    with (
        mock.patch.object(threads, "_WORTH_A_THREAD", 1),
        mock.patch.object(blocks, "_ROWS", 5),
        mock.patch.multiple(by_units, **limits),
    ):
        for case in cases(projects(graph)):
            if short and case.steps < max(STEPS):
                continue  # in a few steps not all of a history is used
            engine = engine_of(name, case)
            wanted = everything(engine, case, drawn(engine, case))
            # A store past the caches at a place that is no line's is a fault of another kind, without an address.
            into_caches = mock.patch.object(launch, "_PAST_CACHES", math.inf) if short else nullcontext()
            with guarding(at_end) as guards, into_caches:
                tell_of_faults(guards)
                watched = Watched(engine, guards, short)
                found = watched.run(case, drawn(engine, case))
            calls, seen = calls + watched.calls, seen | watched.seen
            for key, value in () if short else wanted.items():  # what lies beside may be any number
                near = 2e-2 if case.dtype is torch.bfloat16 else 1e-4
                torch.testing.assert_close(found[key], value, rtol=near, atol=near / 10, msg=f"{case}: {key}")
    print(f"{calls} calls; {', '.join(sorted(seen))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("cell")
    parser.add_argument("side", choices=["end", "begin"])
    parser.add_argument("--short")
    asked = parser.parse_args()
    if asked.short:
        prepare(asked.cell)
    for buffer in asked.short.split(",") if asked.short else [None]:
        if buffer is None:
            main(asked.cell, asked.side == "end", None)
        elif child := os.fork():
            print(f"{buffer}: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
        else:
            main(asked.cell, asked.side == "end", buffer)
            os._exit(0)
