"""Lines between blocks: each is the cheapest way over a lattice, where bends cost and crossings cost a lot.

The lattice has a few lines before each column and above each row, and three through each column: the middle, on which
blocks stand, and one on either side of it, where a wide block has further ports.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from cellwise.understand.diagram.picture import Edge
from cellwise.understand.diagram.placement import Placement

__all__ = [
    "CHANNEL",
    "COLUMN",
    "ROW",
    "Effort",
    "Point",
    "Routed",
    "center",
    "crossings",
    "faults",
    "improve",
    "route",
]

CHANNEL = 4  # lines before each column and above each row
COLUMN = CHANNEL + 3  # lines of a column
ROW = CHANNEL + 1
_BEND, _CROSS, _BRANCH, _BACKWARD, _BAD = 22.0, 90.0, 4.0, 3.0, 4000.0

Point = tuple[int, int]
RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)


@dataclass(frozen=True)
class Routed:
    """The lines found: for each edge its way, a list of lattice points; and what they cost together."""

    by_edge: dict[Edge, list[Point]]
    cost: float

    @property
    def ways(self) -> dict[str, list[list[Point]]]:
        """The ways from each source."""
        found: dict[str, list[list[Point]]] = defaultdict(list)
        for edge, way in self.by_edge.items():
            found[edge.source].append(way)
        return found


def center(place: tuple[int, int]) -> Point:
    """The lattice point that the block at (column, row) stands on."""
    column, row = place
    return column * COLUMN + CHANNEL + 1, row * ROW + CHANNEL


@dataclass
class Effort:
    """Counts the steps of a search, so that it ends after the same work on every machine."""

    steps: int = 0


@dataclass
class _Taken:
    """What other lines do at the points of the lattice."""

    steps: dict[tuple[Point, Point], str] = field(default_factory=dict)
    straight: dict[Point, dict[str, set[bool]]] = field(default_factory=lambda: defaultdict(dict))
    corners: dict[Point, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, net: str, way: list[Point]) -> None:
        for a, b in pairwise(way):
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
        if point in self.corners and self.corners[point] - {net}:
            return _BAD
        if point not in self.straight:
            return 0.0
        others = [ways for each, ways in self.straight[point].items() if each != net]
        if not others:
            return 0.0
        if before == after and all(ways == {after[1] != 0} for ways in others):
            return _CROSS * len(others)
        return _BAD


class _Router:
    def __init__(self, placement: Placement, wide: frozenset[str], effort: Effort) -> None:
        self.effort = effort
        self.placement = placement
        self.picture = placement.picture
        self.wide = wide
        self.kind = {block.id: block.kind for block in self.picture.blocks}
        self.at = {id: center(place) for id, place in placement.places.items()}
        self.body = {point: id for id in self.at for point in self._body(id)}
        self.size = (
            max(x for x, _ in self.at.values()) + 1,
            max(y for _, y in self.at.values()) + 1,
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

    def entries(self, id: str) -> Iterator[tuple[Point, Point, float]]:
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

    def exits(self, id: str) -> Iterator[tuple[Point, Point, float]]:
        x, y = self.at[id]
        kind = self.kind[id]
        side = 1 if id in self.wide else 0
        if kind != "input":
            yield (x + side, y), RIGHT, 8.0 if kind == "gate" else 0.0
        # The sides of an operation are wanted by what it reads.
        inputs = len(self.picture.inputs(id)) if kind == "operation" else 0
        if kind != "state" and inputs < 3:
            yield (x, y), UP, 12.0 * max(0, inputs - 1)
        if (kind == "operation" and inputs < 3) or id in self.hanging:
            yield (x, y), DOWN, 12.0 * max(0, inputs - 1)

    # --- the way ---

    def connect(self, source: str, target: str) -> list[Point]:
        """Find the cheapest way from a block, or from a line that leaves it, to another block, and note it."""
        search = _Search(self, source, target)
        cost, way = search.run()
        self.total += cost
        self.add(source, target, way)
        return way

    def starts(self, source: str) -> Iterator[tuple[Point, Point, float]]:
        """Where a line from a block may begin: at its ports, or anywhere on a line that it has already."""
        for point in sorted(self.tree.get(source, ())):
            if point not in self.body:
                for direction in (RIGHT, DOWN, LEFT, UP):
                    yield point, direction, _BRANCH
        for point, direction, extra in self.exits(source):
            yield point, direction, extra + (_BAD if (point, direction) in self.used[source] else 0.0)

    def ends(self, target: str) -> dict[tuple[Point, Point], float]:
        """Where and in which direction a line may end, and what that costs."""
        return {
            (point, direction): extra + (_BAD if (point, _back(direction)) in self.used[target] else 0.0)
            for point, direction, extra in self.entries(target)
        }

    def step(
        self, source: str, target: str, point: Point, before: Point | None, after: Point
    ) -> float | None:
        """What one step in the direction `after` costs, or None where there is no way."""
        x, y = new = point[0] + after[0], point[1] + after[1]
        if not (CHANNEL < x < self.size[0] and 0 <= y < self.size[1]):
            return None
        # The lines on either side of a column's middle are there for the ports of gates alone.
        if after[0] == 0 and (x - CHANNEL) % COLUMN in (0, 2) and {point, new} - self.beside:
            return None
        owner = self.body.get(new)
        if owner is not None and owner != target:
            return None
        if owner == target and after[1] == 0 and x != self.at[target][0] - (target in self.wide):
            return None
        cost = _BACKWARD if after == LEFT else 1.0
        if before is not None and before != after:
            cost += _BEND
        if self.taken.steps.get((min(point, new), max(point, new)), source) != source:
            cost += _BAD
        if point not in self.body:
            cost += self.taken.cost(source, point, before, after)
        return cost

    def add(self, source: str, target: str, way: list[Point]) -> None:
        """Note what a line takes up."""
        self.used[target].add((way[-1], (way[-2][0] - way[-1][0], way[-2][1] - way[-1][1])))
        if way[0] in self.body:
            self.used[source].add((way[0], (way[1][0] - way[0][0], way[1][1] - way[0][1])))
        self.taken.add(source, way)
        self.tree.setdefault(source, set()).update(way)


_State = tuple[Point, Point | None]


class _Search:
    """The search for one way: a state is a point and the direction in which it was reached."""

    def __init__(self, router: _Router, source: str, target: str) -> None:
        self.router, self.source, self.target = router, source, target
        self.middle = router.at[target]
        self.queue: list[tuple[float, float, Point, Point]] = []
        self.best: dict[_State, float] = {}
        self.came: dict[_State, _State | None] = {}

    def run(self) -> tuple[float, list[Point]]:
        ends = self.router.ends(self.target)
        points = {point for point, _ in ends}
        for point, direction, extra in self.router.starts(self.source):
            self.came[point, None] = None
            self._extend((point, None), extra, direction)
        found: _State | None = None
        bound = math.inf
        while self.queue and self.queue[0][0] < bound:
            _, cost, point, direction = heapq.heappop(self.queue)
            if cost > self.best[point, direction]:
                continue
            self.router.effort.steps += 1
            if (point, direction) in ends:
                if cost + ends[point, direction] < bound:
                    bound, found = cost + ends[point, direction], (point, direction)
            elif point not in points or self.router.body.get(point) != self.target:
                for after in (RIGHT, DOWN, LEFT, UP):
                    if after != _back(direction):
                        self._extend((point, direction), cost, after)
        assert found is not None, f"no way from {self.source} to {self.target}"
        way = []
        state: _State | None = found
        while state is not None:
            way.append(state[0])
            state = self.came[state]
        return bound, way[::-1]

    def _extend(self, state: _State, cost: float, after: Point) -> None:
        point, before = state
        step = self.router.step(self.source, self.target, point, before, after)
        if step is None:
            return
        new = point[0] + after[0], point[1] + after[1]
        if cost + step < self.best.get((new, after), math.inf):
            self.best[new, after] = cost + step
            self.came[new, after] = state
            # Every port lies at most one step from the middle of its block.
            guess = abs(new[0] - self.middle[0]) + abs(new[1] - self.middle[1]) - 1
            heapq.heappush(self.queue, (cost + step + guess, cost + step, new, after))


def _back(direction: Point) -> Point:
    return -direction[0], -direction[1]


def route(
    placement: Placement, wide: Iterable[str], effort: Effort, limit: float = math.inf
) -> Routed | None:
    """Lines for all edges of a placed picture, or None if they cost more than `limit`.

    Args:
        placement: where the blocks stand.
        wide: blocks that are wider than a circle.
        effort: where the work is counted.
        limit: stop where it gets worse than this.
    """
    router = _Router(placement, frozenset(wide), effort)
    ways: dict[Edge, list[Point]] = {}
    for edge in _order(placement):
        ways[edge] = router.connect(edge.source, edge.target)
        if router.total > limit:
            return None
    return _routed(router, ways)


def improve(
    placement: Placement, wide: Iterable[str], routed: Routed, effort: Effort, most: int, rounds: int = 3
) -> Routed:
    """Take the lines of each source away in turn, but not the rails, and draw them anew, as long as that helps."""
    rails = _rails(placement)
    best, order = routed, [edge for edge in _order(placement) if (edge.source, edge.target) not in rails]
    for _ in range(rounds):
        before = best.cost
        for source in dict.fromkeys(edge.source for edge in order):
            if effort.steps > most:
                return best
            router = _Router(placement, frozenset(wide), effort)
            again = [edge for edge in order if edge.source == source]
            ways = {edge: way for edge, way in best.by_edge.items() if edge not in again}
            for edge, way in ways.items():
                router.add(edge.source, edge.target, way)
            for edge in again:
                ways[edge] = router.connect(source, edge.target)
            found = _routed(router, ways)
            if found.cost < best.cost:
                best = found
        if best.cost == before:
            break
    return best


def _rails(placement: Placement) -> set[tuple[str, str]]:
    return {pair for path in placement.rails for pair in pairwise(path)}


def _order(placement: Placement) -> list[Edge]:
    """Rails first, then from short to long."""
    rails = _rails(placement)
    at = {id: center(place) for id, place in placement.places.items()}

    def by_length(edge: Edge) -> tuple[bool, int]:
        (a, b), (c, d) = at[edge.source], at[edge.target]
        return (edge.source, edge.target) not in rails, abs(a - c) + 2 * abs(b - d)

    return sorted(placement.picture.edges, key=by_length)


def _routed(router: _Router, by_edge: dict[Edge, list[Point]]) -> Routed:
    """The lines with what they cost all together, whatever order they were drawn in."""
    steps = {(min(a, b), max(a, b), edge.source) for edge, way in by_edge.items() for a, b in pairwise(way)}
    bends = sum(
        a[0] != c[0] and a[1] != c[1] for way in by_edge.values() for a, c in zip(way, way[2:], strict=False)
    )
    backward = sum(b[0] < a[0] for way in by_edge.values() for a, b in pairwise(way))
    routed = Routed(dict(by_edge), 0.0)
    cost = len(steps) + _BEND * bends + (_BACKWARD - 1) * backward + _CROSS * len(crossings(routed.ways))
    return replace(routed, cost=cost + _BAD * faults(router.body, by_edge))


def faults(body: Collection[Point], by_edge: dict[Edge, list[Point]]) -> int:
    """How often two lines run along each other, turn on each other, or enter a block at the same port."""
    owners: dict[tuple[Point, Point], set[str]] = defaultdict(set)
    corners: dict[Point, set[str]] = defaultdict(set)
    passing: dict[Point, set[str]] = defaultdict(set)
    ports: dict[tuple[Point, Point], set[str]] = defaultdict(set)
    for edge, way in by_edge.items():
        for a, b in pairwise(way):
            owners[min(a, b), max(a, b)].add(edge.source)
        for a, b, c in zip(way, way[1:], way[2:], strict=False):
            passing[b].add(edge.source)
            if a[0] != c[0] and a[1] != c[1]:
                corners[b].add(edge.source)
        if way[0] in body:
            ports[way[0], way[1]].add(f"from {edge.source}")
        else:
            corners[way[0]].add(edge.source)
        ports[way[-1], way[-2]].add(f"{edge.source} to {edge.target}")
    shared = sum(len(each) - 1 for each in (*owners.values(), *ports.values()))
    return shared + sum(bool(passing[point] - owner) for point, owner in corners.items())


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
