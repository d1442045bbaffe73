"""The forward program of a cell: for inference, or for training with a tape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, SCALAR, STATE, VECTOR
from cellwise.plan.program import Array, Place, Program, Ref, Segment, WeightBlock, Width
from cellwise.plan.schedule import lay_out, stages_of


@dataclass(frozen=True, eq=False)
class Tape:
    """What a forward pass keeps: node -> column of the array "tape". States mean their value before the step."""

    columns: dict[Node, int]


def parameter_refs(graph: StepGraph) -> dict[Node, Ref]:
    """Where a cell's own parameters lie; numbers are written into the code."""
    places = {VECTOR: Place.UNITS, SCALAR: Place.NUMBER}
    return {
        node: Ref(Array(f"own {node.attribute}", places[node.op]))
        for node in graph.nodes
        if node.op in places
    }


def state_arrays(graph: StepGraph) -> tuple[Array, ...]:
    return tuple(Array(f"state {name}", Place.STATE) for name in graph.states)


def forward_program(graph: StepGraph, tape: Tape | None) -> Program:
    """The stages of one step forward; with `tape`, also what they keep."""
    states = state_arrays(graph)
    new = Array("new", Place.ROWS, len(states))
    output = Array("output", Place.STEPS)
    x = Ref(Array("x", Place.STEPS, width=Width.INPUT))
    parameters = parameter_refs(graph)
    leaves: dict[Node, Ref] = dict(parameters)
    leaves |= {node: Ref(states[graph.states.index(str(node.attribute))]) for node in graph.of(STATE)}
    wanted = [(graph.output, Ref(output))]
    wanted += [(node, Ref(new, place)) for place, node in enumerate(graph.new_states)]
    arrays = [Array("x", Place.STEPS, width=Width.INPUT), *states, new, output]
    if tape is not None:
        array = Array("tape", Place.STEPS, max(1, len(tape.columns)))
        wanted += [(node, Ref(array, column)) for node, column in tape.columns.items()]
        arrays.append(array)
    nodes = [n for n in graph.nodes if n not in leaves and n.op is not CONSTANT]
    fused = _fused(nodes, [node for node, _ in wanted])
    level = stages_of(nodes, _is_product, wanted)
    for add, (given, product) in fused.items():
        level[given] = level[product] = level[add]
    in_memory: dict[Node, Ref] = dict(leaves)

    def accumulate(here: list[Node]) -> tuple[list[Node], list[tuple[tuple[str, str], ...]], list[Segment]]:
        inside = {part for pair in fused.values() for part in pair}
        found = [n for n in here if n in fused or (n.op in (INPUT, PROJECT) and n not in inside)]
        parts = [fused.get(node, (node,)) for node in found]
        biases = [tuple((_bias(p), str(p.attribute)) for p in each) for each in parts]
        return found, biases, list(_segments(graph, parts, x, in_memory))

    stages, between = lay_out(nodes, level, wanted, in_memory, accumulate, _is_product)
    name = f"{graph.name}_{'forward' if tape is None else 'training'}"
    all_arrays = (*arrays, *dict.fromkeys(ref.array for ref in parameters.values()), *between)
    return Program(name, all_arrays, stages, in_memory, states)


def _is_product(node: Node) -> bool:
    return node.op is PROJECT


def _bias(node: Node) -> str:
    return "bias_ih" if node.op is INPUT else "bias_hh"


def _fused(nodes: list[Node], written: list[Node]) -> dict[Node, tuple[Node, Node]]:
    """Sums x.g + v.g whose parts nothing else uses: both products go into one accumulator."""
    uses: dict[Node, int] = {}
    for node in nodes:
        for i in node.inputs:
            uses[i] = uses.get(i, 0) + 1
    found = {}
    for node in nodes:
        kinds = {i.op: i for i in node.inputs}
        if node.op is OPS["add"] and set(kinds) == {INPUT, PROJECT}:
            pair = (kinds[INPUT], kinds[PROJECT])
            if all(uses[part] == 1 and part not in written for part in pair):
                found[node] = pair
    return found


def _segments(
    graph: StepGraph, parts: Sequence[tuple[Node, ...]], x: Ref, in_memory: dict[Node, Ref]
) -> Iterable[Segment]:
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
            yield Segment(x, WeightBlock("weight_ih", gates), places)
        else:
            yield Segment(in_memory[operand], WeightBlock("weight_hh", gates), places)
