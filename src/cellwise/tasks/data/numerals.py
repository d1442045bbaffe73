"""Numbers as people write them: with a decimal comma, with thousands marks. One convention is taken for a whole
column, only if it reads every value of it, and only if no other one reads them as other numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown
from cellwise.tasks.errors import DataError

__all__ = ["MISSING", "parse_numbers"]

MISSING = (
    "", "na", "n/a", "nan", "null", "none", "nat", "?", "-", "--", ".", "#n/a", "#na", "<na>", "\\n",
)  # fmt: skip
SPACE, APOSTROPHE = " ", "'"
# other characters for the same marks
SPACES, APOSTROPHES, MINUS = r"[\u00a0\u2007\u2009\u202f]", r"[\u2019\u00b4`]", "\u2212"
SIGNS = r"[$€£¥₹%]"  # of currency and percent
# a lone group of three after one to three digits: as likely thousands as decimals
MAY_BE_THOUSANDS = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"


@dataclass(frozen=True)
class Convention:
    """The marks between thousands ("" for none) and before decimals."""

    thousands: str
    decimal: str

    @property
    def pattern(self) -> str:
        """What a number of this convention looks like. Thousands come in threes, and begin with no zero."""
        mark, point = _escape(self.thousands), _escape(self.decimal)
        grouped = rf"[1-9]\d{{0,2}}(?:{mark}\d{{3}})+" if mark else r"\d+"
        return rf"^[+-]?(?:(?:{grouped}|\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"

    def words(self) -> str:
        """The convention as one says it."""
        names = {",": "a comma", ".": "a dot", SPACE: "a space", APOSTROPHE: "an apostrophe"}
        thousands = f"{names[self.thousands]} between thousands and " if self.thousands else ""
        return f"{thousands}{names[self.decimal]} before decimals"

    def plain(self, text: Any) -> Any:
        """A polars text column of such numbers as the machine writes them."""
        if self.thousands:
            text = text.str.replace_all(self.thousands, "", literal=True)
        return text.str.replace_all(self.decimal, ".", literal=True)


PLAIN = Convention("", ".")
CONVENTIONS = (
    PLAIN, Convention("", ","), Convention(",", "."), Convention(".", ","), Convention(SPACE, "."),
    Convention(SPACE, ","), Convention(APOSTROPHE, "."), Convention(APOSTROPHE, ","),
)  # fmt: skip


def _escape(mark: str) -> str:
    return rf"\{mark}" if mark == "." else mark


def parse_numbers(text: Any, name: str, origin: Origin, decimal: str | None) -> tuple[Any, tuple[str, ...]]:
    """A polars text column (R,), null where missing, as float64, and what to say of it.

    decimal: the mark before decimals, if it is known. DataError names the first value that is no number, the
    first two that follow different conventions, or the value that may be read in two ways.
    """
    polars = require("polars")
    if decimal in (None, "."):
        values = text.cast(polars.Float64, strict=False)
        if values.null_count() == text.null_count():
            if decimal is None and origin.decimal_comma:
                _refuse_doubtful_dots(text, name, origin)
            return values, ()
    text = text.str.replace_all(SPACES, SPACE).str.replace_all(APOSTROPHES, APOSTROPHE)
    text = text.str.replace(MINUS, "-", literal=True)
    text, signs = _without_sign(text, name)
    allowed = [one for one in CONVENTIONS if decimal in (None, one.decimal)]
    reads = [one for one in allowed if text.str.contains(one.pattern).all()]
    if not reads:
        raise DataError(_what_is_wrong(text, name, origin, allowed))
    readings = [one.plain(text).cast(polars.Float64, strict=False) for one in reads]
    for other, reading in zip(reads[1:], readings[1:], strict=True):
        if not reading.equals(readings[0]):
            row = int((reading != readings[0]).fill_null(False).arg_max())
            raise DataError(
                f"the numbers of {origin.column(name)} can be read in two ways: {shown(text[row])} at "
                f"{origin.where(row)} is {readings[0][row]:g} with {reads[0].words()}, and {reading[row]:g} with "
                f"{other.words()}; say which with decimal='{reads[0].decimal}' or decimal='{other.decimal}' (--decimal)"
            )
    if decimal is None and reads[0] is not PLAIN:
        marks = text.str.contains(r"[^0-9+-]").fill_null(False)
        row = int(marks.arg_max())
        note = f"numbers of {name} were read with {reads[0].words()} ({shown(text[row])} is {readings[0][row]:g})"
        return readings[0], (*signs, note)
    return readings[0], signs


def _without_sign(text: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """Numbers without the sign of a currency, or of percent, if all have the same, once and at one end; and a note."""
    found = text.str.extract(f"({SIGNS})").drop_nulls()
    if len(found) == 0 or len(found) < len(text) - text.null_count() or found.n_unique() > 1:
        return text, ()
    sign = found[0]
    left = text.str.replace(rf"^([+-]?) ?[{sign}] ?", "$1").str.replace(rf" ?[{sign}]$", "")
    if left.str.contains(SIGNS).any():
        return text, ()
    return left, (f"the sign {sign} of the numbers of {name} was left out",)


def _refuse_doubtful_dots(text: Any, name: str, origin: Origin) -> None:
    """In a file of a kind that often has decimal commas, 1.234 beside 987 may be a thousand and more."""
    dotted = text.str.contains(".", literal=True)
    doubtful = text.str.contains(MAY_BE_THOUSANDS)
    small = text.str.contains(r"^[+-]?\d{1,3}$")
    if dotted.any() and (doubtful | small).all():
        row = int(dotted.fill_null(False).arg_max())
        raise DataError(
            f"the numbers of {origin.column(name)} can be read in two ways: the dot of {shown(text[row])} at "
            f"{origin.where(row)} may stand between thousands or before decimals; say which with decimal=',' or "
            "decimal='.' (--decimal)"
        )


def _what_is_wrong(text: Any, name: str, origin: Origin, allowed: list[Convention]) -> str:
    fits = [text.str.contains(one.pattern).fill_null(True) for one in allowed]
    any_fits = fits[0]
    for one in fits[1:]:
        any_fits = any_fits | one
    if not any_fits.all():
        row = int((~any_fits).arg_max())
        return (
            f"{origin.column(name)} is not numeric: {origin.where(row)} holds {shown(text[row])}; write numbers alone, "
            "without units or signs of currency and percent, and leave missing ones empty"
        )
    best = max(range(len(fits)), key=lambda i: int(fits[i].sum()))
    other, first = int((~fits[best]).arg_max()), int((fits[best] & text.is_not_null()).arg_max())
    return (
        f"{origin.column(name)} mixes ways to write numbers: {shown(text[first])} at {origin.where(first)}, "
        f"{shown(text[other])} at {origin.where(other)}; write all of them in one"
    )
