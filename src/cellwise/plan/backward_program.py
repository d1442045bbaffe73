"""The backward program: the derivative of a step, laid out in stages like the step itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cellwise.graph import Node, Shape, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.ops import CONSTANT, OPS, STATE
from cellwise.passes import Derivative
from cellwise.passes.differentiate import GRADIENT, OUTPUT, PULLBACK, arriving_outputs
from cellwise.plan.buffers import States, X, carried, given_slots, output_buffer
from cellwise.plan.forward import OUTPUT_WEIGHT
from cellwise.plan.products import Products
from cellwise.plan.program import Buffer, MatmulTerm, Program, Slot, Stage, StorageClass, WeightBlock, Width
from cellwise.plan.schedule import Sums, assign_stages, build_stages

# The gradients at inputs beside x, a column each.
BESIDE_GRADIENTS = "gradients beside x"
# The gradient at what proj_size makes, one row per step; its product with the unprojected outputs is that of W_hr.
PROJECTED_GRADIENT = Buffer("projected gradient", StorageClass.PER_CHUNK, width=Width.PROJECTED)
_PULLED = Buffer("gradient before projection", StorageClass.SCRATCH)
_ZERO = Node(CONSTANT, (), 0.0)

Refs = dict[Node, Slot]


def backward_program(
    graph: StepGraph,
    derivative: Derivative,
    slots: Refs,
    gate_refs: Refs,
    recomputed_refs: Refs,
    projected: bool,
) -> Program:
    """The stages of one step backward.

    Args:
        slots: where the values of the step that it reads were left.
        gate_refs: where the gradients at gates go.
        recomputed_refs: where recomputed values of the step go, for the gradients of weights.
        projected: the first state and the output are W_hr times what the equations give.
    """
    states = carried([f"gradient {name}" for name in graph.states], projected)
    arriving = replace(output_buffer(graph, projected), name="gradient output")
    sums = Buffer("sums", StorageClass.REDUCTION, max(1, len(derivative.parameters)))
    biases = Buffer("bias sums", StorageClass.REDUCTION, max(1, len(gate_refs)))
    # What goes to the buffer of gates is also summed, for the gradients of biases.
    outputs = [*gate_refs.items(), *((node, Slot(biases, slot.column)) for node, slot in gate_refs.items())]
    outputs += [
        (derivative.states.get(name, _ZERO), Slot(after))
        for name, (_, after) in zip(graph.states, states, strict=True)
    ]
    outputs += [
        (gradient, Slot(sums, column)) for column, gradient in enumerate(derivative.parameters.values())
    ]
    outputs += recomputed_refs.items()
    beside = Buffer(BESIDE_GRADIENTS, StorageClass.PER_CHUNK, len(derivative.beside))
    outputs += [
        (gradient, Slot(beside, column)) for column, gradient in enumerate(derivative.beside.values())
    ]
    roots = [node for node, _ in outputs]
    leaves = given_slots(graph) | slots
    if projected:
        leaves |= {n: Slot(_PULLED) for n in postorder(roots, leaves) if _is_total(n, graph.states[0])}
    leaves |= _arriving(graph, postorder(roots, leaves), arriving, states)
    nodes = [node for node in postorder(roots, leaves) if node.op is not CONSTANT]
    assert not any(node.op is STATE for node in nodes), "a state that the derivative reads is not kept"
    # A gradient at a gate may be what arrives, as it is: it is then copied to its column at the end of the step, and
    # read from where it arrived. The same holds for a recomputed value.
    in_memory = gate_refs | recomputed_refs | leaves
    products = Products(nodes, outputs, in_memory)
    level = products.together(assign_stages(nodes))
    if projected and derivative.states.get(graph.states[0]) in level:
        # Nothing waits for the gradient of the projected state, which is narrower than all that is computed beside it.
        level[derivative.states[graph.states[0]]] = 1 + max(level.values())
    mixed, between = build_stages(
        nodes, level, outputs, in_memory, lambda stage_nodes: _sums(products, in_memory, stage_nodes)
    )
    stages = tuple(part for stage in mixed for part in _by_width(stage))
    if projected:
        stages = (*_before_projection(arriving, states[0][0], in_memory), *stages)
    buffers = dict.fromkeys(
        [arriving, *(buffer for pair in states for buffer in pair), sums, biases]
        + [slot.buffer for stage in stages for slot in _used(stage, in_memory)]
        + list(between)
    )
    name = f"{graph.name}_{'recomputing' if X.buffer in buffers else 'backward'}"
    return Program(name, tuple(buffers), stages, in_memory, states, graph)


def _arriving(graph: StepGraph, nodes: Iterable[Node], output: Buffer, states: States) -> Refs:
    """Where the gradients are found that arrive at a step."""
    slots, outputs = {}, arriving_outputs(graph)
    for node in nodes:
        if node.op is GRADIENT:
            name = str(node.attribute)
            at_state = None if name in outputs else states[graph.states.index(name)][0]
            slots[node] = Slot(output, outputs[name]) if at_state is None else Slot(at_state)
    return slots


def _is_total(node: Node, state: str) -> bool:
    """Whether this is all that arrives at an output that is this state."""
    arriving = {(i.op, i.attribute) for i in node.inputs}
    return node.op is OPS["add"] and arriving == {(GRADIENT, OUTPUT), (GRADIENT, state)}


def _before_projection(output: Buffer, state: Buffer, in_memory: Refs) -> tuple[Stage, Stage]:
    """Add what arrives at the projected output and state, and bring it through W_hr."""
    at_output, at_state = Node(GRADIENT, (), OUTPUT), Node(GRADIENT, (), "projected state")
    in_memory |= {at_output: Slot(output), at_state: Slot(state)}
    total = Node(OPS["add"], (at_output, at_state))
    pulled = Node(PULLBACK, (total,), OUTPUT_WEIGHT)
    term = MatmulTerm(Slot(PROJECTED_GRADIENT), WeightBlock(OUTPUT_WEIGHT, ("",), transposed=True), (0,))
    adding = ((total, Slot(PROJECTED_GRADIENT)),)
    return (
        Stage((), (), (), (total,), adding, Width.PROJECTED),
        Stage((pulled,), ((),), (term,), (), ((pulled, Slot(_PULLED)),)),
    )


def _by_width(stage: Stage) -> list[Stage]:
    """A stage whose values are of one width: the gradient of a projected state is narrower than the others.

    What is only copied may be of another width than what the stage computes: it gets a stage of its own.
    """
    by_width: dict[Width, list[tuple[Node, Slot]]] = {}
    for node, slot in stage.writes:
        by_width.setdefault(slot.buffer.width, []).append((node, slot))
    computed = {*stage.nodes, *stage.row_nodes, *stage.accumulators}
    if stage.reductions or not by_width:
        by_width = {stage.width: by_width.pop(stage.width, []), **by_width}
    own = next((width for width, writes in by_width.items() if any(n in computed for n, _ in writes)), None)
    own = stage.width if stage.reductions else own
    stages: list[Stage] = []
    for width, writes in by_width.items():
        if width is own or (own is None and not stages):
            stages.append(replace(stage, writes=tuple(writes), width=width))
        else:
            assert not any(node in computed for node, _ in writes), (
                "computed values of two widths in one stage"
            )
            stages.append(Stage((), (), (), (), tuple(writes), width))
    return stages


def _used(stage: Stage, in_memory: Refs) -> list[Slot]:
    units = (*stage.nodes, *(node for node, _ in stage.reductions))
    operands = [i for node in units for i in _numbers(node)]
    operands += [i for node in stage.row_nodes for i in _numbers(node, of_row=True)]
    read = [in_memory[i] for i in operands if i in in_memory]
    written = [in_memory[node] for node, _ in stage.writes if node in in_memory]
    return [
        *read,
        *written,
        *(term.operand for term in stage.terms),
        *(slot for _, slot in stage.writes),
    ]


def _numbers(node: Node, of_row: bool = False) -> Iterable[Node]:
    """What a node reads; a comparison is made where it is used, from what it compares. of_row: and so is what is made
    of numbers alone, as numbers of a row are computed.
    """
    for operand in node.inputs:
        if operand.is_mask or (of_row and operand.shape is Shape.NUMBER):
            yield from _numbers(operand, of_row)
        yield operand


def _sums(products: Products, in_memory: Refs, stage_nodes: Sequence[Node]) -> Sums:
    """The accumulators of a stage: products of the step that are recomputed, then the pullbacks.

    To a pullback each gradient at one of its gates adds.
    """
    sums = products.sums(stage_nodes)
    pulled = [node for node in stage_nodes if node.op is PULLBACK]
    terms = [
        MatmulTerm(in_memory[operand], WeightBlock("weight_hh", (gate,), transposed=True), (number,))
        for number, node in enumerate(pulled, start=len(sums.accumulators))
        for operand, gate in zip(node.inputs, str(node.attribute).split(), strict=True)
    ]
    return Sums(
        (*sums.accumulators, *pulled),
        (*sums.biases, *(() for _ in pulled)),
        (*sums.terms, *terms),
    )
