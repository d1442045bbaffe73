"""Polynomials compute like the numbers they stand for, and are written as a person factors them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwise.plan.polynomial import Polynomial, b, d, h, t


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (4 * h * (d + h + 2), "4h(d + h + 2)"),
        (b * t * (h * 4 + d) + h * h, "bt(d + 4h) + h²"),
        (6 * h * h * h, "6h³"),
        (Polynomial(), "0"),
        (h - h, "0"),
        (3 * t + 4, "3t + 4"),
        (2 * h - 3, "2h - 3"),
        (-h, "-h"),
        (1 - h, "-h + 1"),
        (2 * d + 4 * h, "2(d + 2h)"),
    ],
)
def test_how_a_polynomial_is_written(made: Polynomial, written: str) -> None:
    assert str(made) == written


@given(st.lists(st.tuples(st.sampled_from([b, t, h, d]), st.integers(-3, 3)), max_size=6))
def test_a_polynomial_computes_like_its_numbers(parts: list[tuple[Polynomial, int]]) -> None:
    made, number = Polynomial(), 0
    numbers = {"b": 2, "t": 3, "h": 5, "d": 7}
    for letter, factor in parts:
        made, number = (
            made * letter + factor - letter,
            number * letter.at(**numbers) + factor - letter.at(**numbers),
        )
    assert made.at(**numbers) == number
    text = str(made).translate(str.maketrans("²³⁴⁵⁶", "23456"))
    python = ""
    for i, sign in enumerate(text):  # a product of letters, powers and brackets as Python writes it
        power = str(made)[i] != sign
        join = "**" if power else "*" if python and i and _joined(text[i - 1], sign) else ""
        python += join + sign
    assert eval(python or "0", {}, numbers) == number


def _joined(before: str, now: str) -> bool:
    return (now.isalpha() or now == "(") and (before.isalnum() or before == ")")


def test_a_missing_size_is_named() -> None:
    with pytest.raises(KeyError, match="h"):
        (h * 2).at(d=3)
