"""Outputs of recorded calls: the caller has them, and may write to them before the backward pass reads them.

A small one is copied. A large one is shared: torch counts what is done to a tensor in place, to its views and to what
`detach` makes of it, and if the count has moved by the time of the backward pass, the forward pass is run again for
what it left. From then on outputs of layers of that cell and those sizes are copied, since whoever writes to one
writes to the next.

What torch does not count (`.data`, numpy's views) is not seen, as in torch's own operators that read their results.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import Tensor

from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.saved import output_is_history

# Bytes from which a copy takes longer than asking for a count, and memory matters.
_LARGE = 2**18

# Of a cell the layers whose outputs were written to, by how wide inputs and outputs are.
_WRITTEN: WeakKeyDictionary[CellKernels, set[tuple[int, int]]] = WeakKeyDictionary()


class Writes:
    """How often a tensor was written to in place, as torch counts, without holding its memory."""

    def __init__(self, tensor: Tensor) -> None:
        # It shares the count, and goes on doing so when it is given other data.
        self._witness = tensor.detach()
        self._witness.data = tensor.new_empty(0)
        self._before = self._witness._version

    @property
    def are_some(self) -> bool:
        """Whether there were any since this was made."""
        return self._witness._version != self._before


def is_free(kernels: CellKernels, output: Tensor, has_resets: bool) -> bool:
    """Whether no backward pass reads this output: it was copied from wider rows, or derivatives needs none."""
    is_read = output_is_history(kernels.graph, has_resets) or kernels.plan.reads_output
    return not is_read or kernels.pads(output)


def is_shared(kernels: CellKernels, x: Tensor, output: Tensor) -> bool:
    """Whether an output (N, H) that is read, of an input (N, D), is handed out without a copy."""
    return are_shared(kernels, x.shape[1], output.shape[1], output.nbytes)


def are_shared(kernels: CellKernels, input_size: int, width: int, size: int) -> bool:
    """The same of outputs of such rows and so many bytes, before there are any."""
    return size >= _LARGE and (input_size, width) not in _WRITTEN.get(kernels, ())


def copy_from_now_on(kernels: CellKernels, x: Tensor, output: Tensor) -> None:
    """A caller wrote to such an output."""
    _WRITTEN.setdefault(kernels, set()).add((x.shape[1], output.shape[1]))


def stand_in(output: Tensor) -> Tensor:
    """A tensor of that shape and of one number, in place of an output that is not read."""
    return output.new_empty(()).expand(output.shape)
