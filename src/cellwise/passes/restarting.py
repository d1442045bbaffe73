"""Equations in which a mark of each step says whether states begin anew there, at what is learned.

Kernels set states to zero where a sequence begins anew. Where they begin at something else, that is a choice between
two values like any other, so it is written as one, and gradients and kernels follow.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import first_name, postorder
from cellwise.graph.ops import BESIDE, CONSTANT, OPS, STATE, VECTOR
from cellwise.graph.verify import verify


@lru_cache(maxsize=512)
def restarting(graph: StepGraph) -> StepGraph:
    """The step, with one more value beside x, the last: where it is 1, and not 0, each state is what it is at first.

    Where a state begins at zero it becomes that. What is learned is among the vectors, behind the others. The value
    beside x has no gradient.
    """
    taken = {*graph.states, *graph.vectors, *graph.scalars, *graph.inputs, *(name for _, name in graph.names)}
    taken |= {*graph.outputs, *(draw.name for draw in graph.draws)}
    mark = next(name for i in itertools.count(1) if (name := f"reset{i}") not in taken)
    begins = Node(OPS["less"], (Node(CONSTANT, (), 0.5), Node(BESIDE, (), mark)))
    zero = Node(CONSTANT, (), 0.0)
    new: dict[Node, Node] = {}

    def found(state: Node) -> Node:
        name = str(state.attribute)
        first = Node(VECTOR, (), first_name(name)) if name in graph.learned_first else zero
        return Node(OPS["where"], (begins, first, state))

    # Equal nodes are one.
    constants = {repr(node.attribute): node for node in (zero, begins.inputs[0])}
    for node in postorder((*graph.new_states, graph.output, *graph.others)):
        if node.op is STATE:
            new[node] = found(node)
        elif node.op is CONSTANT:
            new[node] = constants.get(repr(node.attribute), node)
        else:
            same = tuple(new[i] for i in node.inputs)
            new[node] = node if same == node.inputs else replace(node, inputs=same)
    return verify(
        replace(
            graph,
            name=f"{graph.name}_with_resets",
            vectors=(*graph.vectors, *map(first_name, graph.learned_first)),
            inputs=(*graph.inputs, mark),
            output=new[graph.output],
            others=tuple(new[node] for node in graph.others),
            new_states=tuple(new[node] for node in graph.new_states),
            names=tuple((new[node], name) for node, name in graph.names if node in new),
            learned_first=(),
        )
    )
