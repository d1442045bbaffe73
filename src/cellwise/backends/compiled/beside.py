"""What a layer pass is given beside x: values of each step, and random numbers, as rows of memory and as gradients.

To torch they are operands of a layer pass like its weights, and stand behind these. Values come as (N, H), or as (N, 1)
where a number stands for all units; random numbers as (N, H), or as (B, H) where they are drawn once a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import Sizes
from cellwise.backends.compiled.rows import in_rows
from cellwise.graph import StepGraph
from cellwise.plan.buffers import given_slots, name_beside


def shapes_beside(graph: StepGraph, rows: int, batch: int, hidden: int) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that each may have."""
    shapes: dict[str, list[tuple[int, ...]]] = {
        name: [(rows, hidden), (rows, 1)] for name in graph.asked_inputs
    }
    for draw in graph.asked_draws:
        shapes[draw.name] = [(batch if draw.per_sequence else rows, hidden)]
    return shapes


class Beside:
    """Where these lie among the operands of a layer pass."""

    def __init__(self, kernels: CellKernels, stems: Sequence[str], sizes: Sizes) -> None:
        self._kernels, self._one, self._sizes = kernels, kernels.padded(1), sizes
        slots = given_slots(kernels.graph).values()
        named = {name_beside(slot.buffer): slot.buffer.name for slot in slots}
        self._places = [(stems.index(name), named[name]) for name in kernels.graph.given]
        self.drawn = frozenset(draw.name for draw in kernels.graph.draws)

    @property
    def buffers(self) -> list[str]:
        """The names of their buffers."""
        return [name for _, name in self._places]

    def operands(self) -> dict[str, int]:
        """By the name of a buffer, which of the operands it holds."""
        return {name: place for place, name in self._places}

    def rows(self, operands: Sequence[Tensor]) -> list[Tensor]:
        """Their rows as kernels read them."""
        return [self._rows(operands[place]) for place, _ in self._places]

    def _rows(self, given: Tensor) -> Tensor:
        if given.shape[1] == 1 < self._sizes.hidden:
            return given.expand(-1, self._one).contiguous()
        return in_rows(given, self._sizes.padded)

    def gradients(self, held: Tensor, like: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The gradients at values, from what the kernel left of some steps, (steps, columns * width)."""
        width, hidden = self._sizes.padded, self._sizes.hidden
        for column, name in enumerate(self._kernels.plan.beside):
            found = held[:, column * width : column * width + hidden]
            yield name, found if like[name].shape[1] == hidden else found.sum(1, keepdim=True)
