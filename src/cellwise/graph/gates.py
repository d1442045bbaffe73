"""What a gate may be beside W v + b, as functions of a gate: `ready(x.n)`, its numbers as they arrive."""

from __future__ import annotations

from typing import Any

from cellwise.errors import ShapeError
from cellwise.graph.expr import Node, ready_part
from cellwise.graph.ops import INPUT
from cellwise.graph.text import short
from cellwise.graph.tracer import current_tracer, describe
from cellwise.graph.values import Value, node_of, part_of_input


def ready(gate: Any) -> Any:
    """A gate of the input that arrives ready: `ready(x.n)` are numbers of the input itself, without a weight.

    The input of such a layer has H numbers for each of its gates, in their order; what makes them (a projection, a
    convolution, a batch norm) stands before the layer. All gates of the input are ready then, or none.
    """
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.ready writes equations inside a Cell.step and was given {describe(gate)} outside of one."
        )
    node = node_of(gate)
    if not isinstance(node, Node) or node.op is not INPUT:
        tracer.fail(
            ShapeError,
            problem=f"ready was given {short(node) if isinstance(node, Node) else describe(gate)}, which is no gate of "
            "the input.",
            remedy="It takes the numbers of a gate from the input as they are: ready(x.n).",
        )
    return Value(tracer, part_of_input(tracer, ready_part(str(node.attribute))))
