"""Whether float32 products could be made of three products of bfloat16 halves without AMX: two peaks, side by side.

    python benchmarks/three_products.py

Independent chains in registers, through the engine's own words for code: multiply-adds of float32 (`vfmadd`), and sums
of two products of bfloat16 numbers (`vdpbf16ps`). Rounds of the two take turns; printed are billions of multiply-adds a
second of processor time, the fastest and the median round, and what three products in place of one would be.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from statistics import median

from llvmlite import ir

from cellwise.backends.cpu.bf16 import dot
from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import host

CHAINS, ROUNDS, SECONDS = 16, 20_000, 2.0


class Chains(Code):
    """void chains(void *out, int64 rounds)"""

    kinds = (ir.PointerType(), I64)

    def emit(self, step: Callable[[Code, Value, Value], Value]) -> ir.Module:
        b, v = self.b, self.v
        out, rounds = self.function.args
        operand = self.load(out)
        sums: list[Value] = [v.number(float(place)) for place in range(CHAINS)]
        with self.summing("round", rounds, sums) as (_, running, following):
            following += [step(self, each, operand) for each in running]
        total = sums[0]
        for each in sums[1:]:
            total = b.fadd(total, each)
        self.store(total, out)
        b.ret_void()
        return self.module


def multiply_add(code: Code, total: Value, operand: Value) -> Value:
    return code.v.fma(operand, operand, total)


def two_products(code: Code, total: Value, operand: Value) -> Value:
    words = code.b.bitcast(operand, ir.VectorType(ir.IntType(32), code.v.lanes))
    return dot(code.v, words, words, total, dots=True)


def main() -> None:
    target = host()
    if not target.dots:
        raise SystemExit("This processor has no vdpbf16ps.")
    lanes, found = target.lanes(4), {}
    sides = (("vfmadd", multiply_add, 1), ("vdpbf16ps", two_products, 2))
    for name, step, products in sides:
        chains = load(name, object_code(Chains(name, 4, target).emit(step), target))
        found[name] = (chains, products * lanes * CHAINS * ROUNDS, list[float]())
    memory = (ctypes.c_float * lanes)()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for chains, count, speeds in found.values():
            start = time.thread_time()
            chains(ctypes.addressof(memory), ROUNDS)
            speeds.append(count / (time.thread_time() - start) / 1e9)
    for name, (_, _, speeds) in found.items():
        print(f"{name:<10} {max(speeds):6.1f} ({median(speeds):.1f}) billion multiply-adds a second")
    one, two = (max(found[name][2]) for name, *_ in sides)
    print(f"three products in place of one: {two / 3 / one:.2f} times the speed of float32")


if __name__ == "__main__":
    main()
