"""Calls that compute little, where what surrounds a kernel takes longer than the kernel.

The same kernels on the same arrays as `compiled.forward_pass` and `backward_pass`, for batches of few rows in one
thread; backward for dense ones. All that follows from the shape is at a fixed place beforehand: pointers, sizes, the
jobs for gradients of weights and copies. A call makes its tensors, writes down where they begin, and enters one chain
of compiled functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.compiler import SmallCall, SmallPass
from cellwise.backends.compiled.forward_pass import OUTPUT, ForwardPass, X, first_states
from cellwise.backends.compiled.gradients import BlockSlice, at_operand, operand_in_one
from cellwise.backends.cpu.few_rows import gates_of, is_small
from cellwise.backends.cpu.launch import CpuRun
from cellwise.backends.cpu.small_beside import GivenBeside, restarted
from cellwise.backends.cpu.small_run import Jobs, SmallRun, SmallRuns
from cellwise.backends.cpu.threads import is_for_many
from cellwise.plan.backward import BESIDE_GRADIENTS
from cellwise.plan.program import Slot, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.cpu.compiler import Kernel

_RESETS = ("resets",)
_empty_like = torch.empty_like


class SmallForward:
    """A forward pass, as `ForwardPass` runs it: what comes out has the shapes that the caller is given."""

    def __init__(self, made: ForwardPass, call: SmallCall, kernel: Kernel, tape: bool) -> None:
        given, kernel = call.given, kernel.for_shape(made.shape)
        sizes, dtype = made.sizes, kernel.dtype
        batch, rows = made.schedule.batch, made.schedule.rows
        width = sizes.outputs * sizes.output
        self._pass, self._size = made, rows * width
        # The kernel writes what is kept; the caller, who may write to it, gets a copy.
        self._copies = tape and given is not None
        lead = () if given is None else (1,)
        # What a call makes: what is kept, the output, the final states.
        shapes: list[tuple[int, ...]] = [(rows, width) for width in made.made]
        shapes += [(rows, width)] * self._copies
        self._saved, self._output = len(made.made), len(shapes)
        shapes += [given or (rows, width), *[(*lead, batch, width) for width in made.widths]]
        self._templates = [_template(shape, dtype) for shape in shapes]
        self._finals = [f"final {place}" for place in range(len(made.widths))]
        saved = [f"saved {place}" for place in range(self._saved)]
        kept = "kept output" if self._copies else "output"
        self._beside = GivenBeside(made.beside, call)
        given_rows = [f"weight {place}" for place in self._beside.places.values()]
        self._name_of = {X: "x", OUTPUT: kept} | dict(enumerate((*saved, *given_rows)))
        # Where a sequence begins anew at its first step, not the states that were given.
        self._restarts = call.has_resets and call.has_states and not made.schedule.backwards
        self._carried = [self._history(place) for place in range(len(made.widths))]
        extra = {
            name: 2 * batch * width * dtype.itemsize
            for name, width in zip(self._carried, made.widths, strict=True)
            if name.startswith("pair")
        }
        probe, states = CpuRun(kernel, made.shape), [f"state {place}" for place in range(len(made.widths))]
        places = [(self._name_of[place], at) for place, at in zip(made.given, probe.given, strict=True)]
        places += _carried(probe, states, self._carried)
        weights = [f"weight {place}" for place in range(len(made.shape.stems))]
        outputs = [kept, "output"] if self._copies else ["output"]
        names = ("x", *states, *weights, *saved, *outputs, *self._finals, *_RESETS[: call.has_resets])
        forms = self._beside.forms(self._name_of[place] for place in made.given)
        self._runs = SmallRuns(kernel, made.shape, places, self._jobs, extra, names, forms)

    def _history(self, place: int) -> str:
        """Where the states after the steps are left."""
        history = self._pass.histories[place]
        if history is not None:
            return self._name_of[history]
        return self._finals[place] if self._pass.are_finals[place] else f"pair {place}"

    def _jobs(self, run: SmallRun) -> Jobs:
        """The copies for the caller."""
        made, schedule = self._pass, self._pass.schedule
        found = Jobs(run.kernel.dtype.itemsize)
        if self._copies:
            found.move(("output", 0), ("kept output", 0), self._size)
        for place, width in enumerate(made.widths):
            for first, rows, at in schedule.ends(made.histories[place] is None):
                if not made.are_finals[place]:
                    source = (f"state {place}", first) if at is None else (self._carried[place], at)
                    to = (self._finals[place], first * width)
                    found.move(to, (source[0], source[1] * width), rows * width)
        return found

    def _restarted(self, states: Sequence[Tensor], resets: Tensor) -> list[Tensor]:
        schedule = self._pass.schedule
        return restarted(states, resets) if schedule.is_dense else first_states(states, resets, schedule)

    def run(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        """The output, what is kept of it, the final states, and what else is kept; x (rows, D) in any shape."""
        made = list(map(_empty_like, self._templates))
        if self._restarts:
            states = self._restarted(states, resets[0])
        self._runs.enter((x, *states, *self._beside.whole(weights), *made, *resets))
        output = made[self._output]
        kept = made[self._saved] if self._copies else output
        return output, kept, made[self._output + 1 :], made[: self._saved]


class SmallBackward:
    """A backward pass, as `BackwardPass` runs it."""

    def __init__(self, made: BackwardPass, call: SmallCall, kernel: Kernel) -> None:
        has_states, kernel = call.has_states, kernel.for_shape(made.shape)
        self._made, self._has_states = made, has_states
        graph, schedule = made.kernels.graph, made.schedule
        self._batch, self._rows, dtype = schedule.batch, schedule.rows, kernel.dtype
        self._zeros = _zeros(made, dtype)
        count = len(graph.states)
        states = [f"state {place}" for place in range(count)]
        weights = [f"weight {place}" for place in range(len(made.stems))]
        self._widths = made.own_widths
        state_of = {name: states[place] for place, name in enumerate(graph.states)}
        arriving, pairs, extra = [], [], {}
        for place, width in enumerate(made.own_widths):
            arriving.append(f"arriving {place}")
            is_final = has_states and made.are_finals[place]
            pairs.append(f"gradient {place}" if is_final else f"pair {place}")
            if not is_final:
                extra[f"pair {place}"] = 2 * self._batch * width * dtype.itemsize
        for name, width in made.held:
            extra[name] = made.most * width * dtype.itemsize
        self._held = dict(made.held)
        self._gates_width = self._held.get("gates", 0)
        firsts, histories = [], []
        for name in made.carried:
            own = made.own.get(name)
            if own is None:
                state = name.removesuffix(" before")
                firsts.append(state_of[state])
                histories.append(made.history_of[state])
            else:
                firsts.append(arriving[own])
                histories.append(pairs[own])
        probe = CpuRun(kernel, made.shape)
        self._beside = GivenBeside(made.beside, call)
        beside = self._beside.places
        given = [weights[beside[name]] if name in beside else name for name in made.given]
        positions = list(zip(given, probe.given, strict=True)) + _carried(probe, firsts, histories)
        self._is_beside = [place in beside.values() for place in range(len(weights))]
        # As in the forward pass.
        self._restarts = call.has_resets and has_states and not schedule.backwards
        whole, parameters = made.recipe.whole, made.kernels.plan.parameters
        # Of which weights every number of the gradient is written.
        self._covered = [stem in parameters or stem.replace("bias", "weight") in whole for stem in made.stems]
        gradients = [f"gradient of {weight}" for weight in weights]
        names = ("x", *states, *weights, "output", *made.saved, "gradient output", *arriving, *gradients)
        if has_states:
            names += tuple(f"gradient {place}" for place in range(count))
        names += _RESETS[: call.has_resets]
        forms = self._beside.forms(given)
        self._runs = SmallRuns(kernel, made.shape, positions, self._jobs, extra, names, forms)

    def _jobs(self, run: SmallRun) -> Jobs:
        made, sizes = self._made, self._made.sizes
        found = Jobs(run.kernel.dtype.itemsize)
        gradient = {stem: f"gradient of weight {place}" for place, stem in enumerate(made.stems)}
        self._weight_jobs(found, gradient)
        totals = {name: total.ctypes.data for (_, name, _), total in zip(run.summed, run.totals, strict=True)}
        for stem, runs in (
            ("bias_ih", made.recipe.inputs),
            ("bias_hh", [each for _, some in made.recipe.recurrent for each in some]),
        ):
            for each in runs if stem in gradient else ():
                start = totals["bias sums"] + 8 * each.columns.start
                count = each.rows.stop - each.rows.start
                found.narrow((gradient[stem], each.rows.start), start, count, each.add)
        for place, name in enumerate(made.kernels.plan.parameters):
            start = totals["sums"] + 8 * place * sizes.padded
            found.narrow((gradient[name], 0), start, sizes.hidden, False)
        if self._has_states:
            for place, width in enumerate(self._widths):
                if not made.are_finals[place]:
                    start = made.backwards.last_row(pair=True) * width
                    found.move((f"gradient {place}", 0), (f"pair {place}", start), self._batch * width)
        return found

    def _weight_jobs(self, found: Jobs, gradient: dict[str, str]) -> None:
        """The products that make the gradients of weights from those at gates."""
        made, width = self._made, self._gates_width
        for each in made.recipe.inputs:
            size = (each.rows.stop - each.rows.start, made.sizes.input)
            out = (gradient["weight_ih"], each.rows.start * size[1])
            left = ("gates", each.columns.start)
            found.product(left, width, ("x", 0), size[1], self._rows, out, size, each.add)
        for slot, runs in made.recipe.recurrent:
            operand = self._operand(slot)
            for each in runs:
                self._recurrent_jobs(found, gradient["weight_hh"], each, operand)

    def _recurrent_jobs(
        self, found: Jobs, out: str, each: BlockSlice, operand: Sequence[tuple[str, int, int, int, int]]
    ) -> None:
        hidden, width = self._made.sizes.hidden, self._gates_width
        size = (each.rows.stop - each.rows.start, hidden)
        for number, (name, start, stride, first, rows) in enumerate(operand):
            left = ("gates", first * width + each.columns.start)
            target = (out, each.rows.start * hidden)
            found.product(left, width, (name, start), stride, rows, target, size, each.add or number > 0)

    def _operand(self, slot: Slot) -> list[tuple[str, int, int, int, int]]:
        """What a product had as its operand: tensor, its first number, numbers of a row, first row of all, and rows."""
        made, buffer, rows, batch = self._made, slot.buffer, self._rows, self._batch
        if buffer.storage is not StorageClass.CARRY_IN:
            width = buffer.columns * made.sizes.padded
            return [(buffer.name, slot.column * made.sizes.padded, width, 0, rows)]
        state = buffer.name.removesuffix(" before")
        place = made.kernels.graph.states.index(state)
        history, width, on = made.history_of[state], made.sizes.of_state(place)[1], rows - batch
        if made.schedule.backwards:
            parts = [(history, batch * width, width, 0, on), (f"state {place}", 0, width, on, batch)]
        else:
            parts = [(f"state {place}", 0, width, 0, batch), (history, 0, width, batch, on)]
        return [part for part in parts if part[-1]]

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        output: Tensor,
        saved: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
        *resets: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """The gradients at x, in its shape, at the states if any were given to the layer, and at the weights; None at
        what was drawn.
        """
        arriving = [
            zeros if each is None else each.contiguous()
            for each, zeros in zip(gradients, self._zeros, strict=True)
        ]
        at_weights: list[Any] = [
            each if beside else torch.empty_like(each) if whole else torch.zeros_like(each)
            for each, whole, beside in zip(weights, self._covered, self._is_beside, strict=True)
        ]
        at_states = [torch.empty_like(each) for each in states] if self._has_states else []
        if self._restarts:
            states = restarted(states, resets[0])
        rows = self._beside.whole(weights)
        tensors = (x, *states, *rows, output, *saved, *arriving, *at_weights, *at_states, *resets)
        run, block = self._runs.enter(tensors)
        dx = self._at_input(run, block, x, weights) if wants_input else None
        if self._beside.places:
            self._at_beside(run, block, weights, at_weights)
        return dx, *at_states, *at_weights

    def _at_beside(self, run: SmallRun, block: Any, weights: Sequence[Tensor], at_weights: list[Any]) -> None:
        """Put the gradients at values beside x into their places."""
        made, found = self._made, {}
        if BESIDE_GRADIENTS in self._held:
            start, width = run.offset_of[BESIDE_GRADIENTS], self._held[BESIDE_GRADIENTS]
            held = block.tensor(start, self._rows, width, run.kernel.dtype)
            assert made.beside is not None
            found = dict(made.beside.gradients(held, dict(zip(made.stems, weights, strict=True))))
        for place in self._beside.places.values():
            at_weights[place] = self._beside.gradient(place, found.get(made.stems[place]), weights[place])

    def _at_input(self, run: SmallRun, block: Any, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        made, inputs = self._made, self._made.recipe.inputs
        if not inputs:
            return torch.zeros_like(x)
        start = run.offset_of["gates"]
        gates = block.tensor(start, self._rows, self._gates_width, run.kernel.dtype)
        weight = weights[made.stems.index("weight_ih")]
        found = operand_in_one(gates, inputs, weight)
        if found is None:
            found = x.new_empty((self._rows, made.sizes.input))
            at_operand(gates, inputs, weight, found)
        return found.view(x.shape)


def _zeros(made: BackwardPass, dtype: torch.dtype) -> list[Tensor]:
    """Gradients that nobody gave, at the output and the final states. They are only read."""
    shapes = [(made.schedule.rows, made.sizes.outputs * made.sizes.output)]
    shapes += [(made.schedule.batch, width) for width in made.own_widths]
    with torch.inference_mode(False):
        return [torch.zeros(shape, dtype=dtype, device="cpu") for shape in shapes]


def _template(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What `torch.empty_like` makes such tensors from, in less time than torch.empty from a shape; one number large."""
    with torch.inference_mode(False):
        return torch.empty((), dtype=dtype, device="cpu").expand(shape)


def _carried(run: CpuRun, firsts: Sequence[str], histories: Sequence[str]) -> list[tuple[str, int]]:
    """Where among the pointers those of what is carried into a step stand, as `CpuRun.bind` writes them."""
    found = []
    for (before, after), first, history in zip(run.before, firsts, histories, strict=True):
        found += [(first, before), (history, before + 1)]
        if after is not None:
            found.append((history, after))
    return found


class CpuSmallPass(SmallPass):
    """A layer pass of few rows, each of its kernels made when it is first needed."""

    def __init__(self, call: SmallCall) -> None:
        self._call = call
        # Where rows have several lengths, the backward pass is that of all calls: lengths are met there first, when no
        # plan is worth making, and gradients must have the same bits ever after.
        self.differentiates = call.schedule.is_dense

    def _forward(self, tape: bool) -> SmallForward:
        call, kernels = self._call, self._kernels
        device = torch.device("cpu")
        given = (call.kernels, call.bias, call.lengths, call.schedule, call.has_resets, tape, device)
        kernel = kernels.training if tape else kernels.inference
        return SmallForward(ForwardPass(*given), call, kernel, tape)

    @property
    def _kernels(self) -> Any:
        """Of this backend's own kind."""
        return self._call.kernels

    @cached_property
    def _infers(self) -> SmallForward:
        return self._forward(False)

    @cached_property
    def _records(self) -> SmallForward:
        return self._forward(True)

    @cached_property
    def _differentiates(self) -> SmallBackward:
        call, device = self._call, torch.device("cpu")
        given = (call.kernels, call.bias, call.lengths, call.schedule, call.has_resets, device)
        return SmallBackward(BackwardPass(*given), call, self._kernels.backward)

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        return self._infers.run(x, states, weights, *resets)

    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        return self._records.run(x, states, weights, *resets)

    def differentiate(self, *arguments: Any) -> tuple[Tensor | None, ...]:
        return self._differentiates.run(*arguments)


def small_pass(call: SmallCall) -> CpuSmallPass | None:
    """The way for calls of this shape, if they are small: of few rows, in whole vectors, for one thread."""
    kernels, schedule = call.kernels, call.schedule
    graph, (width, hidden, projected) = kernels.graph, call.lengths
    rows, element = schedule.rows, kernels.dtype.itemsize
    inner = len(graph.input_gates) * width + len(graph.state_gates) * hidden
    if (
        kernels.dtype is torch.bfloat16
        or projected
        or graph.scalars
        or not is_small(rows, gates_of(graph) * element, hidden, kernels.padded(1))
        or is_for_many(rows * hidden * (inner + 20))
    ):
        return None
    return CpuSmallPass(call)
