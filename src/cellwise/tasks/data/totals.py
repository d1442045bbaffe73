"""Rows and columns that sum up the others, as spreadsheets have them."""

from __future__ import annotations

from typing import Any

from cellwise.tasks.data.origin import Origin, shown

__all__ = ["TOTALS", "without_totals"]

# a word that stands for a time or a series only in a row or column of sums
TOTALS = (
    "total", "totals", "grand total", "sum", "subtotal", "average", "mean", "all", "summe", "gesamt", "gesamtsumme",
    "insgesamt", "mittelwert", "somme", "moyenne", "suma", "totale", "somma", "totaal", "summa", "totalt",
)  # fmt: skip
LAST_ROWS = 3


def without_totals(frame: Any, time: str, origin: Origin) -> tuple[Any, Origin, tuple[str, ...]]:
    """A narwhals frame without the rows at its end in whose column of times such a word stands, the origin of the
    others, and a note on each."""
    column, end, notes = frame[time], len(frame), []
    while end > max(0, len(frame) - LAST_ROWS) and isinstance(column[end - 1], str):
        word = column[end - 1].strip()
        if word.rstrip(":").lower() not in TOTALS:
            break
        end -= 1
        notes.append(f"{origin.where(end)} ({shown(word)}) is no time and was left out")
    if end == len(frame) or end == 0:
        return frame, origin, ()
    return frame.head(end), origin.take(slice(end)), tuple(notes)
