"""Small pieces that directives are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from docutils import nodes

__all__ = ["Formula", "code_block", "formula", "html", "power", "table"]


class Formula(str):
    """A cell of a table that is LaTeX."""


def power(text: str) -> Formula:
    """A polynomial as the package prints it, in LaTeX.

    >>> power("3h² + 2(d + h)")
    '3h^2 + 2(d + h)'
    """
    return Formula(text.replace("²", "^2").replace("³", "^3"))


def code_block(text: str, language: str, kind: str = "") -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language, classes=[kind] if kind else [])


def formula(latex: str) -> nodes.math_block:
    return nodes.math_block(latex, latex, nowrap=True, number=None)


def html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> nodes.Node:
    """A table that scrolls by itself where the page is narrow; all columns but the first hold numbers."""
    made = nodes.table(classes=["numbers"])
    if caption:
        made += nodes.title(caption, caption)
    group = nodes.tgroup(cols=len(titles))
    made += group
    for _ in titles:
        group += nodes.colspec(colwidth=1)
    group += nodes.thead("", _row(titles))
    group += nodes.tbody("", *(_row(row) for row in rows))
    return nodes.container("", made, classes=["wide"])


def _row(texts: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", _entry(text)) for text in texts))


def _entry(text: str) -> nodes.paragraph:
    inside = nodes.math(text, text) if isinstance(text, Formula) else nodes.Text(str(text))
    return nodes.paragraph("", "", inside)


def slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
