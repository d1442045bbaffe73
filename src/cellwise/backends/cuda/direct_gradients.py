"""Gradients of weights and input, from what a backward kernel left of all steps: few products, each of all steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
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
)
from cellwise.backends.cuda.launch import CudaRun, padded_gates
from cellwise.backends.cuda.products import INPUT, RECURRENT
from cellwise.plan.backward import BESIDE_GRADIENTS
from cellwise.plan.program import Slot, StorageClass

# Of float32, whose last digits many rows added one after the other would cost; 16 bits are added in float32.
_LONG = 2**15


class WeightGradients:
    """What is known of them beforehand. Rows of gates lie at the width of memory until the last moment."""

    def __init__(self, made: BackwardPass, run: CudaRun, has_states: bool) -> None:
        self._pass, self._run, self._has_states = made, run, has_states
        kernels, self._sizes, device = made.kernels, made.sizes, made.shape.device
        self._graph, self._schedule = kernels.graph, made.schedule
        self._recipe = weight_gradient_layout(kernels, self._sizes.padded, device)
        self._parameters = {name: place for place, name in enumerate(kernels.plan.parameters)}
        self._is_padded = self._sizes.padded != self._sizes.hidden
        columns = run.bias_columns
        self._bias_columns = None
        if columns and columns != list(range(run.columns["gates"].columns)):
            self._bias_columns = run.machine.constant(columns, device)

    def __call__(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        sums: Tensor | None,
        wants_input: bool,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradient at x if wanted, and at the weights in their order; None at what was drawn at random.

        Args:
            tensors: by name, the rows that the kernel read and wrote.
            sums: of the cell's own parameters, (B, columns * width).
        """
        rows, recipe = x.reshape(self._schedule.rows, -1), self._recipe
        gates = tensors.get("gates")
        found: dict[str, Tensor] = {}
        if gates is not None:
            for slot, runs in recipe.recurrent:
                operand = self._operand(slot, states, tensors)
                self._at_weight(RECURRENT, gates, runs, operand, self._sizes.hidden, found)
            if recipe.inputs:
                operand = [(slice(0, len(rows)), rows)]
                self._at_weight(INPUT, gates, recipe.inputs, operand, self._sizes.input, found)
            self._at_biases(gates, weights, found)
        found = {stem: self._without_padding(each) for stem, each in found.items()}
        self._at_own(sums, weights, found)
        beside, drawn = self._pass.beside, frozenset[str]()
        if beside is not None:
            drawn = beside.drawn
            if BESIDE_GRADIENTS in tensors:
                found |= beside.gradients(tensors[BESIDE_GRADIENTS], weights)
        dx = self._at_input(x, gates, weights) if wants_input else None
        return dx, [
            found[stem] if stem in found else None if stem in drawn else torch.zeros_like(weights[stem])
            for stem in weights
        ]

    def _without_padding(self, rows: Tensor) -> Tensor:
        """(gates * width, ...) to (gates * H, ...)."""
        if not self._is_padded:
            return rows
        blocks = rows.view(-1, self._sizes.padded, *rows.shape[1:])
        return blocks[:, : self._sizes.hidden].flatten(0, 1).contiguous()

    def _operand(self, slot: Slot, states: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> RowBlocks:
        """The rows that a product had as its operand in all steps; those of zeros are left out."""
        made, buffer, hidden = self._pass, slot.buffer, self._sizes.hidden
        every = slice(0, self._schedule.rows)
        if buffer.storage is StorageClass.CARRY_IN:
            name = buffer.name.removesuffix(" before")
            first = states[self._graph.states.index(name)].reshape(-1, hidden)
            history = tensors[made.history_of[name]]
            parts = before_each_step(self._schedule, every, history, first, lambda: history)
            return parts if self._has_states else parts[1:]
        matrix = tensors[buffer.name]
        start = slot.column * (matrix.shape[1] // buffer.columns)
        return [(every, part_of(matrix, 1, slice(start, start + hidden)))]

    def _at_weight(
        self,
        stem: str,
        gates: Tensor,
        runs: Sequence[BlockSlice],
        operand: RowBlocks,
        size: int,
        found: dict[str, Tensor],
    ) -> None:
        height = (
            len(self._graph.input_gates if stem == INPUT else self._graph.state_gates) * self._sizes.padded
        )
        is_long = gates.dtype.itemsize > 2 and len(gates) > _LONG
        is_whole = len(runs) == 1 and runs[0].rows == slice(0, height) and stem not in found
        if is_whole and operand and not is_long:
            (steps, matrix), *others = operand
            columns = part_of(gates, 1, runs[0].columns)
            out = torch.mm(part_of(columns, 0, steps).t(), matrix)
            for steps, matrix in others:
                out.addmm_(columns[steps].t(), matrix)
            found[stem] = out
            return
        if stem not in found:
            make = gates.new_empty if operand and stem in self._recipe.whole else gates.new_zeros
            found[stem] = make(height, size)
        if is_long and operand:
            at_weight(gates, runs, operand, found[stem])
            return
        for each in runs:
            target, columns = found[stem][each.rows], gates[:, each.columns]
            if not operand and not each.add:
                target.zero_()
            for number, (steps, matrix) in enumerate(operand):
                if each.add or number:
                    target.addmm_(columns[steps].t(), matrix)
                else:
                    torch.mm(columns[steps].t(), matrix, out=target)

    def _at_biases(self, gates: Tensor, weights: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
        stems = [stem for stem in ("bias_ih", "bias_hh") if stem in weights]
        if not stems:
            return
        width, recipe = self._sizes.padded, self._recipe
        if gates.dtype.itemsize == 2:
            total = gates.sum(0)
        else:  # first of each step, then of all
            total = gates.view(self._schedule.steps, -1, gates.shape[1]).sum(1).sum(0, dtype=torch.float64)
        if self._bias_columns is not None:
            total = total.view(-1, width).index_select(0, self._bias_columns).flatten()
        for stem in stems:
            places, is_ih = recipe.biases[stem], stem == "bias_ih"
            count = len(self._graph.input_gates if is_ih else self._graph.state_gates)
            if not is_ih and recipe.equal_biases and "bias_ih" in found:
                found[stem] = found["bias_ih"].clone()
            elif places.target is None and places.run == slice(0, len(total)) and total.dtype == gates.dtype:
                found[stem] = total
            else:
                found[stem] = at_bias(total, places, gates.new_empty(count * width))

    def _at_own(self, sums: Tensor | None, weights: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
        """The cell's own parameters."""
        if sums is None:
            return
        totals = sums.sum(0, dtype=torch.float64)
        for name, place in self._parameters.items():
            start = place * self._sizes.padded
            total = totals[start : start + self._sizes.hidden]
            total = total.sum() if name in self._graph.scalars else total
            found[name] = total.to(weights[name].dtype, copy=True)

    def _at_input(self, x: Tensor, gates: Tensor | None, weights: Mapping[str, Tensor]) -> Tensor:
        runs = self._recipe.inputs
        if not runs or gates is None:
            return torch.zeros_like(x)
        weight = weights[INPUT]
        if self._is_padded:
            weight = padded_gates(weight, len(self._graph.input_gates), self._sizes)
        found = operand_in_one(gates, runs, weight)
        if found is None:
            found = gates.new_empty(self._schedule.rows, self._sizes.input)
            at_operand(gates, runs, weight, found)
        return found.view(x.shape)
