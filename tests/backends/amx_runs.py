"""Runs the kernels for AMX in a process of its own, on an emulator of its instructions:

    python amx_runs.py EMULATOR.so right|wrong|refused

Prints what the process makes of it. With "right" it then runs cells both ways, by instructions and by the loops that
stand for them elsewhere, and prints how many runs had the same bits, and how many instructions of each kind were done.
"""

from __future__ import annotations

import ctypes
import sys
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
KINDS = ("configurations", "releases", "loads", "stores", "products")


def compared() -> int:
    count = 0
    for name in (*cells.FAMILIAR, "layernorm-gru"):
        for number, (batch, inputs, hidden) in enumerate(SHAPES):
            projected = hidden // 2 if projects(cells.get(name).graph) and number % 2 else 0
            flags = {"ragged": number % 2 == 1, "resets": number == 3, "backwards": number in (3, 4)}
            found = []
            for form in (INSTRUCTIONS, LOOPS):
                target = replace(host(), tiles=form)
                case = Case(
                    torch.bfloat16,
                    projected,
                    hidden,
                    batch,
                    3,
                    inputs,
                    threads=1 + number % 2,
                    target=target,
                    **flags,
                )
                engine = engine_of(name, case)
                found.append(everything(engine, case, drawn(engine, case)))
            for key, value in found[0].items():
                other = found[1][key]
                assert torch.equal(value, other) or same_where_numbers(value, other), f"{name}, {case}: {key}"
            count += 1
    return count


def same_where_numbers(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


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
