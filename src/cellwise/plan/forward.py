"""The forward program of a cell: for inference, or for training with a tape."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, Kind, Op
from cellwise.plan.buffers import States, Tape, X, carried, output_buffer, parameter_slots, state_slots
from cellwise.plan.products import Products
from cellwise.plan.program import (
    Buffer,
    HoistedProduct,
    MatmulTerm,
    Program,
    Slot,
    Stage,
    StorageClass,
    WeightBlock,
    Width,
)
from cellwise.plan.schedule import assign_stages, build_stages

# The output projection of torch.nn.LSTM's proj_size (Sak et al. 2014): W_hr v, without a bias.
PROJECT_OUTPUT = Op("project_output", Kind.MATMUL, 1, "W_hr {0}")
OUTPUT_WEIGHT = "weight_hr"

# Where the input's products are computed: in each step, or for all steps at once.
InputProduct = Literal["fused", "hoisted"]


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
    outputs = _outputs(graph, states, tape, projected)
    nodes = [n for n in graph.nodes if n not in in_memory and n.op is not CONSTANT]
    products = Products(nodes, outputs, in_memory, fuse=not hoisted)
    level = products.together(assign_stages(nodes))
    stages, between = build_stages(nodes, level, outputs, in_memory, products.sums)
    if projected:
        stages += (_projection(outputs[0], states[0][1]),)
    buffers = dict.fromkeys(
        ([product.result for product in hoisted] or [X.buffer])
        + [buffer for pair in states for buffer in pair]
        + [slot.buffer for stage in stages for _, slot in stage.writes]
        + [*between, *(slot.buffer for slot in parameter_slots(graph).values())]
    )
    name = f"{graph.name}_{'forward' if tape is None else 'training'}{'_hoisted' * bool(hoisted)}"
    return Program(name, tuple(buffers), stages, in_memory, states, graph, hoisted)


def _leaves(graph: StepGraph, states: States, hoisted: tuple[HoistedProduct, ...]) -> dict[Node, Slot]:
    """Where the step finds what it starts from."""
    leaves = parameter_slots(graph) | state_slots(graph, states)
    for product in hoisted:
        column = product.weight.gates.index
        leaves |= {node: Slot(product.result, column(str(node.attribute))) for node in graph.of(INPUT)}
    return leaves


def _outputs(graph: StepGraph, states: States, tape: Tape | None, projected: bool) -> list[tuple[Node, Slot]]:
    """What the step computes for others, and where it is written."""
    outputs: list[tuple[Node, Slot]] = []
    if projected:
        outputs.append((graph.output, Slot(Buffer("unprojected", StorageClass.SCRATCH))))
    else:
        outputs.append((graph.output, Slot(output_buffer(projected))))
        outputs.append((graph.new_states[0], Slot(states[0][1])))
    outputs += [
        (node, Slot(after)) for node, (_, after) in zip(graph.new_states[1:], states[1:], strict=True)
    ]
    if tape is not None:
        outputs += [(node, Slot(tape.buffer, column)) for node, column in tape.columns.items()]
    return outputs


def _hoisted(graph: StepGraph) -> tuple[HoistedProduct, ...]:
    """The product of the input for all steps, if the cell asks its input for a gate."""
    if not graph.input_gates:
        return ()
    result = Buffer("input products", StorageClass.PER_STEP, len(graph.input_gates))
    return (HoistedProduct(X.buffer, WeightBlock("weight_ih", graph.input_gates), "bias_ih", result),)


def _projection(given: tuple[Node, Slot], after: Buffer) -> Stage:
    node, slot = given
    result = Node(PROJECT_OUTPUT, (node,))
    term = MatmulTerm(slot, WeightBlock(OUTPUT_WEIGHT, ("",)), (0,))
    writes = ((result, Slot(output_buffer(True))), (result, Slot(after)))
    return Stage((result,), ((),), (term,), (), writes, Width.PROJECTED)
