"""How the sums of a stage are cut into panels: what one pass of a product holds in registers.

Units are taken two vectors at a time, a pair of tiles. Accumulators that the same operands add to are a group; its
vectors, those of both tiles, lie in panels of equal width. A panel is narrow and takes many rows: it is weights that
come from far away, and each one read then meets many rows. With sixteen vector registers, two vectors by six rows run
at 95 % of the multiply-add peak of a machine with AVX2, three rows by four vectors at 75 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.backends.cpu.target import Target
from cellwise.plan.program import MatmulTerm, Program, Stage

TILES = 2
_MOST_ROWS = 8


@dataclass(frozen=True, eq=False)
class Group:
    """Accumulators that the same terms add to. `first`: how many vectors the groups before it have."""

    terms: tuple[MatmulTerm, ...]
    accumulators: tuple[int, ...]
    width: int
    first: int

    @property
    def vectors(self) -> int:
        return TILES * len(self.accumulators)

    @property
    def panels(self) -> int:
        return self.vectors // self.width

    @property
    def by_tile(self) -> bool:
        """Whether each tile has panels of its own, else each panel holds both tiles of its accumulators."""
        return len(self.accumulators) % self.width == 0

    def place(self, accumulator: int, tile: int) -> tuple[int, int]:
        """(panel, vector in it) of an accumulator of the stage in the first or second tile of a pair."""
        own = self.accumulators.index(accumulator)
        number = tile * len(self.accumulators) + own if self.by_tile else TILES * own + tile
        return divmod(number, self.width)


def groups_of(stage: Stage, target: Target) -> tuple[Group, ...]:
    """The groups of a stage, in the order in which their weights and sums lie in memory."""
    members: dict[tuple[MatmulTerm, ...], list[int]] = {}
    for accumulator in range(len(stage.accumulators)):
        terms = tuple(term for term in stage.terms if accumulator in term.accumulators)
        members.setdefault(terms, []).append(accumulator)
    groups: list[Group] = []
    for terms, accumulators in members.items():
        width = _width(TILES * len(accumulators), target)
        first = sum(group.vectors for group in groups)
        groups.append(Group(terms, tuple(accumulators), width, first))
    return tuple(groups)


def room_vectors(program: Program, target: Target) -> int:
    """Sums that a row and a pair of tiles have, in the stage within steps that has the most."""
    groups = [groups_of(stage, target) for stage in program.stages]
    return max([sum(group.vectors for group in each) for each in groups], default=0)


def most_rows(width: int, target: Target) -> int:
    """How many rows a block has at most, of panels of so many vectors."""
    return min(_MOST_ROWS, target.accumulators // width)


def _width(vectors: int, target: Target) -> int:
    most = 2 if target.registers <= 16 else 4
    return max(width for width in range(1, most + 1) if vectors % width == 0)
