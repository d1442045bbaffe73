"""What a machine pays when it meets a cell for the first time: python benchmarks/compile_time.py [CELL ...] [--double]

For each kernel the processor's time on one thread, in milliseconds, medians: for emitting it (from its plan to LLVM's
text), for making machine code of that, and for loading it; and how large the code is. Nothing comes from the cache of
kernels. The routines at the top are made once for an element type, whatever the cell.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from llvmlite import ir

from cellwise import cells
from cellwise.backends.cpu.compile import compiled, load
from cellwise.backends.cpu.kernel import emit, widths_of
from cellwise.backends.cpu.pack import emit_pack
from cellwise.backends.cpu.products import Products, routine_name
from cellwise.backends.cpu.stages import PASSES
from cellwise.backends.cpu.target import host

ROUNDS = 9


def measured(
    title: str, name: str, make: Callable[[], ir.Module], others: list[bytes]
) -> tuple[float, bytes]:
    """Print a row. Returns the time of all and the code."""
    rounds = []
    for _ in range(ROUNDS):
        marks = [time.thread_time()]
        source = str(make())
        marks.append(time.thread_time())
        code = compiled(source, host())
        marks.append(time.thread_time())
        load(name, code, *others)
        marks.append(time.thread_time())
        rounds.append(
            [1e3 * (b - a) for a, b in zip([*marks[:-1], marks[0]], [*marks[1:], marks[-1]], strict=True)]
        )
    emitting, compiling, loading, whole = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(
        f"{title:<26} {emitting:7.1f} {compiling:8.1f} {loading:8.1f} {whole:8.1f} {len(code):8}", flush=True
    )
    return whole, code


def routines(names: list[str], element_bytes: int) -> dict[int, bytes]:
    """What kernels call, by the width of its panels."""
    programs = [program_of(cells.get(name).graph) for name in names for program_of in PASSES.values()]
    found = {}
    for width in sorted({width for program in programs for width in widths_of(program, host())}):
        make = partial(_routine, width, element_bytes)
        name = routine_name(width, element_bytes, host())
        _, found[width] = measured(f"products, {width} vectors", name, make, [])
    measured("packing of weights", "pack", partial(emit_pack, element_bytes, host()), [])
    return found


def _routine(width: int, element_bytes: int) -> ir.Module:
    return Products(width, element_bytes, host()).emit()


def _kernel(name: str, which: str, element_bytes: int) -> ir.Module:
    return emit(PASSES[which](cells.get(name).graph), element_bytes, host())


def main(names: list[str], element_bytes: int) -> None:
    title = f"{host().cpu}, {8 * element_bytes}-bit, ms"
    print(f"{title:<26} {'emit':>7} {'compile':>8} {'load':>8} {'whole':>8} {'bytes':>8}")
    shared = routines(names, element_bytes)
    for name in names:
        times = {}
        for which, program_of in PASSES.items():
            program = program_of(cells.get(name).graph)
            make = partial(_kernel, name, which, element_bytes)
            called = [shared[width] for width in widths_of(program, host())]
            times[which], _ = measured(f"{name} {which}", program.name, make, called)
        print(f"{name + ' to train':<51} {times['training'] + times['backward']:8.1f}", flush=True)


if __name__ == "__main__":
    asked = [each for each in sys.argv[1:] if not each.startswith("--")]
    main(asked or list(cells.FAMILIAR), 8 if "--double" in sys.argv else 4)
