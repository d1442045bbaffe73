"""From the lattice of a routed picture to points on paper: lines that nothing uses take no room."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from cellwise.errors import CellwiseError
from cellwise.understand.diagram.picture import Block, Picture
from cellwise.understand.diagram.placement import Placement, placements
from cellwise.understand.diagram.routing import CHANNEL, COLUMN, ROW, Effort, Point, Routed, improve, route

__all__ = ["DiagramError", "Drawing", "draw", "size_of"]

_TRACK = 15.0  # between two lines that run side by side
_CLEAR = 18.0  # between a line and a block
_GAP_X, _GAP_Y = 30.0, 26.0  # between two blocks without a line between them
_MARGIN = 26.0
_MOST_BLOCKS = 64
# Arrangements that are tried, and steps of the search for lines after which no further one is: some seconds.
_MOST_TRIES, _STEPS = 32, 60_000
_FINALISTS, _HOPELESS = 2, 1.5


class DiagramError(CellwiseError, ValueError):
    template = (
        "The step of {cell} is {blocks} blocks, and a picture shows at most {most}; "
        "the views equations and graph show all of them, mermaid without a layout of its own."
    )


@dataclass(frozen=True)
class Drawing:
    """A picture with places: where each block's middle is, and each lattice line; width and height of it all."""

    placement: Placement
    routed: Routed
    xs: dict[int, float]
    ys: dict[int, float]
    width: float
    height: float

    def point(self, lattice: Point) -> tuple[float, float]:
        return self.xs[lattice[0]], self.ys[lattice[1]]

    def middle(self, id: str) -> tuple[float, float]:
        column, row = self.placement.places[id]
        return self.xs[column * COLUMN + CHANNEL + 1], self.ys[row * ROW + CHANNEL]


def size_of(block: Block) -> tuple[float, float]:
    """Width and height of a block."""
    match block.kind:
        case "gate" if block.is_projection:
            return 64.0, 34.0
        case "gate":
            heading = 10.0 * len(block.name) + 6.5 * len(block.role) + 34
            return max(84.0, heading, 8.6 * len(block.label) + 24), 50.0
        case "operation":
            return max(32.0, 8.4 * len(block.label) + 18 if len(block.label) > 1 else 32.0), 32.0
        case "join":
            return 6.0, 6.0
    return 11.0 * len(block.label) + 24, 26.0


def draw(picture: Picture) -> Drawing:
    """The best of several arrangements: fewest crossings and bends, then shortest lines.

    Raises:
        DiagramError: the step does too much to be drawn on one page.
    """
    if len(picture.blocks) > _MOST_BLOCKS:
        raise DiagramError(cell=picture.title, blocks=len(picture.blocks), most=_MOST_BLOCKS)
    wide = {block.id for block in picture.blocks if size_of(block)[0] > 40}
    effort = Effort()
    found: list[tuple[float, int, Placement, Routed]] = []
    for number, placement in enumerate(placements(picture, _MOST_TRIES)):
        if found and effort.steps > _STEPS:
            break
        limit = _HOPELESS * found[0][0] if found else math.inf
        routed = route(placement, wide, effort, limit)
        if routed is not None:
            found = sorted([*found, (routed.cost, number, placement, routed)])[:_FINALISTS]
    most = effort.steps + _STEPS
    better = [
        (placement, improve(placement, wide, routed, effort, most)) for _, _, placement, routed in found
    ]
    return _measure(*min(better, key=lambda each: each[1].cost))


def _segments(routed: Routed) -> Iterator[tuple[Point, Point]]:
    for way in routed.by_edge.values():
        yield from pairwise(way)


def _measure(placement: Placement, routed: Routed) -> Drawing:
    upright = {a[0] for a, b in _segments(routed) if a[0] == b[0]}
    level = {a[1] for a, b in _segments(routed) if a[1] == b[1]}
    half_width: dict[int, float] = {}
    half_height: dict[int, float] = {}
    for block in placement.picture.blocks:
        column, row = placement.places[block.id]
        width, height = size_of(block)
        half_width[column] = max(half_width.get(column, 0), width / 2)
        half_height[row] = max(half_height.get(row, 0), height / 2)
    columns, rows = max(half_width) + 1, max(half_height) + 1
    xs, width = _spread(columns, COLUMN, upright, half_width, _GAP_X)
    for column in range(columns):
        middle = column * COLUMN + CHANNEL + 1
        for side in (-1, 1):
            xs[middle + side] = xs[middle] + side * 0.5 * half_width.get(column, 0)
    ys, height = _spread(rows, ROW, level, half_height, _GAP_Y)
    return Drawing(placement, routed, xs, ys, width, height)


def _spread(
    count: int, pitch: int, used: set[int], half: dict[int, float], gap: float
) -> tuple[dict[int, float], float]:
    """Coordinates of the lattice's lines in one direction, and the whole extent."""
    at: dict[int, float] = {}
    edge = _MARGIN
    for i in range(count + 1):
        lines = [i * pitch + k for k in range(CHANNEL) if i * pitch + k in used]
        if lines:
            start = edge + (_CLEAR if i else 0)
            at |= {line: start + _TRACK * k for k, line in enumerate(lines)}
            edge = at[lines[-1]] + (_CLEAR if i < count else 0)
        elif 0 < i < count and half.get(i, 0):
            edge += gap
        if i < count:
            middle = i * pitch + CHANNEL + (1 if pitch == COLUMN else 0)
            at[middle] = edge + half.get(i, 0)
            edge += 2 * half.get(i, 0)
    return at, edge + _MARGIN
