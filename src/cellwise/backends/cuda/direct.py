"""Layer passes of one shape with all worked out that no call changes: a call makes its tensors and launches.

The same kernels on the same arrays as `compiled.forward_pass` and `backward_pass`, for dense batches. That way a
call cost the host of an H100 0.36 ms, and 1.7 with its backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.compiler import CompiledKernel, RunShape, SmallCall, SmallPass
from cellwise.backends.compiled.forward_pass import OUTPUT, ForwardPass
from cellwise.backends.compiled.rows import without_padding
from cellwise.backends.cuda.direct_gradients import WeightGradients
from cellwise.backends.cuda.frame import SUMS, Key
from cellwise.backends.cuda.general import GeneralBackward, GeneralForward
from cellwise.backends.cuda.launch import Built, CudaRun, aligned, check_devices, number_of_device
from cellwise.backends.cuda.layout import ALONE
from cellwise.backends.cuda.machine import RefusedError
from cellwise.backends.cuda.numbers import number_of
from cellwise.backends.cuda.reads import INPUT_PRODUCTS

# Layouts whose kernels run all steps in one launch.
KINDS = ("wide", *ALONE)
_MANY = 2**31  # blocks, more than any device runs at once

# By the name of a weight, or of what a kernel is given.
Named = Mapping[str, Tensor]


class ArgumentOrder(NamedTuple):
    """Where the arguments of a kernel are among the values of a call.

    made: what the values that a call makes for the kernel alone are like; they come last. posted: of values that blocks
    wait for. sums: of those over the steps, if there are any. grid: blocks of the launch.
    """

    arguments: list[int]
    made: list[Tensor]
    posted: list[int]
    sums: int | None
    grid: tuple[int, int]


class Launch:
    """A kernel that runs all steps of a call at once."""

    def __init__(self, kernel: CompiledKernel, shape: RunShape) -> None:
        run = kernel.open(shape)
        assert isinstance(run, CudaRun)
        self._device = number_of_device(shape.device)
        self.run, schedule, rows = run, shape.schedule, shape.schedule.rows
        self.batch, self.width = schedule.batch, shape.sizes.padded
        # The states after the last step are left in one place, the caller's, and not in a pair.
        self._numbers: dict[Key, Tensor | int] = {("T",): schedule.steps, ("B",): self.batch, ("halves",): 1}
        self._numbers |= {("begin",): 0, ("end",): schedule.steps, ("base",): 0}
        self._numbers |= {("backwards",): int(schedule.backwards), ("late",): run.machine.late}
        like, columns = self.like(run.dtype), {name: each.columns for name, each in run.columns.items()}
        # What a kernel wants beside what it is given: rows that only it reads.
        self._rows = {name: like.expand(rows, count * self.width) for name, count in columns.items()}
        self._history = like.expand(rows, self.width)
        self._orders: dict[Built, ArgumentOrder] = {}
        self._sums = self.like(torch.float32).expand(self.batch, columns.get(SUMS, 0) * self.width)

    def like(self, dtype: torch.dtype) -> Tensor:
        """A number on the device. Expanded, it says the shape of what a call makes, and takes no memory."""
        return self.run.machine.zeros((), dtype, self.run.shape.device)

    def ready(self) -> Built | None:
        """The kernel of now, if it runs all steps at once, as that did for which the plan was made. The precision of
        products may have changed since, or a layout may be tried.
        """
        built = self.run.variant()
        return built if built.layout.kind in KINDS else None

    def products(self, built: Built, x: Tensor, states: Sequence[Tensor], weights: Named) -> Tensor | None:
        """Those of the input (..., D), where the kernel wants them: what a call begins with, since it takes longest."""
        run, frame = self.run, built.frame
        run.machine.check()
        check_devices(run.shape.device, self._device, states, weights)
        return run.input_products(frame, x, weights) if ("rows", INPUT_PRODUCTS) in frame.arguments else None

    def __call__(
        self,
        built: Built,
        rows: Named,
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor | None],
        lasts: Sequence[Tensor],
        weights: Named,
        products: Tensor | None,
    ) -> Tensor | None:
        """Start it.

        Args:
            rows: by name, those of `given_buffers`.
            firsts: (B, width), for each buffer that is carried into a step.
            histories: for each of these the states after all steps (N, width), if they are kept.
            lasts: for the program's own states, the first of these, those after the last step (B, width).
            products: of the input.

        Returns:
            The sums over the steps of each row (B, columns * width), in float32, if the kernel has any.

        Raises:
            RefusedError: the device does not start its blocks together; from now on the plan is not ready.
        """
        run, order = self.run, self._orders.get(built)
        kept = [each for each in histories if each is not None]
        if order is None:
            order = self._orders[built] = self._order(built, rows, histories, products is not None)
        values = [*self._numbers.values(), *run.readable(rows).values(), *run.forms(rows).values()]
        values += [*map(aligned, firsts), *kept, *lasts, *run.packed(built, weights).values()]
        if products is not None:
            values.append(products)
        values += [torch.empty_like(each) for each in order.made]
        for place in order.posted:
            run.machine.mark(values[place])  # type: ignore[arg-type]
        arguments = [values[place] for place in order.arguments]
        try:
            built.launcher.launch(order.grid, built.layout.threads, arguments, built.is_together)
        except RefusedError as error:
            run.refuse(built, error)
            raise
        return None if order.sums is None else values[order.sums]  # type: ignore[return-value]

    def _order(
        self, built: Built, rows: Named, histories: Sequence[Tensor | None], has_products: bool
    ) -> ArgumentOrder:
        """Of the values that a call lists, in that order, which one each argument is; and what else it makes."""
        run, arguments = self.run, built.frame.arguments
        keys: list[Key] = [*self._numbers, *(("rows", name) for name in rows), *run.forms(rows)]
        keys += [("first", name) for name in run.ways]
        keys += [
            ("history", name)
            for name, history in zip(run.ways, histories, strict=True)
            if history is not None
        ]
        keys += [*(("last", name) for name in run.own), *built.weights]
        if has_products:
            keys.append(("rows", INPUT_PRODUCTS))
        made = [key for key in arguments if key not in keys]
        places = {key: place for place, key in enumerate([*keys, *made])}
        posted = [("history" if name in run.own else "rows", name) for name in built.posted]
        return ArgumentOrder(
            [places[key] for key in arguments],
            [self._made(key) for key in made],
            [places[key] for key in posted],
            places.get(("sums",)),
            run.grid(built),
        )

    def blocks(self) -> int:
        """How many blocks of threads it starts; of many launches more than any device runs at once."""
        built = self.ready()
        if built is None:
            return _MANY
        across, groups = self.run.grid(built)
        return across * groups

    def _made(self, key: Key) -> Tensor:
        """What memory that is the launch's own is like."""
        if key[0] == "rows":
            return self._rows[key[1]]
        return self._history if key[0] == "history" else self._sums


class DirectForward:
    """A forward pass, as `ForwardPass` runs it: what comes out has the shapes that the caller is given."""

    def __init__(self, made: ForwardPass, kernel: CompiledKernel, call: SmallCall, tape: bool) -> None:
        self._pass, self.launch, self._sizes = made, Launch(kernel, made.shape), made.sizes
        self._general = GeneralForward(made, call.given)
        self.launch.run.leaves_lasts = True
        schedule, sizes, given = made.schedule, made.sizes, call.given
        rows, self._batch = schedule.rows, schedule.batch
        self._given = given or (rows, sizes.outputs * sizes.hidden)
        self._final_shape = (*(() if given is None else (1,)), self._batch, sizes.hidden)
        self._is_padded = sizes.padded != sizes.hidden
        # What is kept is not the caller's, who may write to it: the kernel writes both, or the caller gets a copy.
        self._copies = tape and given is not None and not self._is_padded
        self._writes_both = self._copies and made.histories[0] == OUTPUT
        self.launch.run.copies_output = self._writes_both
        dtype, padded = self.launch.run.dtype, (self._batch, sizes.padded)
        like = self.launch.like(dtype)
        self._saved = [like.expand(rows, width) for width in made.made]
        self._output = like.expand(rows, sizes.outputs * sizes.padded)
        self._final = like.expand(padded if self._is_padded else self._final_shape)
        # States that nobody gave are zeros in whole rows.
        zeros = self.launch.run.machine.zeros
        self._zeros = None if call.has_states else zeros(padded, dtype, call.device)

    def run(self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Any, ...]:
        """The output, what is kept of it, the final states, and what else is kept; x (rows, D) in any shape."""
        made, hidden = self._pass, self._sizes.hidden
        built = self.launch.ready()
        if built is None:
            return self._general.run(x, states, weights)
        by_stem = dict(zip(made.shape.stems, weights, strict=True))
        products = self.launch.products(built, x, states, by_stem)
        saved = [torch.empty_like(each) for each in self._saved]
        output = torch.empty_like(self._output)
        beside = () if made.beside is None else made.beside.rows(weights)
        tensors = [*saved, *beside, x, output]
        histories = [None if place is None else tensors[place] for place in made.histories]
        kept = given = output
        if self._writes_both:
            kept = histories[0] = torch.empty_like(output)
        lasts = [torch.empty_like(self._final) for _ in histories]
        rows = {name: tensors[place] for name, place in zip(self.launch.run.given, made.given, strict=True)}
        firsts = [self._in_rows(each) if self._zeros is None else self._zeros for each in states]
        try:
            self.launch(built, rows, firsts, histories, lasts, by_stem, products)
        except RefusedError:
            return self._general.run(x, states, weights)
        if self._is_padded:
            given = self._cut(output)
            kept = given.data
        elif self._copies and not self._writes_both:
            given = output.clone()
        if made.output_place is not None:
            saved.insert(made.output_place, output)
        if given.shape != self._given:
            given.resize_(self._given)
        if self._is_padded:
            lasts = [each[:, :hidden].clone(memory_format=torch.contiguous_format) for each in lasts]
            for each in lasts if len(self._final_shape) > 2 else ():
                each.unsqueeze_(0)  # a view that a node of autograd returns could not be written to
        return given, kept, lasts, saved

    def _cut(self, output: Tensor) -> Tensor:
        """A copy without padding."""
        sizes = self._sizes
        if sizes.outputs > 1:
            return without_padding(output, sizes.outputs, sizes.hidden)
        return output[:, : sizes.hidden].clone(memory_format=torch.contiguous_format)

    def _in_rows(self, state: Tensor) -> Tensor:
        width = self._sizes.padded
        if not self._is_padded or state.shape[-1] == width:
            return state
        return F.pad(state.reshape(self._batch, -1), (0, width - state.shape[-1]))


class DirectBackward:
    """A backward pass, as `BackwardPass` runs it."""

    def __init__(self, made: BackwardPass, kernel: CompiledKernel, has_states: bool) -> None:
        self._pass, self._has_states, sizes = made, has_states, made.sizes
        self._launch, self._general = Launch(kernel, made.shape), GeneralBackward(made, has_states)
        schedule, run, width = made.schedule, self._launch.run, made.sizes.padded
        self._batch, self._rows = schedule.batch, schedule.rows
        self._is_padded = width != sizes.hidden
        self._gradients = WeightGradients(made, run, has_states)
        like = self._launch.like(run.dtype)
        self._held = {name: like.expand(self._rows, size) for name, size in made.held}
        self._state = like.expand(self._batch, width)
        self._output = like.expand(self._rows, sizes.outputs * width)
        self._zeros = run.machine.zeros((self._batch, width), run.dtype, made.shape.device)

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        output: Tensor,
        saved: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
    ) -> tuple[Tensor | None, ...]:
        """The gradients at x, in its shape, at the states if any were given to the layer, and at the weights."""
        made = self._pass
        built = self._launch.ready()
        if built is None:
            return self._general.run(x, states, weights, output, saved, gradients, wants_input)
        at_output, *at_states = gradients
        held = {name: torch.empty_like(each) for name, each in self._held.items()}
        arriving = torch.zeros_like(self._output) if at_output is None else self._in_rows(at_output)
        tensors = {"output": output, **dict(zip(made.saved, saved, strict=True)), **held}
        tensors |= {"x": x, "gradient output": arriving}
        if made.beside is not None:
            tensors |= zip(made.beside.buffers, made.beside.rows(weights), strict=True)
        first = [self._zeros if each is None else self._in_rows(each) for each in at_states]
        lasts = [self._last(place, states) for place in range(len(made.own_widths))]
        carried = [self._carried(name, first, states, tensors) for name in made.carried]
        by_stem = dict(zip(made.stems, weights, strict=True))
        rows = {name: tensors[name] for name in made.given}
        firsts, histories = [each for each, _ in carried], [each for _, each in carried]
        products = self._launch.products(built, x, states, by_stem)  # where steps are computed again
        try:
            sums = self._launch(built, rows, firsts, histories, lasts, by_stem, products)
        except RefusedError:
            return self._general.run(x, states, weights, output, saved, gradients, wants_input)
        dx, at_weights = self._gradients(x, states, by_stem, tensors, sums, wants_input)
        if not self._has_states:
            return dx, *at_weights
        if self._is_padded:
            hidden = made.sizes.hidden
            lasts = [last[:, :hidden].reshape(state.shape) for last, state in zip(lasts, states, strict=True)]
        return dx, *lasts, *at_weights

    def _last(self, place: int, states: Sequence[Tensor]) -> Tensor:
        """Memory for the gradient at an initial state."""
        return torch.empty_like(states[place] if self._has_states and not self._is_padded else self._state)

    def _in_rows(self, given: Tensor) -> Tensor:
        if not self._is_padded:
            return given.contiguous()
        hidden, width = self._pass.sizes.hidden, self._pass.sizes.padded
        return F.pad(given.reshape(-1, hidden), (0, width - hidden))

    def _carried(
        self,
        name: str,
        first: Sequence[Tensor],
        states: Sequence[Tensor],
        tensors: Named,
    ) -> tuple[Tensor, Tensor | None]:
        """What is carried into a step: where it begins, and where the forward pass left it."""
        made = self._pass
        own = made.own.get(name)
        if own is not None:
            return first[own], None
        state = name.removesuffix(" before")
        begins = states[made.kernels.graph.states.index(state)]
        return self._in_rows(begins) if self._has_states else self._zeros, tensors[made.history_of[state]]


class DirectPass(SmallPass):
    """A layer pass, each of its kernels made when it is first needed."""

    def __init__(self, call: SmallCall) -> None:
        self._call = call
        self._shape = (call.kernels, call.bias, call.lengths, call.schedule, False)

    def _forward(self, tape: bool) -> DirectForward:
        call = self._call
        kernel = call.kernels.training if tape else call.kernels.inference
        return DirectForward(ForwardPass(*self._shape, tape, call.device), kernel, call, tape)

    @cached_property
    def _infers(self) -> DirectForward:
        return self._forward(tape=False)

    @cached_property
    def _records(self) -> DirectForward:
        return self._forward(tape=True)

    def blocks(self, tape: bool) -> int:
        """How many blocks of threads a forward pass starts."""
        return (self._records if tape else self._infers).launch.blocks()

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *_: Tensor
    ) -> tuple[Any, ...]:
        return self._infers.run(x, states, weights)

    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *_: Tensor
    ) -> tuple[Any, ...]:
        return self._records.run(x, states, weights)

    def differentiate(self, *arguments: Any) -> tuple[Tensor | None, ...]:
        return self._differentiates.run(*arguments)

    @cached_property
    def _differentiates(self) -> DirectBackward | GeneralBackward:
        call = self._call
        made = BackwardPass(*self._shape, call.device)
        if len(made.spans) > 1 or not _runs_at_once(call.kernels.backward, made.shape):
            return GeneralBackward(made, call.has_states)
        return DirectBackward(made, call.kernels.backward, call.has_states)


def direct_pass(call: SmallCall) -> DirectPass | None:
    """The way for calls of this shape: those of a dense batch, with kernels that run all steps at once."""
    schedule = call.schedule
    if call.has_resets or call.kernels.projected or not schedule.rows or not schedule.is_dense:
        return None
    shape = ForwardPass(call.kernels, call.bias, call.lengths, schedule, False, False, call.device).shape
    return DirectPass(call) if _runs_at_once(call.kernels.inference, shape) else None


def _runs_at_once(kernel: CompiledKernel, shape: RunShape) -> bool:
    run = kernel.open(shape)
    return isinstance(run, CudaRun) and run.layout(number_of(run.dtype)).kind in KINDS
