"""All layers of a stack as one node of autograd, where the compiler has a way for them together (`SmallStack`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.compiled.arriving import are_plain
from cellwise.backends.compiled.plain import check_unchanged


class SmallStack(ABC):
    """Layers of one direction one upon the other, each of which would be a `SmallPass`, as one call.

    x (rows, D) in any shape that lies so in memory; states (L, B, size) each, contiguous, none for zeros; the weights
    of all layers; behind all else resets, if the calls are given some.
    """

    @abstractmethod
    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The output of the last layer, and the final states (L, B, size) each."""

    @abstractmethod
    def record(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        masks: Sequence[Tensor],
        *resets: Tensor,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The same, and what is kept for `differentiate`.

        Args:
            masks: for each layer but the last what its output is multiplied by, (rows, size); none where it is not.
        """

    @abstractmethod
    def differentiate(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
        masks: Sequence[Tensor],
        *resets: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """The gradients at x, at the states if any were given, and at the weights.

        Args:
            gradients: at the output and the final states; None for zero.
        """


_NOTHING = (None,) * 3  # the gradients at what is no tensor of numbers, or has none
# The same layer by layer, from x, states, weights, masks and resets: the output and the final states.
ByLayers = Callable[
    [Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Tensor | None], Sequence[Tensor]
]


@dataclass(frozen=True, eq=False)
class StackCall:
    """What of such a call is no tensor. count: of the states that it is given."""

    small: SmallStack
    by_layers: ByLayers
    count: int


class Stack(torch.autograd.Function):
    """`Stack.apply(call, resets, masks, x, *states, *weights)` -> (output, *final states), (L, B, size) each."""

    @staticmethod
    def forward(
        ctx: Any,
        call: StackCall,
        resets: Tensor | None,
        masks: Sequence[Tensor],
        x: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.call, ctx.resets, ctx.masks = call, resets, masks
        ctx.seen = [(each.dtype, each.shape) for each in (x, *others)]
        ctx.set_materialize_grads(False)
        marks = () if resets is None else (resets,)
        given = (x, others[: call.count], others[call.count :])
        output, finals, kept = call.small.record(*given, masks, *marks)
        ctx.save_for_backward(x, *others, *kept)
        return output, *finals

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        call, end = ctx.call, len(ctx.seen) - 1
        others, kept = rest[:end], rest[end:]
        check_unchanged((x, *others), ctx.seen)
        if are_plain(gradients):
            states, weights = others[: call.count], others[call.count :]
            marks = () if ctx.resets is None else (ctx.resets,)
            given = (x, states, weights, kept, gradients, ctx.needs_input_grad[3], ctx.masks)
            return *_NOTHING, *call.small.differentiate(*given, *marks)
        return *_NOTHING, *_again(call, ctx.resets, ctx.masks, (x, *others), gradients)


def _again(
    call: StackCall,
    resets: Tensor | None,
    masks: Sequence[Tensor],
    tensors: Sequence[Tensor],
    gradients: Sequence[Any],
) -> list[Tensor | None]:
    """The gradients, of layers one by one: whatever is wanted of their derivatives, those of each layer know."""
    records = torch.is_grad_enabled()
    with torch.enable_grad():
        # Names of their own: what is differentiated are the layers, not what x and weights were made of.
        x, *others = (each.view_as(each) for each in tensors)
        results = call.by_layers(x, others[: call.count], others[call.count :], masks, resets)
        asked = [each for each in (x, *others) if each.requires_grad]
        pairs = [(result, each) for result, each in zip(results, gradients, strict=True) if each is not None]
        arrived, given = zip(*pairs, strict=True)
        found = torch.autograd.grad(arrived, asked, given, create_graph=records, allow_unused=True)
    left = iter(found)
    return [next(left) if each.requires_grad else None for each in (x, *others)]
