"""How many units the values of a step and of its derivative have, as formulas in h."""

from __future__ import annotations

from collections.abc import Iterable

from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.heads import heads_of
from cellwise.graph.ops import PROJECT, Kind
from cellwise.graph.units import HIDDEN, Units
from cellwise.graph.widths import widths_of
from cellwise.passes.differentiate import GRADIENT, PULLBACK, arriving_outputs
from cellwise.plan.polynomial import Polynomial, h


class UnitCounts:
    """Those of a graph and of other nodes that are computed from its values, such as its derivative's."""

    def __init__(self, graph: StepGraph, others: Iterable[Node] = ()) -> None:
        self._widths = widths_of(graph) if graph.widths else None
        self._heads = heads_of(graph)
        self._found: dict[Node, Units | None] = {}
        if self._widths is None:
            return
        self._outputs = arriving_outputs(graph)
        for node in postorder([*graph.nodes, *others]):
            self._found[node] = self._of(node)

    def of(self, node: Node) -> Polynomial:
        """The units of a value; of a reduction those that it takes together, H of what has none."""
        if node.op.kind is Kind.REDUCTION:
            (node,) = node.inputs
            return _count(self._found.get(node) if node.shape.has_units else None)
        return _count(self._found.get(node))

    def gradient(self, leaf: Node, gradient: Node) -> Polynomial:
        """Those in which the gradient at a leaf or gate lies: its own; at a number, those that it is summed over."""
        if leaf.shape.has_units:
            return self.of(leaf)
        return self.of(gradient) if gradient.shape.has_units else h

    def weight(self, gate: str) -> Polynomial:
        """The numbers of a gate's recurrent weight that are not zero between heads."""
        if self._widths is None:
            return h * h // self._heads
        return _count(self._widths.gates[gate]) * _count(self._widths.columns[gate])

    def columns(self, gate: str) -> Polynomial:
        """What a gate is asked of."""
        return h if self._widths is None else _count(self._widths.columns[gate])

    def rows(self, gate: str) -> Polynomial:
        """The rows of a gate's weights."""
        return h if self._widths is None else _count(self._widths.gates[gate])

    def state(self, name: str) -> Polynomial:
        return h if self._widths is None else _count(self._widths.states[name])

    def draw(self, name: str) -> Polynomial:
        return h if self._widths is None else _count(self._widths.draws[name])

    def outputs(self, graph: StepGraph) -> list[Polynomial]:
        if self._widths is None:
            return [h] * (1 + len(graph.others))
        return [_count(units) for units in self._widths.outputs]

    def _of(self, node: Node) -> Units | None:
        assert self._widths is not None
        widths, name = self._widths, str(node.attribute)
        if node in widths.values:
            return widths.values[node]
        if not node.shape.has_units:
            return Units(1, 0)
        if node in widths.beside:
            return widths.beside[node] or Units(1, 0)
        if node.op is GRADIENT:
            return widths.outputs[self._outputs[name]] if name in self._outputs else widths.states[name]
        if node.op is PULLBACK:
            return widths.columns[name.split()[0]]
        if node.op is PROJECT:
            return widths.gates[name]
        known = (self._found[each] for each in node.inputs if each.shape.has_units)
        return next((units for units in known if units is not None), None)


def _count(units: Units | None) -> Polynomial:
    count: Polynomial | int = (units or HIDDEN).at(h)
    return count if isinstance(count, Polynomial) else Polynomial() + count
