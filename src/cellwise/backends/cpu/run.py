"""One layer in one direction, forward and backward: which arrays the kernels take, and what comes of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from cellwise.backends.cpu.arguments import Arguments
from cellwise.backends.cpu.engine import Engine
from cellwise.backends.cpu.gradients import Gates, Parts, before_each_step
from cellwise.backends.cpu.kept import Sizes, keeps
from cellwise.backends.cpu.scratch import POOL
from cellwise.backends.cpu.walk import Steps
from cellwise.plan.backward import PROJECTED_GRADIENT
from cellwise.plan.program import Place, Ref

__all__ = ["Steps", "backward", "forward"]

# Gradients at gates are held for a span of steps of about so many bytes, then they become gradients of weights and
# input. So many that threads seldom wait for each other at the end of one; fewer where memory is what was asked for.
_SPAN_BYTES = {"tape": 32 * 2**20, "recompute": 8 * 2**20}


def span_rows(engine: Engine, columns: int, width: int) -> int:
    """Valid steps in a span, where each has so many rows of this width."""
    size = _SPAN_BYTES["recompute" if engine.recompute else "tape"]
    return max(1, size // (columns * width * engine.element_bytes))


def forward(
    engine: Engine,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    steps: Steps,
    tape: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run forward from x (N, D) and states (B, H): outputs (N, H), final states, and with `tape` what is kept."""
    sizes = Sizes.of(engine, x, weights, states)
    kernel = engine.training if tape else engine.inference
    run = Arguments(kernel, steps, sizes.lengths)
    walk = steps.walk
    run.give("x", x.contiguous())
    output = x.new_empty(len(x), sizes.padded_output)
    run.give("output", output)
    keeping = keeps(engine, sizes, steps.resets is not None)
    kept = {"output": output} | {
        name: POOL.tensor(len(x), columns * width, dtype=x.dtype)
        for name, (columns, width) in (keeping.shapes.items() if tape else ())
        if name != "output"
    }
    if "tape" in kept:
        run.give("tape", kept["tape"])
    first = _first(states, steps)
    histories: list[tuple[Tensor, bool]] = []
    for place, (name, (before, after)) in enumerate(
        zip(engine.graph.states, kernel.program.states, strict=True)
    ):
        history = output if place == 0 and keeping.output_is_history else kept.get(name)
        if history is not None:
            run.give_history(before, after, first[place], history, walk)
        else:
            history = run.give_pair(before, after, first[place])
        histories.append((history, history is not output and name not in kept))
    _give_own(run, weights)
    run.run(weights)
    finals = [
        walk.finals(history, state, pair) for (history, pair), state in zip(histories, first, strict=True)
    ]
    if walk.rows < len(x):
        output[walk.rows :] = 0
    given = output
    if sizes.output != sizes.padded_output:
        # A copy even of a single row, which lies as it should: operators that torch traces share no memory.
        given = output[:, : sizes.output].clone(memory_format=torch.contiguous_format)
    return given, finals, [kept[name] for name in keeping.shapes] if tape else []


def _first(states: Sequence[Tensor], steps: Steps) -> list[Tensor]:
    """The states before each row's first step; a copy if the kernel is to zero some of them."""
    if steps.resets is None or not steps.reset_first:
        return [state.contiguous() for state in states]
    size = int(steps.walk.offsets[1]) if steps.count else 0
    reset = torch.zeros(steps.batch, 1, dtype=torch.bool)
    reset[:size, 0] = steps.resets[:size].bool()
    return [state.masked_fill(reset, 0) for state in states]


def backward(
    engine: Engine,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    steps: Steps,
    output: Tensor,
    kept: Sequence[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
    wants_input: bool = True,
) -> tuple[Tensor | None, list[Tensor], dict[str, Tensor]]:
    """Run backward through `steps`, those of the forward run. A gradient that is None is zero.

    Returns the gradients at x (N, D) if wanted, at the initial states (B, H) each, and at the weights.
    """
    return _Backward(engine, x, states, weights, steps, output, kept).run(
        output_gradient, state_gradients, wants_input
    )


def _give_own(run: Arguments, weights: Mapping[str, Tensor]) -> None:
    """The cell's own parameters."""
    arrays = {array.name: array for array in run.kernel.program.arrays}
    for name in (*run.engine.graph.vectors, *run.engine.graph.scalars):
        array = arrays.get(f"own {name}")
        if array is not None and array.place is Place.NUMBER:
            run.give(array.name, weights[name].contiguous())
        elif array is not None:
            run.give_rows(array, weights[name])


class _Backward:
    """A run backward: its arrays, and the gradients that come of them."""

    def __init__(
        self,
        engine: Engine,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Mapping[str, Tensor],
        steps: Steps,
        output: Tensor,
        kept: Sequence[Tensor],
    ) -> None:
        self.engine, self.x, self.states, self.weights, self.steps = engine, x, states, weights, steps
        self.sizes = Sizes.of(engine, x, weights, states)
        self.turned = Steps(
            steps.offsets, steps.batch, not steps.backwards, steps.resets, not steps.reset_first
        )
        keeping = keeps(engine, self.sizes, steps.resets is not None)
        self.found = {"output": output} | dict(zip(keeping.shapes, kept, strict=True))
        self.first = dict(zip(engine.graph.states, _first(states, steps), strict=True))
        self.histories = {
            name: self.found["output" if place == 0 and keeping.output_is_history else name]
            for place, name in enumerate(engine.graph.states)
        }
        self.arguments = Arguments(engine.backward, self.turned, self.sizes.lengths)
        self.arrays = {array.name: array for array in engine.backward.program.arrays}

    def run(
        self, output_gradient: Tensor | None, state_gradients: Sequence[Tensor | None], wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor], dict[str, Tensor]]:
        run = self.arguments
        self._give_kept()
        carried = self._give_gradients(output_gradient, state_gradients)
        spans = self._spans()
        _give_own(run, self.weights)
        run.prepare(self.weights)
        found = {
            stem: torch.zeros_like(weight, memory_format=torch.contiguous_format)
            for stem, weight in self.weights.items()
        }
        dx = self._input_gradient() if wants_input else None
        for number, (first, end, rows) in enumerate(spans):
            run.run_span(first, end)
            if rows.start < rows.stop:
                self._at_weights(rows, found, add=number > 0)
                if dx is not None:
                    self._at_input(rows, dx)
        self._at_own(found)
        finals = [self.turned.walk.finals(pair, given, pair=True) for pair, given in carried]
        return dx, finals, found

    def _give_gradients(
        self, output_gradient: Tensor | None, state_gradients: Sequence[Tensor | None]
    ) -> list[tuple[Tensor, Tensor]]:
        """Those that arrive. Returns for each state its pair of buffers, and what arrived."""
        run, x = self.arguments, self.x
        given = x.new_zeros(len(x), self.sizes.output) if output_gradient is None else output_gradient
        run.give_rows(self.arrays["gradient output"], given)
        carried = []
        arrays = self.engine.backward.program.states
        for (before, after), gradient, state in zip(arrays, state_gradients, self.states, strict=True):
            given = torch.zeros_like(state) if gradient is None else gradient.contiguous()
            carried.append((run.give_pair(before, after, given), given))
        return carried

    def _spans(self) -> list[tuple[int, int, slice]]:
        """First step, end and rows of each span, in the order in which they run; and room for the longest."""
        walk, run = self.turned.walk, self.arguments
        held = [array for array in self.arrays.values() if array.place is Place.SPAN]
        size = span_rows(self.engine, sum(array.columns for array in held), self.sizes.padded)
        spans = [(first, end, slice(*walk.offsets[[first, end]].tolist())) for first, end in walk.spans(size)]
        self.most = max(rows.stop - rows.start for _, _, rows in spans)
        self.rooms: dict[str, Tensor] = {}
        self.between = {
            array.name: run.scratch(self.most, array.columns, run.padded[array.width]) for array in held
        }
        for name, tensor in self.between.items():
            run.give(name, tensor)
        return spans

    def _give_kept(self) -> None:
        """What the forward pass left, and its input where the steps are computed again."""
        if "x" in self.arrays:
            self.arguments.give("x", self.x.contiguous())
        for name, history in self.histories.items():
            if f"{name} before" in self.arrays:
                before = self.arrays[f"{name} before"]
                self.arguments.give_history(before, None, self.first[name], history, self.steps.walk)
        for name in ("tape", "output"):
            if name in self.arrays:
                self.arguments.give(name, self.found[name])

    def _input_gradient(self) -> Tensor:
        whole = self.engine.plan.inputs and self.steps.walk.rows == len(self.x)
        make = torch.empty_like if whole else torch.zeros_like
        return make(self.x, memory_format=torch.contiguous_format)

    def _gates(self, rows: slice, name: str = "gates", size: int = 0) -> Gates:
        return Gates(self.between[name][: rows.stop - rows.start], size or self.sizes.hidden)

    def _at_input(self, rows: slice, dx: Tensor) -> None:
        """The gradient at x of these steps, from those at the gates."""
        at_input = dict(self.engine.plan.inputs)
        if at_input:
            columns = [at_input[gate] for gate in self.engine.graph.input_gates]
            self._gates(rows).input_gradient(columns, self.weights["weight_ih"], dx[rows])

    def _at_weights(self, rows: slice, found: dict[str, Tensor], add: bool) -> None:
        """What these steps give to the gradients at the weights."""
        plan, graph = self.engine.plan, self.engine.graph
        every = slice(0, rows.stop - rows.start)
        self._at_recurrent(rows, found, add)
        if graph.input_gates:
            at_input = dict(plan.inputs)
            columns = [at_input[gate] for gate in graph.input_gates]
            self._gates(rows).weight_gradient(columns, [(every, self.x[rows])], found["weight_ih"], add)
        if plan.unprojected is not None:
            projected = self._gates(rows, PROJECTED_GRADIENT.name, self.sizes.projected)
            projected.weight_gradient([0], self._operand(plan.unprojected, rows), found["weight_hr"], add)

    def _at_recurrent(self, rows: slice, found: dict[str, Tensor], add: bool) -> None:
        hidden, order = self.sizes.hidden, self.engine.graph.state_gates
        written: set[str] = set(order if add else ())
        for ref, group in _by_operand(self.engine.plan.products, order).items():
            operand = self._operand(ref, rows)
            for run in _consecutive(group, order):
                names, columns = zip(*run, strict=True)
                first = order.index(names[0]) * hidden
                out = found["weight_hh"][first : first + len(run) * hidden]
                self._gates(rows).weight_gradient(columns, operand, out, not written.isdisjoint(names))
                written |= set(names)

    def _room(self, state: str) -> Tensor:
        """Rows of a state for the longest span."""
        if state not in self.rooms:
            self.rooms[state] = self.arguments.scratch(self.most, self.first[state].shape[1])
        return self.rooms[state]

    def _operand(self, ref: Ref, rows: slice) -> Parts:
        """The rows that a product had as its operand in these steps."""
        array = ref.array
        if array.place is Place.BEFORE:
            name = array.name.removesuffix(" before")
            history, first = self.histories[name], self.first[name]
            return before_each_step(self.steps.walk, rows, history, first, partial(self._room, name))
        if array.place is Place.SPAN:
            every = slice(0, rows.stop - rows.start)
            return [(every, self.between[array.name][every, ref.column, : self.sizes.hidden])]
        found = self.found[array.name].view(len(self.x), array.columns, -1)
        return [(slice(0, rows.stop - rows.start), found[rows, ref.column, : self.sizes.hidden])]

    def _at_own(self, found: dict[str, Tensor]) -> None:
        """The biases and the cell's own parameters, whose gradients the kernel has summed."""
        plan, graph, hidden = self.engine.plan, self.engine.graph, self.sizes.hidden
        biases = self.arguments.sums["bias sums"].sum(0)[:, :hidden]
        if "bias_ih" in found:
            for gate, column in plan.inputs:
                found["bias_ih"].view(-1, hidden)[graph.input_gates.index(gate)] = biases[column]
        if "bias_hh" in found:
            for gate, column, _ in plan.products:
                found["bias_hh"].view(-1, hidden)[graph.state_gates.index(gate)] += biases[column]
        sums = self.arguments.sums["sums"].sum(0)[:, :hidden]
        for column, name in enumerate(plan.parameters):
            found[name] = sums[column].sum() if name in graph.scalars else sums[column].clone()


def _by_operand(
    products: Sequence[tuple[str, int, Ref]], order: Sequence[str]
) -> dict[Ref, list[tuple[str, int]]]:
    """The gates that each operand was projected for, in the order of the weight's rows, and their columns."""
    groups: dict[Ref, list[tuple[str, int]]] = {}
    for gate, column, ref in products:
        groups.setdefault(ref, []).append((gate, column))
    return {ref: sorted(group, key=lambda each: order.index(each[0])) for ref, group in groups.items()}


def _consecutive(group: list[tuple[str, int]], order: Sequence[str]) -> list[list[tuple[str, int]]]:
    """Pieces of a group whose gates' rows lie one after the other in the weight."""
    pieces = [group[:1]]
    for before, each in itertools.pairwise(group):
        if order.index(each[0]) == order.index(before[0]) + 1:
            pieces[-1].append(each)
        else:
            pieces.append([each])
    return pieces
