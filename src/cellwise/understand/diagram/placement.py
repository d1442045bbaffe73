"""Where the blocks of a diagram stand, in columns and rows.

From top to bottom: a row for each state that is carried on elementwise (its rail, a straight line through the
picture), rows of operations, the row of gates, a row for each state that only gates read, and the input. From left to
right: in the order in which the rails take things up.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cellwise.understand.diagram.picture import INPUT_ID, Block, Edge, Picture

__all__ = ["Placement", "placements"]


@dataclass(frozen=True)
class Placement:
    """A place for each block, (column, row); `rails` are the edges that should be drawn first and straight."""

    picture: Picture
    places: dict[str, tuple[int, int]]
    rails: tuple[tuple[str, ...], ...]


def placements(picture: Picture, most: int) -> Iterator[Placement]:
    """Ways to place the blocks, the plain one first; they differ in the order of gates and rails, and in width."""
    joined = _with_joins(picture)
    rails = _rails(picture)
    forks = [block.id for block in joined.blocks if len(_upstream_pairs(joined, block.id)) > 1]
    seen: set[tuple[tuple[str, tuple[int, int]], ...]] = set()
    orders = [dict(order) for order in itertools.islice(itertools.permutations(rails.items()), 6)]
    for flips in itertools.islice(_subsets(forks), most):
        for order, spacious, tall in itertools.product(orders, (False, True), (0, 1)):
            places = _Placer(joined, order, frozenset(flips), spacious, tall).places()
            key = tuple(sorted(places.items()))
            if key not in seen:
                seen.add(key)
                yield Placement(joined, places, tuple(path for path, _ in rails.values()))
                if len(seen) == most:
                    return


def _subsets(items: list[str]) -> Iterable[tuple[str, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(items, size) for size in range(len(items) + 1)
    )


def _upstream_pairs(picture: Picture, id: str) -> list[Edge]:
    inner = ("gate", "operation")
    return [edge for edge in picture.inputs(id) if picture.block(edge.source).kind in inner]


def _with_joins(picture: Picture) -> Picture:
    """Where several gates read the same of input and states, the lines are joined first, and go on as one."""
    groups: dict[frozenset[str], list[str]] = {}
    for block in picture.blocks:
        if block.kind == "gate":
            read = frozenset(
                edge.source
                for edge in picture.inputs(block.id)
                if picture.block(edge.source).kind in ("input", "state")
            )
            groups.setdefault(read, []).append(block.id)
    blocks, edges = list(picture.blocks), list(picture.edges)
    for number, (read, gates) in enumerate(groups.items()):
        if len(read) > 1 and len(gates) > 1:
            join = f"join{number}"
            place = next(i for i, block in enumerate(blocks) if block.id == gates[0])
            blocks.insert(place, Block(join, "join", ""))
            edges = [edge for edge in edges if not (edge.target in gates and edge.source in read)]
            edges += [Edge(source, join) for source in sorted(read)]
            edges += [Edge(join, gate) for gate in gates]
    return replace(picture, blocks=tuple(blocks), edges=tuple(edges))


def _rails(picture: Picture) -> dict[str, tuple[tuple[str, ...], bool]]:
    """For each state that has one, its path from old to new, and whether that runs through the row of gates."""
    found: dict[str, tuple[tuple[str, ...], bool]] = {}
    claimed: set[str] = set()
    ids = [block.id for block in picture.blocks]
    for i in reversed(range(len(picture.states))):
        old, new = f"old{i}", f"new{i}"
        path = _path(picture, old, new, claimed, ("operation",)) if old in ids else None
        if path is not None:
            found[old] = path, False
            claimed.update(path)
    for i in range(len(picture.states)):
        old, new = f"old{i}", f"new{i}"
        through_gates = any(low for _, low in found.values())
        if old in ids and old not in found and not through_gates and len(picture.outputs(old)) == 1:
            path = _path(picture, old, new, claimed, ("operation", "gate"))
            if path is not None and sum(picture.block(id).kind == "gate" for id in path) == 1:
                found[old] = path, True
                claimed.update(path)
    return found


def _path(
    picture: Picture, old: str, new: str, claimed: set[str], kinds: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The shortest way from an old state to the new one through blocks of some kinds."""
    before: dict[str, str] = {old: ""}
    todo = deque([old])
    while todo:
        id = todo.popleft()
        for edge in picture.outputs(id):
            target = edge.target
            if target == new:
                path = [new]
                while id:
                    path.append(id)
                    id = before[id]
                return tuple(reversed(path))
            if target not in before and target not in claimed and picture.block(target).kind in kinds:
                before[target] = id
                todo.append(target)
    return None


class _Placer:
    def __init__(
        self,
        picture: Picture,
        rails: dict[str, tuple[tuple[str, ...], bool]],
        flips: frozenset[str],
        spacious: bool,
        tall: int,
    ) -> None:
        self.picture, self.rails, self.flips, self.spacious, self.tall = picture, rails, flips, spacious, tall
        self.kind = {block.id: block.kind for block in picture.blocks}
        for id, kind in self.kind.items():
            # What multiplies a state that has a rail hangs from it.
            read = [rails.get(edge.source) for edge in picture.inputs(id)]
            if kind == "gate" and all(rail is not None and not rail[1] for rail in read):
                self.kind[id] = "operation"
        self.on_rail = {id for path, _ in rails.values() for id in path}
        self.high = {id for path, low in rails.values() if not low for id in path}
        # What stands in the row of gates, one in each column.
        self.in_gate_row = {id for path, low in rails.values() if low for id in path}
        self.in_gate_row |= {id for id, kind in self.kind.items() if kind == "gate"}
        self.column = {id: 0 for id, kind in self.kind.items() if kind in ("state", "input")}
        self.last_gate = 0

    def places(self) -> dict[str, tuple[int, int]]:
        for path, _ in self.rails.values():
            for id in path:
                self._visit(id)
        for block in self.picture.blocks:
            if block.kind in ("new_state", "output"):
                self._visit(block.id)
        last = max(self.column.values(), default=0) + 1
        for id, kind in self.kind.items():
            if kind in ("new_state", "output"):
                self.column[id] = last
        self._move_right()
        self._place_joins()
        return {id: (self.column[id], row) for id, row in self._rows().items()}

    # --- columns ---

    def _visit(self, root: str) -> None:
        """Place what a block reads, then the block, as far left as that lets it stand."""
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            id, ready = stack.pop()
            if id in self.column or self.kind[id] == "join":
                continue
            if ready:
                self.column[id] = self._column_of(id)
                if id in self.in_gate_row:
                    self.last_gate = self.column[id]
                continue
            stack.append((id, True))
            inputs = [edge.source for edge in self.picture.inputs(id)]
            inputs.sort(key=lambda each: each not in self.on_rail)
            # The stack turns the order round.
            stack += [(each, False) for each in (inputs if id in self.flips else reversed(inputs))]

    def _column_of(self, id: str) -> int:
        inputs = [edge.source for edge in self.picture.inputs(id) if self.kind[edge.source] != "join"]
        if id in self.in_gate_row:
            inside = [self.column[each] for each in inputs if self.kind[each] in ("operation", "gate")]
            if self.spacious:
                inside += self.column.values()
            return max([self.last_gate, *inside]) + 1
        least = 1
        for each in inputs:
            straight = each not in self.on_rail and (len(self.picture.outputs(each)) == 1 or id in self.high)
            at_end = self.kind[each] in ("state", "input")
            least = max(least, self.column[each] + (0 if straight and not at_end else 1))
        # Only one can come straight from above and one from below.
        beneath = [each for each in inputs if self.column[each] == least and each not in self.on_rail]
        return least + (sum(self.kind[each] == "operation" and not self._hangs(each) for each in beneath) > 1)

    def _hangs(self, id: str) -> bool:
        """Whether an operation depends on rails alone."""
        inputs = [edge.source for edge in self.picture.inputs(id)]
        return all(
            each in self.high
            or (self.kind[each] == "operation" and each not in self.on_rail and self._hangs(each))
            for each in inputs
        )

    def _move_right(self) -> None:
        """What reads only an old state and serves one operation stands by that, not by the state."""
        for id, kind in self.kind.items():
            users = [edge.target for edge in self.picture.outputs(id)]
            from_states = all(self.kind[edge.source] == "state" for edge in self.picture.inputs(id))
            free = kind == "operation" and id not in self.on_rail
            if free and from_states and len(users) == 1 and self.kind[users[0]] == "operation":
                self.column[id] = max(self.column[id], self.column[users[0]])

    def _place_joins(self) -> None:
        for id, kind in self.kind.items():
            if kind == "join":
                gates = [edge.target for edge in self.picture.outputs(id)]
                self.column[id] = min(self.column[gate] for gate in gates)
        if INPUT_ID in self.kind:
            readers = [self.column[edge.target] for edge in self.picture.outputs(INPUT_ID)]
            self.column[INPUT_ID] = min(readers)

    # --- rows ---

    def _rows(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        top = 0
        between = self._between()
        for path, low in self.rails.values():
            if not low:
                rows |= dict.fromkeys(path, top)
                top += 1
                hung = [id for id, above in between.items() if above == path[0]]
                rows |= dict.fromkeys(hung, top)
                top += bool(hung)
        middle = self._middle()
        lowest = min(middle.values(), default=0)
        middle = {id: row - lowest for id, row in middle.items()}
        height = max(middle.values(), default=-1) + 1
        rows |= {id: top + row for id, row in middle.items()}
        gates = top + height
        for id, kind in self.kind.items():
            if kind == "gate":
                rows[id] = gates
        for path, low in self.rails.values():
            if low:
                rows |= dict.fromkeys(path, gates)
        bus = gates + 1
        for i in range(len(self.picture.states)):
            old, new = f"old{i}", f"new{i}"
            if old in self.kind and old not in rows:
                rows[old] = rows[new] = bus
                bus += 1
        joins = [id for id, kind in self.kind.items() if kind == "join"]
        for i, id in enumerate(joins):
            rows[id] = max(gates + 1, bus - 1) + i
            bus = max(bus, rows[id] + 1)
        for id, kind in self.kind.items():
            if kind in ("new_state", "output") and id not in rows:
                rows[id] = rows[self.picture.inputs(id)[0].source]
                while (self.column[id], rows[id]) in {
                    (self.column[other], row) for other, row in rows.items() if other != id
                }:
                    rows[id] += 1
        if INPUT_ID in self.kind:
            rows[INPUT_ID] = bus
        return rows

    def _between(self) -> dict[str, str]:
        """Operations that lead from one rail straight to the next one, and the state whose rail is above them."""
        order = [old for old, (_, low) in self.rails.items() if not low]
        rail_of = {id: old for old, (path, low) in self.rails.items() if not low for id in path}
        found: dict[str, str] = {}
        for id, kind in self.kind.items():
            if kind != "operation" or id in self.on_rail:
                continue
            ends = [edge.source for edge in self.picture.inputs(id)]
            ends += [edge.target for edge in self.picture.outputs(id)]
            places = sorted({order.index(rail_of[each]) for each in ends if each in rail_of})
            column_free = all(self.column[id] != self.column[other] for other in found)
            neighbours = len(places) == 2 and places[1] == places[0] + 1
            if column_free and neighbours and all(each in rail_of for each in ends):
                found[id] = order[places[0]]
        return found

    def _middle(self) -> dict[str, int]:
        """Rows of the operations that stand on no rail, counted from the rails downward."""
        stacks = self._stacks()
        height = max((len(stack) for stack in stacks.values()), default=0) + (self.tall if stacks else 0)
        rows = {id: i for stack in stacks.values() for i, id in enumerate(stack)}
        for _ in range(4):  # each column in turn finds the best rows beside its neighbours
            for stack in stacks.values():
                ways = itertools.islice(itertools.combinations(range(height), len(stack)), 500)
                best = min(
                    ways,
                    key=lambda way: self._strain(rows | dict(zip(stack, way, strict=True)), stack, height),
                )
                rows |= dict(zip(stack, best, strict=True))
        return rows

    def _strain(self, rows: dict[str, int], stack: list[str], height: int) -> float:
        """How far the lines of some operations go up and down."""
        total = 0.0
        for id in stack:
            for edge in (*self.picture.inputs(id), *self.picture.outputs(id)):
                other = edge.source if edge.target == id else edge.target
                if other in rows:
                    total += abs(rows[id] - rows[other])
                    ends = sorted((self.column[id], self.column[other]))
                    between = (
                        self.column[each] for each, row in rows.items() if row == rows[id] == rows[other]
                    )
                    total += 1.5 * any(ends[0] < column < ends[1] for column in between)
                elif other in self.high:
                    total += 0.4 * (rows[id] + 1)
                else:
                    total += 0.5 * (height - rows[id])
        return total

    def _stacks(self) -> dict[int, list[str]]:
        """The free operations of each column, from top to bottom: what hangs from a rail comes first."""
        stacks: dict[int, list[str]] = {}
        hanging: set[str] = set()
        between = self._between()
        for block in self.picture.blocks:
            if self.kind[block.id] != "operation" or block.id in self.on_rail or block.id in between:
                continue
            stack = stacks.setdefault(self.column[block.id], [])
            inputs = {edge.source for edge in self.picture.inputs(block.id)}
            if all(each in self.high or each in hanging for each in inputs):
                hanging.add(block.id)
                below = [i for i, other in enumerate(stack) if other not in hanging]
                stack.insert(below[0] if below else len(stack), block.id)
            else:
                above = [i for i, other in enumerate(stack) if other in inputs and other not in hanging]
                floor = [i for i, other in enumerate(stack) if other not in hanging]
                stack.insert(min(above) if above else (floor[0] if floor else len(stack)), block.id)
        return stacks
