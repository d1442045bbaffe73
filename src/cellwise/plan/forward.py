"""The forward program of a cell: for inference, or for training with a tape."""

from __future__ import annotations

from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, Kind, Op
from cellwise.plan.buffers import States, Tape, X, carried, given_slots, output_buffer, state_slots
from cellwise.plan.products import Products
from cellwise.plan.program import (
    Buffer,
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


@lru_cache(maxsize=512)
def forward_program(graph: StepGraph, tape: Tape | None, projected: bool = False) -> Program:
    """The stages of one step forward; with `tape`, also what they keep.

    Args:
        projected: the first state and the output are W_hr times what the equations give.
    """
    states = carried(graph.states, projected)
    in_memory = given_slots(graph) | state_slots(graph, states)
    outputs = _outputs(graph, states, tape, projected)
    nodes = [n for n in graph.nodes if n not in in_memory and n.op is not CONSTANT]
    products = Products(nodes, outputs, in_memory)
    level = products.together(assign_stages(nodes))
    stages, between = build_stages(nodes, level, outputs, in_memory, products.sums)
    if projected:
        stages += (_projection(outputs[0], states[0][1], output_buffer(graph, projected)),)
    buffers = dict.fromkeys(
        [X.buffer]
        + [buffer for pair in states for buffer in pair]
        + [slot.buffer for stage in stages for _, slot in (*stage.writes, *stage.row_writes)]
        + [*between, *(slot.buffer for slot in given_slots(graph).values())]
    )
    name = f"{graph.name}_{'forward' if tape is None else 'training'}"
    return Program(name, tuple(buffers), stages, in_memory, states, graph)


def _outputs(graph: StepGraph, states: States, tape: Tape | None, projected: bool) -> list[tuple[Node, Slot]]:
    """What the step computes for others, and where it is written."""
    outputs: list[tuple[Node, Slot]] = []
    if projected:
        outputs.append((graph.output, Slot(Buffer("unprojected", StorageClass.SCRATCH))))
    else:
        buffer = output_buffer(graph, projected)
        outputs += [(node, Slot(buffer, i)) for i, node in enumerate((graph.output, *graph.others))]
        outputs.append((graph.new_states[0], Slot(states[0][1])))
    outputs += [
        (node, Slot(after)) for node, (_, after) in zip(graph.new_states[1:], states[1:], strict=True)
    ]
    if tape is not None:
        outputs += tape.slots.items()
    return outputs


def _projection(given: tuple[Node, Slot], after: Buffer, output: Buffer) -> Stage:
    node, slot = given
    result = Node(PROJECT_OUTPUT, (node,))
    term = MatmulTerm(slot, WeightBlock(OUTPUT_WEIGHT, ("",)), (0,))
    writes = ((result, Slot(output)), (result, Slot(after)))
    return Stage((result,), ((),), (term,), (), writes, Width.PROJECTED)
