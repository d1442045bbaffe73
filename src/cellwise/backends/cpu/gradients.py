"""The gradients of weights and of the input: products over all steps at once, from the gradients at the gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from cellwise.backends.cpu.walk import Walk

# Parts of a matrix with a row per step: which steps, and their rows.
Parts = list[tuple[slice, Tensor]]


class Gates:
    """Gradients at gates, (N, columns, padded), of which the first `size` numbers of a row count."""

    def __init__(self, gates: Tensor, size: int) -> None:
        self.gates, self.size = gates, size

    def weight_gradient(self, columns: Sequence[int], operand: Parts, out: Tensor, add: bool = False) -> None:
        """Gradient at the rows (len(columns) * size, K) that made these gates from an operand (N, K)."""
        for rows, first, count in self._runs(columns):
            target = out[rows]
            for number, (steps, matrix) in enumerate(operand):
                gradient = self._columns(first, count, steps).t()
                if number == 0 and not add:
                    torch.mm(gradient, matrix, out=target)
                else:
                    target.addmm_(gradient, matrix)

    def input_gradient(self, columns: Sequence[int], weight: Tensor, out: Tensor) -> None:
        """Gradient at what the rows of a weight made these gates from."""
        for number, (rows, first, count) in enumerate(self._runs(columns)):
            gradient = self._columns(first, count, slice(None))
            if number == 0:
                torch.mm(gradient, weight[rows], out=out)
            else:
                out.addmm_(gradient, weight[rows])

    def _runs(self, columns: Sequence[int]) -> Iterable[tuple[slice, int, int]]:
        """Rows of the weight, first column and number of columns that are one matrix in memory, without a copy."""
        start = 0
        whole = self.gates.shape[-1] == self.size
        for place in range(1, len(columns) + 1):
            if place == len(columns) or not whole or columns[place] != columns[place - 1] + 1:
                yield slice(start * self.size, place * self.size), columns[start], place - start
                start = place

    def _columns(self, first: int, count: int, steps: slice) -> Tensor:
        gates = self.gates[steps]
        if count == 1:
            return gates[:, first, : self.size]
        return (
            gates[:, first : first + count].flatten(1)
            if len(gates)
            else gates.new_empty(0, count * self.size)
        )


def before_each_step(
    walk: Walk, span: slice, history: Tensor, initial: Tensor, room: Callable[[], Tensor]
) -> Parts:
    """The states before the steps of some rows: pieces of the history where all rows go on together, else gathered.

    `room` gives memory for rows of the size of the states, at least as many as the span has.
    """
    size, rows, batch = initial.shape[1], walk.rows, walk.batch
    history = history[:rows, :size]
    first, end = span.start, span.stop
    if walk.is_dense:
        if walk.backwards:
            begins = end == rows
            middle = end - first - (batch if begins else 0)
            early, late, after = (
                slice(0, middle),
                slice(middle, end - first),
                history[first + batch : end + batch],
            )
        else:
            begins = first == 0
            late, early = slice(0, batch if begins else 0), slice(batch if begins else 0, end - first)
            after = history[max(0, first - batch) : end - batch]
        parts = [(late, initial)] if begins else []
        return [*parts, (early, after)] if len(after) else parts
    where, begins_at, row = walk.predecessors
    gathered = room()[: end - first]
    torch.index_select(history, 0, where[span], out=gathered)
    low, high = torch.searchsorted(begins_at, torch.tensor([first, end])).tolist()
    gathered[begins_at[low:high] - first] = initial[row[low:high]]
    return [(slice(0, end - first), gathered)]
