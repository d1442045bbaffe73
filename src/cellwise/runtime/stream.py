"""A layer that is fed one step at a time and keeps its state in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.base import Stepper
from cellwise.errors import InputError, a_or_an
from cellwise.runtime.watched import Watched

_empty_like = torch.empty_like
_increment_version = torch_internals.increment_version


class Streamed(Protocol):
    """What a stream asks of its layer."""

    input_size: int

    def _stream_sizes(self) -> tuple[int, torch.dtype, torch.device]:
        """The size of an output, and the dtype and device of inputs."""

    def _stream_state(self, batch: int, state: Any = None) -> tuple[Tensor, ...]:
        """The tensors of a state that fits, or InputError; zeros for None."""

    def _stream_step(
        self, x: Tensor, states: tuple[Tensor, ...], beside: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step (B, D) by whatever backend can, without gradients; beside x are (B,), (B, 1) or (B, H)."""

    def _stream_outputs(self) -> Callable[[Tensor], Any]:
        """What gives several outputs that lie side by side by their names."""

    def _stream_beside(self) -> tuple[tuple[str, ...], Mapping[str, float | None], Mapping[str, int]]:
        """The inputs beside x that a stepper takes, all that there are with the number of each where none is given, and
        how many numbers each has that is one a unit.
        """

    def _stepper(self, batch: int) -> tuple[Stepper, Watched] | None:
        """Kernels for single steps on the weights as they are now, and these watched; None if there are none."""


class Stream:
    """Feed steps: `y = stream(x_t)`. Made by `layer.stream()`.

    `state` is the state after the last step, in the form in which the layer takes it; it may be set. Step by step
    the outputs are those of the layer on the whole sequence, in evaluation mode (no dropout), without gradients.

    Where the compiled kernels can run the layer, one or two rows read weights that fit into a core's second cache where
    they lie, and so see whatever is written to them. Other weights are packed when the stream is made, and again when
    they were replaced or changed: in place, by an optimizer, by another process, through `.data` or numpy. Changes of
    which torch keeps no count are seen by reading the weights, up to 64 KiB a step: at once in small layers, in others
    within (size of the weights / 64 KiB) steps, or at once by `refresh`.

    On a GPU steps are CUDA graphs that are replayed, on whichever of torch's streams is current. They see all changes
    of weights; of weights that are made of others, those that torch counts, and all by `refresh`. Within a CUDA graph
    of the caller's each replay makes the next step; the stream is to live as long as that graph.

    `copy.copy(stream)` is another stream on the same layer, with a state of its own that is equal at first;
    `copy.deepcopy` and pickle take the layer along.
    """

    _stepper: Stepper | None = None
    _recorded: tuple[Stepper, ...] = ()  # those whose memory a graph of the caller's knows

    def __init__(self, layer: Streamed, batch_size: int) -> None:
        self._open(layer, batch_size, layer._stream_state(batch_size))

    def _open(self, layer: Streamed, batch_size: int, states: tuple[Tensor, ...]) -> None:
        self._layer = layer
        self.batch_size, self.input_size = batch_size, layer.input_size
        self._flat, self._rows = (self.input_size,), (self.batch_size, self.input_size)
        self._prepare(states)

    def _prepare(self, states: tuple[Tensor, ...]) -> None:
        """Pack the weights as they are now, and go on from a state; if they cannot be packed nothing has changed."""
        made = self._layer._stepper(self.batch_size)
        size, dtype, device = self._layer._stream_sizes()
        # A layer that was moved to another dtype or device takes its state along.
        states = tuple([each.to(device, dtype) for each in states])
        if self._stepper is not None and self._stepper.is_recorded:
            self._recorded = (*self._recorded, self._stepper)
        self._stepper = None
        self._step: Callable[[Tensor, Tensor], bool | None] | None = None
        if made is not None:
            self._stepper, watched = made
            self._stepper.states = states
            self._step, self._changed = self._stepper.step, watched.changed
        self._states = states
        self._dtype, self._device, self._is_cpu = dtype, device, device.type == "cpu"
        rows = torch.empty(self.batch_size, size, dtype=dtype, device=device)
        # Bytes of x and of y: a step asks no tensor what is known.
        self._bytes = self.batch_size * self.input_size * dtype.itemsize, rows.nbytes
        self._like: dict[tuple[int, ...], Tensor] = {self._rows: rows}
        if self.batch_size == 1:
            self._like[self._flat] = rows[0]

    def _present(self) -> tuple[Tensor, ...]:
        return self._states if self._stepper is None else self._stepper.states

    @property
    def state(self) -> Any:
        """A copy of the state after the last step.

        Raises, when set:
            InputError: the state does not fit the layer, as when the layer is called with it.
        """
        states = tuple([each.clone() for each in self._present()])
        return states[0] if len(states) == 1 else states

    @state.setter
    def state(self, state: Any) -> None:
        given = self._layer._stream_state(self.batch_size, state)
        self._states = tuple([each.detach().clone() for each in given])
        if self._stepper is not None:
            self._stepper.states = self._states

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """One step: x of shape (B, D), or (D,) if the batch size is 1; returns (B, H), or (H,).

        Args:
            out: where the result is put, contiguous and of its shape and dtype; without it, in a new tensor.

        Raises:
            InputError: x or `out` has another shape, dtype or device than the layer takes; or the layer's weights no
                longer fit it. The state is as it was.
        """
        step = self._step
        if step is None or type(x) is not Tensor:
            return self._slow(x, out)
        like = self._like.get(x.shape)
        if like is None or x.dtype is not self._dtype or x.is_cpu is not self._is_cpu or x.is_neg():
            return self._slow(x, out)
        if self._changed():
            self._prepare(self._present())
            return Stream.__call__(self, x, out)
        if not x.is_contiguous():
            x = x.contiguous()
        if out is None:
            y = _empty_like(like)
        else:
            y = self._checked(out, like)
            start, its_start, (of_x, of_y) = y.data_ptr(), x.data_ptr(), self._bytes
            if start < its_start + of_x and its_start < start + of_y:
                x = x.clone()  # it is still read while the result is written
        done = step(x, y)
        if done:
            return y
        if done is None:
            return self._whole(x, out)
        self._prepare(self._present())
        return Stream.__call__(self, x, y)

    # What a stepper takes of each value that the cell asks for beside x: None if that is none.
    _taken: Sequence[Any] | None = ()

    def _beside(self, x: Tensor) -> Mapping[str, Any]:
        """What stands beside x, as a layer takes it."""
        return {}

    def _slow(self, x: Tensor, out: Tensor | None) -> Tensor:
        """A step that is checked in full: for inputs of unusual kinds, and layers that no kernel runs."""
        if not isinstance(x, Tensor):
            raise InputError(f"a step of this stream is a tensor; got {a_or_an(type(x).__name__)}.")
        if self._layer._stream_sizes()[1:] != (self._dtype, self._device):
            self._prepare(self._present())
        like = self._like.get(x.shape)
        if like is None:
            shapes = [self._rows, self._flat] if self.batch_size == 1 else [self._rows]
            raise InputError(
                f"a step of this stream has shape {' or '.join(map(str, shapes))}; got {tuple(x.shape)}."
            )
        if x.dtype != self._dtype:
            raise InputError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({self._dtype}). "
                f"Convert input: input.to({self._dtype})"
            )
        if out is not None:
            self._checked(out, like)
        with torch.no_grad():
            rows = x.detach().view(self._rows)
            is_plain = type(rows) is Tensor and x.is_cpu is self._is_cpu and self._taken is not None
            if self._stepper is not None and is_plain:
                return Stream.__call__(self, torch.clone(rows).view(x.shape), out)
        return self._whole(x, out)

    def _whole(self, x: Tensor, out: Tensor | None) -> Tensor:
        """A step as a call of the layer."""
        like = self._like[x.shape]
        with torch.no_grad():
            rows = x.detach().view(self._rows)
            output, states = self._layer._stream_step(rows, self._present(), self._beside(x))
        self._states = states
        if self._stepper is not None:
            self._stepper.states = states
        y = output.view(like.shape)
        return y if out is None else out.copy_(y)

    def _checked(self, out: Tensor, like: Tensor) -> Tensor:
        # One question after the other, each step asks them all.
        if (
            type(out) is not Tensor
            or out.dtype is not self._dtype
            or out.shape != like.shape
            or out.is_cpu is not self._is_cpu
            or not (self._is_cpu or out.device == self._device)
            or not out.is_contiguous()
            or out.requires_grad
            or out.is_neg()
        ):
            self._refuse(out, like)
        if not out.is_inference():
            _increment_version((out,))  # who needs what it held for a backward pass is told
        return out

    def _refuse(self, out: Any, like: Tensor) -> None:
        """Raise InputError for a tensor that cannot take a result; one on another device may, of a layer there."""
        fits = isinstance(out, Tensor) and (out.dtype, out.shape, out.device) == (
            like.dtype,
            like.shape,
            like.device,
        )
        if not (fits and out.is_contiguous() and not out.requires_grad):
            found = a_or_an(type(out).__name__)
            if isinstance(out, Tensor):
                kind = "" if out.is_contiguous() else "not contiguous, "
                kind += "with requires_grad, " if out.requires_grad else ""
                found = f"{kind}shape {tuple(out.shape)} and {out.dtype} on {out.device}"
            raise InputError(
                f"out takes this step's result, contiguous, of shape {tuple(like.shape)} and {like.dtype} on "
                f"{like.device}; got {found}."
            )
        if type(out) is not Tensor or out.is_neg():
            raise InputError(f"out takes a plain tensor; got {a_or_an(type(out).__name__)}.")

    def follower(
        self, table: Tensor, weight: Tensor, most: int
    ) -> Callable[[Tensor | None, Tensor], list[int]] | None:
        """What goes on from this stream's state and reads what it writes, many steps at once, if kernels can: for a
        batch of one.

        A step's scores are its noise (V,) and the product of the last output with `weight`; the largest is chosen, and
        its row of the table is the next input. The layer's weights are read before each run, all of them.

        Args:
            table: (V, D), contiguous, as `weight`.
            weight: (H, V).
            most: steps of a run.

        Returns:
            A function of the output that it goes on from (H,), None for its own last one, and of the noise of each step
            (steps, V), to the ids that were chosen. It raises InputError if they do not fit.
        """
        stepper, (size, *_) = self._stepper, self._layer._stream_sizes()
        width = len(table)
        fits = (table.shape, weight.shape) == ((width, self.input_size), (size, width)) and all(
            type(each) is Tensor and each.is_cpu and each.dtype is self._dtype and each.is_contiguous()
            for each in (table, weight)
        )
        made = None if stepper is None or not fits else stepper.follower(table, weight, most)
        if made is None or table.is_neg() or weight.is_neg():
            return None

        def run(read: Tensor | None, noise: Tensor) -> list[int]:
            nonlocal stepper, made
            for each, shape in ((noise, (len(noise), width)), (read, (size,))):
                if each is not None and (each.shape != shape or each.dtype is not self._dtype):
                    raise InputError(
                        f"a run takes {shape} of {self._dtype}; got {tuple(each.shape)} of {each.dtype}."
                    )
            if len(noise) > most:
                raise InputError(f"a run takes up to {most} steps; got {len(noise)}.")
            if stepper is not None and self._stepper is stepper and (self._changed() or not stepper.holds()):
                self._prepare(self._present())
            if self._stepper is not stepper:
                stepper = self._stepper
                made = None if stepper is None else stepper.follower(table, weight, most)
            if made is None:
                raise InputError("the layer was changed meanwhile, and no kernel makes its steps any more.")
            return made.run(read, noise)

        return run

    def refresh(self) -> None:
        """Read the weights anew, all of them; the state stays."""
        self._prepare(self._present())

    def reset(self) -> None:
        """Begin anew: the state is zero again."""
        states = self._layer._stream_state(self.batch_size)
        if self._stepper is None or not self._stepper.reads_all or self._changed():
            self._prepare(states)
        else:  # it sees each change of the weights by itself
            self._states = self._stepper.states = states

    def __getstate__(self) -> dict[str, Any]:
        return {"layer": self._layer, "batch_size": self.batch_size, "states": self._present()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._open(kept["layer"], kept["batch_size"], kept["states"])


def _shapes(lead: tuple[int, ...], units: int) -> tuple[tuple[int, ...], ...]:
    """Of a number a row, or one a unit."""
    return lead, (*lead, 1), (*lead, units)


class StreamBeside(Stream):
    """A stream of a cell that takes values beside x: `y = stream(x_t, dt=dt_t)`.

    Each is a number, or has shape (B,), (B, 1) or (B, H); of a batch of one, whose x has shape (D,), also (), (1,) or
    (H,).
    """

    def _prepare(self, states: tuple[Tensor, ...]) -> None:
        super()._prepare(states)
        asked, self._defaults, units = self._layer._stream_beside()
        # Of each value the number that it has where none is given, the shapes that fit a batch of rows and a single
        # one, and whether the equations ask for it.
        self._known = [
            (name, default, [_shapes(lead, units[name]) for lead in ((self.batch_size,), ())], name in asked)
            for name, default in self._defaults.items()
        ]
        if self._stepper is not None and asked:
            self._give, self._step_alone = self._stepper.give, self._stepper.step
            self._step = self._step_given

    # What this step was given beside x.
    _asked: Mapping[str, Any] = MappingProxyType({})

    def _step_given(self, x: Tensor, y: Tensor) -> bool | None:
        assert self._taken is not None
        self._give(self._taken)
        return self._step_alone(x, y)

    def __call__(self, x: Tensor, out: Tensor | None = None, **beside: Any) -> Tensor:
        """One step, as of any stream.

        Raises:
            InputError: as of any stream; or a value beside x is missing, unknown or does not fit.
        """
        self._asked = beside
        self._taken = self._values(beside, x) if self._step is not None else None
        return self._slow(x, out) if self._taken is None else Stream.__call__(self, x, out)

    def _beside(self, x: Tensor) -> Mapping[str, Any]:
        return {name: self._value(each, x) for name, each in self._asked.items()}

    def _values(self, beside: Mapping[str, Any], x: Any) -> Sequence[Any] | None:
        """What a stepper takes of these; None if one is missing, unknown, of another kind, or does not fit."""
        left = len(beside)
        found: list[Any] = []
        for name, default, shapes, is_asked in self._known:
            value = beside.get(name)
            left -= name in beside
            value = default if value is None else value
            if type(value) is Tensor:
                is_plain = value.dtype is self._dtype and value.is_cpu is self._is_cpu and not value.is_neg()
                is_plain = is_plain and (self._is_cpu or value.device == self._device)
                if not is_plain or value.shape not in shapes[self.batch_size == 1 and x.dim() == 1]:
                    return None
                value = value.detach()
            elif type(value) is not float and (
                value is None or type(value) is bool or not isinstance(value, int | float)
            ):
                return None
            if is_asked:
                found.append(value)
        return None if left else found

    def _value(self, value: Any, x: Tensor) -> Any:
        """A value of this step as one of a batch of rows; what is none is left for the layer to refuse."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return torch.full((self.batch_size,), float(value), dtype=self._dtype, device=self._device)
        if isinstance(value, Tensor) and x.dim() == 1:
            return value.reshape(1, -1).detach()
        return value.detach() if isinstance(value, Tensor) else value


class StreamOfSeveral(StreamBeside):
    """A stream of a cell of several outputs: a step returns them by name, as the layer does.

    `out` takes all of them side by side, (B, outputs * H).
    """

    def _prepare(self, states: tuple[Tensor, ...]) -> None:
        super()._prepare(states)
        self._named = self._layer._stream_outputs()

    def __call__(self, x: Tensor, out: Tensor | None = None, **beside: Any) -> Any:
        """One step, as of any stream."""
        if beside or self._defaults:
            return self._named(super().__call__(x, out, **beside))
        return self._named(Stream.__call__(self, x, out))
