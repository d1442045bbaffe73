"""One layer in one direction, forward and backward: which arrays the kernels take, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from cellwise.backends.cpu.arguments import Arguments
from cellwise.backends.cpu.engine import Engine
from cellwise.backends.cpu.gradients import (
    Parts,
    Run,
    at_bias,
    at_operand,
    at_weight,
    before_each_step,
    recipe_of,
)
from cellwise.backends.cpu.kept import Sizes, history_of, keeps
from cellwise.backends.cpu.scratch import POOL
from cellwise.backends.cpu.walk import Steps
from cellwise.plan.backward import PROJECTED_GRADIENT
from cellwise.plan.program import Place, Ref

__all__ = ["Steps", "backward", "forward"]

# Gradients at gates are held for a span of steps of about so many bytes, then they become gradients of weights and
# input. So many that threads seldom wait for each other at the end of one; fewer where memory is what was asked for.
_SPAN_BYTES = {"tape": 32 * 2**20, "recompute": 8 * 2**20}

_keeps = lru_cache(maxsize=256)(keeps)  # what runs has numbers for sizes, not a compiler's symbols


def span_rows(engine: Engine, columns: int, width: int) -> int:
    """Valid steps in a span, where each has so many rows of this width."""
    size = _SPAN_BYTES["recompute" if engine.recompute else "tape"]
    # Without a gate that a gradient reaches, nothing is held.
    return max(1, size // (max(1, columns) * width * engine.element_bytes))


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
    keeping = _keeps(engine, sizes, steps.resets is not None, tape)
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
        name = history_of(name)
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
    reset = torch.zeros(steps.batch, 1, dtype=torch.bool, device="cpu")
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
    arrays = run.layout.arrays
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
        self.recipe = recipe_of(engine, self.sizes.hidden)
        keeping = _keeps(engine, self.sizes, steps.resets is not None)
        self.found = {"output": output} | dict(zip(keeping.shapes, kept, strict=True))
        self.first = dict(zip(engine.graph.states, _first(states, steps), strict=True))
        self.histories = {
            name: self.found["output" if place == 0 and keeping.output_is_history else history_of(name)]
            for place, name in enumerate(engine.graph.states)
        }
        self.arguments = Arguments(engine.backward, steps.turned, self.sizes.lengths)
        self.arrays = self.arguments.layout.arrays

    def run(
        self, output_gradient: Tensor | None, state_gradients: Sequence[Tensor | None], wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor], dict[str, Tensor]]:
        run = self.arguments
        self._give_kept()
        carried = self._give_gradients(output_gradient, state_gradients)
        spans = self._spans()
        _give_own(run, self.weights)
        run.prepare(self.weights)
        found = {stem: self._empty(stem) for stem in self.weights if stem.startswith("weight_")}
        dx = self._input_gradient() if wants_input else None
        for number, (first, end, rows) in enumerate(spans):
            run.run_span(first, end)
            if rows.start < rows.stop:
                self._at_weights(rows, found, add=number > 0)
                if dx is not None:
                    self._at_input(rows, dx)
        self._at_own(found)
        walk = self.steps.turned.walk
        finals = [walk.finals(pair, given, pair=True) for pair, given in carried]
        return dx, finals, found

    def _empty(self, stem: str) -> Tensor:
        """Room for the gradient of a weight, zero where not all of it will be written."""
        weight = self.weights[stem]
        whole = self.steps.walk.rows > 0 and stem in self.recipe.whole
        return weight.new_empty(weight.shape) if whole else weight.new_zeros(weight.shape)

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
            given = state.new_zeros(state.shape) if gradient is None else gradient.contiguous()
            carried.append((run.give_pair(before, after, given), given))
        return carried

    def _spans(self) -> list[tuple[int, int, slice]]:
        """First step, end and rows of each span, in the order in which they run; and room for the longest."""
        walk, run = self.steps.turned.walk, self.arguments
        held = [array for array in self.arrays.values() if array.place is Place.SPAN]
        size = span_rows(self.engine, sum(array.columns for array in held), self.sizes.padded)
        at = walk.offsets
        spans = [(first, end, slice(int(at[first]), int(at[end]))) for first, end in walk.spans(size)]
        self.most = max(rows.stop - rows.start for _, _, rows in spans)
        self.rooms: dict[str, Tensor] = {}
        self.between = {
            each.name: run.scratch(self.most, each.columns * run.layout.padded[each.width]) for each in held
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

    def _at_input(self, rows: slice, dx: Tensor) -> None:
        """The gradient at x of these steps, from those at the gates."""
        if self.recipe.inputs:
            gates = self.between["gates"][: rows.stop - rows.start]
            at_operand(gates, self.recipe.inputs, self.weights["weight_ih"], dx[rows])

    def _at_weights(self, rows: slice, found: dict[str, Tensor], add: bool) -> None:
        """What these steps give to the gradients at the weights."""
        every = slice(0, rows.stop - rows.start)
        unprojected = self.engine.plan.unprojected
        for ref, runs in self.recipe.recurrent:
            gates = self.between["gates"][every]
            at_weight(gates, runs, self._operand(ref, rows), found["weight_hh"], add)
        if self.recipe.inputs:
            gates = self.between["gates"][every]
            at_weight(gates, self.recipe.inputs, [(every, self.x[rows])], found["weight_ih"], add)
        if unprojected is not None:
            size = slice(0, self.sizes.projected)
            projected = self.between[PROJECTED_GRADIENT.name][every]
            at_weight(projected, [Run(size, size)], self._operand(unprojected, rows), found["weight_hr"], add)

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
        every = slice(0, rows.stop - rows.start)
        matrix = (
            self.between[array.name][every] if array.place is Place.SPAN else self.found[array.name][rows]
        )
        start = ref.column * (matrix.shape[1] // array.columns)
        return [(every, matrix[:, start : start + self.sizes.hidden])]

    def _at_own(self, found: dict[str, Tensor]) -> None:
        """The biases and the cell's own parameters, whose gradients the kernel has summed."""
        weights, graph = self.weights, self.engine.graph
        sums = {name: each.sum(0) if len(each) > 1 else each[0] for name, each in self.arguments.sums.items()}
        for stem in ("bias_ih", "bias_hh"):
            if stem in weights:
                found[stem] = at_bias(sums["bias sums"], self.recipe.biases[stem], weights[stem])
        parameters = self.engine.plan.parameters
        for name in (*graph.vectors, *graph.scalars):
            if name in parameters:
                start = parameters.index(name) * self.sizes.padded
                mine = sums["sums"][start : start + self.sizes.hidden]
                found[name] = (mine.sum() if name in graph.scalars else mine).to(
                    weights[name].dtype, copy=True
                )
            else:
                found[name] = torch.zeros_like(weights[name])
