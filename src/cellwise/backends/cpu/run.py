"""One layer in one direction, forward and backward: arrays for the kernels, and the gradients of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cellwise.backends.cpu.arguments import Arguments
from cellwise.backends.cpu.engine import Engine
from cellwise.backends.cpu.gradients import weight_gradients
from cellwise.backends.cpu.scratch import POOL
from cellwise.backends.cpu.threads import Steps
from cellwise.plan.program import Width

__all__ = ["Steps", "backward", "forward"]


def forward(
    engine: Engine,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    steps: Steps,
    tape: bool,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Run forward from x (N, D) and states (B, H): outputs (N, H), final states, the tape (N, columns, H)."""
    hidden = states[0].shape[1]
    kernel = engine.training if tape else engine.inference
    run = Arguments(kernel, steps, (x.shape[1], hidden, 0))
    width = run.padded[Width.HIDDEN]
    run.give("x", x.contiguous())
    finals = [_padded(state, width) for state in states]
    for name, state in zip(engine.graph.states, finals, strict=True):
        run.give(f"state {name}", state)
    output = x.new_empty(len(x), width)
    run.give("output", output)
    kept = None
    if tape:
        kept = POOL.tensor(len(x), kernel.program.array("tape").columns, width, dtype=x.dtype)
        run.give("tape", kept)
    _give_own(run, weights, width)
    run.run(weights)
    return _cut(output, hidden), [_cut(state, hidden) for state in finals], kept


def backward(
    engine: Engine,
    x: Tensor,
    weights: Mapping[str, Tensor],
    steps: Steps,
    tape: Tensor,
    output_gradient: Tensor,
    state_gradients: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Run backward. Returns the gradients at x (N, D), at the initial states (B, H) each, and at the weights."""
    hidden = state_gradients[0].shape[1]
    run = Arguments(engine.backward, steps, (x.shape[1], hidden, 0))
    width = run.padded[Width.HIDDEN]
    arriving = output_gradient.contiguous() if hidden == width else _padded(output_gradient, width)
    run.give("gradient output", arriving)
    run.give("tape", tape)
    carried = [_padded(gradient, width) for gradient in state_gradients]
    for name, gradient in zip(engine.graph.states, carried, strict=True):
        run.give(f"gradient {name}", gradient)
    gates = run.scratch(len(x), engine.plan.program.array("gates").columns, width)
    run.give("gates", gates)
    _give_own(run, weights, width)
    run.run(weights)
    gradients = weight_gradients(engine, x, weights, tape, gates, run.arrays, hidden)
    return gradients.pop("x"), [_cut(gradient, hidden) for gradient in carried], gradients


def _padded(tensor: Tensor, width: int) -> Tensor:
    """A copy with rows of whole vectors, zeros in the padding."""
    if tensor.shape[-1] == width:
        return tensor.clone(memory_format=torch.contiguous_format)
    padded = tensor.new_zeros(*tensor.shape[:-1], width)
    padded[..., : tensor.shape[-1]] = tensor
    return padded


def _cut(tensor: Tensor, hidden: int) -> Tensor:
    return tensor if tensor.shape[-1] == hidden else tensor[..., :hidden].contiguous()


def _give_own(run: Arguments, weights: Mapping[str, Tensor], width: int) -> None:
    """The cell's own parameters."""
    graph = run.engine.graph
    for name in graph.vectors:
        run.give(f"own {name}", _padded(weights[name], width))
    for name in graph.scalars:
        run.give(f"own {name}", weights[name].contiguous())
