"""Texts whose words are coloured by how much they decided, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from cellwise.tasks.report.charts import BASELINE, FAINT, INK, MODEL
from cellwise.tasks.shown import shown

__all__ = ["NARROW", "WIDE", "ColouredText", "coloured_texts"]

LEFT = 4
LINE, GAP = 22, 16  # points from line to line, and between texts
# Width, and letters in a line, of a wide page and of a narrow one: there are no fonts here to measure them by.
WIDE, NARROW = (960, 100), (400, 40)
LONGEST = 900  # characters of a text that are shown
FAINTEST = 0.12  # of the largest share in the text, under which a word is not coloured


@dataclass(frozen=True, eq=False)
class ColouredText:
    """A heading; a text; where its tokens begin and end in it; how much each speaks for what was said (tokens,)."""

    heading: str
    text: str
    spans: Sequence[tuple[int, int]]
    shares: np.ndarray


def coloured_texts(texts: Sequence[ColouredText], page: tuple[int, int] = WIDE) -> str:
    """One under the other: words that spoke for what was said in blue, those against it in orange, the heavier the
    bolder. page: WIDE or NARROW."""
    width, letters = page
    rows: list[str] = []
    top = 0
    for each in texts:
        top += LINE
        rows.append(_line(top, f'<tspan style="fill: {FAINT}">{_safe(each.heading)}</tspan>', 14))
        for line in _wrapped(list(_pieces(each)), letters):
            top += LINE
            rows.append(_line(top, "".join(line), 16))
        top += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}"'
    )
    return f"{head} style=\"font-family: 'DejaVu Sans'\">\n" + "\n".join(rows) + "\n</svg>\n"


def _line(top: int, content: str, size: int) -> str:
    style = f"font-size: {size}px; fill: {INK}; white-space: pre"
    return f'<text x="{LEFT}" y="{top}" style="{style}">{content}</text>'


def _pieces(each: ColouredText) -> Iterator[tuple[str, str]]:
    """The text in pieces: plain, and as it stands in the SVG."""
    largest = max((abs(float(share)) for share in each.shares), default=0.0)
    at = 0
    for (begin, end), share in zip(each.spans, each.shares, strict=True):
        if begin >= LONGEST:
            break
        if begin > at:
            yield each.text[at:begin], _safe(each.text[at:begin])
        word, weight = each.text[begin:end], float(share)
        yield word, _coloured(word, weight, abs(weight) / largest if largest else 0.0)
        at = end
    rest = each.text[at:LONGEST]
    if rest:
        yield rest, _safe(rest)
    if len(each.text) > LONGEST:
        yield "…", "…"


def _coloured(word: str, share: float, strength: float) -> str:
    if strength < FAINTEST:
        return _safe(word)
    colour = MODEL if share > 0 else BASELINE
    bold = "; font-weight: bold" if strength > 0.5 else ""
    style = f"fill: {colour}; fill-opacity: {0.5 + 0.5 * strength:.2f}{bold}"
    return f'<tspan style="{style}">{_safe(word)}<title>{share:+.2f}</title></tspan>'


def _wrapped(pieces: list[tuple[str, str]], letters: int) -> Iterator[list[str]]:
    """Lines of at most about so many characters, broken at white space where there is some."""
    line: list[str] = []
    length = 0
    for plain, made in pieces:
        if length and length + len(plain.rstrip()) > letters:
            yield line
            line, length = [], 0
            if not plain.strip():
                continue
        line.append(made)
        length += len(plain)
    if line:
        yield line


def _safe(text: str) -> str:
    return escape(shown(" ".join(text.split("\n"))))
