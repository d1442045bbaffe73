"""Lines between blocks: each is the cheapest way over a lattice, where bends cost and crossings cost a lot.

The lattice has a few lines before each column and above each row, and three through each column: the middle, on which
blocks stand, and one on either side of it, where a wide block has further ports.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cellwise.understand.diagram.placement import Placement

__all__ = ["COLUMN", "ROW", "Routed", "center", "route"]

CHANNEL = 4  # lines before each column and above each row
COLUMN = CHANNEL + 3  # lines of a column
ROW = CHANNEL + 1
_BEND, _CROSS, _BRANCH, _BAD = 25.0, 150.0, 4.0, 4000.0

Point = tuple[int, int]
RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)


@dataclass(frozen=True)
class Routed:
    """The lines found: for each source the ways to its targets, each a list of lattice points."""

    ways: dict[str, list[list[Point]]]
    targets: dict[str, list[str]]
    crossings: int
    cost: float


def center(place: tuple[int, int]) -> Point:
    """The lattice point that the block at (column, row) stands on."""
    column, row = place
    return column * COLUMN + CHANNEL + 1, row * ROW + CHANNEL


@dataclass
class _Taken:
    """What other lines do at the points of the lattice."""

    steps: dict[tuple[Point, Point], str] = field(default_factory=dict)
    straight: dict[Point, dict[str, set[bool]]] = field(default_factory=lambda: defaultdict(dict))
    corners: dict[Point, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, net: str, way: list[Point]) -> None:
        for a, b in zip(way, way[1:], strict=False):
            self.steps[min(a, b), max(a, b)] = net
        for i, point in enumerate(way):
            around = way[max(0, i - 1) : i + 2]
            straight = len(around) == 3 and (around[0][0] == around[2][0] or around[0][1] == around[2][1])
            if straight:
                self.straight[point].setdefault(net, set()).add(around[0][1] == around[2][1])
            else:
                self.corners[point].add(net)

    def cost(self, net: str, point: Point, before: Point | None, after: Point) -> float:
        """What it costs to pass a point, from one direction into another."""
        others = {each: ways for each, ways in self.straight[point].items() if each != net} if point in self.straight else {}
        if point in self.corners and self.corners[point] - {net}:
            return _BAD
        if not others:
            return 0.0
        if before == after and all(ways == {after[1] != 0} for ways in others.values()):
            return _CROSS * len(others)
        return _BAD


class _Router:
    def __init__(self, placement: Placement, wide: frozenset[str]) -> None:
        self.placement = placement
        self.picture = placement.picture
        self.wide = wide
        self.kind = {block.id: block.kind for block in self.picture.blocks}
        self.at = {id: center(place) for id, place in placement.places.items()}
        self.body = {point: id for id in self.at for point in self._body(id)}
        self.size = (
            max(x for x, _ in self.at.values()) + CHANNEL + 2,
            max(y for _, y in self.at.values()) + CHANNEL + 1,
        )
        # Gates that read nothing but states with a rail, and are placed as operations are.
        self.hanging = {
            id
            for id, kind in self.kind.items()
            if kind == "gate" and all(self.kind[edge.source] == "state" for edge in self.picture.inputs(id))
        }
        self.beside = {
            (x + dx, y + dy)
            for id, (x, y) in self.at.items()
            if self.kind[id] == "gate"
            for dx in (-1, 1)
            for dy in range(-CHANNEL, CHANNEL + 1)
        }
        self.taken = _Taken()
        self.tree: dict[str, set[Point]] = {}
        self.used: dict[str, set[tuple[Point, Point]]] = defaultdict(set)  # ports: (point, direction outward)
        self.total = 0.0

    def _body(self, id: str) -> Iterator[Point]:
        x, y = self.at[id]
        for dx in (-1, 0, 1) if id in self.wide else (0,):
            yield x + dx, y

    # --- ports ---

    def _entries(self, id: str) -> Iterator[tuple[Point, Point, float]]:
        """Where a line may end at a block: the point, the direction it comes in, and an extra cost."""
        x, y = self.at[id]
        kind = self.kind[id]
        side = 1 if id in self.wide else 0
        yield (x - side, y), RIGHT, 0.0
        if kind in ("new_state", "output"):
            return
        yield (x, y), UP, 0.0
        if kind == "operation" or id in self.hanging:
            yield (x, y), DOWN, 0.0
        if kind == "gate":
            for dx in (-1, 1):
                yield (x + dx, y), UP, 3.0
                yield (x + dx, y), DOWN, 20.0

    def _exits(self, id: str) -> Iterator[tuple[Point, Point, float]]:
        x, y = self.at[id]
        kind = self.kind[id]
        side = 1 if id in self.wide else 0
        if kind != "input":
            yield (x + side, y), RIGHT, 8.0 if kind == "gate" else 0.0
        if kind != "state":
            yield (x, y), UP, 0.0
        if kind == "operation" or id in self.hanging:
            yield (x, y), DOWN, 0.0

    # --- the way ---

    def connect(self, source: str, target: str) -> list[Point]:
        goals = {
            (point, direction): extra + (_BAD if (point, _back(direction)) in self.used[target] else 0.0)
            for point, direction, extra in self._entries(target)
        }
        ends = {point for point, _ in goals}
        queue: list[tuple[float, float, Point, Point | None]] = []
        best: dict[tuple[Point, Point | None], float] = {}
        came: dict[tuple[Point, Point | None], tuple[Point, Point | None] | None] = {}

        def push(cost: float, point: Point, direction: Point, previous: tuple[Point, Point | None] | None) -> None:
            state = (point, direction)
            if cost < best.get(state, float("inf")):
                best[state] = cost
                came[state] = previous
                guess = min(abs(point[0] - x) + abs(point[1] - y) for x, y in ends)
                heapq.heappush(queue, (cost + guess, cost, point, direction))

        for point in self.tree.get(source, ()):
            if point in self.body:
                continue
            for direction in (RIGHT, DOWN, LEFT, UP):
                begin = (point, None)
                came[begin] = None
                self._step(source, target, point, None, direction, _BRANCH, push, begin)
        for point, direction, extra in self._exits(source):
            if (point, direction) not in self.used[source] or point in self.tree.get(source, ()):
                blocked = any((point, direction) == used for used in self.used[source])
                begin = (point, None)
                came[begin] = None
                self._step(source, target, point, None, direction, extra + (_BAD if blocked else 0), push, begin)
        found = None
        bound = float("inf")
        while queue and queue[0][0] < bound:
            _, cost, point, direction = heapq.heappop(queue)
            state = (point, direction)
            if cost > best[state]:
                continue
            if direction is not None and state in goals:
                if cost + goals[point, direction] < bound:
                    bound, found = cost + goals[point, direction], state
                continue
            if point in ends and self.body.get(point) == target:
                continue
            for after in (RIGHT, DOWN, LEFT, UP):
                if direction is None or after != _back(direction):
                    self._step(source, target, point, direction, after, cost, push, state)
        assert found is not None, (source, target)
        self.total += bound
        way: list[Point] = []
        state_now: tuple[Point, Point | None] | None = found
        while state_now is not None:
            way.append(state_now[0])
            state_now = came[state_now]
        way.reverse()
        self.used[target].add((found[0], _back(found[1] or RIGHT)))
        first = (way[1][0] - way[0][0], way[1][1] - way[0][1])
        if way[0] in self.body:
            self.used[source].add((way[0], first))
        self.taken.add(source, way)
        self.tree.setdefault(source, set()).update(way)
        return way

    def _step(self, net, target, point, before, after, cost, push, state) -> None:  # type: ignore[no-untyped-def]
        x, y = point[0] + after[0], point[1] + after[1]
        if not (0 <= x < self.size[0] and 0 <= y < self.size[1]):
            return
        new = (x, y)
        # The lines on either side of a column's middle are there for the ports of gates alone.
        if after[0] == 0 and (x - CHANNEL) % COLUMN in (0, 2) and {point, new} - self.beside:
            return
        owner = self.body.get(new)
        if owner is not None and owner != target:
            return
        if owner == target and after[1] == 0 and new[0] != self.at[target][0] - (1 if target in self.wide else 0):
            return
        step = self.taken.steps.get((min(point, new), max(point, new)))
        cost += 1.0
        if before is not None and before != after:
            cost += _BEND
        if step is not None and step != net:
            cost += _BAD
        if point not in self.body:
            cost += self.taken.cost(net, point, before, after)
        push(cost, new, after, state)


def _back(direction: Point) -> Point:
    return -direction[0], -direction[1]


def route(placement: Placement, wide: Iterable[str]) -> Routed:
    """Lines for all edges of a placed picture. `wide`: blocks that are wider than a circle."""
    router = _Router(placement, frozenset(wide))
    rails = {pair: i for i, path in enumerate(placement.rails) for pair in zip(path, path[1:], strict=False)}
    edges = sorted(
        placement.picture.edges,
        key=lambda edge: (
            (edge.source, edge.target) not in rails,
            abs(router.at[edge.source][0] - router.at[edge.target][0])
            + 2 * abs(router.at[edge.source][1] - router.at[edge.target][1]),
        ),
    )
    ways: dict[str, list[list[Point]]] = defaultdict(list)
    targets: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        ways[edge.source].append(router.connect(edge.source, edge.target))
        targets[edge.source].append(edge.target)
    return Routed(dict(ways), dict(targets), len(crossings(ways)), router.total)


def crossings(ways: dict[str, list[list[Point]]]) -> dict[Point, tuple[str, str]]:
    """Points where lines of different sources cross: who goes across, who goes up or down."""
    across: dict[Point, str] = {}
    along: dict[Point, str] = {}
    for net, found in ways.items():
        for way in found:
            for a, b, c in zip(way, way[1:], way[2:], strict=False):
                if a[1] == b[1] == c[1]:
                    across[b] = net
                elif a[0] == b[0] == c[0]:
                    along[b] = net
    return {p: (across[p], along[p]) for p in across.keys() & along.keys() if across[p] != along[p]}
