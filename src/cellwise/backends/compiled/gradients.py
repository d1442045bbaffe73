"""The gradients of weights and of the input: products over all steps at once, from the gradients at the gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.plan.program import Slot

# Of a product over N rows with fewer columns than this on one side MKL adds the rows one after the other: its error
# grows with N, and it takes up to sixteen times as long if that side is the right one. Not in blocks of rows, turned.
_NARROW, _BLOCK = 16, 256
# Of other products it adds block after block, whose error grows with N too: so many rows at once keep it small.
_LONG, _LONG_BLOCK = 2**15, 2**12

# So many gradients at gates are copied in less time than one more product takes to begin.
_FEW = 2**12

# Parts of a matrix with a row per step: which steps, and their rows.
RowBlocks = list[tuple[slice, Tensor]]


class BlockSlice(NamedTuple):
    """Rows of a weight, and the columns of the gradients at gates that they made: one matrix in memory, without a copy.

    `add`: these rows have a gradient from another operand already.
    """

    rows: slice
    columns: slice
    add: bool = False


class BiasPlaces(NamedTuple):
    """Where the numbers of a bias come from among the sums, and where they go if not one after the other to all of it.

    `run`: those of `source` as one piece, if they are.
    """

    source: Tensor
    target: Tensor | None
    run: slice | None


class WeightGradientLayout(NamedTuple):
    """How what a backward kernel leaves becomes the gradients of weights, for layers of one size."""

    inputs: tuple[BlockSlice, ...]
    recurrent: tuple[tuple[Slot, tuple[BlockSlice, ...]], ...]  # by operand
    whole: frozenset[
        str
    ]  # the weights of which every row has a gradient; some gates may be where none arrives
    biases: dict[str, BiasPlaces]
    equal_biases: bool  # whether both have the same gradient


@lru_cache(maxsize=256)
def weight_gradient_layout(kernels: CellKernels, hidden: int, device: torch.device) -> WeightGradientLayout:
    """The recipe for layers of this H on a device."""
    plan, graph, width = kernels.plan, kernels.graph, kernels.padded(hidden)
    order, at_input = graph.state_gates, dict(plan.inputs)
    places = enumerate(graph.input_gates)
    inputs = _runs([(row, at_input[gate]) for row, gate in places if gate in at_input], hidden, width)
    groups: dict[Slot, list[tuple[int, int]]] = {}
    for gate, column, slot in plan.products:
        groups.setdefault(slot, []).append((order.index(gate), column))
    written: set[int] = set()
    recurrent = []
    for slot, pairs in groups.items():
        recurrent.append((slot, _runs(sorted(pairs), hidden, width, written)))
        written |= {row for row, _ in pairs}
    ih = [(graph.input_gates.index(gate), column) for gate, column in plan.inputs]
    hh = [(order.index(gate), column) for gate, column, _ in plan.products]
    tensor = partial(kernels.compiler.constant, device=device)
    biases = {
        "bias_ih": _places(ih, len(graph.input_gates), hidden, width, tensor),
        "bias_hh": _places(hh, len(order), hidden, width, tensor),
    }
    whole = {"weight_ih": len(at_input) == len(graph.input_gates), "weight_hh": len(written) == len(order)}
    whole["weight_hr"] = True
    equal = sorted(ih) == sorted(hh) and len(graph.input_gates) == len(order)
    whole_stems = frozenset(stem for stem, all_ in whole.items() if all_)
    return WeightGradientLayout(inputs, tuple(recurrent), whole_stems, biases, equal)


def _runs(
    pairs: Sequence[tuple[int, int]], size: int, width: int, written: Set[int] = frozenset()
) -> tuple[BlockSlice, ...]:
    """From pairs of a gate's place in the weight and its column, in the order of the places."""
    runs: list[tuple[int, int, int]] = []  # first place, first column, how many
    for row, column in pairs:
        if runs and width == size:
            first, start, count = runs[-1]
            if (row, column) == (first + count, start + count) and (row in written) == (first in written):
                runs[-1] = first, start, count + 1
                continue
        runs.append((row, column, 1))
    return tuple(
        BlockSlice(slice(r * size, (r + n) * size), slice(c * width, c * width + n * size), r in written)
        for r, c, n in runs
    )


def _places(
    pairs: Sequence[tuple[int, int]],
    gates: int,
    size: int,
    width: int,
    tensor: Callable[[Sequence[int]], Tensor],
) -> BiasPlaces:
    pairs = sorted(pairs)
    source = [column * width + each for _, column in pairs for each in range(size)]
    first = source[0] if source else 0
    run = slice(first, first + len(source)) if source == list(range(first, first + len(source))) else None
    if [row for row, _ in pairs] == list(range(gates)):
        return BiasPlaces(tensor(source), None, run)
    return BiasPlaces(
        tensor(source), tensor([row * size + each for row, _ in pairs for each in range(size)]), run
    )


def at_weight(
    gates: Tensor, runs: Sequence[BlockSlice], operand: RowBlocks, out: Tensor, add: bool = False
) -> None:
    """Gradient at the rows of a weight that made gates from an operand (N, K), from that at the gates."""
    for run in runs:
        target, at_gates = out[run.rows], gates[:, run.columns]
        for number, (steps, matrix) in enumerate(operand):
            _product(at_gates[steps], matrix, target, add or run.add or number > 0)


def _product(left: Tensor, right: Tensor, out: Tensor, add: bool) -> None:
    """out (I, K) = left (N, I)^T right (N, K), or that added to it; it may be of a wider dtype."""
    size, width = out.shape
    is_narrow = min(size, width) < _NARROW
    if not is_narrow and len(left) <= _LONG and out.dtype == left.dtype:
        if add:
            out.addmm_(left.t(), right)
        else:
            torch.mm(left.t(), right, out=out)
        return
    block = _BLOCK if is_narrow else _LONG_BLOCK
    found = _in_blocks(left, right, block) if size <= width else _in_blocks(right, left, block).t()
    if add:
        out += found
    else:
        out.copy_(found)


def _in_blocks(few: Tensor, many: Tensor, block: int) -> Tensor:
    """few (N, I)^T many (N, K), of which I is the smaller, as a sum over blocks of so many rows."""
    count = len(few) // block
    if count < 2:
        return few.t() @ many
    whole = count * block
    blocks = [each[:whole].unflatten(0, (count, block)) for each in (few, many)]
    found = torch.bmm(blocks[0].transpose(1, 2), blocks[1]).sum(0)
    return found if whole == len(few) else found.addmm_(few[whole:].t(), many[whole:])


def at_operand(gates: Tensor, runs: Sequence[BlockSlice], weight: Tensor, out: Tensor) -> None:
    """Gradient at what the rows of a weight made gates from."""
    for number, run in enumerate(runs):
        if number == 0:
            torch.mm(gates[:, run.columns], weight[run.rows], out=out)
        else:
            out.addmm_(gates[:, run.columns], weight[run.rows])


def at_bias(sums: Tensor, places: BiasPlaces, like: Tensor) -> Tensor:
    """Gradient at a bias, from the sums of those at gates over all steps."""
    source, target, run = places
    if run is None:
        found = sums.take(source).to(like.dtype)
    else:
        found = part_of(sums, 0, run).to(like.dtype, copy=True)
    return found if target is None else torch.zeros_like(like).index_add_(0, target, found)


def part_of(tensor: Tensor, dim: int, part: slice) -> Tensor:
    """A slice of one dimension; all of it is the tensor itself, which costs no view."""
    size = part.stop - part.start
    return tensor if size == tensor.shape[dim] else tensor.narrow(dim, part.start, size)


def weight_in_one(
    gates: Tensor, runs: Sequence[BlockSlice], operand: RowBlocks, like: Tensor, source: Tensor | None
) -> Tensor | None:
    """What `at_weight` computes as a new tensor, if it is all of a weight by one plain product; else None.

    source: the columns of all rows of the weight, if each row has one. Few numbers are sooner gathered than multiplied
    in pieces.
    """
    if len(operand) > 1:
        return None
    height, width = like.shape
    plain = min(height, width) >= _NARROW and gates.shape[0] <= _LONG
    if not plain or sum([run.rows.stop - run.rows.start for run in runs]) < height:
        return None
    if len(runs) == 1:
        at_gates = part_of(gates, 1, runs[0].columns)
    elif source is not None and gates.numel() <= _FEW:
        at_gates = gates.index_select(1, source)
    else:
        return None
    return torch.mm(at_gates.t(), operand[0][1])


def operand_in_one(gates: Tensor, runs: Sequence[BlockSlice], weight: Tensor) -> Tensor | None:
    """What `at_operand` computes as a new tensor, if it is one product; else None."""
    if len(runs) > 1:
        return None
    return torch.mm(part_of(gates, 1, runs[0].columns), part_of(weight, 0, runs[0].rows))


def before_each_step(
    schedule: TimeSchedule, span: slice, history: Tensor, initial: Tensor, room: Callable[[], Tensor]
) -> RowBlocks:
    """The states before the steps of some rows: pieces of the history where all rows go on together, else gathered.

    `room` gives memory for rows of the size of the states, at least as many as the span has.
    """
    size, rows, batch = initial.shape[1], schedule.rows, schedule.batch
    first, end = span.start, span.stop
    if schedule.is_dense:
        if schedule.backwards:
            begins = end == rows
            middle = end - first - (batch if begins else 0)
            early, late = slice(0, middle), slice(middle, end - first)
            start = first + batch
        else:
            begins = first == 0
            middle = batch if begins else 0
            early, late = slice(middle, end - first), slice(0, middle)
            start = max(0, first - batch)
        parts = [(late, initial)] if begins else []
        count = early.stop - early.start
        return [*parts, (early, history[start : start + count, :size])] if count else parts
    where, begins_at, row = schedule.predecessors
    gathered, device = room()[: end - first], history.device
    torch.index_select(history[:rows, :size], 0, where[span].to(device), out=gathered)
    low, high = torch.searchsorted(begins_at, torch.tensor([first, end], device="cpu")).tolist()
    gathered[(begins_at[low:high] - first).to(device)] = initial[row[low:high].to(device)]
    return [(slice(0, end - first), gathered)]
