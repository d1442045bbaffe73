"""Who is compared: cellwise's kernels, torch.nn or a Python loop, onnxruntime, on equal weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cellwise.bench.settings import Shape
from cellwise.cells.base import Cell
from cellwise.graph import StepGraph
from cellwise.graph.ops import PROJECT
from cellwise.nn.layers import DROP_INS
from cellwise.nn.recurrent import Recurrent
from cellwise.runtime.outputs import first_of

OURS, TORCH, LOOP, PADDED, AGAIN = "cellwise", "torch.nn", "python loop", "padded", "recomputing"
HALF = "torch half"

# A result by name: "output", "final h", "gradient of x", ...
Results = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """What all sides are given.

    x: (T, B, D). states: for each state (1, B, H). weights: those of the sum over output (T, B, H) and final states
    whose gradient is taken. lengths: (B,).
    """

    x: Tensor
    states: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    lengths: Tensor

    @property
    def state(self) -> Any:
        """The initial states in the form in which a layer takes them."""
        return self.states[0] if len(self.states) == 1 else self.states


@dataclass(frozen=True, eq=False)
class Implementations:
    """One cell and shape: the layer on our kernels, the layer it is compared with and what that is, the batch.

    `again` is ours with `recompute`.
    """

    shape: Shape
    ours: Recurrent
    again: Recurrent
    theirs: nn.Module
    their_name: str
    batch: Batch

    def layer_of(self, name: str) -> nn.Module:
        return {self.their_name: self.theirs, AGAIN: self.again}.get(name, self.ours)


def implementations_of(
    cell: Cell, shape: Shape, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Implementations:
    """Both layers with the same weights, and a batch drawn from a seed.

    Args:
        device: "cpu" or "cuda", which is also the name of our backend for it.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        ours = Recurrent(cell, shape.D, shape.H, backend=device)
    theirs = torch_layer(cell, shape.D, shape.H)
    name = LOOP if theirs is None else TORCH
    if theirs is None:
        theirs = Recurrent(cell, shape.D, shape.H, backend="reference")
    again = Recurrent(cell, shape.D, shape.H, backend=device)
    again.recompute = True
    for other in (theirs, again):
        other.load_state_dict(ours.state_dict())
    for layer in (ours, theirs, again):
        layer.to(device, dtype)

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(device, dtype)

    T, B, H = shape.T, shape.B, shape.H
    states = tuple(drawn(1, B, H).requires_grad_() for _ in cell.states)
    weights = (drawn(T, B, H), *(drawn(1, B, H) for _ in cell.states))
    batch = Batch(drawn(T, B, shape.D).requires_grad_(), states, weights, lengths_of(shape, generator))
    return Implementations(shape, ours, again, theirs, name, batch)


def lengths_of(shape: Shape, generator: torch.Generator) -> Tensor:
    """(B,) lengths spread evenly from 1 to T, in random order: a draw without the luck of one.

    >>> lengths_of(Shape(10, 5, 1, 1), torch.Generator()).sort().values
    tensor([1, 3, 5, 7, 9])
    """
    # (2i + 1) / 2B of T, rounded up
    even = -(-(2 * torch.arange(shape.B) + 1) * shape.T // (2 * shape.B))
    return even[torch.randperm(shape.B, generator=generator)]


def torch_layer(cell: Cell, D: int, H: int) -> nn.Module | None:
    """The layer of torch.nn that has the equations of a cell; None if torch has no operator for it.

    >>> import cellwise
    >>> torch_layer(cellwise.cells.get("gru"), 3, 4)
    GRU(3, 4)
    >>> torch_layer(cellwise.cells.get("mingru"), 3, 4)
    """
    for kind, drop_in in DROP_INS.items():
        for options in ({}, {"nonlinearity": "relu"}) if kind is nn.RNN else ({},):
            own: Any = drop_in(1, 1, **options)
            if own.cell.graph.fingerprint == cell.graph.fingerprint:
                return kind(D, H, **options)
    return None


# --- what is run ------------------------------------------------------------------------------------------------


def infer(layer: nn.Module, batch: Batch, **given: Any) -> Results:
    """Output and final states."""
    with torch.no_grad():
        output, final = layer(batch.x, batch.state, **given)
    return _named(output, final)


def train(layer: nn.Module, batch: Batch, **given: Any) -> Results:
    """Output, final states, and the gradients of the input, the initial states and all parameters."""
    return _with_gradients(layer, batch, *layer(batch.x, batch.state, **given))


def infer_packed(layer: nn.Module, batch: Batch) -> Results:
    """As `infer` with the batch's lengths, through torch's packed sequences: packing and unpacking included."""
    with torch.no_grad():
        output, final = _packed(layer, batch)
    return _named(output, final)


def train_packed(layer: nn.Module, batch: Batch) -> Results:
    """As `train` with the batch's lengths, through torch's packed sequences: packing and unpacking included."""
    return _with_gradients(layer, batch, *_packed(layer, batch))


def _packed(layer: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
    packed = pack_padded_sequence(batch.x, batch.lengths, enforce_sorted=False)
    output, final = layer(packed, batch.state)
    return pad_packed_sequence(first_of(output), total_length=len(batch.x))[0], final


def _named(output: Any, final: Any) -> Results:
    finals = final if isinstance(final, tuple) else (final,)
    return {"output": first_of(output)} | {f"final state {place}": each for place, each in enumerate(finals)}


def _with_gradients(layer: nn.Module, batch: Batch, output: Any, final: Any) -> Results:
    found = _named(output, final)
    sources = {"x": batch.x}
    sources |= {f"initial state {place}": state for place, state in enumerate(batch.states)}
    sources |= dict(layer.named_parameters())
    gradients = torch.autograd.grad(
        list(found.values()), list(sources.values()), batch.weights, allow_unused=True, materialize_grads=True
    )
    return found | {f"gradient of {name}": each for name, each in zip(sources, gradients, strict=True)}


def stepper(layer: nn.Module, batch: Batch) -> Callable[[Tensor], Tensor]:
    """A layer that is called with one step (B, D) at a time and keeps its state, as one writes it by hand."""
    state = batch.state

    def step(x: Tensor) -> Tensor:
        nonlocal state
        output, state = layer(x.unsqueeze(0), state)
        return first_of(output)[0]

    return step


def products(graph: StepGraph, shape: Shape, steps: int | None = None) -> int:
    """Floating-point operations in the matrix products of a forward pass; a training step has three times as many.

    Args:
        steps: valid steps of all rows together, if not T * B.
    """
    recurrent = len(graph.of(PROJECT))
    rows = shape.T * shape.B if steps is None else steps
    return 2 * rows * shape.H * (len(graph.input_gates) * shape.D + recurrent * shape.H)
