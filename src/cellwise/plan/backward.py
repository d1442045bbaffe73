"""The backward program of a cell, and what the forward pass must save for it.

Values of the step are read from where the forward pass left them: states before the step from the states' history, the
output from the outputs, the rest from the tape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from cellwise.graph import Node, Shape, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.ops import PROJECT, STATE
from cellwise.passes import Derivative, differentiate, saved_for
from cellwise.plan.backward_program import BESIDE_GRADIENTS as BESIDE_GRADIENTS
from cellwise.plan.backward_program import PROJECTED_GRADIENT as PROJECTED_GRADIENT
from cellwise.plan.backward_program import backward_program
from cellwise.plan.buffers import Tape, carried, output_buffer, state_slots
from cellwise.plan.program import Buffer, Program, Slot, StorageClass

# Operands of weight gradients in a step that is recomputed.
RECOMPUTED = "recomputed"


@dataclass(frozen=True, eq=False)
class BackwardPlan:
    """The backward program, and how its results become gradients.

    The program writes the gradients at gates into the buffer "gates", (N, columns, H).

    Args:
        saved: the values of the step that are read, wherever they lie.
        inputs: for each gate of the input its name, and the column of its gradient.
        products: for each projection its gate, the column of its gradient, and where the operand lies.
        parameters: the cell's own parameters, in the order of the columns of the buffer "sums".
        beside: the inputs beside x, in the order of the columns of the buffer `BESIDE_GRADIENTS`.
        unprojected: with `projected`, where W_hr's operand lies.
    """

    graph: StepGraph
    program: Program
    tape: Tape
    saved: tuple[Node, ...]
    inputs: tuple[tuple[str, int], ...]
    products: tuple[tuple[str, int, Slot], ...]
    parameters: tuple[str, ...]
    beside: tuple[str, ...]
    unprojected: Slot | None

    @cached_property
    def reads_output(self) -> bool:
        """Whether the derivative reads the outputs, or the gradient of a weight that they are multiplied by does."""
        operands = [slot.buffer for _, _, slot in self.products]
        return any(buffer.name == "output" for buffer in (*self.program.buffers, *operands))

    @property
    def histories(self) -> tuple[str, ...]:
        """The states that are kept of every step; one that is the output is there anyway."""
        graph = self.graph
        return graph.states[1:] if graph.output_is_history else graph.states


def projects(graph: StepGraph) -> bool:
    """Whether the first state can be projected: it is the output, and all that equations do is to ask it for gates.

    A gate of another value would need a weight as wide as that value, beside one as wide as the projection.
    """
    states = [node for node in graph.of(STATE) if node.attribute == graph.states[0]]
    elementwise = any(i in states for node in graph.nodes if node.op is not PROJECT for i in node.inputs)
    passed_on = any(node in states for node in (graph.output, *graph.new_states))
    one_width = all(node.inputs[0] in states for node in graph.of(PROJECT))
    return graph.output_is_history and one_width and not elementwise and not passed_on


@lru_cache(maxsize=512)
def backward_plan(graph: StepGraph, projected: bool = False, recompute: bool = False) -> BackwardPlan:
    """The stages of one step backward.

    With `recompute` the tape is empty: each step begins with the equations themselves, from the states before it, which
    are kept anyway, and from the input (the trade of Chen et al. 2016, "Training deep nets with sublinear memory cost",
    for every step).
    """
    derivative = differentiate(graph)
    columns = _in_gate_order(graph, derivative)
    gates = Buffer("gates", StorageClass.PER_CHUNK, max(1, len(columns)))
    gate_refs = {node: Slot(gates, column) for column, node in enumerate(columns)}
    saved, recomputed = _needed(graph, derivative, projected, recompute)
    slots, tape = _locate(graph, saved, projected)
    buffer = Buffer(RECOMPUTED, StorageClass.PER_CHUNK, len(recomputed))
    recomputed_refs = {node: Slot(buffer, column) for column, node in enumerate(recomputed)}
    operands = slots | recomputed_refs
    return BackwardPlan(
        graph,
        backward_program(graph, derivative, slots, gate_refs, recomputed_refs, projected),
        tape,
        tuple(saved),
        inputs=tuple((str(n.attribute), gate_refs[g].column) for n, g in derivative.inputs.items()),
        products=tuple(
            (str(n.attribute), gate_refs[g].column, operands[n.inputs[0]])
            for n, g in derivative.products.items()
        ),
        parameters=tuple(str(node.attribute) for node in derivative.parameters),
        beside=tuple(str(node.attribute) for node in derivative.beside),
        unprojected=operands[graph.output] if projected else None,
    )


def _needed(
    graph: StepGraph, derivative: Derivative, projected: bool, recompute: bool
) -> tuple[dict[Node, None], list[Node]]:
    """The values of the step that are read from where the forward pass left them, and those recomputed for products."""
    roots = _roots(derivative)
    operands = [
        *dict.fromkeys(node.inputs[0] for node in graph.of(PROJECT)),
        *([graph.output] if projected else []),
    ]
    if not recompute:
        read = saved_for(graph.nodes, _forward_values(graph, roots))
        return dict.fromkeys([*read, *operands]), []
    left = set(graph.of(STATE)) | (set() if projected else {graph.output, *graph.others})
    computed = postorder([*roots, *operands], left)
    reads = [i for node in computed for i in node.inputs] + [*roots, *operands]
    return dict.fromkeys(n for n in reads if n in left), [n for n in operands if n not in left]


def _locate(graph: StepGraph, saved: Iterable[Node], projected: bool) -> tuple[dict[Node, Slot], Tape]:
    """Where each value of the step lies."""
    elsewhere = state_slots(graph, carried(graph.states, projected))
    if not projected:
        for column, node in enumerate((graph.output, *graph.others)):
            elsewhere.setdefault(node, Slot(output_buffer(graph, projected), column))
    taped = [node for node in saved if node not in elsewhere]
    numbers = [node for node in taped if node.shape is Shape.ROWS]
    units = [node for node in taped if node.shape is not Shape.ROWS]
    tape = Tape(*({node: column for column, node in enumerate(each)} for each in (units, numbers)))
    return tape.slots | {node: elsewhere[node] for node in saved if node in elsewhere}, tape


def _in_gate_order(graph: StepGraph, d: Derivative) -> dict[Node, None]:
    """The gradients at gates, in the order of the gates, so that products over several read one run of memory."""
    at = [*d.inputs.items(), *d.products.items()]
    return dict.fromkeys(g for _, g in sorted(at, key=lambda pair: graph.gates.index(str(pair[0].attribute))))


def _roots(d: Derivative) -> list[Node]:
    kinds = (d.inputs, d.products, d.states, d.parameters, d.beside)
    return [gradient for each in kinds for gradient in each.values()]


def _forward_values(graph: StepGraph, roots: list[Node]) -> list[Node]:
    """The values of the step that its derivative reads."""
    step = set(graph.nodes)
    own = postorder(roots, graph.nodes)
    return [i for node in own for i in node.inputs if i in step] + [node for node in roots if node in step]
