"""Our SVG on paper: the same picture as a bitmap or a PDF, drawn with matplotlib.

It knows what svg.py and unrolled.py write and no more (rectangles, paths of lines and one kind of curve, polygons,
circles, lines of text with raised or lowered parts), in the colours of style.py on light paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

from cellwise.understand.diagram.style import RULES, Rule

__all__ = ["figure_of"]

_INCH = 96.0  # pixels, as in CSS
_POINT = 0.75  # points in a pixel
_DPI = 192
# How far from a corner the handles of a curve lie that is nearest to a quarter of a circle.
_BEND = 0.448
# From the middle of a letter to the line it stands on, in its size.
_TO_BASELINE = 0.36
# DejaVu, which matplotlib brings, is this much wider than the letters that the blocks were measured for.
_NARROWER = 0.92


def figure_of(svg: str) -> Any:
    """A matplotlib figure of one of our pictures, as large as the picture."""
    root = ElementTree.fromstring(svg)  # what svg.py wrote, nothing of anybody else's
    width, height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    figure = import_module("matplotlib.figure").Figure(figsize=(width / _INCH, height / _INCH), dpi=_DPI)
    page = figure.add_axes((0, 0, 1, 1))
    page.set_xlim(0, width)
    page.set_ylim(height, 0)
    page.axis("off")
    painter = _Painter(page)
    for order, element in enumerate(_shapes(root)):
        painter.draw(element, order)
    return figure


def _shapes(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for element in root:
        match _tag(element):
            case "title" | "desc" | "style":
                continue
            case "g":
                yield from _shapes(element)
            case _:
                yield element


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


@dataclass(frozen=True)
class _Run:
    """A part of a line of text in one look; `lower` is how far below the line's middle its own lies."""

    text: str
    rule: Rule
    size: float
    lower: float


class _Painter:
    def __init__(self, page: Any) -> None:
        self.page = page
        self.patches = import_module("matplotlib.patches")
        self.path = import_module("matplotlib.path").Path
        self.fonts = import_module("matplotlib.font_manager").FontProperties
        self.measure = import_module("matplotlib.textpath").text_to_path

    def draw(self, element: ElementTree.Element, order: int) -> None:
        values = {name: _number(value) for name, value in element.attrib.items()}
        match _tag(element):
            case "rect":
                self._add(self._rectangle(values), element, order)
            case "path":
                self._add(self._line(element.attrib["d"]), element, order)
            case "polygon":
                points = [tuple(map(float, each.split(","))) for each in element.attrib["points"].split()]
                self._add(self.path([*points, points[0]], closed=True), element, order)
            case "circle":
                circle = self.path.circle((values["cx"], values["cy"]), values["r"])
                self._add(circle, element, order)
            case "text":
                self._write(element, values["x"], values["y"], order)
            case other:
                raise AssertionError(f"a picture holds <{other}>, which paper.py cannot draw")

    def _add(self, path: Any, element: ElementTree.Element, order: int) -> None:
        rule = _rule(element.get("class", ""))
        width = float(rule.get("stroke-width", "0"))
        self.page.add_patch(
            self.patches.PathPatch(
                path,
                facecolor=_colour(rule.get("fill", "none")),
                edgecolor=_colour(rule.get("stroke", "none")),
                linewidth=width * _POINT,
                joinstyle="round",
                capstyle="butt",
                zorder=order,
            )
        )

    def _rectangle(self, values: Mapping[str, float]) -> Any:
        x, y, width, height = values.get("x", 0.0), values.get("y", 0.0), values["width"], values["height"]
        radius = min(values.get("rx", 0.0), width / 2, height / 2)
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        around = zip((corners[3], *corners), corners, (*corners[1:], corners[0]), strict=False)
        points: list[tuple[float, float]] = []
        for before, corner, after in around:
            points += [
                _toward(corner, before, radius),
                _toward(corner, before, _BEND * radius),
                _toward(corner, after, _BEND * radius),
                _toward(corner, after, radius),
            ]
        codes = [self.path.LINETO, *[self.path.CURVE4] * 3] * 4
        codes[0] = self.path.MOVETO
        return self.path([*points, points[0]], [*codes, self.path.CLOSEPOLY])

    def _line(self, text: str) -> Any:
        points: list[tuple[float, float]] = []
        codes: list[Any] = []
        kinds = {"M": [self.path.MOVETO], "L": [self.path.LINETO], "Q": [self.path.CURVE3] * 2}
        for letter, numbers in re.findall(r"([A-Z])([^A-Z]*)", text):
            values = [float(each) for each in numbers.split()]
            if letter == "H":  # level, to this x
                letter, values = "L", [*values, points[-1][1]]
            points += zip(values[::2], values[1::2], strict=True)
            codes += kinds[letter]
        return self.path(points, codes)

    # --- text ---

    def _write(self, element: ElementTree.Element, x: float, y: float, order: int) -> None:
        runs = list(_runs(element))
        widths = [self._width(run) for run in runs]
        x -= sum(widths) / 2  # text-anchor: middle
        for run, width in zip(runs, widths, strict=True):
            self.page.text(
                x,
                y + run.lower + _TO_BASELINE * run.size,
                run.text,
                fontproperties=self._font(run),
                color=_colour(run.rule["fill"]),
                alpha=float(run.rule.get("opacity", "1")),
                ha="left",
                va="baseline",
                zorder=order,
                parse_math=False,
            )
            x += width

    def _font(self, run: _Run) -> Any:
        return self.fonts(
            family="DejaVu Serif" if "DejaVu Serif" in run.rule["font-family"] else "DejaVu Sans",
            style=run.rule.get("font-style", "normal"),
            weight=run.rule.get("font-weight", "normal"),
            size=run.size * _POINT,
        )

    def _width(self, run: _Run) -> float:
        width, _, _ = self.measure.get_text_width_height_descent(run.text, self._font(run), False)
        return float(width) / _POINT


def _runs(element: ElementTree.Element) -> Iterator[_Run]:
    """The parts of a line of text: its own, and those in tspans, which lower what comes after them too."""
    own = {**RULES["text"], **_rule(element.get("class", ""))}
    size, lower = _size(own, 0.0), 0.0
    if element.text:
        yield _Run(element.text, own, size, lower)
    for span in element:
        rule = {**own, **_rule(span.get("class", ""))}
        inner = _size(_rule(span.get("class", "")), size)
        lower += _number(span.get("dy", "0").removesuffix("em")) * inner
        if span.text:
            yield _Run(span.text, rule, inner, lower)
        if span.tail:
            yield _Run(span.tail, own, size, lower)


def _size(rule: Rule, around: float) -> float:
    text = rule.get("font-size", "100%")
    return (
        around * float(text[:-1]) / 100 if text.endswith("%") else _NARROWER * float(text.removesuffix("px"))
    )


def _rule(classes: str) -> Rule:
    found: dict[str, str] = {}
    for name in classes.split():
        found |= RULES.get(name, {})
    return found


def _colour(text: str) -> str:
    root = RULES[""]
    if text == "currentColor":
        return root["color"]
    variable = re.fullmatch(r"var\((--\w+)\)", text)
    return root[variable[1]] if variable else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _toward(a: tuple[float, float], b: tuple[float, float], distance: float) -> tuple[float, float]:
    length = max(abs(b[0] - a[0]) + abs(b[1] - a[1]), 1e-9)
    return a[0] + (b[0] - a[0]) * distance / length, a[1] + (b[1] - a[1]) * distance / length
