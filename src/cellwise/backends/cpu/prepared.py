"""One layer in one direction where the fixed cost of a call counts: all that a run is told is worked out beforehand.

What a kernel is told follows from the cell, the sizes of the layer and the steps of the batch, apart from a few
addresses. A call copies the list of them, puts in its own, and goes. It does what `run` does, on the same kernels, for
calls that one thread runs in one span, without resets, projection or recomputation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from cellwise.backends.cpu.arguments import in_vectors, layout_of
from cellwise.backends.cpu.engine import Engine
from cellwise.backends.cpu.gradients import (
    Parts,
    Run,
    at_bias,
    at_operand,
    at_weight,
    before_each_step,
    is_one_product,
    recipe_of,
)
from cellwise.backends.cpu.kept import Sizes, history_of, keeps
from cellwise.backends.cpu.launch import ZEROS, Launch
from cellwise.backends.cpu.run import span_rows
from cellwise.backends.cpu.threads import threads_for
from cellwise.backends.cpu.walk import Steps, Walk
from cellwise.plan.program import Place, Ref

# Above so many bytes for all that a run takes, what a call costs beside its work does not count.
_MOST_BYTES = 2**24


class Saved(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    kept: tuple[Tensor, ...]  # as `keeps` says
    output: Tensor | None  # (N, H), where the backward pass reads it and it is none of these


class Carried(NamedTuple):
    """A state in a forward run: its pointers, and where its steps are kept; `pair` where only the last one is."""

    before: int
    after: int
    history: str | None  # "output", or as `keeps` calls it
    pair: int


class Sizing(NamedTuple):
    """What a prepared pass is for. `dense`: data (T, B, D), else packed (N, D)."""

    engine: Engine
    stems: tuple[str, ...]
    lengths: tuple[int, int, int]
    steps: Steps
    dense: bool


class PreparedForward:
    """The forward run, for a tape or for none."""

    def __init__(self, sizing: Sizing, tape: bool) -> None:
        engine, stems, lengths, steps, dense = sizing
        graph, self.tape = engine.graph, tape
        self.rows, self.batch, self.hidden = steps.walk.rows, steps.batch, lengths[1]
        self.walk, self.padded = steps.walk, engine.padded(lengths[1])
        self.output_shape = (steps.count, steps.batch, self.hidden) if dense else (self.rows, self.hidden)
        self.state_shape = (1, steps.batch, self.hidden)
        self.whole = self.padded == self.hidden
        # Final states are one piece of memory, and can be copied as such.
        self.exact = self.walk.is_dense and (self.whole or steps.batch == 1)
        keeping = keeps(engine, Sizes(*lengths, self.padded, 0), False) if tape else None
        self.shapes = (
            {}
            if keeping is None
            else {name: (self.rows, columns * width) for name, (columns, width) in keeping.shapes.items()}
        )
        is_history = graph.output is graph.new_states[0]
        self.reads_output = tape and (is_history or engine.plan.reads_output)
        self.launch = Launch(
            engine.training if tape else engine.inference, steps, lengths, stems, pairs=self.exact
        )
        self.row_bytes = self.padded * engine.element_bytes
        self.state_bytes = steps.batch * self.hidden * engine.element_bytes
        with torch.inference_mode(False):
            self.nothing = torch.zeros(steps.batch, self.hidden, dtype=engine.dtype, device="cpu")
        slots = self.launch.slots
        self.x, self.output, self.at_tape = slots["x"], slots["output"], slots.get("tape")
        self.last = last_rows(self.walk)
        self.carried = [self._carry(place, is_history) for place in range(len(graph.states))]
        self.own = [
            (stems.index(name), slots[f"own {name}"], name in graph.scalars)
            for name in (*graph.vectors, *graph.scalars)
            if f"own {name}" in slots
        ]

    def _carry(self, place: int, is_history: bool) -> Carried:
        launch, at = self.launch, self.walk.addresses
        before, after = launch.kernel.program.states[place]
        name = history_of(launch.kernel.engine.graph.states[place])
        kept_as = "output" if place == 0 and is_history else name if name in self.shapes else None
        kind = "" if kept_as else "pair_"
        slots = launch.slots[before.name], launch.slots[after.name]
        launch.fix(slots[0] + 2, at[f"{kind}before"], at["limits"])
        launch.fix(slots[0], ZEROS.address(self.batch * self.row_bytes))
        launch.fix(slots[1] + 1, at[f"{kind}after"])
        return Carried(*slots, kept_as, launch.pairs.get(before.name, 0))

    def run(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], Saved]:
        """From x and states (1, B, H) each, none of them for zeros: output, final states, and what is kept."""
        pointers, base = self.launch.begin()
        pointers[self.x] = x.data_ptr()
        output = x.new_empty(self.output_shape)
        kept = {name: x.new_empty(shape) for name, shape in self.shapes.items()}
        rows = kept.get("output")
        if rows is None and (self.reads_output or not self.whole):
            # What the backward pass reads is another tensor than the caller's, who may write to it.
            rows = x.new_empty(self.rows, self.padded)
        written = output if rows is None else rows
        pointers[self.output] = written.data_ptr()
        if self.at_tape is not None:
            pointers[self.at_tape] = kept["tape"].data_ptr()
        memory = [self._remember(x, each, pointers, written, kept) for each in self.carried]
        held = give_first(pointers, [each.before for each in self.carried], states, self.padded)
        held += give_own(pointers, self.own, weights, self.padded)
        self.launch.run(pointers, weights, base)
        if rows is not None:
            self._copy_out(rows, output)
        finals = [
            last_states(self, x, tensor, base + state.pair, state.history is None)
            for state, tensor in zip(self.carried, memory, strict=True)
        ]
        return output, finals, Saved(tuple(kept.values()), None if "output" in kept else rows)

    def _remember(
        self, x: Tensor, state: Carried, pointers: list[int], written: Tensor, kept: dict[str, Tensor]
    ) -> Tensor | None:
        """Give a state memory for its steps; None where that lies in memory for runs."""
        if state.history is None:
            if self.exact:
                return None
            memory = x.new_empty(2 * self.batch, self.padded)
        else:
            memory = written if state.history == "output" else kept[state.history]
        pointers[state.before + 1] = pointers[state.after] = memory.data_ptr()
        return memory

    def _copy_out(self, rows: Tensor, output: Tensor) -> None:
        """The caller's own output, without padding."""
        if self.whole or self.rows == 1:
            ctypes.memmove(output.data_ptr(), rows.data_ptr(), output.nbytes)
        else:
            output.view(self.rows, self.hidden).copy_(rows[:, : self.hidden])


def last_rows(walk: Walk) -> dict[bool, int]:
    """The row that the last step of a dense batch leaves, in a pair of buffers (True) or in a history."""
    place = 0 if walk.backwards else -1
    return {True: int(walk.pair_after[place]), False: int(walk.after[place])}


def last_states(
    run: PreparedForward | PreparedBackward, x: Tensor, memory: Tensor | None, start: int, pair: bool
) -> Tensor:
    """A copy (1, B, H) of the states after each row's last step, which lie in `memory`, else from `start` on."""
    if not run.exact:
        assert memory is not None, "states that are no one piece of memory are in a tensor"
        return run.walk.finals(memory.view(-1, run.padded), run.nothing, pair).unsqueeze_(0)
    found = x.new_empty(run.state_shape)
    start = start if memory is None else memory.data_ptr()
    ctypes.memmove(found.data_ptr(), start + run.last[pair] * run.row_bytes, run.state_bytes)
    return found


def give_first(
    pointers: list[int], slots: Sequence[int], given: Sequence[Tensor | None], width: int
) -> list[Tensor]:
    """Where each row begins, for those states of which that is given. Returns what must stay in memory."""
    held = []
    for slot, first in zip(slots, given, strict=False):
        if first is not None:
            first = in_vectors(first, width)
            held.append(first)
            pointers[slot] = first.data_ptr()
    return held


def give_own(
    pointers: list[int], own: Sequence[tuple[int, int, bool]], weights: Sequence[Tensor], width: int
) -> list[Tensor]:
    """The cell's own parameters. Returns what must stay in memory."""
    held = []
    for number, slot, is_scalar in own:
        mine = weights[number] if is_scalar else in_vectors(weights[number], width)
        held.append(mine)
        pointers[slot] = mine.data_ptr()
    return held


class PreparedBackward:
    """The backward run, and the gradients of weights that come of it."""

    def __init__(self, sizing: Sizing, forward: PreparedForward) -> None:
        engine, stems, lengths, steps, dense = sizing
        self.engine, self.stems, self.steps, self.forward = engine, stems, steps, forward
        self.rows, self.batch, self.padded = forward.rows, forward.batch, forward.padded
        self.input, self.hidden = lengths[0], lengths[1]
        self.x_shape = (steps.count, steps.batch, self.input) if dense else (self.rows, self.input)
        self.exact, self.state_shape, self.nothing = forward.exact, forward.state_shape, forward.nothing
        self.row_bytes, self.state_bytes = forward.row_bytes, forward.state_bytes
        self.launch = launch = Launch(engine.backward, steps.turned, lengths, stems, pairs=self.exact)
        self.walk, slots = launch.steps.walk, launch.slots
        self.last = last_rows(self.walk)
        at = self.walk.addresses
        zeros = ZEROS.address(self.rows * self.row_bytes)
        self.carried = []
        for before, after in launch.kernel.program.states:
            launch.fix(slots[before.name], zeros, 0, at["pair_before"], at["limits"])
            launch.fix(slots[after.name], 0, at["pair_after"])
            self.carried.append((slots[before.name], slots[after.name], launch.pairs.get(before.name, 0)))
        launch.fix(slots["gradient output"], zeros)
        self.read = []  # states that are read as each step found them
        for place, name in enumerate(engine.graph.states):
            if f"{name} before" in slots:
                slot, was = slots[f"{name} before"], steps.walk.addresses
                launch.fix(slot, zeros, 0, was["before"], was["limits"])
                self.read.append((slot, place))
        self.own = [
            (stems.index(name), slots[f"own {name}"], name in engine.graph.scalars)
            for name in (*engine.graph.vectors, *engine.graph.scalars)
            if f"own {name}" in slots
        ]
        self.reads_x = "x" in slots
        self._plan_gradients()
        carried = {array.name for pair in launch.kernel.program.states for array in pair}
        read = {f"{name} before" for name in engine.graph.states}
        own = {f"own {name}" for name in (*engine.graph.vectors, *engine.graph.scalars)}
        known = {"x", "tape", "output", "gradient output"} | carried | read | own
        left = [name for name, _ in (*self.held, *self.sums)]
        left += [each.name for each in launch.arrays.values() if each.place is Place.ROWS]
        assert set(slots) <= known | set(left), (
            f"{engine.graph.name}: an array of its backward pass has no address"
        )

    def _plan_gradients(self) -> None:
        """How what the kernel leaves becomes gradients, and where one product gives all of a weight's."""
        graph, self.recipe = self.engine.graph, recipe_of(self.engine, self.hidden)
        arrays = [(each, each.columns * self.padded) for each in self.launch.arrays.values()]
        self.held = [(each.name, width) for each, width in arrays if each.place is Place.SPAN]
        self.sums = [(each.name, width) for each, width in arrays if each.place is Place.SUM]
        shape = len(graph.input_gates) * self.hidden, self.input
        self.whole_input = _whole(self.recipe.inputs, shape, self.rows)
        shape = len(graph.state_gates) * self.hidden, self.hidden
        recurrent = self.recipe.recurrent
        self.whole_state = _whole(recurrent[0][1], shape, self.rows) if len(recurrent) == 1 else None
        self.biases = {stem: _range_of(*places) for stem, places in self.recipe.biases.items()}

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        saved: Saved,
        given: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients at x, at those states that there are, and at the weights; those not `wanted` are None.

        Args:
            given: the gradients at the output and at the final states; None for zero.
        """
        pointers, base = self.launch.begin()
        slots = self.launch.slots
        kept = dict(zip(self.forward.shapes, saved.kept, strict=True))
        if saved.output is not None:
            kept["output"] = saved.output
        if self.reads_x:
            pointers[slots["x"]] = x.data_ptr()
        held = self._give_kept(pointers, states, kept)
        if given[0] is not None:
            held.append(in_vectors(given[0].reshape(self.rows, self.hidden), self.padded))
            pointers[slots["gradient output"]] = held[-1].data_ptr()
        held += give_first(pointers, [before for before, _, _ in self.carried], given[1:], self.padded)
        held += give_own(pointers, self.own, weights, self.padded)
        memory: list[Tensor | None] = [None] * len(self.carried)
        if not self.exact:
            for place, (before, after, _) in enumerate(self.carried):
                memory[place] = pair = x.new_empty(2 * self.batch, self.padded)
                pointers[before + 1] = pointers[after] = pair.data_ptr()
        between = {name: x.new_empty(self.rows, width) for name, width in self.held}
        sums = {name: x.new_zeros(width, dtype=torch.float64) for name, width in self.sums}
        for name, tensor in (*between.items(), *sums.items()):
            pointers[slots[name]] = tensor.data_ptr()
        self.launch.run(pointers, weights, base)
        found: list[Tensor | None] = [self._at_input(x, between, weights) if wanted[0] else None]
        for place in range(len(states)):
            found.append(last_states(self, x, memory[place], base + self.carried[place][2], pair=True))
        for number, is_wanted in enumerate(wanted[1 + len(states) :]):
            gradient = self._at_weight(number, x, states, weights, kept, between, sums) if is_wanted else None
            found.append(gradient)
        return found

    def _give_kept(
        self, pointers: list[int], states: Sequence[Tensor], kept: dict[str, Tensor]
    ) -> list[Tensor]:
        """What the forward pass left."""
        slots = self.launch.slots
        for name in ("tape", "output"):
            if name in slots:
                pointers[slots[name]] = kept[name].data_ptr()
        for slot, place in self.read:
            pointers[slot + 1] = self._history(place, kept).data_ptr()
        if not states:
            return []
        return give_first(
            pointers, [slot for slot, _ in self.read], [states[place] for _, place in self.read], self.padded
        )

    def _history(self, place: int, kept: dict[str, Tensor]) -> Tensor:
        name = self.forward.carried[place].history
        assert name is not None, "all steps are kept of a state that the backward pass reads"
        return kept[name]

    def _at_input(self, x: Tensor, between: dict[str, Tensor], weights: Sequence[Tensor]) -> Tensor:
        if not self.recipe.inputs:
            return torch.zeros_like(x)
        gates, weight = between["gates"], weights[self.stems.index("weight_ih")]
        if self.whole_input is not None:
            return torch.mm(_columns(gates, self.whole_input), weight).view(self.x_shape)
        dx = x.new_empty(self.rows, self.input)
        at_operand(gates, self.recipe.inputs, weight, dx)
        return dx.view(self.x_shape)

    def _at_weight(
        self,
        number: int,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: dict[str, Tensor],
        between: dict[str, Tensor],
        sums: dict[str, Tensor],
    ) -> Tensor:
        """The gradient at one weight."""
        stem, weight = self.stems[number], weights[number]
        if stem == "weight_ih":
            parts = [(slice(0, self.rows), x.view(self.rows, self.input))]
            return self._product(between, [(self.recipe.inputs, parts)], weight, self.whole_input, stem)
        if stem == "weight_hh":
            products = [
                (runs, self._operand(ref, states, kept, between)) for ref, runs in self.recipe.recurrent
            ]
            return self._product(between, products, weight, self.whole_state, stem)
        if stem in self.biases:
            mine = self.biases[stem]
            if mine is None:
                return at_bias(sums["bias sums"], self.recipe.biases[stem], weight)
            return _columns(sums["bias sums"], mine).to(weight.dtype, copy=True)
        parameters = self.engine.plan.parameters
        if stem not in parameters:
            return torch.zeros_like(weight)
        start = parameters.index(stem) * self.padded
        own = sums["sums"][start : start + self.hidden]
        return (own.sum() if stem in self.engine.graph.scalars else own).to(weight.dtype, copy=True)

    def _product(
        self,
        between: dict[str, Tensor],
        products: Sequence[tuple[Sequence[Run], Parts]],
        weight: Tensor,
        whole: slice | None,
        stem: str,
    ) -> Tensor:
        if whole is not None and len(products[0][1]) == 1:
            return torch.mm(_columns(between["gates"], whole).t(), products[0][1][0][1])
        make = torch.empty if stem in self.recipe.whole else torch.zeros
        found = make(weight.shape, dtype=weight.dtype, device="cpu")
        for runs, parts in products:
            at_weight(between["gates"], runs, parts, found)
        return found

    def _operand(
        self, ref: Ref, states: Sequence[Tensor], kept: dict[str, Tensor], between: dict[str, Tensor]
    ) -> Parts:
        """The rows that a product had as its operand."""
        every = slice(0, self.rows)
        if ref.array.place is Place.BEFORE:
            place = self.engine.graph.states.index(ref.array.name.removesuffix(" before"))
            first = states[place].view(self.batch, self.hidden) if states else self.nothing
            if self.steps.count == 1:
                return [(every, first)]
            history = self._history(place, kept)
            room = partial(history.new_empty, (self.rows, self.hidden))
            return before_each_step(self.steps.walk, every, history, first, room)
        matrix = between[ref.array.name] if ref.array.place is Place.SPAN else kept[ref.array.name]
        start = ref.column * self.padded
        return [(every, matrix[:, start : start + self.hidden])]


def _whole(runs: Sequence[Run], shape: tuple[int, int], rows: int) -> slice | None:
    """The columns at gates that give all of a weight's gradient in one product; None if it takes several."""
    if len(runs) != 1 or runs[0].rows != slice(0, shape[0]) or not is_one_product(rows, *shape):
        return None
    return runs[0].columns


def _range_of(source: Tensor, target: Tensor | None) -> slice | None:
    """The sums that are a bias's gradient as they stand; None if they are to be gathered."""
    numbers = source.tolist()
    if target is not None or not numbers or numbers != list(range(numbers[0], numbers[-1] + 1)):
        return None
    return slice(numbers[0], numbers[-1] + 1)


def _columns(matrix: Tensor, columns: slice) -> Tensor:
    """Some columns, without a view where these are all."""
    if columns == slice(0, matrix.shape[-1]):
        return matrix
    return matrix[..., columns]


class PreparedPass:
    """One layer in one direction, both ways."""

    def __init__(self, sizing: Sizing) -> None:
        self.sizing = sizing

    @cached_property
    def inference(self) -> PreparedForward:
        return PreparedForward(self.sizing, tape=False)

    @cached_property
    def training(self) -> PreparedForward:
        return PreparedForward(self.sizing, tape=True)

    @cached_property
    def backward(self) -> PreparedBackward:
        return PreparedBackward(self.sizing, self.training)


@lru_cache(maxsize=1024)
def prepare(
    engine: Engine,
    stems: tuple[str, ...],
    lengths: tuple[int, int, int],
    offsets: bytes,
    batch: int,
    reverse: bool,
    dense: bool,
    threads: int,
) -> PreparedPass | None:
    """What is worked out for a layer of these D, H and P on these steps; None if calls of it are large or unusual.

    Args:
        offsets: the first row of each time among all valid steps and their number, as int64.
        threads: as many as torch may use.
    """
    steps = Steps(torch.frombuffer(bytearray(offsets), dtype=torch.int64), batch, reverse, None, not reverse)
    rows, padded = steps.walk.rows, engine.padded(lengths[1])
    if engine.projected or engine.recompute or not rows:
        return None
    if threads > 1 and batch > 1 and threads_for(rows * layout_of(engine.inference, lengths).work) > 1:
        return None
    columns = len(engine.plan.tape.columns) + sum(each.columns for each in engine.plan.program.arrays)
    gates = sum(each.columns for each in engine.plan.program.arrays if each.place is Place.SPAN)
    weights = (
        2
        * lengths[1]
        * (len(engine.graph.input_gates) * lengths[0] + len(engine.graph.state_gates) * lengths[1])
    )
    size = (rows * padded * (columns + 3) + weights) * engine.element_bytes
    if size > _MOST_BYTES or rows > span_rows(engine, gates, padded):
        return None
    return PreparedPass(Sizing(engine, stems, lengths, steps, dense))
