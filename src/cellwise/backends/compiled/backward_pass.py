"""One layer in one direction, backward: the kernel span by span, and after each what it gives to the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from cellwise.backends.compiled.beside import Beside
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import Carried, RunShape, carried_buffers, given_buffers
from cellwise.backends.compiled.forward_pass import Runs, first_states
from cellwise.backends.compiled.gradients import (
    BlockSlice,
    RowBlocks,
    at_bias,
    at_operand,
    at_weight,
    before_each_step,
    operand_in_one,
    part_of,
    weight_gradient_layout,
    weight_in_one,
)
from cellwise.backends.compiled.rows import in_rows
from cellwise.backends.compiled.saved import PROJECTION, history_of, make_sizes, saved_layout
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.plan.backward import BESIDE_GRADIENTS, PROJECTED_GRADIENT
from cellwise.plan.program import Slot, StorageClass, Width

_SMALL = 2**14  # numbers


def span_rows(kernels: CellKernels, columns: int, width: int) -> int:
    """Valid steps in a span, where each has so many rows of this width."""
    compiler, (least, most) = kernels.compiler, kernels.compiler.span_bytes
    # Without a gate that a gradient reaches, nothing is held.
    row = max(1, columns) * width * kernels.dtype.itemsize
    size = min(most, max(least, compiler.span_rows * row))
    if kernels.recompute:
        size = compiler.recomputing_span_bytes
    return max(1, size // row)


class BackwardPass:
    """Runs a layer pass backward through the steps of its forward pass."""

    def __init__(
        self,
        kernels: CellKernels,
        bias: bool,
        lengths: tuple[int, int, int],
        schedule: TimeSchedule,
        has_resets: bool,
        device: torch.device,
    ) -> None:
        self.kernels, self.schedule, self.has_resets = kernels, schedule, has_resets
        self.backwards = schedule.reversed
        self.sizes = make_sizes(kernels, *lengths)
        self.recipe = weight_gradient_layout(kernels, self.sizes.hidden, device)
        self.stems = kernels.stems[bias]
        self.beside = Beside(kernels, self.stems, self.sizes) if kernels.graph.given else None
        self.own_parameters = (*kernels.graph.vectors, *kernels.graph.scalars)
        kernel, graph = kernels.backward, kernels.graph
        layout = saved_layout(kernels, self.sizes, has_resets)
        self.saved = tuple(layout.shapes)
        self.history_of = {name: history_of(name) for name in graph.states}
        if layout.output_is_history:
            self.history_of[graph.states[0]] = "output"
        program = kernel.program
        widths = {Width.HIDDEN: self.sizes.padded, Width.PROJECTED: self.sizes.padded_projected}
        self.given = [buffer.name for buffer in given_buffers(program)]
        self.held = [
            (buffer.name, buffer.columns * widths[buffer.width])
            for buffer in given_buffers(program)
            if buffer.storage is StorageClass.PER_CHUNK
        ]
        self.own = {before.name: place for place, (before, _) in enumerate(program.states)}
        self.own_widths = [widths[before.width] for before, _ in program.states]
        # After a single step the states after it are all that its buffer holds.
        single = schedule.steps == 1 and schedule.is_dense
        self.are_finals = [
            single and self.sizes.of_state(place)[0] == width for place, width in enumerate(self.own_widths)
        ]
        self.carried = [buffer.name for buffer in carried_buffers(program)]
        ways = tuple(Carried.PAIR if name in self.own else Carried.OPPOSITE for name in self.carried)
        self.spans = self._spans(
            sum(buffer.columns for buffer in program.buffers if buffer.storage is StorageClass.PER_CHUNK)
        )
        self.most = max(rows.stop - rows.start for _, _, rows in self.spans)
        self.shape = RunShape(self.sizes, self.backwards, self.stems, ways, has_resets, device)
        self.runs = Runs(kernel, self.shape)
        self._zeros: dict[int, Tensor] = {}

    def zeros(self, place: int, like: Tensor) -> Tensor:
        """Zeros like a state. Small ones are kept: without resets no kernel writes to what a row begins with."""
        if self.has_resets or like.numel() > _SMALL:
            return like.new_zeros(like.shape)
        if place not in self._zeros:
            self._zeros[place] = self.kernels.compiler.zeros(like.shape, like.dtype, like.device)
        return self._zeros[place]

    def _spans(self, columns: int) -> list[tuple[int, int, slice]]:
        """First step, end and rows of each span, in the order in which they run."""
        schedule = self.backwards
        size, at = span_rows(self.kernels, columns, self.sizes.padded), schedule.offsets
        return [(first, end, slice(int(at[first]), int(at[end]))) for first, end in schedule.spans(size)]

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
        output: Tensor,
        saved: Sequence[Tensor],
        output_gradient: Tensor | None,
        state_gradients: Sequence[Tensor | None],
        wants_input: bool = True,
    ) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
        """From x (N, D), states (B, H), weights, what the forward pass left, and the gradients that arrive.

        A gradient that is None is zero. Returns the gradients at x (N, D) if wanted, at the initial states (B, H)
        each, and at the weights, in their order; None at what was drawn at random.
        """
        self.kernels.compiler.begin()
        call = BackwardCall(self, x, states, weights, resets, output, saved)
        call.begin(output_gradient, state_gradients, wants_input)
        for number, (first, end, _) in enumerate(self.spans):
            call.launched.launch(first, end)
            call.after(number)
        return call.end()


@lru_cache(maxsize=64)
def backward_pass(
    kernels: CellKernels,
    bias: bool,
    lengths: tuple[int, int, int],
    schedule: TimeSchedule,
    has_resets: bool,
    device: torch.device,
) -> BackwardPass:
    """The one for calls of this shape: `lengths` are D, H and P, `schedule` is that of the forward pass."""
    return BackwardPass(kernels, bias, lengths, schedule, has_resets, device)


class BackwardCall:
    """The tensors of one call, and the gradients that come of them."""

    def __init__(
        self,
        made: BackwardPass,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
        output: Tensor,
        saved: Sequence[Tensor],
    ) -> None:
        self.made, self.x, self.states, self.resets = made, x, states, resets
        self.compiler, self.sizes, self.recipe = made.kernels.compiler, made.sizes, made.recipe
        self.ordered, self.weights = weights, dict(zip(made.stems, weights, strict=True))
        self.tensors = {"output": output} | dict(zip(made.saved, saved, strict=True))
        if made.beside is not None:
            self.tensors |= zip(made.beside.buffers, made.beside.rows(weights), strict=True)
        first = first_states(states, resets, made.schedule)
        self.first = dict(zip(made.kernels.graph.states, first, strict=True))
        self.rooms: dict[str, Tensor] = {}
        # Numbers of 16 bits that many spans add to would lose most of what the later ones add.
        self.is_wide = len(made.spans) > 1 and x.dtype.itemsize == 2
        self.products = self.compiler.gradient_products(x.dtype)

    def begin(
        self,
        output_gradient: Tensor | None,
        state_gradients: Sequence[Tensor | None],
        wants_input: bool,
        at_once: int = 1,
    ) -> None:
        """Make room, and bind a run that is to be launched with others, so many together."""
        made, x = self.made, self.x
        self.wants_input = wants_input
        self.held = {name: self.compiler.empty(made.most, width, x, True) for name, width in made.held}
        self.arriving = [
            made.zeros(place, state) if gradient is None else gradient.contiguous()
            for place, (state, gradient) in enumerate(zip(self.states, state_gradients, strict=True))
        ]
        batch = made.schedule.batch
        self.pairs = [
            x.new_empty((batch, width)) if is_final else self.compiler.empty(2 * batch, width, x, True)
            for width, is_final in zip(made.own_widths, made.are_finals, strict=True)
        ]
        self.launched = made.runs.take(at_once)
        # Copies among them live as long as this call does.
        self.bound = self._buffers(output_gradient), self._carried(self.arriving, self.pairs)
        buffers, (firsts, histories) = self.bound
        self.launched.bind(buffers, firsts, histories, self.ordered, self.resets)
        self.found: dict[str, Tensor] = {}
        self.dx: Tensor | None = None

    def after(self, number: int) -> None:
        """What the steps of a span give to the gradients, when they have run."""
        _, _, rows = self.made.spans[number]
        if rows.start < rows.stop:
            self._at_weights(rows, self.found, add=number > 0)
            self.dx = self._at_input(rows, self.dx) if self.wants_input else None
            self._at_beside(rows, self.found)
            if self.products is not None:
                self.products.run()

    def end(self) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
        """What `BackwardPass.run` returns, when all spans have run."""
        made, x, found, dx = self.made, self.x, self.found, self.dx
        if self.wants_input and dx is None:
            dx = self._input_gradient()
        self._at_own(self.launched.sums(), found)
        made.runs.give_back(self.launched)
        schedule = made.backwards
        finals = [
            pair if is_final else schedule.finals(pair, given, pair=True)
            for pair, is_final, given in zip(self.pairs, made.are_finals, self.arriving, strict=True)
        ]
        drawn = frozenset[str]() if made.beside is None else made.beside.drawn
        gradients = [
            None if stem in drawn else found[stem] if stem in found else self._empty(stem)
            for stem in made.stems
        ]
        if self.is_wide:
            gradients = [None if each is None else each.to(x.dtype) for each in gradients]
        return dx, finals, gradients

    def _at_beside(self, rows: slice, found: dict[str, Tensor]) -> None:
        """The gradients at values beside x of these steps."""
        if self.made.beside is None or BESIDE_GRADIENTS not in self.held:
            return
        held = part_of(self.held[BESIDE_GRADIENTS], 0, slice(0, rows.stop - rows.start))
        for name, gradient in self.made.beside.gradients(held, self.weights):
            if name not in found:
                found[name] = torch.zeros_like(self.weights[name], memory_format=torch.contiguous_format)
            found[name][rows] = gradient

    def _buffers(self, output_gradient: Tensor | None) -> list[Tensor]:
        """The rows that the kernel is given one by one."""
        x, sizes = self.x, self.sizes
        count, width = sizes.outputs, sizes.padded_output
        given = x.new_zeros(len(x), count * sizes.output) if output_gradient is None else output_gradient
        given = (
            in_rows(given, width)
            if count == 1
            else in_rows(given.unflatten(1, (count, -1)), width).flatten(1)
        )
        own = {"x": x.contiguous(), "gradient output": given}
        rows = {**self.tensors, **self.held, **own}
        return [rows[name] for name in self.made.given]

    def _carried(
        self, arriving: Sequence[Tensor], pairs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What is carried into a step: where it begins, and the history."""
        firsts, histories = [], []
        for name in self.made.carried:
            place = self.made.own.get(name)
            if place is None:
                state = name.removesuffix(" before")
                history = self.tensors[self.made.history_of[state]]
                firsts.append(in_rows(self.first[state], history.shape[1]))
                histories.append(history)
            else:
                firsts.append(in_rows(arriving[place], self.made.own_widths[place]))
                histories.append(pairs[place])
        return firsts, histories

    def _empty(self, stem: str) -> Tensor:
        """Room for the gradient of a weight, zero where not all of it will be written."""
        weight = self.weights[stem]
        whole = self.made.schedule.rows > 0 and stem in self.recipe.whole
        dtype = torch.float32 if self.is_wide else weight.dtype
        make = weight.new_empty if whole else weight.new_zeros
        return make(weight.shape, dtype=dtype)

    def _input_gradient(self) -> Tensor:
        whole = self.recipe.inputs and self.made.schedule.rows == len(self.x)
        make = torch.empty_like if whole else torch.zeros_like
        return make(self.x, memory_format=torch.contiguous_format)

    def _at_input(self, rows: slice, dx: Tensor | None) -> Tensor | None:
        """The gradient at x with that of these steps, from those at the gates."""
        inputs = self.recipe.inputs
        if not inputs:
            return dx
        gates, weight = (
            part_of(self.held["gates"], 0, slice(0, rows.stop - rows.start)),
            self.weights["weight_ih"],
        )
        if self.products is not None:
            dx = self._input_gradient() if dx is None else dx
            self.products.at_operand(gates, inputs, weight, dx[rows])
            return dx
        if len(self.made.spans) == 1 and rows.stop == len(self.x):
            found = operand_in_one(gates, inputs, weight)
            if found is not None:
                return found
        dx = self._input_gradient() if dx is None else dx
        at_operand(gates, inputs, weight, dx[rows])
        return dx

    def _at_weights(self, rows: slice, found: dict[str, Tensor], add: bool) -> None:
        """What these steps give to the gradients at the weights."""
        every, recipe = slice(0, rows.stop - rows.start), self.recipe
        if recipe.recurrent or recipe.inputs:
            gates = part_of(self.held["gates"], 0, every)
            for slot, runs in recipe.recurrent:
                self._at_weight("weight_hh", gates, runs, self._operand(slot, rows), found, add)
            if recipe.inputs:
                x = [(every, part_of(self.x, 0, rows))]
                self._at_weight("weight_ih", gates, recipe.inputs, x, found, add)
        unprojected = self.made.kernels.plan.unprojected
        if unprojected is not None:
            size = slice(0, self.sizes.projected)
            projected = part_of(self.held[PROJECTED_GRADIENT.name], 0, every)
            operand = self._operand(unprojected, rows)
            self._at_weight(PROJECTION, projected, [BlockSlice(size, size)], operand, found, add)

    def _at_weight(
        self,
        stem: str,
        gates: Tensor,
        runs: Sequence[BlockSlice],
        operand: RowBlocks,
        found: dict[str, Tensor],
        add: bool,
    ) -> None:
        if self.products is not None:
            if stem not in found:
                found[stem] = self._empty(stem)
            self.products.at_weight(gates, runs, operand, found[stem], add)
            return
        if stem not in found:
            places = self.recipe.biases.get(stem.replace("weight", "bias"))
            source = places.source if places is not None and places.target is None else None
            whole = weight_in_one(gates, runs, operand, self.weights[stem], source)
            found[stem] = self._empty(stem) if whole is None else whole.float() if self.is_wide else whole
            if whole is not None:
                return
        at_weight(gates, runs, operand, found[stem], add)

    def _room(self, state: str) -> Tensor:
        """Rows of a state for the longest span."""
        if state not in self.rooms:
            width = self.first[state].shape[1]
            self.rooms[state] = self.compiler.empty(self.made.most, width, self.x, True)
        return self.rooms[state]

    def _operand(self, slot: Slot, rows: slice) -> RowBlocks:
        """The rows that a product had as its operand in these steps."""
        buffer = slot.buffer
        if buffer.storage is StorageClass.CARRY_IN:
            name = buffer.name.removesuffix(" before")
            history, first = self.tensors[self.made.history_of[name]], self.first[name]
            return before_each_step(self.made.schedule, rows, history, first, partial(self._room, name))
        every = slice(0, rows.stop - rows.start)
        held = buffer.storage is StorageClass.PER_CHUNK
        matrix = part_of(self.held[buffer.name], 0, every) if held else self.tensors[buffer.name][rows]
        start = slot.column * (matrix.shape[1] // buffer.columns)
        return [(every, part_of(matrix, 1, slice(start, start + self.sizes.hidden)))]

    def _at_own(self, sums: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        """The biases and the cell's own parameters, whose gradients the kernel has summed."""
        weights, kernels, sizes = self.weights, self.made.kernels, self.sizes
        equal = self.recipe.equal_biases and "bias_ih" in weights and "bias_hh" in weights
        for stem in ("bias_ih", "bias_hh"):
            if stem in weights:
                found[stem] = (
                    found["bias_ih"].clone()
                    if equal and "bias_ih" in found
                    else at_bias(sums["bias sums"], self.recipe.biases[stem], weights[stem])
                )
        if not self.made.own_parameters:
            return
        parameters = kernels.plan.parameters
        for name in self.made.own_parameters:
            if name in parameters:
                start = parameters.index(name) * sizes.padded
                mine = sums["sums"][start : start + sizes.hidden]
                total = mine.sum() if name in kernels.graph.scalars else mine
                found[name] = total.to(weights[name].dtype, copy=True)
            else:
                found[name] = torch.zeros_like(weights[name])
