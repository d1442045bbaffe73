"""The forward program of a cell: for inference, or for training with a tape."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, Kind, Op
from cellwise.plan.arrays import States, Tape, X, carried, output_array, parameter_refs, state_refs
from cellwise.plan.products import Products
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
    arrays = dict.fromkeys(
        ([product.result for product in hoisted] or [X.array])
        + [array for pair in states for array in pair]
        + [ref.array for stage in stages for _, ref in stage.writes]
        + [*between, *(ref.array for ref in parameter_refs(graph).values())]
    )
    name = f"{graph.name}_{'forward' if tape is None else 'training'}{'_hoisted' * bool(hoisted)}"
    return Program(name, tuple(arrays), stages, in_memory, states, graph, hoisted)


def _leaves(graph: StepGraph, states: States, hoisted: tuple[HoistedProduct, ...]) -> dict[Node, Ref]:
    """Where the step finds what it starts from."""
    leaves = parameter_refs(graph) | state_refs(graph, states)
    for product in hoisted:
        column = product.weight.gates.index
        leaves |= {node: Ref(product.result, column(str(node.attribute))) for node in graph.of(INPUT)}
    return leaves


def _outputs(graph: StepGraph, states: States, tape: Tape | None, projected: bool) -> list[tuple[Node, Ref]]:
    """What the step computes for others, and where it is written."""
    outputs: list[tuple[Node, Ref]] = []
    if projected:
        outputs.append((graph.output, Ref(Array("unprojected", Place.ROWS))))
    else:
        outputs.append((graph.output, Ref(output_array(projected))))
        outputs.append((graph.new_states[0], Ref(states[0][1])))
    outputs += [(node, Ref(after)) for node, (_, after) in zip(graph.new_states[1:], states[1:], strict=True)]
    if tape is not None:
        outputs += [(node, Ref(tape.array, column)) for node, column in tape.columns.items()]
    return outputs


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
