"""A diagram of one step as SVG: it stands alone, follows light and dark, and says in words what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import pairwise

from cellwise.graph.expr import StepGraph
from cellwise.graph.text import equations
from cellwise.understand.diagram.geometry import Drawing, draw, size_of
from cellwise.understand.diagram.picture import Block, picture_of
from cellwise.understand.diagram.routing import Point, center, crossings
from cellwise.understand.diagram.style import ROLE_WORDS, STYLE

__all__ = ["arrow", "document", "indexed", "svg", "text"]

_CORNER = 9.0
_HEAD = 9.0


def svg(graph: StepGraph) -> str:
    """One step of a cell: its gates by role, its operations, its states as through-lines."""
    drawing = draw(picture_of(graph))
    body = [*_lines(drawing), *_crossings(drawing), *_dots(drawing), *_blocks(drawing)]
    return document(
        f"{graph.name}: one step",
        f"The equations drawn:\n{equations(graph)}",
        drawing.width,
        drawing.height,
        body,
    )


def document(title: str, description: str, width: float, height: float, body: list[str]) -> str:
    """The SVG around what is drawn, with title and description for those who cannot see it."""
    size = f"{width:.0f}", f"{height:.0f}"
    # One page may hold several pictures.
    mark = re.sub(r"\W+", "-", title.lower())
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cellwise" role="img" '
        f'aria-labelledby="{mark}-title {mark}-desc" '
        f'viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}">'
    )
    return "\n".join(
        (
            head,
            f'<title id="{mark}-title">{escape(title)}</title>',
            f'<desc id="{mark}-desc">{escape(description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{size[0]}" height="{size[1]}" rx="10"/>',
            *body,
            "</svg>\n",
        )
    )


def indexed(name: str, index: str) -> str:
    """A name with an index at its foot, as tspans."""
    lowered = f'<tspan class="index" dy="0.35em">{escape(index)}</tspan>' if index else ""
    return f"{escape(name)}{lowered}"


def _with_indices(label: str) -> str:
    """A label in which p_i is p with its index."""
    parts = re.split(r"\b([^\W\d_])_(\w+)", label)
    found = escape(parts[0])
    for head, index, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found += indexed(head, index) + (f'<tspan dy="-0.25em">{escape(rest)}</tspan>' if rest else "")
    return found


def text(x: float, y: float, content: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{content}</text>'


def arrow(start: tuple[float, float], end: tuple[float, float], style: str = "line") -> list[str]:
    """A straight line with a head."""
    return [f'<path class="{style}" d="{_rounded(_shortened([start, end]), set())}"/>', _head(start, end)]


# --- lines ------------------------------------------------------------------------------------------------------


def _lines(drawing: Drawing) -> Iterator[str]:
    picture = drawing.placement.picture
    branches = _branches(drawing)
    for edge, way in drawing.routed.by_edge.items():
        if way:
            source, target = edge.source, edge.target
            begins_at_block = way[0] in _body_points(drawing, source)
            corners = _corners(way)
            points = [drawing.point(each) for each in corners]
            sharp = {drawing.point(each) for each in corners if each in branches[source]}
            if begins_at_block:
                points[0] = _edge_of(drawing, source, points[0], points[1])
            points[-1] = _edge_of(drawing, target, points[-1], points[-2])
            style = "line rail" if _is_through(drawing, source, target) else "line"
            with_head = picture.block(target).kind != "join"
            yield f'<path class="{style}" d="{_rounded(_shortened(points) if with_head else points, sharp)}"/>'
            if with_head:
                yield _head(points[-2], points[-1])
            if edge.label:
                yield _end_label(points[-2], points[-1], edge.label)


def _is_through(drawing: Drawing, source: str, target: str) -> bool:
    """Whether a line carries a state through the step: it is drawn thick."""
    placement = drawing.placement
    rails = {pair for path in placement.rails for pair in pairwise(path)}
    kinds = placement.picture.block(source).kind, placement.picture.block(target).kind
    on_rail = {path[0] for path in placement.rails}
    enters = kinds == ("state", "join") and source not in on_rail
    return (source, target) in rails or kinds[1] == "new_state" or enters


def _body_points(drawing: Drawing, id: str) -> set[Point]:
    x, y = center(drawing.placement.places[id])
    return {(x - 1, y), (x, y), (x + 1, y)}


def _corners(way: list[Point]) -> list[Point]:
    """The points where a way turns, and its ends."""
    inner = [
        b
        for a, b, c in zip(way, way[1:], way[2:], strict=False)
        if not (a[0] == b[0] == c[0] or a[1] == b[1] == c[1])
    ]
    return [way[0], *inner, way[-1]]


def _edge_of(
    drawing: Drawing, id: str, inside: tuple[float, float], outside: tuple[float, float]
) -> tuple[float, float]:
    """Where the line from a block's port outward leaves the block."""
    width, height = size_of(drawing.placement.picture.block(id))
    x, y = drawing.middle(id)
    if abs(inside[1] - outside[1]) < 0.1:
        return x + (width / 2 if outside[0] > x else -width / 2), inside[1]
    return inside[0], y + (height / 2 if outside[1] > y else -height / 2)


def _shortened(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the stretch that the arrow's head covers."""
    (ax, ay), (bx, by) = points[-2:]
    length = max(abs(bx - ax), abs(by - ay), 1e-6)
    share = min(1.0, (_HEAD - 2) / length)
    return [*points[:-1], (bx - (bx - ax) * share, by - (by - ay) * share)]


def _rounded(points: list[tuple[float, float]], sharp: set[tuple[float, float]]) -> str:
    """A path with round corners, except where the line branches."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for a, b, c in zip(points, points[1:], points[2:], strict=False):
        before, after = _distance(a, b), _distance(b, c)
        radius = 0.0 if b in sharp else min(_CORNER, before / 2, after / 2)
        if radius < 0.5:
            parts.append(f"L{b[0]:.1f} {b[1]:.1f}")
            continue
        start = _toward(b, a, radius / before)
        end = _toward(b, c, radius / after)
        parts.append(f"L{start[0]:.1f} {start[1]:.1f}Q{b[0]:.1f} {b[1]:.1f} {end[0]:.1f} {end[1]:.1f}")
    parts.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return "".join(parts)


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _toward(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _head(before: tuple[float, float], end: tuple[float, float]) -> str:
    distance = max(_distance(before, end), 1e-6)
    dx, dy = (end[0] - before[0]) / distance, (end[1] - before[1]) / distance
    back = end[0] - _HEAD * dx, end[1] - _HEAD * dy
    wing = 0.5 * _HEAD
    points = (end, (back[0] - wing * dy, back[1] + wing * dx), (back[0] + wing * dy, back[1] - wing * dx))
    return '<polygon class="head" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>'


def _end_label(before: tuple[float, float], end: tuple[float, float], label: str) -> str:
    if abs(before[1] - end[1]) < 0.1:
        side = -1 if before[0] < end[0] else 1
        return text(end[0] + side * (12 + 3 * len(label)), end[1] - 10, escape(label), "small")
    side = -1 if before[1] < end[1] else 1
    return text(end[0] + 8 + 3 * len(label), end[1] + side * 12, escape(label), "small")


def _crossings(drawing: Drawing) -> Iterator[str]:
    """Where two lines cross, the level one is a bridge over the other."""
    thick = {
        point
        for edge, way in drawing.routed.by_edge.items()
        if _is_through(drawing, edge.source, edge.target)
        for point in way
    }
    for point in crossings(drawing.routed.ways):
        x, y = drawing.point(point)
        yield f'<path class="under" d="M{x - 8:.1f} {y:.1f}H{x + 8:.1f}"/>'
        yield f'<path class="{"line rail" if point in thick else "line"}" d="M{x - 9:.1f} {y:.1f}H{x + 9:.1f}"/>'


def _branches(drawing: Drawing) -> dict[str, set[Point]]:
    """The points where the line of each source branches."""
    found: dict[str, set[Point]] = {}
    for source, ways in drawing.routed.ways.items():
        around: dict[Point, set[Point]] = {}
        for way in ways:
            for a, b in pairwise(way):
                around.setdefault(a, set()).add(b)
                around.setdefault(b, set()).add(a)
        inside = _body_points(drawing, source)
        found[source] = {point for point, beside in around.items() if len(beside) > 2 and point not in inside}
    return found


def _dots(drawing: Drawing) -> Iterator[str]:
    """A dot where a line branches, a larger one where lines are joined."""
    for points in _branches(drawing).values():
        for point in sorted(points):
            x, y = drawing.point(point)
            yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    for block in drawing.placement.picture.blocks:
        if block.kind == "join":
            x, y = drawing.middle(block.id)
            yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


# --- blocks -----------------------------------------------------------------------------------------------------


def _blocks(drawing: Drawing) -> Iterator[str]:
    picture = drawing.placement.picture
    for block in picture.blocks:
        if block.kind != "join":
            yield f"<g><title>{escape(block.text or block.label)}</title>"
            yield from _SHAPES[block.kind](block, *drawing.middle(block.id), block.id == picture.output)
            yield "</g>"


def _gate(block: Block, x: float, y: float, is_output: bool) -> Iterator[str]:
    width, height = size_of(block)
    yield (
        f'<rect class="{block.role}" x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="8"/>'
    )
    label, _, index = block.label.partition("_")
    if block.is_projection:
        yield text(x, y, indexed(label, index))
        return
    name = f'<tspan class="name">{escape(block.name)}</tspan> <tspan class="role">{ROLE_WORDS[block.role]}</tspan>'
    yield text(x, y - 10, name)
    yield text(x, y + 11, indexed(label, index))


def _operation(block: Block, x: float, y: float, is_output: bool) -> Iterator[str]:
    width, height = size_of(block)
    yield (
        f'<rect class="{block.role or "operation"}" x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}" rx="{height / 2:.1f}"/>'
    )
    yield text(x, y, _with_indices(block.label))


def _end(block: Block, x: float, y: float, is_output: bool) -> Iterator[str]:
    index = "t−1" if block.kind == "state" else "t"
    yield text(x, y, indexed(block.label, index), "end")
    caption = "output" if is_output else "input" if block.kind == "input" else ""
    if caption:
        yield text(x, y + 21, caption, "small")


_SHAPES = {
    "gate": _gate,
    "operation": _operation,
    "input": _end,
    "state": _end,
    "new_state": _end,
    "output": _end,
}
