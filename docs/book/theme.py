"""The style of the cells' diagrams, taken from the code that draws them and told of the page's light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellwise.understand.diagram.style import STYLE

__all__ = ["diagram_css", "setup"]

_DARK = "@media (prefers-color-scheme: dark) {"


def diagram_css(style: str) -> str:
    """A diagram's own style for a page whose reader may choose light or dark by hand.

    >>> diagram_css("p { color: black; } @media (prefers-color-scheme: dark) { p { color: white; } }").count("p {")
    3
    """
    light, found, rest = style.partition(_DARK)
    if not found or "@media" in rest:
        raise ValueError("the diagrams' style no longer has one part for dark paper, at its end")
    dark = rest.strip().removesuffix("}")
    return "\n".join(
        (
            f".diagram {{ {light} }}",
            f'body[data-theme="dark"] .diagram {{ {dark} }}',
            f'{_DARK} body:not([data-theme="light"]) .diagram {{ {dark} }} }}',
        )
    )


def _write(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / "diagrams.css").write_text(diagram_css(STYLE), encoding="utf8")


def setup(app: Any) -> None:
    app.connect("build-finished", _write)
