"""Lines between blocks: each is the cheapest way over a lattice, where bends cost and crossings cost a lot.

The lattice has a few lines before each column and above each row, and three through each column: the middle, on which
blocks stand, and one on either side of it, where a wide block has further ports.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cellwise.understand.diagram.picture import Edge
from cellwise.understand.diagram.placement import Placement

__all__ = ["CHANNEL", "COLUMN", "ROW", "Point", "Routed", "center", "crossings", "improve", "route"]

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
    def __init__(self, placement: Placement, wide: frozenset[str]) -> None:
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
        middle = self.at[target]
        queue: list[tuple[float, float, Point, Point | None]] = []
        best: dict[tuple[Point, Point | None], float] = {}
        came: dict[tuple[Point, Point | None], tuple[Point, Point | None] | None] = {}

        def push(
            cost: float, point: Point, direction: Point, previous: tuple[Point, Point | None] | None
        ) -> None:
            state = (point, direction)
            if cost < best.get(state, float("inf")):
                best[state] = cost
                came[state] = previous
                # Every port lies at most one step from the middle of its block.
                guess = abs(point[0] - middle[0]) + abs(point[1] - middle[1]) - 1
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
                self._step(
                    source, target, point, None, direction, extra + (_BAD if blocked else 0), push, begin
                )
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
        self.add(source, target, way)
        return way

    def add(self, source: str, target: str, way: list[Point]) -> None:
        """Note what a line takes up."""
        self.used[target].add((way[-1], (way[-2][0] - way[-1][0], way[-2][1] - way[-1][1])))
        if way[0] in self.body:
            self.used[source].add((way[0], (way[1][0] - way[0][0], way[1][1] - way[0][1])))
        self.taken.add(source, way)
        self.tree.setdefault(source, set()).update(way)

    def _step(self, net, target, point, before, after, cost, push, state) -> None:  # type: ignore[no-untyped-def]
        x, y = point[0] + after[0], point[1] + after[1]
        if not (CHANNEL < x < self.size[0] and 0 <= y < self.size[1]):
            return
        new = (x, y)
        # The lines on either side of a column's middle are there for the ports of gates alone.
        if after[0] == 0 and (x - CHANNEL) % COLUMN in (0, 2) and {point, new} - self.beside:
            return
        owner = self.body.get(new)
        if owner is not None and owner != target:
            return
        if (
            owner == target
            and after[1] == 0
            and new[0] != self.at[target][0] - (1 if target in self.wide else 0)
        ):
            return
        step = self.taken.steps.get((min(point, new), max(point, new)))
        cost += _BACKWARD if after == LEFT else 1.0
        if before is not None and before != after:
            cost += _BEND
        if step is not None and step != net:
            cost += _BAD
        if point not in self.body:
            cost += self.taken.cost(net, point, before, after)
        push(cost, new, after, state)


def _back(direction: Point) -> Point:
    return -direction[0], -direction[1]


def route(placement: Placement, wide: Iterable[str], limit: float = math.inf) -> Routed | None:
    """Lines for all edges of a placed picture, or None if they cost more than `limit`.

    Args:
        placement: where the blocks stand.
        wide: blocks that are wider than a circle.
        limit: stop where it gets worse than this.
    """
    router = _Router(placement, frozenset(wide))
    ways: dict[Edge, list[Point]] = {}
    for edge in _order(placement):
        ways[edge] = router.connect(edge.source, edge.target)
        if router.total > limit:
            return None
    return _routed(router, ways)


def improve(placement: Placement, wide: Iterable[str], routed: Routed, rounds: int = 3) -> Routed:
    """Take the lines of each source away in turn, but not the rails, and draw them anew, as long as that helps."""
    rails = _rails(placement)
    best, order = routed, [edge for edge in _order(placement) if (edge.source, edge.target) not in rails]
    for _ in range(rounds):
        before = best.cost
        for source in dict.fromkeys(edge.source for edge in order):
            router = _Router(placement, frozenset(wide))
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
    return {pair for path in placement.rails for pair in zip(path, path[1:], strict=False)}


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
    ways: dict[str, list[list[Point]]] = defaultdict(list)
    owners: dict[tuple[Point, Point], set[str]] = defaultdict(set)
    bends = 0
    for edge, way in by_edge.items():
        ways[edge.source].append(way)
        for a, b in zip(way, way[1:], strict=False):
            owners[min(a, b), max(a, b)].add(edge.source)
        bends += sum(a[0] != c[0] and a[1] != c[1] for a, c in zip(way, way[2:], strict=False))
    backward = sum(b[0] < a[0] for way in by_edge.values() for a, b in zip(way, way[1:], strict=False))
    shared = sum(len(each) - 1 for each in owners.values())
    knots = 0
    corners: dict[Point, set[str]] = defaultdict(set)
    passing: dict[Point, set[str]] = defaultdict(set)
    for edge, way in by_edge.items():
        for k, point in enumerate(way):
            passing[point].add(edge.source)
            bent = 0 < k < len(way) - 1 and way[k - 1][0] != way[k + 1][0] and way[k - 1][1] != way[k + 1][1]
            if (bent or (k == 0)) and point not in router.body:
                corners[point].add(edge.source)
    knots = sum(bool(passing[point] - owner) for point, owner in corners.items())
    ports: dict[tuple[Point, Point], int] = defaultdict(int)
    for edge, way in by_edge.items():
        ports[way[-1], way[-2]] += 1
        if way[0] in router.body:
            ports[way[0], way[1]] += 0 if ports[way[0], way[1]] else 1
    doubled = sum(count - 1 for count in ports.values() if count > 1)
    cost = len(owners) + _BEND * bends + (_BACKWARD - 1) * backward + _CROSS * len(crossings(ways))
    cost += _BAD * (shared + knots + doubled)
    return Routed(dict(by_edge), cost)


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
