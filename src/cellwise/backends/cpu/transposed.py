"""Stages of kernels that multiply by transposed weights where they lie, as a backward pass does.

All units of a stage are multiplied in one call of the routine of `transposed_products`, which reads whole rows of
weights, and the pointwise equations run on the sums afterwards. So there is room for the sums of all units.
"""

from __future__ import annotations

from cellwise.backends.cpu.code import I64, POINTER, Value
from cellwise.backends.cpu.kernel import Emitter
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import Group
from cellwise.backends.cpu.transposed_products import CALL, TERM, TransposedProducts, routine_name
from cellwise.plan.program import MatmulTerm, Program, Stage, Width


def is_transposed(stage: Stage) -> bool:
    """Whether a stage has products, and all of them are of transposed weights."""
    return bool(stage.terms) and all(term.weight.transposed for term in stage.terms)


def has_transposed(program: Program) -> bool:
    return any(is_transposed(stage) for stage in program.stages)


def transposed_sums(program: Program) -> int:
    """How many sums of such products a unit has at most, of which there is room for all units of a row."""
    return max([len(stage.accumulators) for stage in program.stages if is_transposed(stage)], default=0)


class TransposedEmitter(Emitter):
    """Emits such stages. `starts`, which who extends it fills: of a group and term where each gate's weights begin."""

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program, element_bytes, target)
        self.starts: dict[tuple[Group, MatmulTerm | None], list[Value]] = {}
        # In the order of the program: the text of a kernel is to be the same each time.
        self.transposed = tuple(
            group for stage, groups in self.groups.items() if is_transposed(stage) for group in groups
        )

    def _routines(self) -> None:
        self.routines, self.calls = {}, {}
        name = routine_name(self.element_bytes, self.target)
        for group in self.transposed:
            self.multiply = self.declared(name, TransposedProducts.kinds)
            words = len(CALL) + len(TERM) * len(group.terms)
            self.calls[group] = self.b.alloca(POINTER, words, name="call")

    def stage(self, number: int, stage: Stage) -> None:
        if not is_transposed(stage):
            super().stage(number, stage)
            return
        start, end = self.share(self.b.sdiv(self.padded(stage.width), self.whole(self.v.lanes)))
        for group in self.groups[stage]:
            self._multiply(stage, group, start, end)
        with self.loop(f"s{number}.tile", end, first=start) as tile:
            self._pointwise(number, stage, tile, tile)

    def _multiply(self, stage: Stage, group: Group, start: Value, end: Value) -> None:
        """The products of an accumulator, which has its terms to itself, for these tiles."""
        b, lanes, units = self.b, self.whole(self.v.lanes), self.size[stage.width.value]
        (accumulator,) = group.accumulators
        self.comment(stage.accumulators[accumulator])
        past = b.mul(end, lanes)
        words = {
            "rows": self.active,
            "first unit": b.mul(start, lanes),
            "end": b.select(b.icmp_signed("<", past, units), past, units),
            "room": self._sums_of(accumulator, self.padded(stage.width)),
            "room row": self.padded(stage.width),
            "terms": self.whole(len(group.terms)),
        }
        descriptor = [words[name] for name in CALL]
        for term in group.terms:
            own = self._operand(term) | {"run": self.runs[term.operand.buffer.width]}
            own |= {"weights": self.starts[group, term][0], "weight row": units}
            descriptor += [own[name] for name in TERM]
        b.comment(f"descriptor: {', '.join(CALL)}; for each term {', '.join(TERM)}")
        for place, word in enumerate(descriptor):
            b.store(word, self.at(self.calls[group], self.whole(place), I64))
        b.call(self.multiply, [self.calls[group], self.whole(0)])

    def _sums_of(self, accumulator: int, padded: Value) -> Value:
        """Where the sums of an accumulator are: (row, unit)."""
        place = self.b.mul(self.b.mul(self.whole(accumulator), self.size["rows"]), padded)
        return self.at(self.room, place)

    def _sum_address(self, group: Group, accumulator: int, u: Value, row: Value) -> Value:
        """Of such a stage `u` is the tile's number."""
        if group not in self.transposed:
            return super()._sum_address(group, accumulator, u, row)
        b, padded = self.b, self.padded(Width.HIDDEN)
        place = b.add(b.mul(row, padded), b.mul(u, self.whole(self.v.lanes)))
        return self.at(self._sums_of(accumulator, padded), place)
