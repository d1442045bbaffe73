"""Diagrams: one step of a cell, and the network through time, as SVG and as text for Mermaid.

picture.py says what is drawn, placement.py where it stands, routing.py how the lines run, geometry.py how large it all
is; svg.py, mermaid.py and unrolled.py write it down.
"""

from cellwise.understand.diagram.mermaid import mermaid
from cellwise.understand.diagram.svg import svg
from cellwise.understand.diagram.unrolled import unrolled_mermaid, unrolled_svg

__all__ = ["mermaid", "svg", "unrolled_mermaid", "unrolled_svg"]
