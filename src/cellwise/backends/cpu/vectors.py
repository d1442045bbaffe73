"""How each op becomes vector instructions: one table, op -> the code for a vector of values.

exp, tanh and sigmoid are written here: range reduction by multiples of ln 2 and a polynomial for e^r - 1, from which
the functions follow without cancellation: exp within 1.1, tanh within 1.9 and sigmoid within 2.3 units in the last
place (`tests/backends/test_cpu.py`). Where products round their operands to eight bits, tanh and sigmoid are `rough`:
within 2^-13, for about half the instructions.

So are elu (1), silu (2.8), erf (1, in float64 1.3) and gelu, whose error is that of erf beside 1, as in torch, and far
smaller in its left tail. log, pow, sin and cos are the C library's, a call for each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from llvmlite import ir
from numpy.polynomial import chebyshev

Emit = Callable[..., ir.Value]


class Lanes:
    """Vectors of one element type and the instructions on them, at the place where `builder` stands."""

    def __init__(self, builder: ir.IRBuilder, element_bytes: int, lanes: int, fused: bool) -> None:
        self.b, self.fused = builder, fused
        self.rough = False  # whether tanh and sigmoid need no more than a dozen bits
        self.reciprocal = False  # whether there is an instruction for 1 / x, of 14 bits
        self.double = element_bytes == 8
        self.lanes = lanes
        self.element = ir.DoubleType() if self.double else ir.FloatType()
        self.integer = ir.IntType(64 if self.double else 32)
        self.shift = 52 if self.double else 23  # where the exponent begins
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
        """a b + c, rounded once if the machine has an instruction for it; else that would be a call for each lane."""
        return self.call("fma", a, b, c) if self.fused else self.b.fadd(self.b.fmul(a, b), c)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A number in each lane."""
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        one = self.b.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(one, undefined, zeros)

    def counted(self) -> ir.Constant:
        """The numbers of the lanes, from 0 on."""
        return ir.Constant(self.integers, list(range(self.lanes)))

    def first(self, value: ir.Value) -> ir.Value:
        """The number in the first lane."""
        return self.b.extract_element(value, ir.Constant(ir.IntType(32), 0))

    def less(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.fcmp_ordered("<", a, b)


def _expm1_parts(v: Lanes, x: ir.Value, times: int = 1) -> tuple[ir.Value, ir.Value]:
    """n and p with `times` x = n ln 2 + r, |r| <= ln 2 / 2, and `times` p = e^r - 1; `times` is a power of two."""
    n = v.call("rint", v.b.fmul(x, v.number(times / math.log(2))))
    if v.double:
        high, low, terms = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 13
    elif v.rough:
        high, low, terms = math.log(2), 0.0, 5
    else:
        high, low, terms = 0.693359375, -2.12194440e-4, 7
    # What follows is in r / times, with the powers of `times` in the coefficients: exact, and no instruction.
    r = v.fma(n, v.number(-high / times), x)
    r = v.fma(n, v.number(-low / times), r) if low else r
    poly = v.number(times ** (terms - 1) / math.factorial(terms))
    for k in range(terms - 1, 1, -1):
        poly = v.fma(poly, r, v.number(times ** (k - 1) / math.factorial(k)))
    return n, v.fma(v.b.fmul(r, r), poly, r)


def _power_of_two(v: Lanes, n: ir.Value) -> ir.Value:
    """2^n for integers n within the exponents of normal numbers."""
    bias = 1023 if v.double else 127
    return v.b.bitcast(v.b.shl(v.b.add(n, v.whole(bias)), v.whole(v.shift)), v.vector)


def _at_most(v: Lanes, x: ir.Value, high: float) -> ir.Value:
    # NaN compares false and stays.
    return v.b.select(v.less(v.number(high), x), v.number(high), x)


def _clamped(v: Lanes, x: ir.Value, low: float, high: float) -> ir.Value:
    return _at_most(v, v.b.select(v.less(x, v.number(low)), v.number(low), x), high)


def exp(v: Lanes, x: ir.Value) -> ir.Value:
    """e^x. The power of two is applied in two halves, so that results near the ends of the range are right."""
    low, high = (-746.0, 710.0) if v.double else (-104.0, 89.0)
    n, p = _expm1_parts(v, _clamped(v, x, low, high))
    whole = v.b.fptosi(n, v.integers)
    half = v.b.ashr(whole, v.whole(1))
    # Half of it goes to the exponent as it stands. What processors make of NaN there, zero or the lowest number, is
    # shifted out, and so NaN stays.
    bits = v.b.bitcast(v.b.fadd(p, v.number(1.0)), v.integers)
    value = v.b.bitcast(v.b.add(bits, v.b.shl(half, v.whole(v.shift))), v.vector)
    return v.b.fmul(value, _power_of_two(v, v.b.sub(whole, half)))


def _half_expm1_of_twice(v: Lanes, x: ir.Value) -> ir.Value:
    """(e^2x - 1) / 2 for x whose e^2x is a normal number: 2^n p + (2^n - 1) / 2."""
    n, p = _expm1_parts(v, x, times=2)
    power = _power_of_two(v, v.b.fptosi(n, v.integers))
    return v.fma(power, p, v.fma(power, v.number(0.5), v.number(-0.5)))


def _divided(v: Lanes, top: ir.Value, bottom: ir.Value) -> ir.Value:
    """top / bottom, as rough as allowed; bottom is a normal number."""
    if not (v.rough and v.reciprocal):
        return v.b.fdiv(top, bottom)
    mask = ir.IntType(max(8, v.lanes))
    kind = ir.FunctionType(v.vector, [v.vector, v.vector, mask])
    full, module = f"llvm.x86.avx512.rcp14.ps.{32 * v.lanes}", v.b.module
    function = module.globals.get(full) or ir.Function(module, kind, full)
    every = ir.Constant(mask, -1)
    return v.b.fmul(top, v.b.call(function, [bottom, ir.Constant(v.vector, ir.Undefined), every]))


def _over_sum(v: Lanes, top: ir.Value, part: ir.Value) -> ir.Value:
    """top / (part + 1), rounded little more than once; part is not negative."""
    one = v.number(1.0)
    bottom = v.b.fadd(part, one)
    if v.rough:
        return _divided(v, top, bottom)
    if not v.fused:
        return v.b.fdiv(top, bottom)
    lost = v.b.fsub(part, v.b.fsub(bottom, one))  # by the sum; exactly
    inverse = v.b.fdiv(one, bottom)
    y = v.b.fmul(top, inverse)
    minus = v.b.fneg(y)
    left = v.fma(minus, lost, v.fma(minus, bottom, top))
    return v.fma(left, inverse, y)


def tanh(v: Lanes, x: ir.Value) -> ir.Value:
    """t / (t + 1) with t = (e^(2|x|) - 1) / 2, and the sign of x; exact to the last places also near zero."""
    size = v.call("fabs", x)
    t = _half_expm1_of_twice(v, _at_most(v, size, 22.0 if v.double else 10.0))
    return v.call("copysign", _over_sum(v, t, t), x)


def sigmoid(v: Lanes, x: ir.Value) -> ir.Value:
    """1 / (1 + z) or z / (1 + z) with z = e^-|x|, whichever has the sign of x."""
    if v.rough:
        minus = _clamped(v, v.b.fneg(x), -87.0, 87.0)
        n, p = _expm1_parts(v, minus)
        power = _power_of_two(v, v.b.fptosi(n, v.integers))
        return _divided(v, v.number(1.0), v.b.fadd(v.fma(power, p, power), v.number(1.0)))
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


def _polynomial(v: Lanes, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """By Horner's rule; the coefficient of the highest power stands last."""
    value: ir.Value = v.number(coefficients[-1])
    for each in reversed(coefficients[:-1]):
        value = v.fma(value, x, v.number(each))
    return value


@cache
def _tail(double: bool) -> tuple[tuple[float, ...], float, float]:
    """The polynomial in m (x - 3) / (x + 3) - c that is erfc(x) e^(x^2) for 1 <= x <= 10; and m, c.

    That function falls slowly, so a polynomial through the places of Chebyshev follows it closely.
    """
    low, high = -2 / 4, 7 / 13
    scale, shift = 2 / (high - low), (high + low) / (high - low)

    places = chebyshev.chebpts1(21 if double else 10)
    quotients = (places + shift) / scale
    values = [_scaled_erfc(3 * (1 + q) / (1 - q)) for q in quotients]
    fitted = chebyshev.chebfit(places, values, len(places) - 1)
    return tuple(map(float, chebyshev.cheb2poly(fitted))), scale, shift


def _scaled_erfc(x: float) -> float:
    """erfc(x) e^(x^2) for x >= 1, as a sum over points h apart (Chiarella and Reichel 1968)."""
    h = 0.15  # what the sum lacks, 2 / (e^(2 pi x / h) - 1) e^(x^2), is below 1e-17
    squares = [(n * h) ** 2 for n in range(1, 45)]
    return h * x / math.pi * math.fsum([1 / x**2, *(2 * math.exp(-each) / (x**2 + each) for each in squares)])


def _erf_parts(v: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """erf(x) as it is good for |x| < 1, erfc(|x|) as it is good beyond, and which of the two it is."""
    square, size = v.b.fmul(x, x), v.call("fabs", x)
    terms = 19 if v.double else 10
    series = [(-1) ** k * 2 / (math.sqrt(math.pi) * math.factorial(k) * (2 * k + 1)) for k in range(terms)]
    # x + x (c - 1), so that the last rounding is that of a small number.
    near = v.fma(x, _polynomial(v, square, [series[0] - 1, *series[1:]]), x)
    held = _at_most(v, size, 10.0)
    coefficients, scale, shift = _tail(v.double)
    three = v.number(3.0)
    quotient = v.b.fdiv(v.b.fsub(held, three), v.b.fadd(held, three))
    place = v.fma(quotient, v.number(scale), v.number(-shift))
    far = v.b.fmul(exp(v, v.b.fneg(square)), _polynomial(v, place, coefficients))
    return near, far, v.less(size, v.number(1.0))


def _erf(v: Lanes, x: ir.Value) -> ir.Value:
    near, far, is_near = _erf_parts(v, x)
    return v.b.select(is_near, near, v.call("copysign", v.b.fsub(v.number(1.0), far), x))


def _gelu(v: Lanes, x: ir.Value) -> ir.Value:
    """x times what the normal distribution has below x: of a tail the tail itself, where 1 + erf would cancel."""
    near, far, is_near = _erf_parts(v, v.b.fmul(x, v.number(math.sqrt(0.5))))
    beyond = v.b.select(v.less(x, v.number(0.0)), far, v.b.fsub(v.number(2.0), far))
    twice = v.b.select(is_near, v.b.fadd(v.number(1.0), near), beyond)
    return v.b.fmul(v.b.fmul(v.number(0.5), x), twice)


def _elu(v: Lanes, x: ir.Value) -> ir.Value:
    """x, or 2^n p + (2^n - 1), which is e^x - 1 without its cancellation near zero."""
    n, p = _expm1_parts(v, _clamped(v, x, -40.0, 0.0))
    power = _power_of_two(v, v.b.fptosi(n, v.integers))
    curve = v.fma(power, p, v.b.fsub(power, v.number(1.0)))
    return v.b.select(v.less(v.number(0.0), x), x, curve)


def _sign(v: Lanes, x: ir.Value) -> ir.Value:
    zero = v.number(0.0)
    return v.b.select(v.less(zero, x), v.number(1.0), v.b.select(v.less(x, zero), v.number(-1.0), zero))


def _held(v: Lanes, x: ir.Value, low: float, high: float) -> ir.Value:
    return v.call("minimum", v.call("maximum", x, v.number(low)), v.number(high))


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
    "erf": _erf,
    "gelu": _gelu,
    "silu": lambda v, a: v.b.fmul(a, sigmoid(v, a)),
    "elu": _elu,
    "hard_sigmoid": lambda v, a: v.b.fmul(_held(v, v.b.fadd(a, v.number(3.0)), 0.0, 6.0), v.number(1 / 6)),
    "hard_tanh": lambda v, a: _held(v, a, -1.0, 1.0),
    "pow": lambda v, a, b: v.call("pow", a, b),
    "floor": lambda v, a: v.call("floor", a),
    "sign": _sign,
    "abs": lambda v, a: v.call("fabs", a),
    "minimum": lambda v, a, b: v.call("minimum", a, b),
    "maximum": lambda v, a, b: v.call("maximum", a, b),
    "less": lambda v, a, b: v.less(a, b),
    "less_equal": lambda v, a, b: v.b.fcmp_ordered("<=", a, b),
    "where": lambda v, m, a, b: v.b.select(m, a, b),
    "clamp": lambda v, a, low, high: v.call("minimum", v.call("maximum", a, low), high),
    "stop_gradient": lambda v, a: a,
}
