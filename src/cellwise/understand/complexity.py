"""What cells cost, side by side: the formulas of `cellwise.plan.cost` and their values at some sizes.

>>> cost = complexity("gru")
>>> cost.parameters, cost.forward.products
(3h(d + h + 2), 6bth(d + h))
>>> cost.parameters.at(**Sizes(input_size=3, hidden_size=4).letters)
108
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cellwise import cells
from cellwise.backends.cpu.heads import parts_for
from cellwise.cells.base import Cell
from cellwise.graph.heads import heads_of
from cellwise.plan.cost import Cost, computed_cost, cost_of
from cellwise.plan.polynomial import Polynomial
from cellwise.understand.sizes import ComplexityError, Sizes

__all__ = [
    "DEFINITION",
    "QUANTITIES",
    "ComplexityError",
    "Cost",
    "Quantity",
    "Sizes",
    "complexity",
    "computed_beyond",
    "values",
]

DEFINITION = (
    "An operation is one multiplication or addition of a matrix product (a multiply-add counts 2), or one number "
    "made by anything else, a tanh as well as an addition (counts 1; elementary functions are also listed apart). "
    "Backward is the gradient at the weights, the initial states and the input. Bytes moved count each array once in "
    "each pass that uses it. A training step holds all that backward needs (of the gradients at gates the kernels hold "
    "about 32 MiB at a time at most, 8 with recomputation); an optimizer's own memory is not in it. "
    "Depth is the longest chain of values that wait for each other, a matrix product counting as one."
)


def complexity(
    cell: str | type[Cell] | Cell, layers: int = 1, bias: bool = True, recompute: bool = False
) -> Cost:
    """The cost of so many layers of a cell in one direction, as formulas; with `recompute` as layers that have it set.

    Raises:
        UnknownCellError: no cell has this name.
        ComplexityError: fewer than one layer.
    """
    return cost_of(cells.get(cell).graph, Sizes(layers=layers).layers, bias, recompute)


def computed_beyond(cell: Cell, sizes: Sizes) -> str | None:
    """What kernels compute beyond what is needed for a cell of several widths, as a sentence; None for all others."""
    if not cell.graph.widths:
        return None
    needed = cost_of(cell.graph, sizes.layers).forward.products.at(**sizes.letters)
    computed, width = computed_cost(cell.graph, sizes.hidden_size, sizes.layers)
    made = computed.forward.products.at(**(sizes.letters | {"h": width}))
    return (
        f"{cell.name} has values of several widths: counted is what is needed. Kernels compute rows of {width}, "
        f"{made:,} operations in products forward for {needed:,}."
    )


@dataclass(frozen=True)
class Quantity:
    """One row of the table: what it is, its formula, whether it counts numbers that take bytes.

    `held`: with a number of lanes and the sizes, how many numbers it is where kernels pad to whole vectors.
    """

    name: str
    of: Callable[[Cost], Polynomial]
    bytes: bool = False
    held: Callable[..., int] | None = None

    def at(self, cost: Cost, sizes: Sizes, lanes: int = 1) -> int:
        """Its value at some sizes."""
        if self.held is not None:
            return self.held(cost, lanes, **sizes.letters)
        return self.of(cost).at(**sizes.letters)


# Everything but depth, which need not be a polynomial. All tables are made from this one.
QUANTITIES = (
    Quantity("parameters", lambda c: c.parameters),
    Quantity("recurrent weights", lambda c: c.recurrent_weights),
    Quantity("forward, products", lambda c: c.forward.products),
    Quantity("forward, pointwise", lambda c: c.forward.pointwise),
    Quantity("of these, functions", lambda c: c.forward.functions),
    Quantity("backward, products", lambda c: c.backward.products),
    Quantity("backward, pointwise", lambda c: c.backward.pointwise),
    Quantity("of these, made again", lambda c: c.backward.recomputed),
    Quantity("read, inference", lambda c: c.inference_traffic.read, bytes=True),
    Quantity("written, inference", lambda c: c.inference_traffic.written, bytes=True),
    Quantity("read, forward of training", lambda c: c.forward_traffic.read, bytes=True),
    Quantity("written, forward of training", lambda c: c.forward_traffic.written, bytes=True),
    Quantity("read, backward", lambda c: c.backward_traffic.read, bytes=True),
    Quantity("written, backward", lambda c: c.backward_traffic.written, bytes=True),
    Quantity(
        "memory, inference",
        lambda c: c.inference_memory.total,
        bytes=True,
        held=lambda c, lanes, **sizes: c.inference_memory.at(lanes, **sizes),
    ),
    Quantity(
        "memory, training step",
        lambda c: c.training_memory.total,
        bytes=True,
        held=lambda c, lanes, **sizes: c.training_memory.at(lanes, **sizes),
    ),
    Quantity(
        "of this, kept from forward",
        lambda c: c.training_memory["tape"],
        bytes=True,
        held=lambda c, lanes, **sizes: c.training_memory.part("tape", lanes, **sizes),
    ),
)


def heads_note(cell: Cell, sizes: Sizes) -> str | None:
    """Of a cell whose units fall into heads, how a CPU computes what is counted, as a sentence; None of another one."""
    heads = heads_of(cell.graph)
    if heads == 1:
        return None
    hidden, rows = sizes.hidden_size, sizes.batch * sizes.length
    parts = parts_for(cell.graph, hidden, rows)
    how = (
        f"kernels run it as {parts} layers of {hidden // parts} units"
        if parts > 1
        else "kernels multiply by the whole matrices"
    )
    more = f", {heads // parts} times the products with the state" if parts < heads else ""
    return f"{cell.name} has {heads} heads, whose products are counted; at these sizes a CPU's {how}{more}."


def values(
    costs: Iterable[Cost], sizes: Sizes, bytes_per_number: int = 4, lanes: int = 1
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Each quantity's name and its value for each cost, depths last; what takes memory is in bytes.

    `sizes.layers` plays no part: a cost is that of its own number of layers. Memory is that of kernels which pad rows
    of h numbers to whole vectors of so many `lanes`.
    """
    costs = tuple(costs)
    rows = [
        (q.name, tuple(q.at(c, sizes, lanes) * (bytes_per_number if q.bytes else 1) for c in costs))
        for q in QUANTITIES
    ]
    rows += [("depth, forward", tuple(c.forward_depth.at(sizes.length) for c in costs))]
    rows += [("depth, backward", tuple(c.backward_depth.at(sizes.length) for c in costs))]
    return tuple(rows)
