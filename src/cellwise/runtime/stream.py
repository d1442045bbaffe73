"""A layer that is fed one step at a time and keeps its state in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import Stepper
from cellwise.errors import InputError

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Watched:
    """Parameters of a module, and whether they are still what they were."""

    def __init__(self, parameters: Mapping[str, Any], names: tuple[str, ...]) -> None:
        self._parameters = parameters
        self._seen = [(name, parameters[name], parameters[name]._version) for name in names]

    def changed(self) -> bool:
        """Whether one was replaced or written to in place. Writing through `.data` goes unseen."""
        parameters = self._parameters
        for name, tensor, version in self._seen:  # noqa: SIM110  half the time of any()
            if parameters[name] is not tensor or tensor._version != version:
                return True
        return False


class Stream:
    """Feed steps: `y = stream(x_t)`. Made by `layer.stream()`.

    `state` is the state after the last step, in the form in which the layer takes it; it may be set. Step by step
    the outputs are those of the layer on the whole sequence, in evaluation mode (no dropout), without gradients.

    Where the compiled kernels can run the layer, weights are packed when the stream is made, and again when they were
    replaced or changed in place; a change through `.data` shows after `reset`.
    """

    def __init__(
        self,
        run: Run,
        zeros: Callable[[], Any],
        stepper: Callable[[], tuple[Stepper, Watched] | None],
        shape: tuple[int, int, int],
    ) -> None:
        self._run, self._zeros, self._make = run, zeros, stepper
        self.batch_size, self.input_size, output_size = shape
        self._state = zeros()
        self._like: dict[tuple[int, ...], Tensor] = {}
        self._flat, self._rows = (self.input_size,), (self.batch_size, self.input_size)
        self._output_size = output_size
        self._stepper: Stepper | None = None
        self._watched: Watched | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Pack the weights; the state stays."""
        made = self._make()
        self._stepper, self._watched = made if made is not None else (None, None)
        if self._stepper is not None:
            states = self._state if isinstance(self._state, tuple) else (self._state,)
            self._stepper.states = states
            rows = states[0].new_empty(self.batch_size, self._output_size)
            self._like = {self._rows: rows} | ({self._flat: rows[0]} if self.batch_size == 1 else {})

    @property
    def state(self) -> Any:
        if self._stepper is not None:
            states = self._stepper.states
            self._state = states[0] if len(states) == 1 else states
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self._state = state
        if self._stepper is not None:
            self._stepper.states = state if isinstance(state, tuple) else (state,)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """One step: x of shape (B, D), or (D,) if the batch size is 1; returns (B, H), or (H,).

        Args:
            out: where the result is put, contiguous and of its shape and dtype; without it, in a new tensor.

        Raises:
            InputError: x or `out` has another shape, or `out` another dtype.
        """
        stepper, watched = self._stepper, self._watched
        if stepper is not None and watched is not None and type(x) is Tensor and x.is_cpu:
            like = self._like.get(x.shape)
            if like is not None and x.dtype is like.dtype:
                if watched.changed():
                    self._state = self.state  # the new stepper begins with it
                    self._prepare()
                    return self(x, out)
                y = torch.empty_like(like) if out is None else self._checked(out, like)
                stepper.step(x if x.is_contiguous() else x.contiguous(), y)
                return y
        if x.shape != self._rows and (x.shape != self._flat or self.batch_size != 1):
            raise self._wrong(x)
        y = self._slow(x)
        return y if out is None else self._checked(out, y).copy_(y)

    def _checked(self, out: Tensor, like: Tensor) -> Tensor:
        fits = out.shape == like.shape and out.dtype == like.dtype and out.device == like.device
        if not (fits and out.is_contiguous() and not out.requires_grad):
            raise InputError(
                f"out takes this step's result, contiguous, of shape {tuple(like.shape)} and {like.dtype}; "
                f"got shape {tuple(out.shape)} and {out.dtype}."
            )
        return out

    def _slow(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            output, self.state = self._run(x.view(1, self.batch_size, self.input_size), self.state)
        return output[0] if x.dim() == 2 else output[0, 0]

    def _wrong(self, x: Tensor) -> InputError:
        shapes = [self._rows, self._flat] if self.batch_size == 1 else [self._rows]
        return InputError(
            f"a step of this stream has shape {' or '.join(map(str, shapes))}; got {tuple(x.shape)}."
        )

    def reset(self) -> None:
        """Begin anew: the state is zero again."""
        self._state = self._zeros()
        self._prepare()
