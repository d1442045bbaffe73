"""Formulas as MathML, made when the site is built: a browser needs no script and no font from elsewhere for them."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

__all__ = ["mathml", "setup"]


class FormulaError(ValueError):
    """A formula that did not become MathML."""


def mathml(latex: str, display: bool = False) -> str:
    """A formula as MathML.

    Raises:
        FormulaError: a command of LaTeX is not known to the converter.
    """
    # The converter knows aligned equations only by their other name.
    latex = latex.replace("{aligned}", "{align*}")
    made = convert(latex, display="block" if display else "inline")
    left = re.search(r"\\[A-Za-z]+", made) or re.search(r"<mi>&</mi>", made)
    if left:
        raise FormulaError(f"the converter left {left[0]} in: {latex}")
    return made


def _inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
