"""Gradients where rows have several lengths (`small_ragged.py`): operands of those of weights, which lie in no order
that is known before, and the products of calls with more rows than a chain multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.gradients import BlockSlice, RowBlocks, part_of
from cellwise.backends.compiled.saved import PROJECTION
from cellwise.backends.cpu.small_jobs import Jobs
from cellwise.plan.backward import PROJECTED_GRADIENT
from cellwise.plan.program import Slot, StorageClass

BEFORE_STEP = " before"  # ends the name of a state as a step finds it


def rooms_before(made: BackwardPass, row: int) -> dict[str, int]:
    """Bytes of room for what each row had before each step, of operands of products, by name; `row`: of a number of all
    rows.
    """
    slots = [slot for slot, _ in made.recipe.recurrent]
    slots += [] if made.kernels.plan.unprojected is None else [made.kernels.plan.unprojected]
    return {
        slot.buffer.name: row * made.sizes.of_state(_place(made, slot.buffer.name))[0]
        for slot in slots
        if slot.buffer.storage is StorageClass.CARRY_IN
    }


def find_before(found: Jobs, made: BackwardPass, rooms: Mapping[str, int]) -> None:
    """Add the jobs that put it there."""
    for name in rooms:
        place = _place(made, name)
        size, width = made.sizes.of_state(place)
        history = made.history_of[name.removesuffix(BEFORE_STEP)]
        found.steps.before(name, (history, width), (f"state {place}", size), size)


def find_ends(found: Jobs, made: BackwardPass, sizes: Sequence[int]) -> None:
    """Add the jobs that give the gradients at the states that were given."""
    for place, (size, width) in enumerate(zip(sizes, made.own_widths, strict=True)):
        pair, arriving = (f"pair {place}", width), (f"arriving {place}", size)
        found.steps.end(f"gradient {place}", pair, arriving, size, "pair after", made.schedule.batch)


def _place(made: BackwardPass, name: str) -> int:
    return made.kernels.graph.states.index(name.removesuffix(BEFORE_STEP))


class Held(NamedTuple):
    """What a chain left: in a block of scratch memory, from so many bytes on by name; and what was kept for it."""

    block: Any
    starts: Mapping[str, int]
    kept: Mapping[str, Tensor]

    @property
    def rows(self) -> int:
        return self.kept["output"].shape[0]

    def matrix(self, name: str, width: int) -> Tensor:
        found: Tensor = self.block.tensor(self.starts[name], self.rows, width, self.kept["output"].dtype)
        return found


def products_after(
    made: BackwardPass,
    held: Held,
    x: Tensor,
    weights: Sequence[Tensor],
    at_weights: Sequence[Tensor],
    wants_input: bool,
) -> Tensor | None:
    """Make the gradients of weights, and that at x if it is wanted, as `BackwardCall` has them made."""
    recipe, sizes, every = made.recipe, made.sizes, slice(0, held.rows)
    widths, found = dict(made.held), made.kernels.compiler.gradient_products(x.dtype)
    assert found is not None

    def operand(slot: Slot) -> RowBlocks:
        name, columns = slot.buffer.name, slot.buffer.columns
        if slot.buffer.storage is StorageClass.CARRY_IN:
            return [(every, held.matrix(name, sizes.of_state(_place(made, name))[0]))]
        matrix = held.matrix(name, widths[name]) if name in widths else held.kept[name]
        start = slot.column * (matrix.shape[1] // columns)
        return [(every, part_of(matrix, 1, slice(start, start + sizes.hidden)))]

    gradient, rows = dict(zip(made.stems, at_weights, strict=True)), x.view(held.rows, x.shape[-1])
    dx = None if not wants_input else torch.empty_like(x) if recipe.inputs else torch.zeros_like(x)
    for slot, runs in recipe.recurrent:
        gates = held.matrix("gates", widths["gates"])
        found.at_weight(gates, runs, operand(slot), gradient["weight_hh"], False)
    if recipe.inputs:
        gates = held.matrix("gates", widths["gates"])
        found.at_weight(gates, recipe.inputs, [(every, rows)], gradient["weight_ih"], False)
        if dx is not None:
            weight = weights[made.stems.index("weight_ih")]
            found.at_operand(gates, recipe.inputs, weight, dx.view(rows.shape))
    unprojected = made.kernels.plan.unprojected
    if unprojected is not None:
        size, name = slice(0, sizes.projected), PROJECTED_GRADIENT.name
        left = held.matrix(name, widths[name])
        found.at_weight(left, [BlockSlice(size, size)], operand(unprojected), gradient[PROJECTION], False)
    found.run()
    return dx
