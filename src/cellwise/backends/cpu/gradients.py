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


def before_each_step(walk: Walk, history: Tensor, initial: Tensor, scratch: Callable[..., Tensor]) -> Parts:
    """The states before each step: pieces of the history where all rows go on together, else gathered."""
    size, rows, batch = initial.shape[1], walk.rows, walk.batch
    history = history[:rows, :size]
    if walk.is_dense and rows:
        if walk.backwards:
            early, late, after = slice(0, rows - batch), slice(rows - batch, rows), history[batch:]
        else:
            early, late, after = slice(batch, rows), slice(0, batch), history[: rows - batch]
        return [(late, initial), (early, after)] if rows > batch else [(late, initial)]
    where, begins, row = walk.predecessors
    gathered = scratch(rows, size)
    torch.index_select(history, 0, where, out=gathered)
    gathered[begins] = initial[row]
    return [(slice(0, rows), gathered)]
