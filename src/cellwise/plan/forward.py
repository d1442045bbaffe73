"""The forward program of a cell: for inference, or for training with a tape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, SCALAR, STATE, VECTOR, Kind, Op
from cellwise.plan.program import (
    Array,
    HoistedProduct,
    Place,
    Program,
    ProgramStage,
    Ref,
    Segment,
    WeightBlock,
    Width,
)
from cellwise.plan.schedule import Wanted, lay_out, stages_of

# The output projection of torch.nn.LSTM's proj_size (Sak et al. 2014): W_hr v, without a bias.
PROJECT_OUTPUT = Op("project_output", Kind.MATMUL, 1, "W_hr {0}")
OUTPUT_WEIGHT = "weight_hr"

# Where the input's products are computed: in each step, or for all steps at once.
InputProduct = Literal["fused", "hoisted"]

X = Ref(Array("x", Place.STEPS, width=Width.INPUT))


@dataclass(frozen=True, eq=False)
class Tape:
    """What a forward pass keeps beside the outputs and the states: node -> column of the array "tape"."""

    columns: dict[Node, int]

    @property
    def array(self) -> Array:
        return Array("tape", Place.STEPS, len(self.columns))


def parameter_refs(graph: StepGraph) -> dict[Node, Ref]:
    """Where a cell's own parameters lie; numbers are written into the code."""
    places = {VECTOR: Place.UNITS, SCALAR: Place.NUMBER}
    return {
        node: Ref(Array(f"own {node.attribute}", places[node.op]))
        for node in graph.nodes
        if node.op in places
    }


def output_array(projected: bool) -> Array:
    return Array("output", Place.STEPS, width=Width.PROJECTED if projected else Width.HIDDEN)


def carried(names: Sequence[str], projected: bool) -> tuple[tuple[Array, Array], ...]:
    """For each state where it is before a step and after it; the first is as wide as the output."""
    widths = [Width.PROJECTED if projected and name == names[0] else Width.HIDDEN for name in names]
    return tuple(
        (Array(f"{name} before", Place.BEFORE, width=width), Array(f"{name} after", Place.AFTER, width=width))
        for name, width in zip(names, widths, strict=True)
    )


@lru_cache(maxsize=512)
def forward_program(
    graph: StepGraph,
    tape: Tape | None,
    projected: bool = False,
    input_product: InputProduct = "fused",
) -> Program:
    """The stages of one step forward; with `tape`, also what they keep.

    Args:
        projected: the first state and the output are W_hr times what the equations give.
        input_product: "fused" multiplies each step's input within the step, into the same sums as the state; "hoisted"
            multiplies the inputs of all steps before the loop, which then reads W_i x + b_i of its step: one large
            product in place of many small ones, for the price of holding its results, (N, gates, H).
    """
    hoisted = _hoisted(graph) if input_product == "hoisted" else ()
    states = carried(graph.states, projected)
    in_memory = _leaves(graph, states, hoisted)
    wanted = _results(graph, states, tape, projected)
    nodes = [n for n in graph.nodes if n not in in_memory and n.op is not CONSTANT]
    products = Products(nodes, wanted, in_memory)
    level = products.with_sums(stages_of(nodes, _is_product, wanted))
    stages, between = lay_out(nodes, level, wanted, in_memory, products.accumulate, _is_product)
    if projected:
        stages += (_projection(wanted[0], states[0][1]),)
    arrays = dict.fromkeys(
        ([product.result for product in hoisted] or [X.array])
        + [array for pair in states for array in pair]
        + [ref.array for stage in stages for _, ref in stage.writes]
        + [*between, *(ref.array for ref in parameter_refs(graph).values())]
    )
    name = f"{graph.name}_{'forward' if tape is None else 'training'}{'_hoisted' * bool(hoisted)}"
    return Program(name, tuple(arrays), stages, in_memory, states, graph, hoisted)


def _leaves(
    graph: StepGraph, states: tuple[tuple[Array, Array], ...], hoisted: tuple[HoistedProduct, ...]
) -> dict[Node, Ref]:
    """Where the step finds what it starts from."""
    found = parameter_refs(graph)
    found |= {node: Ref(states[graph.states.index(str(node.attribute))][0]) for node in graph.of(STATE)}
    for product in hoisted:
        column = product.weight.gates.index
        found |= {node: Ref(product.result, column(str(node.attribute))) for node in graph.of(INPUT)}
    return found


def _results(
    graph: StepGraph, states: tuple[tuple[Array, Array], ...], tape: Tape | None, projected: bool
) -> list[tuple[Node, Ref]]:
    """What the step leaves, and where."""
    found: list[tuple[Node, Ref]] = []
    if projected:
        found.append((graph.output, Ref(Array("unprojected", Place.ROWS))))
    else:
        found.append((graph.output, Ref(output_array(projected))))
        found.append((graph.new_states[0], Ref(states[0][1])))
    found += [(node, Ref(after)) for node, (_, after) in zip(graph.new_states[1:], states[1:], strict=True)]
    if tape is not None:
        found += [(node, Ref(tape.array, column)) for node, column in tape.columns.items()]
    return found


def _hoisted(graph: StepGraph) -> tuple[HoistedProduct, ...]:
    """The product of the input for all steps, if the cell asks its input for a gate."""
    if not graph.input_gates:
        return ()
    result = Array("input products", Place.STEPS, len(graph.input_gates))
    return (HoistedProduct(X.array, WeightBlock("weight_ih", graph.input_gates), "bias_ih", result),)


def _projection(given: tuple[Node, Ref], after: Array) -> ProgramStage:
    node, ref = given
    result = Node(PROJECT_OUTPUT, (node,))
    segment = Segment(ref, WeightBlock(OUTPUT_WEIGHT, ("",)), (0,))
    writes = ((result, Ref(output_array(True))), (result, Ref(after)))
    return ProgramStage((result,), ((),), (segment,), (), writes, Width.PROJECTED)


def _is_product(node: Node) -> bool:
    return node.op is PROJECT


def _bias(node: Node) -> str:
    return "bias_ih" if node.op is INPUT else "bias_hh"


def _fused(nodes: list[Node], written: list[Node]) -> dict[Node, tuple[Node, Node]]:
    """Sums x.g + v.g whose parts nothing else uses: both products go into one accumulator."""
    uses = Counter(i for node in nodes for i in node.inputs)
    inside = set(nodes) - set(written)
    found = {}
    for node in nodes:
        kinds = {i.op: i for i in node.inputs}
        if node.op is OPS["add"] and set(kinds) == {INPUT, PROJECT}:
            pair = (kinds[INPUT], kinds[PROJECT])
            if all(uses[part] == 1 and part in inside for part in pair):
                found[node] = pair
    return found


class Products:
    """The products of a step among the nodes of a program, as accumulators.

    Args:
        in_memory: where operands lie, by the time that `accumulate` is called.
    """

    def __init__(self, nodes: list[Node], wanted: Wanted, in_memory: dict[Node, Ref]) -> None:
        self._in_memory = in_memory
        self._fused = _fused(nodes, [node for node, _ in wanted])
        self._inside = {part for pair in self._fused.values() for part in pair}

    def with_sums(self, level: dict[Node, int]) -> dict[Node, int]:
        """The stages of nodes, where what is summed in one accumulator is in one stage."""
        for add, (given, product) in self._fused.items():
            level[given] = level[product] = level[add]
        return level

    def accumulate(
        self, here: list[Node]
    ) -> tuple[list[Node], list[tuple[tuple[str, str], ...]], list[Segment]]:
        """Accumulators, biases and segments for the nodes of a stage."""
        found = [n for n in here if n in self._fused or (n.op in (INPUT, PROJECT) and n not in self._inside)]
        parts = [self._fused.get(node, (node,)) for node in found]
        biases = [tuple((_bias(p), str(p.attribute)) for p in each) for each in parts]
        return found, biases, list(self._segments(parts))

    def _segments(self, parts: Sequence[tuple[Node, ...]]) -> Iterable[Segment]:
        """One segment per operand: its row times the weights of all the gates that want it."""
        by_operand: dict[Node | None, list[tuple[int, str]]] = {}
        for place, each in enumerate(parts):
            for part in each:
                operand = part.inputs[0] if part.op is PROJECT else None
                by_operand.setdefault(operand, []).append((place, str(part.attribute)))
        for operand, users in by_operand.items():
            gates = tuple(gate for _, gate in users)
            places = tuple(place for place, _ in users)
            if operand is None:
                yield Segment(X, WeightBlock("weight_ih", gates), places)
            else:
                yield Segment(self._in_memory[operand], WeightBlock("weight_hh", gates), places)
