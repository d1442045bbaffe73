"""Polynomials in the sizes of a layer, with exact coefficients, written as a person would factor them.

A coefficient is whole, but for what has a part of a size, as a block of a weight has: h²/4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

# The legend, in the order in which a product is written.
LETTERS = {"b": "batch", "t": "length", "h": "hidden size", "d": "input size"}
_ORDER = tuple(LETTERS)
_OUTSIDE = 2  # so many of the letters, batch and length, are kept outside of the brackets
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Powers = tuple[int, ...]  # one exponent per letter of the legend
Number = int | Fraction


def _number(value: Number) -> Number:
    return int(value) if value == int(value) else value


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of sizes. Made from `b`, `t`, `h`, `d` and integers with +, - and *.

    >>> 4 * h * (d + h + 2)
    4h(d + h + 2)
    >>> (4 * h * (d + h + 2)).at(d=3, h=5)
    200
    >>> b * t * h * (8 * d + 8 * h) + 12 * h
    8bth(d + h) + 12h
    """

    terms: tuple[tuple[Powers, Number], ...] = ()

    @staticmethod
    def of(terms: Mapping[Powers, Number]) -> Polynomial:
        """From the coefficient of each product; equal polynomials are made equal."""
        return Polynomial(tuple(sorted((powers, _number(c)) for powers, c in terms.items() if c)))

    def __add__(self, other: Polynomial | int) -> Polynomial:
        total = dict(self.terms)
        for powers, coefficient in as_polynomial(other).terms:
            total[powers] = total.get(powers, 0) + coefficient
        return Polynomial.of(total)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        total: dict[Powers, Number] = {}
        for mine, left in self.terms:
            for theirs, right in as_polynomial(other).terms:
                powers = tuple(a + b for a, b in zip(mine, theirs, strict=True))
                total[powers] = total.get(powers, 0) + left * right
        return Polynomial.of(total)

    def __floordiv__(self, other: int) -> Polynomial:
        """A part of a size, of which it is a multiple."""
        return Polynomial.of({powers: Fraction(coefficient) / other for powers, coefficient in self.terms})

    def __neg__(self) -> Polynomial:
        return self * -1

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + -as_polynomial(other)

    def __rsub__(self, other: int) -> Polynomial:
        return as_polynomial(other) - self

    __radd__ = __add__
    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return bool(self.terms)

    def at(self, **sizes: int) -> int:
        """The number at these sizes, each by its letter; rounded down where they have no such parts.

        Raises:
            KeyError: a letter that stands in the polynomial is not given.
        """
        total: Number = 0
        for powers, coefficient in self.terms:
            for letter, power in zip(_ORDER, powers, strict=True):
                coefficient *= sizes[letter] ** power if power else 1
            total += coefficient
        return math.floor(total)

    def degree(self, letter: str) -> int:
        """The highest power of a letter."""
        place = _ORDER.index(letter)
        return max((powers[place] for powers, _ in self.terms), default=0)

    def part(self, letter: str, power: int) -> Polynomial:
        """The terms in which a letter has exactly this power."""
        place = _ORDER.index(letter)
        return Polynomial(tuple(term for term in self.terms if term[0][place] == power))

    def __str__(self) -> str:
        groups: dict[Powers, list[tuple[Powers, Number]]] = {}
        for powers, coefficient in self.terms:
            # A lone number would leave nothing to factor out.
            key = (*powers[:_OUTSIDE], int(any(powers)))
            groups.setdefault(key, []).append((powers, coefficient))
        written = [_factored(groups[key]) for key in sorted(groups, reverse=True)]
        return " + ".join(written).replace("+ -", "- ") or "0"

    __repr__ = __str__


def as_polynomial(value: Polynomial | int) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial.of({(0,) * len(_ORDER): value})


def letter(name: str) -> Polynomial:
    """The polynomial that is one letter of the legend."""
    return Polynomial.of({tuple(int(each == name) for each in _ORDER): 1})


b, t, h, d = (letter(name) for name in _ORDER)


def _factored(parts: list[tuple[Powers, Number]]) -> str:
    """The greatest common factor before brackets, in them what is left, highest degree first."""
    below = lcm(*(Fraction(coefficient).denominator for _, coefficient in parts))
    terms = [(powers, int(coefficient * below)) for powers, coefficient in parts]
    if below > 1:
        whole = _factored(list(terms))
        return f"{whole}/{below}" if len(terms) == 1 or whole.endswith(")") else f"({whole})/{below}"
    content = gcd(*(coefficient for _, coefficient in terms))
    content = -content if all(coefficient < 0 for _, coefficient in terms) else content
    shared = tuple(min(powers) for powers in zip(*(powers for powers, _ in terms), strict=True))
    rest = [
        (tuple(p - s for p, s in zip(powers, shared, strict=True)), coefficient // content)
        for powers, coefficient in terms
    ]
    if len(rest) == 1:
        return _product(shared, content)
    rest.sort(key=lambda term: (-sum(term[0]), term[0]))
    inside = " + ".join(_product(*term) for term in rest).replace("+ -", "- ")
    outside = _product(shared, content)
    return inside if outside == "1" else f"{outside}({inside})"


def as_term(number: Number, product: str) -> str:
    """A number of products of sizes, as 4H², H² or H²/4."""
    of = Fraction(number)
    whole = f"{of.numerator if of.numerator != 1 or not product else ''}{product}"
    return whole if of.denominator == 1 else f"{whole}/{of.denominator}"


def _product(powers: Powers, coefficient: int) -> str:
    written = "".join(
        name + (str(power).translate(_SUPERSCRIPTS) if power > 1 else "")
        for name, power in zip(_ORDER, powers, strict=True)
        if power
    )
    if not written:
        return str(coefficient)
    return written if coefficient == 1 else f"{'-' if coefficient == -1 else coefficient}{written}"
