"""How a cell runs over a sequence: what can be done for all steps at once, and the stages inside the loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cellwise.graph import Node, StepGraph


@dataclass(frozen=True, eq=False)
class Product:
    """One matrix product in the loop: the recurrent rows of `gates` times `operand`; `results`, one per gate."""

    operand: Node
    gates: tuple[str, ...]
    results: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """Products whose operands are known, then the pointwise work that their results allow."""

    products: tuple[Product, ...]
    pointwise: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class SequencePlan:
    """The work of one layer in one direction.

    `before` holds the pointwise nodes that see no state: they run once, on all steps together, after the
    projection of the input. A cell whose gates see no state has no product in any stage.
    """

    graph: StepGraph
    before: tuple[Node, ...]
    stages: tuple[Stage, ...]

    @property
    def input_gates(self) -> tuple[str, ...]:
        return self.graph.input_gates

    @property
    def state_gates(self) -> tuple[str, ...]:
        return self.graph.state_gates

    @cached_property
    def carried_in(self) -> tuple[Node, ...]:
        """The per-step values that the loop reads from what was computed before it."""
        known = set(self.before)
        inside = [node for stage in self.stages for node in stage.pointwise]
        read = [i for node in inside for i in node.inputs] + [
            p.operand for s in self.stages for p in s.products
        ]
        read += [self.graph.output, *self.graph.new_states]
        return tuple(dict.fromkeys(node for node in read if node in known))
