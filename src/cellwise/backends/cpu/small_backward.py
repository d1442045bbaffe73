"""The backward pass of small calls (`small_calls.py`): the gradients that `BackwardPass` makes, in one chain."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.compiler import SmallCall
from cellwise.backends.compiled.forward_pass import first_states
from cellwise.backends.compiled.gradients import BlockSlice, at_operand, operand_in_one
from cellwise.backends.compiled.saved import PROJECTION
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.block_products import block_products
from cellwise.backends.cpu.copy_rows import copy_rows
from cellwise.backends.cpu.few_rows import MOST_SMALL, is_small
from cellwise.backends.cpu.gradient_products import RUN, Product, jobs_of_one
from cellwise.backends.cpu.masks import multiply
from cellwise.backends.cpu.ragged_gradients import (
    BEFORE_STEP,
    Held,
    find_before,
    find_ends,
    products_after,
    rooms_before,
)
from cellwise.backends.cpu.small_beside import GivenBeside, restarted
from cellwise.backends.cpu.small_jobs import Copies, Count, Jobs, Masks, Products, Rows, WholeRows, most_of
from cellwise.backends.cpu.small_run import (
    SmallRun,
    SmallRuns,
    Spans,
    Stages,
    carried_places,
    own_places,
    words_of,
)
from cellwise.plan.backward import BESIDE_GRADIENTS, PROJECTED_GRADIENT
from cellwise.plan.program import Slot, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.cpu.compiler import Kernel

_RESETS = ("resets",)
_TOGETHER = "gates of the input"
_PASSED_ON, _MASK, _ROOM = "gradient of x", "mask", "room of products"
# Multiply-adds from which on the products of all calls (`gradient_products.py`), which take 40 us to begin, make the
# input's gradient sooner than MKL: 16,16,256,256 trains in 0.87 of the time, 16,8,128,128 in 0.92, 8,16,64,100 in 1.01.
_MANY = 4_000_000


class SmallBackward:
    """A backward pass, as `BackwardPass` runs it.

    Args:
        spans: of a layer that goes block by block of its steps, beside others of a stack (`small_stack.py`).
        passes_on: that has a layer below it, which is given the gradient at x block by block.
        is_masked: times a mask.
        counted: how many rows there are, where each call says that (`small_ragged.py`). The kernel is the one to take.
    """

    def __init__(
        self,
        made: BackwardPass,
        call: SmallCall,
        kernel: Kernel,
        spans: Spans | None = None,
        passes_on: bool = False,
        is_masked: bool = False,
        counted: Count | None = None,
    ) -> None:
        has_states, kernel = call.has_states, kernel if counted else kernel.for_shape(made.shape)
        self._made, self._has_states = made, has_states
        graph, schedule = made.kernels.graph, made.schedule
        self._batch, self._counted, dtype = schedule.batch, counted, kernel.dtype
        self._rows: Rows = counted or schedule.rows
        most = most_of(self._rows)
        self.zeros = _zeros(made, 0 if counted else most, dtype)
        count, sizes, whole = len(graph.states), made.sizes, WholeRows(dtype.itemsize)
        states = [f"state {place}" for place in range(count)]
        weights = [f"weight {place}" for place in range(len(made.stems))]
        self._sizes = [sizes.of_state(place)[0] for place in range(count)]
        state_of = {name: place for place, name in enumerate(graph.states)}
        arriving, pairs, extra = [], [], {}
        for place, width in enumerate(made.own_widths):
            arriving.append(f"arriving {place}")
            is_final = has_states and made.are_finals[place]
            pairs.append(f"gradient {place}" if is_final else f"pair {place}")
            if not is_final:
                extra[f"pair {place}"] = 2 * self._batch * width * dtype.itemsize
        for name, width in made.held:  # of all steps, which are one span here
            extra[name] = most * width * dtype.itemsize
        # Of gates that are no whole vectors those of the input are put together, and then are one product's.
        inputs, self._inputs = made.recipe.inputs, 0
        if (
            not passes_on
            and len(inputs) > 1
            and sizes.padded != sizes.hidden
            and "weight_ih" in made.recipe.whole
        ):
            self._inputs = sum(each.rows.stop - each.rows.start for each in inputs)
            extra[_TOGETHER] = most * self._inputs * dtype.itemsize
        # Of more rows those of all calls, which are made after the chain.
        self._has_products = counted is not None and counted.most > MOST_SMALL
        if counted is not None:
            self._rooms = rooms_before(made, most * dtype.itemsize)
            extra |= self._rooms
        self._held = dict(made.held)
        self._gates_width = self._held.get("gates", 0)
        firsts, histories = [], []
        for name in made.carried:
            own = made.own.get(name)
            if own is None:
                state = name.removesuffix(" before")
                place = state_of[state]
                firsts.append(whole.of(states[place], self._batch, *sizes.of_state(place)))
                histories.append(made.history_of[state])
            else:
                firsts.append(whole.of(arriving[own], self._batch, self._sizes[own], made.own_widths[own]))
                histories.append(pairs[own])
        self._beside = GivenBeside(made.beside, call, counted)
        beside = self._beside.places
        lines: Rows = schedule.rows * sizes.outputs
        if counted is not None:
            lines = Count("rows of outputs", counted.most * sizes.outputs)
        outputs = lines, sizes.output, sizes.padded_output
        read = {name: self._beside.rows_of(name, whole) for name in beside}
        if "gradient output" in made.given:
            self._arrives = WholeRows(dtype.itemsize) if spans is not None else whole
            read["gradient output"] = self._arrives.of("gradient output", *outputs)
            extra |= self._arrives.room if spans is not None else {}

        def places(run: SmallRun) -> list[tuple[str, int]]:
            given = [(read.get(name, name), at) for name, at in zip(made.given, run.given, strict=True)]
            return given + carried_places(run, firsts, histories) + own_places(run, whole)

        self._is_beside = [place in beside.values() for place in range(len(weights))]
        # As in the forward pass.
        self._restarts = call.has_resets and has_states and not schedule.backwards
        everywhere, parameters = made.recipe.whole, made.kernels.plan.parameters
        # Of which weights every number of the gradient is written.
        self.covered = [
            stem in parameters or stem.replace("bias", "weight") in everywhere for stem in made.stems
        ]
        gradients = [f"gradient of {weight}" for weight in weights]
        # Where whole vectors of the output are kept, those are read.
        output = "output of the call" if "output" in made.saved else "output"
        names = ("x", *states, *weights, output, *made.saved, "gradient output", *arriving, *gradients)
        if has_states:
            names += tuple(f"gradient {place}" for place in range(count))
        names += _RESETS[: call.has_resets]
        forms = self._beside.forms(kernel.program)
        names += (_PASSED_ON,) * passes_on + (_MASK,) * is_masked
        self._is_masked = is_masked
        self._passes_on, self._reads = passes_on, read.get("gradient output", "")
        stages = None if spans is None else Stages(spans, self._before, self._after, self._last)
        gradient = dict(zip(made.stems, gradients, strict=True))
        gate_bytes, lanes = self._gates_width * dtype.itemsize // sizes.padded, made.kernels.padded(1)
        are_few = is_small(most, gate_bytes, sizes.hidden, lanes) or sizes.projected
        self._many = None
        if spans is not None and not are_few:
            self._many = self._many_jobs(kernel, gradient)
            extra[_ROOM] = self._many.room
        self.runs = SmallRuns(
            kernel, made.shape, places, whole, self._jobs, extra, names, forms, stages, counted is not None
        )

    def _before(self, run: SmallRun, rows: slice) -> Any:
        """The gradient at the output of some steps in whole vectors, which is there when their turn comes."""
        sizes, found = self._made.sizes, Copies(run.kernel.dtype.itemsize)
        if self._reads.startswith("whole"):
            size, width, first = sizes.output, sizes.padded_output, rows.start * sizes.outputs
            to, source = (self._reads, first * width), ("gradient output", first * size)
            count = (rows.stop - rows.start) * sizes.outputs
            found.copy(to, width, source, size, count, size, width)
        return ((found, copy_rows),)

    def _last(self) -> Any:
        return () if self._many is None else ((self._many, block_products),)

    def _after(self, run: SmallRun, rows: slice) -> Any:
        """The gradient at x of some steps, as `gradient_products.py` makes it."""
        found, width, gates = Products(run.kernel.dtype.itemsize), self._made.sizes.input, self._gates_width
        for number, each in enumerate(self._made.recipe.inputs if self._passes_on else ()):
            weight = f"weight {self._made.stems.index('weight_ih')}"
            columns, first = each.columns.stop - each.columns.start, rows.start
            for k in range(0, columns, RUN):
                found.product(
                    left=("gates", first * gates + each.columns.start + k), left_n=1, left_i=gates,
                    right=(weight, (each.rows.start + k) * width), right_row=width, n=min(RUN, columns - k),
                    out=(_PASSED_ON, first * width), out_row=width, height=rows.stop - first, width=width,
                    add=number > 0 or k > 0,
                )  # fmt: skip
        masks = Masks(found.bytes)
        if self._is_masked:
            count = (rows.stop - rows.start) * width
            masks.multiply(_PASSED_ON, _PASSED_ON, _MASK, rows.start * width, count)
        return (found, block_products), (masks, multiply)

    def _jobs(self, run: SmallRun) -> Jobs:
        made, sizes = self._made, self._made.sizes
        found = Jobs(run.kernel.dtype.itemsize)
        for each in made.recipe.inputs if self._inputs else ():
            to, source = (_TOGETHER, each.rows.start), ("gates", each.columns.start)
            size = each.rows.stop - each.rows.start
            found.copies.copy(to, self._inputs, source, self._gates_width, self._rows, size)
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
            if name in made.kernels.graph.scalars:
                found.total(gradient[name], start, sizes.hidden)
            else:
                found.narrow((gradient[name], 0), start, sizes.hidden, False)
        if self._has_states and self._counted is not None:
            find_ends(found, made, self._sizes)
        elif self._has_states:
            for place, (size, width) in enumerate(zip(self._sizes, made.own_widths, strict=True)):
                if not made.are_finals[place]:
                    source = (f"pair {place}", made.backwards.last_row(pair=True) * width)
                    found.move((f"gradient {place}", 0), source, self._batch, size, width)
        return found

    def _weight_jobs(self, found: Jobs, gradient: dict[str, str]) -> None:
        """The products that make the gradients of weights from those at gates."""
        made, width = self._made, self._gates_width
        if self._many is not None:
            return
        if self._counted is not None:
            find_before(found, made, self._rooms)
            if self._has_products:
                return
        for each in made.recipe.inputs:
            size = (each.rows.stop - each.rows.start, made.sizes.input)
            out = (gradient["weight_ih"], each.rows.start * size[1])
            left = ("gates", each.columns.start)
            found.product(left, width, ("x", 0), size[1], self._rows, out, size, each.add)
        for slot, runs in made.recipe.recurrent:
            for each in runs:
                self._product_jobs(found, "gates", each, slot, gradient["weight_hh"], made.sizes.output)
        unprojected = made.kernels.plan.unprojected
        if unprojected is not None:
            every = slice(0, made.sizes.projected)
            block, name = BlockSlice(every, every), PROJECTED_GRADIENT.name
            self._product_jobs(found, name, block, unprojected, gradient[PROJECTION], made.sizes.hidden)

    def _many_jobs(self, kernel: Kernel, gradient: dict[str, str]) -> Products:
        """The same of more rows, as `gradient_products.py` makes them."""
        made, size, products = self._made, kernel.dtype.itemsize, []
        rows = made.schedule.rows
        names: list[tuple[str, int]] = [("gates", 0), (_ROOM, 0)]

        def ask(
            each: BlockSlice, piece: tuple[str, int, int, int, int], stem: str, width: int, add: bool
        ) -> None:
            name, start, row, first, count = piece
            columns = each.columns.start, each.columns.stop
            products.append(Product(columns, row, width, width, add, first, first + count))
            names.extend(((name, start * size), (gradient[stem], each.rows.start * width * size)))

        for each in made.recipe.inputs:
            ask(each, ("x", 0, made.sizes.input, 0, rows), "weight_ih", made.sizes.input, each.add)
        for slot, runs in made.recipe.recurrent:
            pieces = sorted(self._operand(slot), key=lambda piece: piece[3])
            for each, (number, piece) in itertools.product(runs, enumerate(pieces)):
                ask(each, piece, "weight_hh", made.sizes.output, each.add or number > 0)
        words, which, room = jobs_of_one(products, rows, self._gates_width, size, kernel.target)
        return Products.of(size, words, which, names, room)

    def _product_jobs(
        self, found: Jobs, left: str, each: BlockSlice, slot: Slot, out: str, numbers: int
    ) -> None:
        """The gradient of rows of a weight, of so many `numbers`, from that at what they made from an operand."""
        width, size = self._held[left], (each.rows.stop - each.rows.start, numbers)
        for number, (name, start, stride, first, rows) in enumerate(self._operand(slot)):
            at_rows = (left, first * width + each.columns.start)
            target = (out, each.rows.start * numbers)
            found.product(at_rows, width, (name, start), stride, rows, target, size, each.add or number > 0)

    def _operand(self, slot: Slot) -> list[tuple[str, int, int, int, Rows]]:
        """What a product had as its operand: tensor, its first number, numbers of a row, first row of all, and rows."""
        made, buffer, rows, batch = self._made, slot.buffer, self._rows, self._batch
        if buffer.storage is not StorageClass.CARRY_IN:
            width = buffer.columns * made.sizes.padded
            return [(buffer.name, slot.column * made.sizes.padded, width, 0, rows)]
        state = buffer.name.removesuffix(BEFORE_STEP)
        place = made.kernels.graph.states.index(state)
        history, (size, width) = made.history_of[state], made.sizes.of_state(place)
        if isinstance(rows, Count):  # gathered by a job of its own
            return [(buffer.name, 0, size, 0, rows)]
        on = rows - batch
        if made.schedule.backwards:
            parts = [(history, batch * width, width, 0, on), (f"state {place}", 0, size, on, batch)]
        else:
            parts = [(f"state {place}", 0, size, 0, batch), (history, 0, width, batch, on)]
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
        schedule: TimeSchedule | None = None,
    ) -> tuple[Tensor | None, ...]:
        """The gradients at x, in its shape, at the states if any were given to the layer, and at the weights; None at
        what was drawn.

        Args:
            schedule: of the forward pass, of a call that says how many rows there are.
        """
        arriving = [
            zeros if each is None else each.contiguous()
            for each, zeros in zip(gradients, self.zeros, strict=True)
        ]
        if schedule is not None and gradients[0] is None:
            arriving[0] = self.zeros[0].new_zeros(schedule.rows, self.zeros[0].shape[1])
        at_weights: list[Any] = [
            each if beside else torch.empty_like(each) if whole else torch.zeros_like(each)
            for each, whole, beside in zip(weights, self.covered, self._is_beside, strict=True)
        ]
        at_states = [torch.empty_like(each) for each in states] if self._has_states else []
        if self._restarts:
            states = first_states(states, resets[0], schedule) if schedule else restarted(states, resets[0])
        rows = self._beside.whole(weights)
        tensors = (x, *states, *rows, output, *saved, *arriving, *at_weights, *at_states, *resets)
        words = () if schedule is None else words_of(schedule, self._made.sizes.outputs)
        run, block = self.runs.enter(tensors, words)
        if self._has_products:
            kept = dict(zip(("output", *self._made.saved), (output, *saved), strict=True))
            held = Held(block, run.offset_of, kept)
            dx = products_after(self._made, held, x, weights, at_weights, wants_input)
        else:
            dx = self.at_input(run, block, x, weights) if wants_input else None
        if self._beside.places:
            self._at_beside(run, block, x, weights, at_weights)
        return dx, *at_states, *at_weights

    def _at_beside(
        self, run: SmallRun, block: Any, x: Tensor, weights: Sequence[Tensor], at_weights: list[Any]
    ) -> None:
        """Put the gradients at values beside x into their places."""
        made, found = self._made, {}
        if BESIDE_GRADIENTS in self._held:
            start, width = run.offset_of[BESIDE_GRADIENTS], self._held[BESIDE_GRADIENTS]
            held = block.tensor(start, x.numel() // x.shape[-1], width, run.kernel.dtype)
            assert made.beside is not None
            found = dict(made.beside.gradients(held, dict(zip(made.stems, weights, strict=True))))
        for place in self._beside.places.values():
            at_weights[place] = self._beside.gradient(place, found.get(made.stems[place]), weights[place])

    def at_input(
        self, run: SmallRun, block: Any, x: Tensor, weights: Sequence[Tensor], start: int = 0
    ) -> Tensor:
        """The gradient at x; the run's memory begins so many bytes behind that of the block."""
        made, inputs = self._made, self._made.recipe.inputs
        if not inputs:
            return torch.zeros_like(x)
        weight = weights[made.stems.index("weight_ih")]
        rows, dtype = x.numel() // x.shape[-1], run.kernel.dtype
        gates = block.tensor(start + run.offset_of["gates"], rows, self._gates_width, dtype)
        if rows * weight.numel() >= _MANY:
            dx, products = torch.empty_like(x), made.kernels.compiler.gradient_products(x.dtype)
            assert products is not None
            products.at_operand(gates, inputs, weight, dx.view(rows, made.sizes.input))
            products.run()
            return dx
        if self._inputs:
            gates = block.tensor(start + run.offset_of[_TOGETHER], rows, self._inputs, dtype)
            return torch.mm(gates, weight).view(x.shape)
        found = operand_in_one(gates, inputs, weight)
        if found is None:
            found = x.new_empty((rows, made.sizes.input))
            at_operand(gates, inputs, weight, found)
        return found.view(x.shape)


def _zeros(made: BackwardPass, rows: int, dtype: torch.dtype) -> list[Tensor]:
    """Gradients that nobody gave, at the output and the final states. They are only read."""
    shapes = [(rows, made.sizes.outputs * made.sizes.output)]
    shapes += [(made.schedule.batch, made.sizes.of_state(place)[0]) for place in range(len(made.own_widths))]
    with torch.inference_mode(False):
        return [torch.zeros(shape, dtype=dtype, device="cpu") for shape in shapes]
