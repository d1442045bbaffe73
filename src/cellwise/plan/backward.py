"""The backward program of a cell, and what the forward pass must keep for it."""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.ops import CONSTANT, PROJECT, STATE
from cellwise.passes import Derivative, differentiate, kept_for
from cellwise.passes.differentiate import GRADIENT, OUTPUT, PULLBACK
from cellwise.plan.forward import Tape, parameter_refs
from cellwise.plan.program import Array, Place, Program, Ref, Segment, WeightBlock
from cellwise.plan.schedule import lay_out, stages_of


@dataclass(frozen=True, eq=False)
class BackwardPlan:
    """The backward program, and how its results become gradients.

    `gates` maps each input gate node and each product node to its column of the array "gates", (N, columns, H):
    the gradients at gates. `operands` maps each operand of a product to its column on the tape.
    """

    program: Program
    tape: Tape
    inputs: tuple[tuple[str, int], ...]  # input gate, column
    products: tuple[tuple[str, int, int], ...]  # recurrent gate, column, operand's column on the tape
    parameters: tuple[str, ...]  # own parameters, in the order of the columns of the array "sums"


def backward_plan(graph: StepGraph) -> BackwardPlan:
    """The stages of one step backward."""
    derivative = differentiate(graph)
    roots = _roots(derivative)
    kept = kept_for(graph.nodes, _forward_values(graph, roots))
    operands = dict.fromkeys(node.inputs[0] for node in graph.of(PROJECT))
    tape = Tape({node: column for column, node in enumerate(dict.fromkeys([*kept, *operands]))})
    columns = _in_gate_order(graph, derivative)
    gates = Array("gates", Place.STEPS, max(1, len(columns)))
    gate_refs = {node: Ref(gates, column) for column, node in enumerate(columns)}
    program = _program(graph, derivative, tape, gate_refs)
    return BackwardPlan(
        program,
        tape,
        inputs=tuple((str(n.attribute), gate_refs[g].column) for n, g in derivative.inputs.items()),
        products=tuple(
            (str(n.attribute), gate_refs[g].column, tape.columns[n.inputs[0]])
            for n, g in derivative.products.items()
        ),
        parameters=tuple(str(node.attribute) for node in derivative.parameters),
    )


def _in_gate_order(graph: StepGraph, d: Derivative) -> dict[Node, None]:
    """The gradients at gates, in the order of the gates, so that products over several read one run of memory."""
    at = [*d.inputs.items(), *d.products.items()]
    return dict.fromkeys(g for _, g in sorted(at, key=lambda each: graph.gates.index(str(each[0].attribute))))


def _roots(d: Derivative) -> list[Node]:
    return [*d.inputs.values(), *d.products.values(), *d.states.values(), *d.parameters.values()]


def _forward_values(graph: StepGraph, roots: list[Node]) -> list[Node]:
    """The values of the step that its derivative reads."""
    step = set(graph.nodes)
    own = postorder(roots, graph.nodes)
    return [i for node in own for i in node.inputs if i in step] + [node for node in roots if node in step]


def _program(graph: StepGraph, d: Derivative, tape: Tape, gate_refs: dict[Node, Ref]) -> Program:
    tape_array = Array("tape", Place.STEPS, max(1, len(tape.columns)))
    states = tuple(Array(f"gradient {name}", Place.STATE) for name in graph.states)
    new = Array("new", Place.ROWS, len(states))
    arriving = Array("gradient output", Place.STEPS)
    parameters = parameter_refs(graph)
    sums = Array("sums", Place.SUM, max(1, len(d.parameters)))
    biases = Array("bias sums", Place.SUM, max(1, len(gate_refs)))
    zero = Node(CONSTANT, (), 0.0)
    wanted: list[tuple[Node, Ref]] = list(gate_refs.items())
    wanted += [(node, Ref(biases, ref.column)) for node, ref in gate_refs.items()]
    wanted += [(d.states.get(state, zero), Ref(new, place)) for place, state in enumerate(graph.states)]
    wanted += [(gradient, Ref(sums, column)) for column, gradient in enumerate(d.parameters.values())]
    leaves: dict[Node, Ref] = parameters | {n: Ref(tape_array, c) for n, c in tape.columns.items()}
    everything = postorder([node for node, _ in wanted], leaves)
    for node in everything:
        if node.op is GRADIENT:
            place = arriving if node.attribute == OUTPUT else states[graph.states.index(str(node.attribute))]
            leaves[node] = Ref(place)
    nodes = [node for node in everything if node not in leaves and node.op is not CONSTANT]
    assert not any(node.op is STATE for node in nodes), "a state that the derivative reads is not kept"
    in_memory = leaves | gate_refs

    def accumulate(here: list[Node]) -> tuple[list[Node], list[tuple[tuple[str, str], ...]], list[Segment]]:
        found = [node for node in here if node.op is PULLBACK]
        segments = []
        for place, node in enumerate(found):
            for operand, gate in zip(node.inputs, str(node.attribute).split(), strict=True):
                block = WeightBlock("weight_hh", (gate,), transposed=True)
                segments.append(Segment(gate_refs[operand], block, (place,)))
        return found, [() for _ in found], segments

    is_product = _is_pullback
    stages, between = lay_out(
        nodes, stages_of(nodes, is_product, wanted), wanted, in_memory, accumulate, is_product
    )
    own = tuple(dict.fromkeys(ref.array for ref in parameters.values()))
    arrays = (
        arriving,
        tape_array,
        *states,
        new,
        next(iter(gate_refs.values())).array,
        sums,
        biases,
        *own,
        *between,
    )
    return Program(f"{graph.name}_backward", arrays, stages, in_memory, states)


def _is_pullback(node: Node) -> bool:
    return node.op is PULLBACK
