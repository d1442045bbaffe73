"""What the operators ask of their arguments before a kernel sees an address of them.

Layers guarantee all of it and go past these checks. A program that torch.export wrote, and whoever calls
torch.ops.cellwise by hand, may give anything: nothing is read or written beside its tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.compiled.beside import shapes_beside
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_of
from cellwise.backends.compiled.compiler import Sizes
from cellwise.backends.compiled.saved import PROJECTION, saved_layout, sizes_of
from cellwise.errors import InputError


def checked_kernels(key: str, x: Tensor, weights: Sequence[Tensor], bias: bool) -> CellKernels:
    """The kernels for a key, or InputError if it has no kernels for x or takes another number of weights."""
    kernels = kernels_of(key, x.dtype, x.device.type)
    dtypes = kernels.compiler.dtypes
    if x.dtype not in dtypes:
        raise _wrong(f"x has {x.dtype}; there are kernels for {' and '.join(map(str, dtypes))}")
    names = kernels.stems[bias]
    if len(weights) != len(names):
        raise _wrong(
            f"{kernels.graph.name} takes {len(names)} weights ({', '.join(names)}); got {len(weights)}"
        )
    return kernels


def checked_sizes(
    kernels: CellKernels, bias: bool, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> Sizes:
    """The sizes that x and states speak of, or InputError if they have too few dimensions for that."""
    graph = kernels.graph
    if x.dim() != 2:
        raise _wrong(f"x must have shape (N, D); it has {x.dim()} dimensions")
    if len(states) != len(graph.states) or states[0].dim() != 2:
        raise _wrong(f"{graph.name} takes {len(graph.states)} states of shape (B, H)")
    if kernels.projected and weights[kernels.stems[bias].index(PROJECTION)].dim() != 2:
        raise _wrong("weight_hr must have shape (P, H)")
    return sizes_of(kernels, bias, x, states, weights)


def check_forward(
    kernels: CellKernels,
    bias: bool,
    x: Tensor,
    offsets: Tensor,
    states: Sequence[Tensor],
    resets: Tensor | None,
    weights: Sequence[Tensor],
) -> Sizes:
    """Raise InputError if an argument does not fit the others; the sizes that they all agree on."""
    sizes = checked_sizes(kernels, bias, x, states, weights)
    graph = kernels.graph
    if not sizes.hidden or (kernels.projected and not sizes.projected):
        raise _wrong("a layer has at least one unit")
    batch = len(states[0])
    for place, state in enumerate(states):
        _check(f"state {graph.states[place]}", state, (batch, sizes.of_state(place)[0]), x)
    shapes = _shapes(kernels, sizes)
    beside = shapes_beside(graph, len(x), batch, sizes.hidden)
    for stem, weight in zip(kernels.stems[bias], weights, strict=True):
        allowed = beside.get(stem) or [shapes[stem]]
        _check(stem, weight, tuple(weight.shape) if tuple(weight.shape) in allowed else allowed[0], x)
    _check_offsets(offsets, len(x), batch)
    if resets is not None:
        if resets.dtype != torch.uint8 or resets.device != x.device:
            raise _wrong(f"resets must be uint8 on {x.device}; they are {resets.dtype} on {resets.device}")
        if tuple(resets.shape) != (len(x),):
            raise _wrong(f"resets must have shape ({len(x)},); they have shape {tuple(resets.shape)}")
    return sizes


def check_backward(
    kernels: CellKernels,
    sizes: Sizes,
    x: Tensor,
    states: Sequence[Tensor],
    has_resets: bool,
    output: Tensor,
    saved: Sequence[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
) -> None:
    """Raise InputError if what the forward pass left or what arrives does not fit; after `check_forward`."""
    rows = len(x)
    _check("output", output, (rows, sizes.outputs * sizes.output), x)
    shapes = saved_layout(kernels, sizes, has_resets).shapes
    if len(saved) != len(shapes):
        raise _wrong(f"the forward pass keeps {len(shapes)} tensors for the backward pass; got {len(saved)}")
    for tensor, (name, (columns, width)) in zip(saved, shapes.items(), strict=True):
        _check(f"kept {name}", tensor, (rows, columns * width), x)
    if output_gradient is not None:
        _check("output_gradient", output_gradient, (rows, sizes.outputs * sizes.output), x)
    if len(state_gradients) != len(states):
        raise _wrong(f"there are {len(states)} states; got {len(state_gradients)} gradients at them")
    for gradient, state in zip(state_gradients, states, strict=True):
        if gradient is not None:
            _check("a state's gradient", gradient, tuple(state.shape), x)


def _shapes(kernels: CellKernels, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Of each weight that a direction may take."""
    graph, hidden = kernels.graph, sizes.hidden
    rows = {"ih": len(graph.input_gates) * hidden, "hh": len(graph.state_gates) * hidden}
    shapes: dict[str, tuple[int, ...]] = {f"bias_{kind}": (count,) for kind, count in rows.items()}
    shapes |= {"weight_ih": (rows["ih"], sizes.input), "weight_hh": (rows["hh"], sizes.output)}
    shapes |= {"weight_hr": (sizes.projected, hidden)}
    return shapes | dict.fromkeys(graph.vectors, (hidden,)) | dict.fromkeys(graph.scalars, ())


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if tensor.dtype != x.dtype or tensor.device != x.device or tensor.layout != torch.strided:
        raise _wrong(
            f"{name} must be {x.dtype} on {x.device}, as x is; it is {tensor.dtype} on {tensor.device}"
            f"{'' if tensor.layout == torch.strided else f', {tensor.layout}'}"
        )
    if tuple(tensor.shape) != shape:
        raise _wrong(f"{name} must have shape {shape}; it has shape {tuple(tensor.shape)}")


def _check_offsets(offsets: Tensor, rows: int, batch: int) -> None:
    if offsets.dtype != torch.int64 or not offsets.is_cpu or offsets.dim() != 1 or not len(offsets):
        raise _wrong(
            "offsets must be int64 on the CPU, of shape (T + 1,); "
            f"they are {offsets.dtype} on {offsets.device}, of shape {tuple(offsets.shape)}"
        )
    problem = offsets_problem(offsets.numpy().tobytes(), rows, batch)
    if problem is not None:
        raise _wrong(f"offsets {problem}")


@lru_cache(maxsize=64)
def offsets_problem(data: bytes, rows: int, batch: int) -> str | None:
    """What is wrong with the first rows of the steps of a batch, as the end of a sentence; None if nothing is."""
    offsets = np.frombuffer(data, np.int64)
    # Compared, not subtracted: differences of numbers from anywhere may overflow.
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        return "must begin at 0 and never fall"
    if offsets[-1] > rows:
        return f"go up to row {offsets[-1]}, but x has {rows} rows"
    sizes = np.diff(offsets)
    if (sizes > batch).any():
        return f"give a step {sizes.max()} rows, but the states have {batch}"
    if (sizes[1:] > sizes[:-1]).any():
        return "give a step more rows than the one before it has: longer sequences come first"
    return None


def _wrong(problem: str) -> InputError:
    return InputError(f"cellwise::direction: {problem}.")
