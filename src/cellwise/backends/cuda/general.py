"""Calls that a plan was made for (`direct.py`), the general way: by several launches, or span by span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.forward_pass import ForwardPass


class GeneralForward:
    """What `DirectForward` gives.

    Args:
        given: the shape of an output that is handed to the caller, with final states (1, B, H); None of one that goes
            to the next layer.
    """

    def __init__(self, made: ForwardPass, given: tuple[int, ...] | None) -> None:
        self._made, self._given = made, given

    def run(self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Any, ...]:
        made, rows = self._made, x.reshape(-1, x.shape[-1])
        begins = [each.reshape(-1, each.shape[-1]) for each in states]
        output, finals, saved = made.run(rows, begins, weights, None)
        given = output
        if made.sizes.output != made.sizes.padded_output:  # a copy already
            output = given.data
        elif self._given is not None:
            given = output.clone()
        if self._given is not None:
            given.resize_(self._given)
            finals = [each.unsqueeze_(0) for each in finals]
        return given, output, finals, saved


class GeneralBackward:
    """What `DirectBackward` gives."""

    def __init__(self, made: BackwardPass, has_states: bool) -> None:
        self._made, self._has_states = made, has_states

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
        rows = x.reshape(-1, x.shape[-1])
        at_output, *at_states = [
            None if each is None else each.reshape(-1, each.shape[-1]) for each in gradients
        ]
        begins = [each.reshape(-1, each.shape[-1]) for each in states]
        call = (rows, begins, weights, None, output, saved, at_output, at_states, wants_input)
        dx, finals, at_weights = self._made.run(*call)
        finals = [each.view(of.shape) for each, of in zip(finals, states, strict=True)]
        dx = None if dx is None else dx.view(x.shape)
        return dx, *(finals if self._has_states else ()), *at_weights
