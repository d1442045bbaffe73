"""The meaning of a graph: each node, one torch call. Whatever a backend computes must agree with this page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cellwise.graph.expr import Node

if TYPE_CHECKING:
    from torch import Tensor


def evaluate(nodes: Iterable[Node], values: dict[Node, Tensor]) -> None:
    """Add to `values` the value of each of `nodes`, which stand inputs first and whose leaves are in `values`.

    Plain torch calls that change nothing in place: any dtype and device, differentiable as often as torch can,
    also under `torch.func`.
    """
    for node in nodes:
        if node not in values:
            assert node.op.torch is not None, f"no value was given for the leaf {node.op} {node.attribute}"
            values[node] = node.op.torch(*(values[i] for i in node.inputs))
