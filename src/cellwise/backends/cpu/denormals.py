"""Numbers too small to be normal (below 1.2e-38 in float32) are zero within a kernel (docs/decisions/0011).

Many processors leave their fast path for them, and a state that decays or a gradient that vanishes can stay among them
for a thousand steps. How a thread treats them stands in a register of its own, which a kernel sets when it begins and
puts back when it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.plan.program import Program

_I32 = ir.IntType(32)
# MXCSR: results that are subnormal are zero (bit 15), operands too (bit 6). FPCR: both (bit 24).
_X86_BITS, _ARM_BITS = 1 << 15 | 1 << 6, 1 << 24


def may_flush(program: Program) -> bool:
    """Whether all that a program computes from zero instead of a subnormal number is as near to what it would be."""
    return not any(node.op.amplifies for stage in program.stages for node in stage.nodes)


def flush_denormals(code: Code) -> Callable[[], None]:
    """Code that makes subnormal numbers zero from here on. Call what it returns where the function ends.

    On processors that are neither x86 nor 64-bit Arm it does nothing.
    """
    if code.target.triple.startswith("x86_64"):
        return _on_x86(code)
    if code.target.triple.startswith(("aarch64", "arm64")):
        return _on_arm(code)
    return lambda: None


def _on_x86(code: Code) -> Callable[[], None]:
    b = code.b
    before, within = b.alloca(_I32, name="mxcsr"), b.alloca(_I32, name="mxcsr_within")
    _call(code, "llvm.x86.sse.stmxcsr", ir.VoidType(), before)
    found = b.load(before, typ=_I32)
    b.store(b.or_(found, ir.Constant(_I32, _X86_BITS)), within)
    _call(code, "llvm.x86.sse.ldmxcsr", ir.VoidType(), within)

    def restore() -> None:
        _call(code, "llvm.x86.sse.ldmxcsr", ir.VoidType(), before)

    return restore


def _on_arm(code: Code) -> Callable[[], None]:
    before = _call(code, "llvm.aarch64.get.fpcr", I64)
    within = code.b.or_(before, ir.Constant(I64, _ARM_BITS))
    _call(code, "llvm.aarch64.set.fpcr", ir.VoidType(), within)

    def restore() -> None:
        _call(code, "llvm.aarch64.set.fpcr", ir.VoidType(), before)

    return restore


def _call(code: Code, name: str, result: ir.Type, *values: Value) -> Value:
    kinds = [POINTER if isinstance(value.type, ir.PointerType) else value.type for value in values]
    function = code.module.globals.get(name) or ir.Function(code.module, ir.FunctionType(result, kinds), name)
    return code.b.call(function, values)
