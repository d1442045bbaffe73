"""Runs the kernels for AMX in a process of its own, on an emulator of its instructions:

    python amx_runs.py EMULATOR.so right|wrong|refused

Prints what the process makes of it. With "right" it then runs cells both ways, by instructions and by the loops that
stand for them elsewhere, and prints how many runs had the same bits, and how many instructions of each kind were done.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import llvmlite.binding as llvm
import torch
from guarded_runs import Case, drawn, engine_of, everything

from cellwise import cells
from cellwise.backends.cpu import amx_support, threads
from cellwise.backends.cpu.amx import INSTRUCTIONS, LOOPS
from cellwise.backends.cpu.target import host
from cellwise.plan.backward import projects

# One row of tiles, part of one, a pair, an odd number of them; lengths that are whole tiles, and others.
SHAPES = ((16, 32, 32), (9, 5, 17), (32, 64, 1), (50, 33, 70), (5, 7, 40))
CELLS = ("rnn", "lstm", "gru-reset-before", "layernorm-gru")
KINDS = ("configurations", "releases", "loads", "stores", "products")


def compared() -> int:
    count = 0
    for name in CELLS:
        for case in runs(projects(cells.get(name).graph)):
            by_loops = replace(case, target=replace(case.target, tiles=LOOPS))
            found, wanted = (
                everything(engine_of(name, each), each, drawn(engine_of(name, each), each))
                for each in (case, by_loops)
            )
            for key, value in found.items():
                torch.testing.assert_close(
                    value, wanted[key], rtol=0, atol=0, equal_nan=True, msg=f"{name}, {case}: {key}"
                )
            count += 1
    return count


def runs(can_project: bool) -> Iterator[Case]:
    """All shapes in bfloat16, and some in float32 as three products of bfloat16."""
    target = replace(host(), tiles=INSTRUCTIONS)
    for number, (batch, inputs, hidden) in enumerate(SHAPES):
        projected = hidden // 2 if can_project and number % 2 else 0
        is_ragged, resets, backwards = number % 2 == 1, number == 3, number in (3, 4)
        sizes = (projected, hidden, batch, 3, inputs, is_ragged, resets, backwards, 1 + number % 2, target)
        yield Case(torch.bfloat16, *sizes)
        if number in (1, 2):
            yield Case(torch.float32, *sizes, three=True)


def main(path: str, how: str) -> None:
    emulator, real = ctypes.CDLL(path), llvm.get_host_cpu_features

    def features() -> dict[str, bool]:
        found = real()
        found.update(dict.fromkeys(("amx-tile", "amx-bf16"), True))
        return found

    assert emulator.install(how == "wrong") == 0
    granted = mock.patch.object(amx_support, "refusal", lambda: "")
    with mock.patch.object(llvm, "get_host_cpu_features", features):
        if how == "refused":
            print(amx_support.support())
            return
        with granted, mock.patch.object(threads, "_WORTH_A_THREAD", 1):
            print(amx_support.support())
            if how == "right":
                print(f"{compared()} runs")
                print({kind: emulator.done(place) for place, kind in enumerate(KINDS)})
                assert not emulator.in_use()


if __name__ == "__main__":
    main(*sys.argv[1:])
