"""The directives of the book. All that they put on a page is made when the site is built, from the code itself."""

from __future__ import annotations

from typing import Any

from book import bakeoff, cells, code, docstrings, gallery, math, measured, theme

__all__ = ["setup"]


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls."""
    for module in (bakeoff, cells, code, gallery, measured):
        for name, directive in module.DIRECTIVES.items():
            app.add_directive(name, directive)
    # Only these cells of the gallery, where a page is built to be looked at: diagrams take half a second each.
    app.add_config_value("gallery_cells", [], "env", [list])
    math.setup(app)
    theme.setup(app)
    docstrings.setup(app)
    # Pages share a folder for what their commands write, so they are read one after the other.
    return {"parallel_read_safe": False, "parallel_write_safe": True}
