"""Kernels that read weights where they lie, for calls that multiply each of them by so few numbers that packing takes
longer than the products.

Measured as the time of calls that pack over that of calls that do not, in turns, one thread of a Zen 5 (vectors of 64
bytes, float32; T,B):

| D, H | 1,1 | 1,4 | 4,1 | 1,8 | 2,8 | 1,16 | 4,8 | 4,16 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| LSTM 16, 16 | 1.00 | 1.02 | 1.03 | 1.02 | 0.98 | 0.97 | 0.95 | 0.85 |
| 64, 64 | 1.27 | 1.17 | 1.17 | 1.11 | 1.00 | 0.99 | 0.92 | 0.77 |
| 64, 128 | 1.65 | 1.58 | 1.51 | 1.43 | 1.21 | 1.28 | 1.09 | 0.96 |
| 256, 256 | 2.47 | 2.26 | 1.47 | 1.69 | 1.36 | 1.43 | 1.19 | 0.82 |
| 512, 512 | 3.92 | 3.13 | 1.52 | 1.72 | 1.17 | 1.18 | 1.23 | 0.96 |
| GRU 64, 128 | 1.60 | 1.43 | 1.45 | 1.30 | 1.13 | 1.14 | 1.00 | 0.92 |
| RNN 64, 128 | 1.19 | 1.14 | 1.16 | 1.10 | 1.06 | 1.07 | 1.01 | 0.97 |

With half as many lanes (float64, or vectors of 32 bytes) both sides are equal at about half as many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llvmlite import ir

from cellwise.backends.compiled.compiler import RunShape
from cellwise.backends.cpu.blocks import second_level_cache
from cellwise.backends.cpu.by_units import UnitsEmitter
from cellwise.backends.cpu.code import I64, POINTER, Value
from cellwise.backends.cpu.few_rows import are_few_transposed, most_in_place
from cellwise.backends.cpu.in_place_products import BIASES, CALL, TERM, InPlaceProducts, routine_name
from cellwise.backends.cpu.kernel import LENGTHS
from cellwise.backends.cpu.pack import Packer, Packing
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group
from cellwise.backends.cpu.transposed import TransposedEmitter, has_transposed, is_transposed
from cellwise.plan.forward import OUTPUT_WEIGHT
from cellwise.plan.program import MatmulTerm, Program, Stage, StorageClass, Width

SUFFIX = "_in_place"
WEIGHTS = ("weight_ih", "weight_hh", OUTPUT_WEIGHT)
STEMS = (*WEIGHTS, "bias_ih", "bias_hh")  # what such a kernel is given, in order, or 0


class InPlaceEmitter(TransposedEmitter):
    """Emits the kernel of a program that reads weights where they lie."""

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program, element_bytes, target)
        self.function.name = f"{self.function.name}{SUFFIX}"

    def _take_weights(self, pointer: Callable[[str], Value]) -> None:
        weights = {stem: pointer(stem) for stem in STEMS}
        for stage in self.program.stages:
            for group in self.groups[stage]:
                self.starts[group, None] = self._biases(stage, group, weights)
                for term in group.terms:
                    length = self.size[term.operand.buffer.width.value]
                    numbers = self.b.mul(self.size[stage.width.value], length)
                    stem, gates = term.weight.stem, term.weight.gates
                    self.starts[group, term] = [
                        self._gate(weights[stem], stem, gates[term.accumulators.index(each)], numbers)
                        for each in group.accumulators
                    ]

    def _biases(self, stage: Stage, group: Group, weights: dict[str, Value]) -> list[Value]:
        """Where those of each accumulator begin, 0 for one that there is not."""
        b, found = self.b, []
        for accumulator in group.accumulators:
            known = stage.biases[accumulator]
            for stem, gate in known:
                start = self._gate(weights[stem], stem, gate, self.size[stage.width.value])
                given = b.icmp_signed("!=", b.ptrtoint(weights[stem], I64), self.whole(0))
                found.append(b.select(given, b.ptrtoint(start, I64), self.whole(0)))
            found += [self.whole(0)] * (BIASES - len(known))
        return found

    def _gate(self, weight: Value, stem: str, gate: str, numbers: Value) -> Value:
        """Where a gate of so many numbers begins in its weight."""
        if stem == OUTPUT_WEIGHT:  # which has no gates
            return weight
        graph = self.program.graph
        gates = graph.input_gates if stem.endswith("_ih") else graph.state_gates
        return self.beside(weight, self.b.mul(numbers, self.whole(gates.index(gate))))

    def _routines(self) -> None:
        super()._routines()
        for group in (group for groups in self.groups.values() for group in groups):
            if group in self.transposed:
                continue
            name = routine_name(self.element_bytes, self.target)
            self.routines[group.width] = self.declared(name, InPlaceProducts.kinds)
            count = len(group.accumulators)
            words = len(CALL) + BIASES * count + (len(TERM) + count) * len(group.terms)
            self.calls[group] = self.b.alloca(POINTER, words, name="call")

    def _write_descriptor(self, stage: Stage, group: Group, tiles: Value) -> None:
        b, rows, whole, count = self.b, self.size["rows"], self.whole, len(group.accumulators)
        for accumulator in group.accumulators:
            self.comment(stage.accumulators[accumulator])
        words = {
            "rows": self.active,
            "stride": rows,
            "room": self.at(self.room, b.mul(whole(group.first * self.v.lanes), rows), self.v.element),
            "terms": whole(len(group.terms)),
            "tiles": tiles,
            "sums": whole(count),
            "width": whole(group.width),
            "by sum": whole(1 if group.by_tile else TILES),
            "by tile": whole(count if group.by_tile else 1),
            "units": self.size[stage.width.value],
        }
        descriptor = [words[name] for name in CALL] + self.starts[group, None]
        for term in group.terms:
            given = self._operand(term)
            descriptor += [given[name] for name in TERM] + self.starts[group, term]
        b.comment(f"descriptor: {', '.join(CALL)}, biases; for each term {', '.join(TERM)}, weights")
        for place, word in enumerate(descriptor):
            b.store(word, self.at(self.calls[group], whole(place), I64))


class _SharedInPlaceEmitter(InPlaceEmitter, UnitsEmitter):
    """Both at once."""


class InPlacePacker(Packer):
    """Packs nothing, and says which weights there are."""

    def _weights(self, stage: Stage, group: Group, term: MatmulTerm, pairs: int) -> None:
        """None is packed."""

    def _biases(self, stage: Stage, group: Group, pairs: int) -> None:
        """None is packed."""

    def plan(self) -> Packing:
        as_they_are = tuple(self.stems.index(stem) if stem in self.stems else None for stem in STEMS)
        return replace(super().plan(), as_they_are=as_they_are)


def can_be_in_place(program: Program) -> bool:
    """Whether a program's products are of weights as they lie, and nothing is summed over units.

    A stage's products are all of transposed weights, or none is; where some are, nothing is projected.
    """
    terms = [term for stage in program.all_stages for term in stage.terms]
    return (
        bool(terms)
        and not program.before_loop
        and not program.rows
        and all(len({term.weight.transposed for term in stage.terms}) <= 1 for stage in program.stages)
        and not (has_transposed(program) and _projects(program))
        and all(len(biases) <= BIASES for stage in program.stages for biases in stage.biases)
        and all(
            term.weight.stem in WEIGHTS
            and term.operand.buffer.width in LENGTHS
            and term.operand.buffer.storage is not StorageClass.AHEAD
            for term in terms
        )
    )


def _projects(program: Program) -> bool:
    """Whether anything of a program is as wide as the outputs of a projected layer."""
    terms = [term for stage in program.stages for term in stage.terms]
    widths = {stage.width for stage in program.stages} | {term.operand.buffer.width for term in terms}
    return Width.PROJECTED in widths or any(term.weight.stem == OUTPUT_WEIGHT for term in terms)


def in_place(program: Program, shape: RunShape, element_bytes: int, lanes: int, ahead: bool) -> bool:
    """Whether such calls read weights where they lie. It depends on the shape alone, as `blocks.in_blocks` does.

    Args:
        ahead: whether the inputs of a block of steps would be multiplied at once. Packing is made good sooner then, and
            at once where weights fill the cache.
    """
    rows, sizes, graph = shape.schedule.rows, shape.sizes, program.graph
    steps, hidden = shape.schedule.steps, sizes.hidden
    if not rows or not can_be_in_place(program):
        return False
    if has_transposed(program) and not are_few_transposed(steps, rows, hidden, lanes):
        return False
    if all(is_transposed(stage) for stage in program.stages if stage.terms):
        return True
    most = most_in_place(sizes.input, min(hidden, sizes.output), lanes)
    if ahead:
        weights = len(graph.input_gates) * sizes.input + len(graph.state_gates) * sizes.output
        is_near = weights * sizes.hidden * element_bytes <= second_level_cache() / 2
        most = most / 2 if is_near else 0
    return rows <= most


def emit_in_place(program: Program, element_bytes: int, target: Target, by_units: bool = False) -> ir.Module:
    """The kernel of a program as an LLVM module, without the routine that it calls.

    Args:
        by_units: for two threads that share the units of all rows.
    """
    kind = _SharedInPlaceEmitter if by_units else InPlaceEmitter
    return kind(program, element_bytes, target).emit()
