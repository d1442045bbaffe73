"""One layer in one direction, forward and backward: arrays for the kernels, threads, and the gradients of weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.cpu.compile import Kernel
from cellwise.backends.cpu.engine import Engine
from cellwise.backends.cpu.kernel import blocking
from cellwise.backends.cpu.pack import pack_biases, pack_weight
from cellwise.plan.program import Place

# Handing work to another thread takes 50 to 100 us, in which one core does a few million multiply-adds.
_WORTH_A_THREAD = 2_000_000


@dataclass(frozen=True, eq=False)
class Steps:
    """The rows of a batch: `offsets[t]` (T + 1,) is the first row of time t among all valid steps."""

    offsets: Tensor
    batch: int
    backwards: bool
    resets: Tensor | None
    reset_first: bool  # zero the states before a marked step, else after it

    @property
    def count(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Sizes:
    """D, H, H in whole vectors, and the multiply-adds of a step of one row."""

    input: int
    hidden: int
    padded: int
    work: int


def row_shares(steps: Steps, threads: int) -> tuple[tuple[int, int], ...]:
    """(first row, rows) for each thread, with about the same number of steps each."""
    if threads <= 1 or steps.batch <= 1:
        return ((0, steps.batch),)
    sizes = np.diff(steps.offsets.numpy())
    lengths = (sizes[:, None] > np.arange(steps.batch)).sum(0) if len(sizes) else np.zeros(steps.batch, int)
    done = np.cumsum(lengths)
    edges = [
        int(np.searchsorted(done, done[-1] * (i + 1) / threads, side="left")) + 1 for i in range(threads - 1)
    ]
    edges = sorted({0, *(min(e, steps.batch) for e in edges), steps.batch})
    return tuple((a, b - a) for a, b in itertools.pairwise(edges))


def shares_for(steps: Steps, sizes: Sizes) -> tuple[tuple[int, int], ...]:
    """How the rows are split: not at all for small work, which would only wait for the other thread."""
    work = int(steps.offsets[-1]) * sizes.work
    threads = min(torch.get_num_threads(), max(1, work // _WORTH_A_THREAD))
    return row_shares(steps, threads)


class Arguments:
    """Collects the arrays of one run of a kernel, and runs it in as many threads as there are shares of rows."""

    def __init__(self, engine: Engine, kernel: Kernel, like: Tensor, steps: Steps, sizes: Sizes) -> None:
        self.engine, self.kernel, self.steps, self.sizes = engine, kernel, steps, sizes
        self.shares = shares_for(steps, sizes)
        self.like = like
        self.arrays: dict[str, Tensor] = {}
        self.after: list[Tensor] = []

    def give(self, name: str, tensor: Tensor) -> None:
        assert tensor.is_contiguous(), f"the array {name} must be contiguous"
        self.arrays[name] = tensor

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.like.dtype)

    def make(self) -> None:
        """Make what no one gave: rows within a step, and sums, which each thread has for itself."""
        for array in self.kernel.program.arrays:
            if array.name in self.arrays:
                continue
            if array.place is Place.ROWS:
                self.arrays[array.name] = self.empty(self.steps.batch, array.columns, self.sizes.padded)
            elif array.place is Place.SUM:
                shape = (len(self.shares), array.columns, self.sizes.padded)
                self.arrays[array.name] = torch.zeros(shape, dtype=self.like.dtype)
            else:
                raise KeyError(array.name)

    def weights(self, weights: Mapping[str, Tensor]) -> None:
        rows, lanes = _rows(self.engine), self.engine.lanes
        stages = self.kernel.program.stages
        for stage in stages:
            for segment in stage.segments:
                stem = segment.weight.stem
                packed = pack_weight(weights[stem], rows[stem], segment.weight, self.sizes.hidden, lanes)
                self.after.append(packed)
        biases = {stem: rows[stem.replace("bias", "weight")] for stem in ("bias_ih", "bias_hh")}
        for stage in stages:
            if stage.accumulators:
                given = {stem: weights[stem] for stem in biases if stem in weights}
                self.after.append(pack_biases(stage, given, biases, self.sizes.hidden, lanes, self.like))

    def run(self) -> None:
        self.make()
        calls = [self._call(number, share) for number, share in enumerate(self.shares)]
        if len(calls) == 1:
            self.kernel.call(calls[0][0].ctypes.data, calls[0][1].ctypes.data)
            return
        futures = [
            _pool(len(calls) - 1).submit(self.kernel.call, pointers.ctypes.data, sizes.ctypes.data)
            for pointers, sizes, _ in calls[1:]
        ]
        self.kernel.call(calls[0][0].ctypes.data, calls[0][1].ctypes.data)
        for future in futures:
            future.result()

    def _call(self, number: int, share: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, Tensor]:
        first, rows = share
        program, steps, sizes = self.kernel.program, self.steps, self.sizes
        pointers = []
        for array in program.arrays:
            tensor = self.arrays[array.name]
            if array.place is Place.ROWS:
                tensor = tensor[first:]
            elif array.place is Place.SUM:
                tensor = tensor[number]
            pointers.append(tensor.data_ptr())
        pointers += [tensor.data_ptr() for tensor in self.after]
        widths = [len(stage.accumulators) for stage in program.stages if stage.accumulators]
        vectors = max((blocking(w, self.engine.target.accumulators).tiles * w for w in widths), default=1)
        room = self.empty(vectors * rows * self.engine.lanes)
        resets = steps.resets
        pointers += [room.data_ptr(), steps.offsets.data_ptr(), 0 if resets is None else resets.data_ptr()]
        flags = (
            steps.backwards,
            resets is not None and steps.reset_first,
            resets is not None and not steps.reset_first,
        )
        numbers = (steps.count, sizes.input, sizes.hidden, sizes.padded, first, rows, *map(int, flags))
        return np.array(pointers, np.int64), np.array(numbers, np.int64), room


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cellwise")


def _padded(tensor: Tensor, width: int) -> Tensor:
    """A copy with rows of whole vectors, zeros in the padding."""
    if tensor.shape[-1] == width:
        return tensor.clone(memory_format=torch.contiguous_format)
    padded = tensor.new_zeros(*tensor.shape[:-1], width)
    padded[..., : tensor.shape[-1]] = tensor
    return padded


def _own(engine: Engine, weights: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    graph = engine.graph
    own = {f"own {name}": _padded(weights[name], width) for name in graph.vectors if name in weights}
    return own | {f"own {name}": weights[name].contiguous() for name in graph.scalars if name in weights}


def forward(
    engine: Engine,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    steps: Steps,
    tape: bool,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Run forward from x (N, D) and states (B, H): outputs (N, H), final states, the tape (N, columns, H)."""
    graph, hidden = engine.graph, states[0].shape[1]
    kernel = engine.training if tape else engine.inference
    sizes = _sizes(engine, x.shape[1], hidden)
    run = Arguments(engine, kernel, x, steps, sizes)
    run.give("x", x.contiguous())
    finals = [_padded(state, sizes.padded) for state in states]
    for name, state in zip(graph.states, finals, strict=True):
        run.give(f"state {name}", state)
    output = run.empty(len(x), sizes.padded)
    run.give("output", output)
    kept = run.empty(len(x), kernel.program.array("tape").columns, sizes.padded) if tape else None
    if kept is not None:
        run.give("tape", kept)
    for name, tensor in _own(engine, weights, sizes.padded).items():
        run.give(name, tensor)
    run.weights(weights)
    run.run()
    return _cut(output, hidden), [_cut(state, hidden) for state in finals], kept


def _cut(tensor: Tensor, hidden: int) -> Tensor:
    return tensor if tensor.shape[-1] == hidden else tensor[..., :hidden].contiguous()


def _rows(engine: Engine) -> dict[str, tuple[str, ...]]:
    return {"weight_ih": engine.graph.input_gates, "weight_hh": engine.graph.state_gates}


def _sizes(engine: Engine, width: int, hidden: int) -> Sizes:
    graph = engine.graph
    work = hidden * (len(graph.input_gates) * width + len(graph.state_gates) * hidden + 20)
    return Sizes(width, hidden, engine.padded(hidden), work)


def backward(
    engine: Engine,
    x: Tensor,
    weights: Mapping[str, Tensor],
    steps: Steps,
    tape: Tensor,
    output_gradient: Tensor,
    state_gradients: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Run backward. Returns the gradients at x (N, D), at the initial states (B, H) each, and at the weights."""
    plan, hidden = engine.plan, state_gradients[0].shape[1]
    sizes = _sizes(engine, x.shape[1], hidden)
    run = Arguments(engine, engine.backward, x, steps, sizes)
    width = sizes.padded
    run.give(
        "gradient output",
        output_gradient.contiguous() if hidden == width else _padded(output_gradient, width),
    )
    run.give("tape", tape)
    carried = [_padded(gradient, width) for gradient in state_gradients]
    for name, gradient in zip(engine.graph.states, carried, strict=True):
        run.give(f"gradient {name}", gradient)
    gates = run.empty(len(x), plan.program.array("gates").columns, width)
    run.give("gates", gates)
    for name, tensor in _own(engine, weights, width).items():
        run.give(name, tensor)
    run.weights(weights)
    run.run()
    gradients = _weight_gradients(engine, x, weights, tape, gates, run, hidden)
    return gradients.pop("x"), [_cut(gradient, hidden) for gradient in carried], gradients


def _weight_gradients(
    engine: Engine,
    x: Tensor,
    weights: Mapping[str, Tensor],
    tape: Tensor,
    gates: Tensor,
    run: Arguments,
    hidden: int,
) -> dict[str, Tensor]:
    """The products over all steps at once: gradients at the weights and at x."""
    plan, graph = engine.plan, engine.graph
    found: dict[str, Tensor] = {}
    biases = run.arrays["bias sums"].sum(0)[:, :hidden]
    at_input = dict(plan.inputs)
    if graph.input_gates:
        columns = [at_input[gate] for gate in graph.input_gates]
        gradient = _columns(gates, columns, hidden)
        found["weight_ih"] = gradient.t() @ x
        found["x"] = gradient @ weights["weight_ih"]
        found["bias_ih"] = biases[columns].reshape(-1)
    else:
        found["x"] = torch.zeros_like(x)
    if graph.state_gates:
        found["weight_hh"] = weights["weight_hh"].new_zeros(len(graph.state_gates), hidden, hidden)
        found["bias_hh"] = biases.new_zeros(len(graph.state_gates), hidden)
        for operand, group in _by_operand(plan.products).items():
            places = [graph.state_gates.index(gate) for gate, _ in group]
            columns = [column for _, column in group]
            product = _columns(gates, columns, hidden).t() @ tape[:, operand, :hidden]
            for i, place in enumerate(places):
                found["weight_hh"][place] += product[i * hidden : (i + 1) * hidden]
                found["bias_hh"][place] += biases[columns[i]]
        found["weight_hh"] = found["weight_hh"].flatten(0, 1)
        found["bias_hh"] = found["bias_hh"].flatten()
    sums = run.arrays["sums"].sum(0)[:, :hidden]
    for column, name in enumerate(plan.parameters):
        found[name] = sums[column].sum() if name in graph.scalars else sums[column].clone()
    return found


def _by_operand(products: Sequence[tuple[str, int, int]]) -> dict[int, list[tuple[str, int]]]:
    groups: dict[int, list[tuple[str, int]]] = {}
    for gate, column, operand in products:
        groups.setdefault(operand, []).append((gate, column))
    return {operand: sorted(group, key=lambda each: each[1]) for operand, group in groups.items()}


def _columns(gates: Tensor, columns: list[int], hidden: int) -> Tensor:
    """Some columns of (N, columns, padded) as (N, len(columns) * H), without a copy where they lie side by side."""
    first = columns[0]
    if columns == list(range(first, first + len(columns))):
        chosen = gates[:, first : first + len(columns), :hidden]
    else:
        chosen = gates[:, columns, :hidden]
    if gates.shape[-1] == hidden and chosen.stride(1) == hidden:
        return chosen.as_strided((len(gates), len(columns) * hidden), (chosen.stride(0), 1))
    return chosen.reshape(len(gates), len(columns) * hidden)
