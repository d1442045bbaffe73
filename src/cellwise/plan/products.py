"""The matrix products of the equations as accumulators of a stage, whichever program they stand in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from cellwise.graph import Node
from cellwise.graph.ops import INPUT, OPS, PROJECT
from cellwise.plan.buffers import X
from cellwise.plan.program import MatmulTerm, Slot, WeightBlock
from cellwise.plan.schedule import Outputs, Sums


class Products:
    """The products of a step among the nodes of a program.

    Args:
        in_memory: where operands lie, by the time that `sums` is called.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Outputs, in_memory: dict[Node, Slot]) -> None:
        self._in_memory = in_memory
        self._fused = _fused(nodes, {node for node, _ in outputs})
        self._inside = {part for pair in self._fused.values() for part in pair}

    def together(self, level: dict[Node, int]) -> dict[Node, int]:
        """The stages of nodes, where what is summed in one accumulator is in one stage."""
        for add, pair in self._fused.items():
            level |= dict.fromkeys(pair, level[add])
        return level

    def sums(self, stage_nodes: Sequence[Node]) -> Sums:
        """The accumulators for the nodes of a stage."""
        accumulators = [
            n for n in stage_nodes if n in self._fused or (n.op in (INPUT, PROJECT) and n not in self._inside)
        ]
        parts = [self._fused.get(node, (node,)) for node in accumulators]
        biases = [tuple((_bias(part), str(part.attribute)) for part in summed) for summed in parts]
        return Sums(tuple(accumulators), tuple(biases), tuple(self._terms(parts)))

    def _terms(self, parts: Sequence[tuple[Node, ...]]) -> Iterable[MatmulTerm]:
        """One term per operand: its row times the weights of all the gates that want it."""
        by_operand: dict[Node | None, list[tuple[int, str]]] = {}
        for number, summed in enumerate(parts):
            for part in summed:
                operand = part.inputs[0] if part.op is PROJECT else None
                by_operand.setdefault(operand, []).append((number, str(part.attribute)))
        for operand, users in by_operand.items():
            gates = tuple(gate for _, gate in users)
            numbers = tuple(number for number, _ in users)
            if operand is None:
                yield MatmulTerm(X, WeightBlock("weight_ih", gates), numbers)
            else:
                yield MatmulTerm(self._in_memory[operand], WeightBlock("weight_hh", gates), numbers)


def _bias(node: Node) -> str:
    return "bias_ih" if node.op is INPUT else "bias_hh"


def _fused(nodes: Sequence[Node], written: Collection[Node]) -> dict[Node, tuple[Node, Node]]:
    """Sums x.g + v.g whose parts nothing else uses: both products go into one accumulator."""
    uses = Counter(i for node in nodes for i in node.inputs)
    pairs = {}
    for node in nodes:
        kinds = {i.op: i for i in node.inputs}
        if node.op is OPS["add"] and set(kinds) == {INPUT, PROJECT}:
            pair = (kinds[INPUT], kinds[PROJECT])
            if all(uses[part] == 1 and part not in written for part in pair):
                pairs[node] = pair
    return pairs
