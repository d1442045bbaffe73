"""The backward program of a cell, and what the forward pass must keep for it.

Values of the step are read from where the forward pass left them: states before the step from the states' history, the
output from the outputs, the rest from the tape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.ops import CONSTANT, OPS, PROJECT, STATE
from cellwise.passes import Derivative, differentiate, kept_for
from cellwise.passes.differentiate import GRADIENT, OUTPUT, PULLBACK
from cellwise.plan.forward import OUTPUT_WEIGHT, Products, Tape, X, carried, output_array, parameter_refs
from cellwise.plan.program import Array, Place, Program, ProgramStage, Ref, Segment, WeightBlock, Width
from cellwise.plan.schedule import Accumulate, lay_out, stages_of

# The gradient at what proj_size makes, one row per step; its product with the unprojected outputs is that of W_hr.
PROJECTED_GRADIENT = Array("projected gradient", Place.SPAN, width=Width.PROJECTED)
# What the weights' gradients want of a step that is computed again.
RECOMPUTED = "recomputed"
_PULLED = Array("gradient before projection", Place.ROWS)
_ZERO = Node(CONSTANT, (), 0.0)


@dataclass(frozen=True, eq=False)
class BackwardPlan:
    """The backward program, and how its results become gradients.

    `gates` maps each input gate node and each product node to its column of the array "gates", (N, columns, H):
    the gradients at gates. `kept` are the values of the step that are read, wherever they lie.
    """

    program: Program
    tape: Tape
    kept: tuple[Node, ...]
    inputs: tuple[tuple[str, int], ...]  # input gate, column
    products: tuple[tuple[str, int, Ref], ...]  # recurrent gate, column, where the operand lies
    parameters: tuple[str, ...]  # own parameters, in the order of the columns of the array "sums"
    unprojected: Ref | None  # with `projected`, where W_hr's operand lies

    graph: StepGraph

    @property
    def reads_output(self) -> bool:
        return any(array.name == "output" for array in self.program.arrays)

    @property
    def histories(self) -> tuple[str, ...]:
        """The states that are kept of every step; one that is the output is there anyway."""
        graph = self.graph
        return graph.states[1:] if graph.output is graph.new_states[0] else graph.states


def projects(graph: StepGraph) -> bool:
    """Whether the first state can be projected: it is the output, and all that equations do is to ask it for gates.

    A gate of another value would need a weight as wide as that value, beside one as wide as the projection.
    """
    states = [node for node in graph.of(STATE) if node.attribute == graph.states[0]]
    elementwise = any(i in states for node in graph.nodes if node.op is not PROJECT for i in node.inputs)
    passed_on = any(node in states for node in (graph.output, *graph.new_states))
    one_width = all(node.inputs[0] in states for node in graph.of(PROJECT))
    is_output = graph.output is graph.new_states[0]
    return is_output and one_width and not elementwise and not passed_on


@lru_cache(maxsize=512)
def backward_plan(graph: StepGraph, projected: bool = False, recompute: bool = False) -> BackwardPlan:
    """The stages of one step backward.

    With `recompute` the tape is empty: each step begins with the equations themselves, from the states before it, which
    are kept anyway, and from the input (the trade of Chen et al. 2016, "Training deep nets with sublinear memory cost",
    for every step).
    """
    derivative = differentiate(graph)
    columns = _in_gate_order(graph, derivative)
    gates = Array("gates", Place.SPAN, max(1, len(columns)))
    gate_refs = {node: Ref(gates, column) for column, node in enumerate(columns)}
    kept, after = _needed(graph, derivative, projected, recompute)
    refs, tape = _places(graph, kept, projected)
    again = Array(RECOMPUTED, Place.SPAN, len(after))
    again_refs = {node: Ref(again, column) for column, node in enumerate(after)}
    operands = refs | again_refs
    return BackwardPlan(
        _program(graph, derivative, refs, gate_refs, again_refs, projected),
        tape,
        tuple(kept),
        inputs=tuple((str(n.attribute), gate_refs[g].column) for n, g in derivative.inputs.items()),
        products=tuple(
            (str(n.attribute), gate_refs[g].column, operands[n.inputs[0]])
            for n, g in derivative.products.items()
        ),
        parameters=tuple(str(node.attribute) for node in derivative.parameters),
        unprojected=operands[graph.output] if projected else None,
        graph=graph,
    )


def _needed(
    graph: StepGraph, derivative: Derivative, projected: bool, recompute: bool
) -> tuple[dict[Node, None], list[Node]]:
    """The values of the step that are read from where the forward pass left them, and those made again for products."""
    roots = _roots(derivative)
    after = [
        *dict.fromkeys(node.inputs[0] for node in graph.of(PROJECT)),
        *([graph.output] if projected else []),
    ]
    if not recompute:
        read = kept_for(graph.nodes, _forward_values(graph, roots))
        return dict.fromkeys([*read, *after]), []
    left = set(graph.of(STATE)) | (set() if projected else {graph.output})
    made = postorder([*roots, *after], left)
    read_again = [i for node in made for i in node.inputs] + [*roots, *after]
    return dict.fromkeys(n for n in read_again if n in left), [n for n in after if n not in left]


def _places(graph: StepGraph, kept: Iterable[Node], projected: bool) -> tuple[dict[Node, Ref], Tape]:
    """Where each value of the step lies."""
    states = carried(graph.states, projected)
    elsewhere = {node: Ref(states[graph.states.index(str(node.attribute))][0]) for node in graph.of(STATE)}
    if not projected:
        elsewhere.setdefault(graph.output, Ref(output_array(projected)))
    tape = Tape({node: column for column, node in enumerate(n for n in kept if n not in elsewhere)})
    refs = {node: Ref(tape.array, column) for node, column in tape.columns.items()}
    return refs | {node: elsewhere[node] for node in kept if node in elsewhere}, tape


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


def _program(
    graph: StepGraph,
    d: Derivative,
    refs: dict[Node, Ref],
    gate_refs: dict[Node, Ref],
    again_refs: dict[Node, Ref],
    projected: bool,
) -> Program:
    names = [f"gradient {name}" for name in graph.states]
    states = carried(names, projected)
    arriving = Array("gradient output", Place.STEPS, width=output_array(projected).width)
    parameters = parameter_refs(graph)
    sums = Array("sums", Place.SUM, max(1, len(d.parameters)))
    biases = Array("bias sums", Place.SUM, max(1, len(gate_refs)))
    wanted: list[tuple[Node, Ref]] = list(gate_refs.items())
    wanted += [(node, Ref(biases, ref.column)) for node, ref in gate_refs.items()]
    wanted += [
        (d.states.get(name, _ZERO), Ref(after)) for name, (_, after) in zip(graph.states, states, strict=True)
    ]
    wanted += [(gradient, Ref(sums, column)) for column, gradient in enumerate(d.parameters.values())]
    wanted += list(again_refs.items())
    leaves: dict[Node, Ref] = parameters | refs
    roots = [node for node, _ in wanted]
    if projected:
        leaves |= {n: Ref(_PULLED) for n in postorder(roots, leaves) if _is_total(n, graph.states[0])}
    everything = postorder(roots, leaves)
    for node in everything:
        if node.op is GRADIENT and node not in leaves:
            name = str(node.attribute)
            leaves[node] = Ref(arriving if name == OUTPUT else states[graph.states.index(name)][0])
    nodes = [node for node in everything if node not in leaves and node.op is not CONSTANT]
    assert not any(node.op is STATE for node in nodes), "a state that the derivative reads is not kept"
    # A gradient at a gate may be what arrives, as it is: it is then copied to its column at the end of the step, and
    # read from where it arrived. The same holds for a value that is made again.
    in_memory = gate_refs | again_refs | leaves
    again = Products(nodes, wanted, in_memory)
    level = again.with_sums(stages_of(nodes, _is_product, wanted))
    if projected and d.states.get(graph.states[0]) in level:
        # Nothing waits for the gradient of the projected state, which is narrower than all that is computed beside it.
        level[d.states[graph.states[0]]] = 1 + max(level.values())
    accumulate = _accumulator(again, in_memory)
    stages, between = lay_out(nodes, level, wanted, in_memory, accumulate, _is_product)
    stages = tuple(each for stage in stages for each in _by_width(stage))
    if projected:
        stages = (*_before_projection(arriving, states[0][0], in_memory), *stages)
    arrays = dict.fromkeys(
        [arriving, *(array for pair in states for array in pair), sums, biases]
        + [ref.array for stage in stages for ref in _used(stage, in_memory)]
        + list(between)
    )
    name = f"{graph.name}_{'recomputing' if X.array in arrays else 'backward'}"
    return Program(name, tuple(arrays), stages, in_memory, states, graph)


def _is_total(node: Node, state: str) -> bool:
    """Whether this is all that arrives at an output that is this state."""
    arriving = {(i.op, i.attribute) for i in node.inputs}
    return node.op is OPS["add"] and arriving == {(GRADIENT, OUTPUT), (GRADIENT, state)}


def _before_projection(
    output: Array, state: Array, in_memory: dict[Node, Ref]
) -> tuple[ProgramStage, ProgramStage]:
    """Add what arrives at the projected output and state, and bring it through W_hr."""
    at_output, at_state = Node(GRADIENT, (), OUTPUT), Node(GRADIENT, (), "projected state")
    in_memory |= {at_output: Ref(output), at_state: Ref(state)}
    total = Node(OPS["add"], (at_output, at_state))
    pulled = Node(PULLBACK, (total,), OUTPUT_WEIGHT)
    segment = Segment(Ref(PROJECTED_GRADIENT), WeightBlock(OUTPUT_WEIGHT, ("",), transposed=True), (0,))
    adding = ((total, Ref(PROJECTED_GRADIENT)),)
    return (
        ProgramStage((), (), (), (total,), adding, Width.PROJECTED),
        ProgramStage((pulled,), ((),), (segment,), (), ((pulled, Ref(_PULLED)),)),
    )


def _by_width(stage: ProgramStage) -> list[ProgramStage]:
    """A stage whose values are of one width: the gradient of a projected state is narrower than the others.

    What is only copied may be of another width than what the stage computes: it gets a stage of its own.
    """
    found: dict[Width, list[tuple[Node, Ref]]] = {}
    for node, ref in stage.writes:
        found.setdefault(ref.array.width, []).append((node, ref))
    computed = {*stage.nodes, *stage.accumulators}
    own = next((width for width, writes in found.items() if any(n in computed for n, _ in writes)), None)
    stages: list[ProgramStage] = []
    for width, writes in found.items():
        if width is own or (own is None and not stages):
            made = (stage.accumulators, stage.biases, stage.segments, stage.nodes)
            stages.append(ProgramStage(*made, tuple(writes), width))
        else:
            assert not any(node in computed for node, _ in writes), (
                "computed values of two widths in one stage"
            )
            stages.append(ProgramStage((), (), (), (), tuple(writes), width))
    return stages


def _used(stage: ProgramStage, in_memory: dict[Node, Ref]) -> list[Ref]:
    read = [in_memory[i] for node in stage.nodes for i in _numbers(node) if i in in_memory]
    written = [in_memory[node] for node, _ in stage.writes if node in in_memory]
    return [
        *read,
        *written,
        *(segment.operand for segment in stage.segments),
        *(ref for _, ref in stage.writes),
    ]


def _numbers(node: Node) -> Iterable[Node]:
    """What a node reads; a comparison is made where it is used, from what it compares."""
    for operand in node.inputs:
        if operand.is_mask:
            yield from _numbers(operand)
        yield operand


def _accumulator(again: Products, in_memory: dict[Node, Ref]) -> Accumulate:
    """Each pullback is an accumulator, to which the gradients at its gates add; they follow those of the step."""

    def accumulate(here: list[Node]) -> tuple[list[Node], list[tuple[tuple[str, str], ...]], list[Segment]]:
        found, biases, segments = again.accumulate(here)
        for node in here:
            if node.op is PULLBACK:
                for operand, gate in zip(node.inputs, str(node.attribute).split(), strict=True):
                    block = WeightBlock("weight_hh", (gate,), transposed=True)
                    segments.append(Segment(in_memory[operand], block, (len(found),)))
                found.append(node)
                biases.append(())
        return found, biases, segments

    return accumulate


def _is_product(node: Node) -> bool:
    return node.op in (PROJECT, PULLBACK)
