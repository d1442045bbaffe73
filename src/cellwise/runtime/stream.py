"""A layer that is fed one step at a time and keeps its state in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cellwise.errors import InputError

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Stream:
    """Feed steps: `y = stream(x_t)`. Made by `layer.stream()`.

    `state` is the state after the last step, in the form in which the layer takes it; it may be set. Step by step
    the outputs are those of the layer on the whole sequence, in evaluation mode (no dropout), without gradients.
    """

    def __init__(self, run: Run, zeros: Callable[[], Any], batch_size: int, input_size: int) -> None:
        self._run = run
        self._zeros = zeros
        self.batch_size = batch_size
        self.input_size = input_size
        self.state = zeros()

    def __call__(self, x: Tensor) -> Tensor:
        """One step: x of shape (B, D), or (D,) if the batch size is 1; returns (B, H), or (H,).

        Raises:
            InputError: x has another shape.
        """
        shapes: list[tuple[int, ...]] = [(self.batch_size, self.input_size)]
        if self.batch_size == 1:
            shapes.append((self.input_size,))
        if tuple(x.shape) not in shapes:
            raise InputError(
                f"a step of this stream has shape {' or '.join(map(str, shapes))}; got {tuple(x.shape)}."
            )
        with torch.no_grad():
            output, self.state = self._run(x.view(1, self.batch_size, self.input_size), self.state)
        return output[0] if x.dim() == 2 else output[0, 0]

    def reset(self) -> None:
        """Begin anew: the state is zero again."""
        self.state = self._zeros()
