"""Equations of values of several widths as equations of one width, that of the widest.

A value of M units becomes one of W, of which unit j is computed as unit j mod M: its weights, parameters and states are
laid out so (`cellwise.nn.padding`). What lies beyond M so is a copy of what is real, and can be nothing that this is
not: no division by zero, no logarithm of it, no overflow of its own. Units meet in two places alone. In a product the
columns beyond M are zero. In a reduction the copies are left out, which is written here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import first_name
from cellwise.graph.ops import CONSTANT, OPS, VECTOR
from cellwise.graph.units import HIDDEN
from cellwise.graph.verify import verify
from cellwise.graph.widths import row_width, widths_of

# What a copy is in a reduction: that which changes nothing.
_NEUTRAL = {"sum": 0.0, "mean": 0.0, "amax": -math.inf}


@lru_cache(maxsize=512)
def padded(graph: StepGraph, hidden_size: int) -> StepGraph:
    """The step in rows of one width (`row_width`), H being `hidden_size`; the same one if all have H units.

    Its vectors are those of the graph, and behind them one for each of `masks`.
    """
    if not graph.widths:
        return graph
    names = {units: name for name, units in masks(graph, hidden_size)}
    reduced, once, new = _reduced(graph, hidden_size), _Once(), dict[Node, Node]()
    for node in graph.nodes:
        # Weights that are made of others come whole.
        made = replace(node, inputs=tuple(new[i] for i in node.inputs), form=None)
        new[node] = (
            once.of(made) if node not in reduced else _masked(made, names[reduced[node]], reduced[node], once)
        )
    return verify(
        replace(
            graph,
            vectors=(*graph.vectors, *names.values()),
            output=new[graph.output],
            others=tuple(new[node] for node in graph.others),
            new_states=tuple(new[node] for node in graph.new_states),
            names=tuple((new[node], name) for node, name in graph.names if node in new),
            widths=(),
        )
    )


def masks(graph: StepGraph, hidden_size: int) -> tuple[tuple[str, int], ...]:
    """The vectors that a padded step has of its own, 1 at the first M units and 0 at the others: names and M."""
    taken = {*graph.states, *graph.vectors, *graph.scalars, *graph.inputs, *(name for _, name in graph.names)}
    taken |= {*graph.outputs, *(draw.name for draw in graph.draws), *map(first_name, graph.states)}
    found = []
    for units in sorted(set(_reduced(graph, hidden_size).values())):
        names = (f"first{units}{'_' * count}" for count in itertools.count())
        found.append((next(name for name in names if name not in taken), units))
    return tuple(found)


@lru_cache(maxsize=512)
def _reduced(graph: StepGraph, hidden_size: int) -> dict[Node, int]:
    """The reductions over fewer units than a row has, and over how many."""
    width, values = row_width(graph, hidden_size), widths_of(graph).values
    over = {node: values.get(node.inputs[0], HIDDEN).at(hidden_size) for node in graph.reductions}
    return {node: units for node, units in over.items() if units < width}


class _Once:
    """Equal nodes are one."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[object, ...], Node] = {}

    def of(self, node: Node) -> Node:
        attribute = (type(node.attribute), str(node.attribute))
        return self._nodes.setdefault((node.op, node.inputs, attribute, node.linear, node.form), node)


def _masked(node: Node, mask: str, units: int, once: _Once) -> Node:
    """A reduction over the first units of its operand."""

    def made(op: str, *inputs: Node) -> Node:
        return once.of(Node(OPS[op], inputs, source=node.source))

    def number(value: float) -> Node:
        return once.of(Node(CONSTANT, (), value))

    is_real = made("less", number(0.5), once.of(Node(VECTOR, (), mask)))
    real = made("where", is_real, node.inputs[0], number(_NEUTRAL[node.op.name]))
    if node.op.name == "mean":
        return made("mul", made("sum", real), number(1.0 / units))
    return made(node.op.name, real)
