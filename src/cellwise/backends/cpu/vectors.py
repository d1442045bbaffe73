"""How each op becomes vector instructions: one table, op -> the code for a vector of values.

exp, tanh and sigmoid are written here: range reduction by multiples of ln 2 and a polynomial for e^r - 1, from which
the functions follow without cancellation: exp within 1.0, tanh and sigmoid within 2.2 units in the last place of
float32 (`tests/backends/test_cpu.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir

Emit = Callable[..., ir.Value]


class Lanes:
    """Vectors of one element type and the instructions on them, at the place where `builder` stands."""

    def __init__(self, builder: ir.IRBuilder, element_bytes: int, lanes: int, fused: bool) -> None:
        self.b, self.fused = builder, fused
        self.double = element_bytes == 8
        self.lanes = lanes
        self.element = ir.DoubleType() if self.double else ir.FloatType()
        self.integer = ir.IntType(64 if self.double else 32)
        self.vector = ir.VectorType(self.element, lanes)
        self.integers = ir.VectorType(self.integer, lanes)
        self.suffix = f"v{lanes}f{64 if self.double else 32}"
        # Each once: a constant's text, which is long, is written down when it is first used.
        self._numbers: dict[str, ir.Constant] = {}

    def number(self, value: float) -> ir.Constant:
        if not self.double:
            value = float(np.float32(value))  # LLVM's text form wants a number that a float can hold
        key = value.hex()  # tells 0 from -0
        if key not in self._numbers:
            self._numbers[key] = ir.Constant(self.vector, [ir.Constant(self.element, value)] * self.lanes)
        return self._numbers[key]

    def whole(self, value: int) -> ir.Constant:
        return ir.Constant(self.integers, [value] * self.lanes)

    def call(self, name: str, *values: ir.Value) -> ir.Value:
        """An intrinsic of LLVM on vectors."""
        module = self.b.module
        kind = ir.FunctionType(self.vector, [self.vector] * len(values))
        full = f"llvm.{name}.{self.suffix}"
        function = module.globals.get(full) or ir.Function(module, kind, full)
        return self.b.call(function, values)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once where the machine has an instruction for it; else that would be a call for each lane."""
        return self.call("fma", a, b, c) if self.fused else self.b.fadd(self.b.fmul(a, b), c)

    def splat(self, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.b.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(one, undefined, zeros)

    def less(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.fcmp_ordered("<", a, b)


def _expm1_parts(v: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """n, r and p with x = n ln 2 + r, |r| <= ln 2 / 2, and p = e^r - 1."""
    n = v.call("rint", v.b.fmul(x, v.number(1 / math.log(2))))
    if v.double:
        high, low, terms = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 13
    else:
        high, low, terms = 0.693359375, -2.12194440e-4, 7
    r = v.fma(n, v.number(-high), x)
    r = v.fma(n, v.number(-low), r)
    poly = v.number(1 / math.factorial(terms))
    for k in range(terms - 1, 1, -1):
        poly = v.fma(poly, r, v.number(1 / math.factorial(k)))
    return n, r, v.fma(v.b.fmul(r, r), poly, r)


def _power_of_two(v: Lanes, n: ir.Value) -> ir.Value:
    """2^n for whole n within the exponents of normal numbers."""
    bias, shift = (1023, 52) if v.double else (127, 23)
    whole = v.b.fptosi(n, v.integers)
    return v.b.bitcast(v.b.shl(v.b.add(whole, v.whole(bias)), v.whole(shift)), v.vector)


def _clamped(v: Lanes, x: ir.Value, low: float, high: float) -> ir.Value:
    # NaN compares false and stays.
    x = v.b.select(v.less(x, v.number(low)), v.number(low), x)
    return v.b.select(v.less(v.number(high), x), v.number(high), x)


def exp(v: Lanes, x: ir.Value) -> ir.Value:
    """e^x. The power of two is applied in two halves, so that results near the ends of the range are right."""
    low, high = (-746.0, 710.0) if v.double else (-104.0, 89.0)
    n, _, p = _expm1_parts(v, _clamped(v, x, low, high))
    half = v.call("floor", v.b.fmul(n, v.number(0.5)))
    value = v.b.fadd(p, v.number(1.0))
    value = v.b.fmul(value, _power_of_two(v, half))
    return v.b.fmul(value, _power_of_two(v, v.b.fsub(n, half)))


def _expm1_of_bounded(v: Lanes, x: ir.Value) -> ir.Value:
    """e^x - 1 for x whose e^x is a normal number: 2^n p + (2^n - 1)."""
    n, _, p = _expm1_parts(v, x)
    power = _power_of_two(v, n)
    return v.fma(power, p, v.b.fsub(power, v.number(1.0)))


def tanh(v: Lanes, x: ir.Value) -> ir.Value:
    """t / (t + 2) with t = e^(2|x|) - 1, and the sign of x; exact to the last places also near zero."""
    size = v.call("fabs", x)
    doubled = _clamped(v, v.b.fadd(size, size), 0.0, 44.0 if v.double else 20.0)
    t = _expm1_of_bounded(v, doubled)
    y = v.b.fdiv(t, v.b.fadd(t, v.number(2.0)))
    return v.call("copysign", y, x)


def sigmoid(v: Lanes, x: ir.Value) -> ir.Value:
    """1 / (1 + z) or z / (1 + z) with z = e^-|x|, whichever has the sign of x."""
    size = v.call("fabs", x)
    z = exp(v, v.b.fsub(v.number(-0.0), size))
    top = v.b.select(v.less(x, v.number(0.0)), z, v.number(1.0))
    return v.b.fdiv(top, v.b.fadd(z, v.number(1.0)))


def _softplus(v: Lanes, x: ir.Value) -> ir.Value:
    e = exp(v, x)
    u = v.b.fadd(e, v.number(1.0))
    added = v.b.fsub(u, v.number(1.0))  # what the sum kept of e; the quotient gives back what it lost
    curve = v.b.fdiv(v.b.fmul(v.call("log", u), e), added)
    curve = v.b.select(v.b.fcmp_ordered("==", added, v.number(0.0)), e, curve)
    return v.b.select(v.less(v.number(20.0), x), x, curve)


LOWERINGS: dict[str, Emit] = {
    "add": lambda v, a, b: v.b.fadd(a, b),
    "sub": lambda v, a, b: v.b.fsub(a, b),
    "mul": lambda v, a, b: v.b.fmul(a, b),
    "div": lambda v, a, b: v.b.fdiv(a, b),
    "neg": lambda v, a: v.b.fneg(a),
    "exp": exp,
    "log": lambda v, a: v.call("log", a),
    "sqrt": lambda v, a: v.call("sqrt", a),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": lambda v, a: v.b.select(v.less(a, v.number(0.0)), v.number(0.0), a),
    "softplus": _softplus,
    "sin": lambda v, a: v.call("sin", a),
    "cos": lambda v, a: v.call("cos", a),
    "abs": lambda v, a: v.call("fabs", a),
    "minimum": lambda v, a, b: v.call("minimum", a, b),
    "maximum": lambda v, a, b: v.call("maximum", a, b),
    "less": lambda v, a, b: v.less(a, b),
    "less_equal": lambda v, a, b: v.b.fcmp_ordered("<=", a, b),
    "where": lambda v, m, a, b: v.b.select(m, a, b),
    "clamp": lambda v, a, low, high: v.call("minimum", v.call("maximum", a, low), high),
    "stop_gradient": lambda v, a: a,
}
