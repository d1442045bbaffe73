"""The machine's peak of fused multiply-add, measured: independent ones in registers, on all threads at once."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir

from cellwise.backends.cpu.target import host
from cellwise.bench import devices
from cellwise.bench.clock import clocked
from cellwise.bench.speedup import Spread, spread

# A multiply-add takes 4 or 5 cycles and two begin in each on common machines, so 10 chains keep them busy; 12 fit
# into 16 registers beside two operands.
_CHAINS = 12
_ROUNDS = 8  # of all chains before the loop branches


@dataclass(frozen=True)
class Peak:
    """GFLOP/s of float32 multiply-adds, two operations each, on `threads` threads together; one number a run.

    On a GPU, where `of` says so, those of a large product of matrices; there threads and vectors count for nothing.
    """

    threads: int
    vector_bytes: int
    gflops: tuple[float, ...]
    of: str = "fused multiply-add"

    @property
    def best(self) -> float:
        """The peak: what the machine reached at least once."""
        return max(self.gflops)

    @property
    def spread(self) -> Spread:
        return spread(self.gflops)

    def to_json(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "threads": self.threads,
            "vector_bytes": self.vector_bytes,
            "best": self.best,
            **self.spread.to_json(),
            "gflops": list(self.gflops),
        }


def measure(threads: int | None = None, runs: int = 15, seconds: float = 0.02) -> Peak:
    """Run the multiply-adds `runs` times for about `seconds` on each thread (as many as torch has)."""
    threads = torch.get_num_threads() if threads is None else threads
    kernel, _engine, lanes = _kernel()
    flops_of_a_round = 2 * lanes * _CHAINS * _ROUNDS

    def work(rounds: int) -> None:
        kernel((ctypes.c_float * lanes)(), rounds)

    rounds = 1000
    while (elapsed := _clocked(work, rounds)) < seconds / 4:
        rounds *= 2
    rounds = max(1, int(rounds * seconds / elapsed))
    with ThreadPoolExecutor(threads) as pool:
        found = []
        for _ in range(runs):
            elapsed = _clocked(lambda: list(pool.map(work, [rounds] * threads)))
            found.append(threads * rounds * flops_of_a_round / elapsed / 1e9)
    return Peak(threads, host().vector_bytes, tuple(found))


def measure_cuda(dtype: str, runs: int = 15, size: int = 8192) -> Peak:
    """Multiply two random matrices of this size, in these numbers, on the GPU that torch works on."""
    found = []
    with devices.numbers(dtype):
        left, right = (
            torch.randn(size, size, device="cuda", dtype=devices.dtype_of(dtype)) for _ in range(2)
        )
        out = torch.mm(left, right)
        for _ in range(runs):
            found.append(2 * size**3 / clocked(lambda: torch.mm(left, right, out=out)) / 1e9)
    return Peak(0, 0, tuple(found), f"products of {size:,} x {size:,} matrices in {dtype}")


def _clocked(work: Any, *given: int) -> float:
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def _kernel() -> tuple[Any, Any, int]:
    """`void peak(float *out, int64 rounds)` as a function that lets go of the interpreter lock; and its lanes."""
    lanes = host().lanes(4)
    module = llvm.parse_assembly(str(_emit(lanes)))
    engine = llvm.create_mcjit_compiler(module, host().machine())
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    return signature(engine.get_function_address("peak")), engine, lanes


def _emit(lanes: int) -> ir.Module:
    vector, i64 = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)
    module = ir.Module("peak")
    module.triple = host().triple
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType(), i64]), "peak")
    out, rounds = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    start, body, after = b.block, function.append_basic_block("round"), function.append_basic_block("after")
    b.branch(body)
    b.position_at_end(body)
    count = b.phi(i64)
    count.add_incoming(ir.Constant(i64, 0), start)
    chains = [b.phi(vector) for _ in range(_CHAINS)]
    # a <- a / 2 + 1/2 stays a normal number: it goes to 1 from wherever it begins.
    half = ir.Constant(vector, [ir.Constant(ir.FloatType(), 0.5)] * lanes)
    values: list[Any] = list(chains)
    for _ in range(_ROUNDS):
        values = [b.call(fma, [value, half, half]) for value in values]
    for place, (chain, value) in enumerate(zip(chains, values, strict=True)):
        first = ir.Constant(
            ir.FloatType(), float(place)
        )  # unlike starts, or the chains would be found to be one
        chain.add_incoming(ir.Constant(vector, [first] * lanes), start)
        chain.add_incoming(value, b.block)
    following = b.add(count, ir.Constant(i64, 1))
    count.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, rounds), body, after)
    b.position_at_end(after)
    total = values[0]
    for value in values[1:]:
        total = b.fadd(total, value)
    b.store(total, out, align=4)  # what is not used would not be computed
    b.ret_void()
    return module
