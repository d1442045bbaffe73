"""The kernels as operators of torch, so that autograd, torch.compile and torch.export see one opaque call.

cellwise::direction           x, offsets, states, resets, weights -> [output, *final states, *kept]
cellwise::direction_backward  the same, what came out, and gradients -> [gradient at x, *at states, *at weights]

What is kept is for the backward pass alone (`kept.py`). In a compiled program x may have rows beyond the valid steps
(Sequences): what comes out is zero there.

A plain call does not go through torch's dispatcher, which costs more than a small kernel: it goes straight to
autograd's node, or without gradients to the kernel. Whatever traces, fakes or watches operators gets the operators,
which `schema.py` tells torch of.

Longer than other files: torch wants every signature spelt out, and four ways lead to one kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import get_interpreter_stack, is_legacy_batchedtensor

from cellwise.backends.cpu import run
from cellwise.backends.cpu.checks import check_backward, check_dtype, check_forward, sizes_of
from cellwise.backends.cpu.engine import Engine, engine_of
from cellwise.backends.cpu.kept import Sizes, keeps
from cellwise.backends.cpu.twice import first_derivative, second_derivative
from cellwise.errors import InputError, OutOfMemoryError

Operator = Callable[..., list[Tensor]]


class Asked(NamedTuple):
    """What is no tensor in a call."""

    key: str
    bias: bool
    reverse: bool
    states: int


@lru_cache(maxsize=64)
def stems(engine: Engine, bias: bool) -> tuple[str, ...]:
    """The weights that a direction takes, in the order in which the operators take them."""
    graph = engine.graph
    kinds = [kind for kind, gates in (("ih", graph.input_gates), ("hh", graph.state_gates)) if gates]
    found = [f"weight_{kind}" for kind in kinds]
    if bias:
        found += [f"bias_{kind}" for kind in kinds]
    found += ["weight_hr"] if engine.projected else []
    return (*found, *graph.vectors, *graph.scalars)


def _steps(offsets: Tensor, batch: int, reverse: bool, resets: Tensor | None) -> run.Steps:
    # The layer's reverse direction meets a boundary after the step that it stands before.
    return run.Steps(offsets, batch, reverse, resets, reset_first=not reverse)


# --- the kernels ---------------------------------------------------------------------------------------------------


def _forward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: bool,
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    named = dict(zip(stems(engine, bias), weights, strict=True))
    steps = _steps(offsets, len(states[0]), reverse, resets)
    try:
        output, finals, kept = run.forward(engine, x, states, named, steps, tape)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        raise _too_large(engine, x, states, named, resets is not None, tape) from None
    return [output, *finals, *kept]


def _too_large(
    engine: Engine,
    x: Tensor,
    states: list[Tensor],
    weights: dict[str, Tensor],
    has_resets: bool,
    tape: bool,
) -> OutOfMemoryError:
    sizes = Sizes.of(engine, x, weights, states)
    row, keeping = sizes.padded_output, keeps(engine, sizes, has_resets)
    row += sum(columns * width for columns, width in keeping.shapes.values()) if tape else 0
    asked = len(x) * row * x.element_size() / 2**30
    told = (
        f"{engine.graph.name} with {len(x)} steps of {sizes.hidden} units asks for {asked:.1f} GiB of memory"
    )
    told += ", most of it to keep for the backward pass" if tape else ""
    remedy = "Take shorter sequences or smaller batches"
    if tape and not engine.recompute:
        remedy = (
            "Set layer.recompute = True, which keeps the states alone and computes the rest again, or t"
            + remedy[1:]
        )
    return OutOfMemoryError(f"{told}, and there is not so much. {remedy}.")


def _backward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    output: Tensor,
    kept: list[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
    wants_input: bool,
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    names = stems(engine, bias)
    named = dict(zip(names, weights, strict=True))
    steps = _steps(offsets, len(states[0]), reverse, resets)
    dx, dstates, found = run.backward(
        engine, x, states, named, steps, output, kept, output_gradient, state_gradients, wants_input
    )
    return [x.new_empty(0) if dx is None else dx, *dstates, *(found[name] for name in names)]


def _checked_forward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: bool,
) -> list[Tensor]:
    """The same of arguments that somebody may have made up."""
    engine, named = _named(key, x, weights, bias)
    check_forward(engine, x, offsets, states, resets, named)
    resets = None if resets is None else resets.contiguous()
    return _forward(key, x, offsets, states, resets, weights, bias, reverse, tape)


def _checked_backward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    output: Tensor,
    kept: list[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
    wants_input: bool,
) -> list[Tensor]:
    engine, named = _named(key, x, weights, bias)
    sizes = check_forward(engine, x, offsets, states, resets, named)
    has_resets = resets is not None
    check_backward(engine, sizes, x, states, has_resets, output, kept, output_gradient, state_gradients)
    resets = None if resets is None else resets.contiguous()
    output, kept = output.contiguous(), [each.contiguous() for each in kept]
    return _backward(
        key,
        x,
        offsets,
        states,
        resets,
        weights,
        bias,
        reverse,
        output,
        kept,
        output_gradient,
        state_gradients,
        wants_input,
    )


def _named(key: str, x: Tensor, weights: list[Tensor], bias: bool) -> tuple[Engine, dict[str, Tensor]]:
    """The engine for a key, and the weights by the names that it knows them by."""
    check_dtype(x)
    engine = engine_of(key, x.dtype)
    names = stems(engine, bias)
    if len(weights) != len(names):
        raise InputError(
            f"cellwise::direction: {engine.graph.name} takes {len(names)} weights ({', '.join(names)}); "
            f"got {len(weights)}."
        )
    return engine, dict(zip(names, weights, strict=True))


# --- autograd ------------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: Asked,
        offsets: Tensor,
        resets: Tensor | None,
        x: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        key, bias, reverse, count = asked
        states, weights = list(others[:count]), list(others[count:])
        found = operator(key, x, offsets, states, resets, weights, bias, reverse, True)
        kept = found[1 + count :]
        ctx.asked, ctx.kept = asked, len(kept)
        ctx.seen = [(each.dtype, each.shape) for each in (x, *others)]
        # What hooks bring back in the backward pass is theirs, and so must be checked.
        ctx.hooked = saved_by_hooks()
        output = found[0]
        # Rows that are no whole vectors were copied for the caller, and may be written to as any copy may.
        ctx.reads_output = (
            not is_plain(x) or engine_of(key, x.dtype).padded(output.shape[1]) == output.shape[1]
        )
        # What is kept has no gradients: as zeros they would be as large as it.
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(offsets, resets, output if ctx.reads_output else output.data, *kept, x, *others)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, output, *rest = ctx.saved_tensors
        kept, tensors = rest[: ctx.kept], rest[ctx.kept :]
        if [(each.dtype, each.shape) for each in tensors] != ctx.seen and not are_transformed(gradients):
            raise other_data()
        given = list(gradients[: 1 + ctx.asked.states])
        saved = (offsets, resets, output, kept)
        found = gradients_of(ctx.asked, ctx.hooked, ctx.needs_input_grad[4], saved, tensors, given)
        return None, None, None, None, *found


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: Asked,
        offsets: Tensor,
        resets: Tensor | None,
        output: Tensor,
        kept: list[Tensor],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.asked = asked
        ctx.save_for_backward(offsets, resets, *tensors)
        return tuple(_call_backward(operator, asked, offsets, resets, output, kept)(*tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, *tensors = ctx.saved_tensors
        key, bias, reverse, count = ctx.asked
        # What was kept follows from x, states and weights: the derivative is taken through those.
        found = second_derivative(key, bias, reverse, count, offsets, resets, tensors, gradients)
        return None, None, None, None, None, None, *found


def gradients_of(
    asked: Asked,
    hooked: bool,
    wants_input: bool,
    saved: tuple[Tensor, Tensor | None, Tensor, Sequence[Tensor]],
    tensors: Sequence[Tensor],
    given: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients at x, states and weights, `tensors`, by whatever can compute them.

    Args:
        saved: offsets, resets, the output and what was kept.
        given: the gradients at the output and the final states; None for zero.
    """
    offsets, resets, output, kept = saved
    x, *others = tensors
    if are_transformed(given):
        key, bias, reverse, count = asked
        return first_derivative(key, bias, reverse, count, offsets, resets, tensors, given)
    given = [None if each is None else _in_memory(each) for each in given]
    if is_plain(x) and not torch.is_grad_enabled():
        kernel = _checked_backward if hooked else _backward
        call = _call_backward(kernel, asked, offsets, resets, output, list(kept), wants_input)
        dx, *rest = call(x, *others, *given)
        return [dx if wants_input else None, *rest]
    results = (output, *others[: asked.states])
    given = [torch.zeros_like(r) if g is None else g for r, g in zip(results, given, strict=True)]
    if is_plain(x):
        return list(
            _Backward.apply(_backward, asked, offsets, resets, output, list(kept), x, *others, *given)
        )
    operator = torch.ops.cellwise.direction_backward.default
    call = _call_backward(operator, asked, offsets, resets, output, list(kept))
    return list(call(x, *others, *given))


def saved_by_hooks() -> bool:
    """Whether hooks take what is now saved for a backward pass, and bring back something in its place."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def other_data() -> InputError:
    return InputError(
        "An input, state or weight that the backward pass needs was given other data (through .data), of "
        "another shape or dtype than in the forward pass."
    )


def _call_backward(
    operator: Operator,
    asked: Asked,
    offsets: Tensor,
    resets: Tensor | None,
    output: Tensor,
    kept: list[Tensor],
    wants_input: bool = True,
) -> Operator:
    """The operator as a function of x, states, weights, and the gradients at output and final states."""
    key, bias, reverse, count = asked

    def call(x: Tensor, *rest: Tensor) -> list[Tensor]:
        states, weights, given = rest[:count], rest[count : -1 - count], rest[-1 - count :]
        return operator(
            key,
            x,
            offsets,
            list(states),
            resets,
            list(weights),
            bias,
            reverse,
            output,
            kept,
            given[0],
            list(given[1:]),
            wants_input,
        )

    return call


# --- the operators -------------------------------------------------------------------------------------------------


def direction(
    asked: Asked,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    tape: bool,
) -> list[Tensor] | tuple[Tensor, ...]:
    """[output (N, H), *final states (B, H), *kept] of one layer in one direction, differentiable with a tape."""
    if not (is_plain(x) and all(map(_lies_in_memory, (*states, *weights)))):
        return torch.ops.cellwise.direction.default(
            asked.key, x, offsets, states, resets, weights, asked.bias, asked.reverse, tape
        )
    if tape:
        return _Forward.apply(_forward, asked, offsets, resets, x, *states, *weights)
    return _forward(asked.key, x, offsets, states, resets, weights, asked.bias, asked.reverse, False)


def is_plain(x: Tensor) -> bool:
    """Whether nobody but autograd watches the operators that run."""
    return (
        not torch.compiler.is_compiling()
        and _lies_in_memory(x)
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._get_tracing_state() is None
    )


def _lies_in_memory(tensor: Tensor) -> bool:
    """Whether a tensor on the CPU has its numbers at its address: no subclass that keeps them elsewhere.

    Nor one that is yet to be negated, as the imaginary part of a conjugate is.
    """
    kind = type(tensor)
    return kind is torch.nn.Parameter or (kind is Tensor and not tensor.is_neg())


def _in_memory(gradient: Tensor) -> Tensor:
    """A gradient as a kernel can read it: autograd has zeros without memory, and numbers that are yet to be negated."""
    return torch.zeros_like(gradient) if gradient._is_zerotensor() else gradient.resolve_neg()


def are_transformed(gradients: Sequence[Tensor | None]) -> bool:
    """Whether gradients may have no numbers that a kernel could read: many arrive as one, in `is_grads_batched=True`
    or within torch.func.vmap, or torch.func differentiates them.
    """
    return get_interpreter_stack() is not None or any(
        is_legacy_batchedtensor(each) for each in gradients if each is not None
    )


def _below_autograd(operator: Any, kernel: Operator, x: Tensor, *others: Tensor) -> Operator:
    """What runs below autograd: in a finished program the kernel itself, since each call of an operator costs."""
    tensors = (x, *others)
    here = is_plain(x) and all(each.is_cpu and _lies_in_memory(each) for each in tensors)
    if here and not any(map(torch._is_functional_tensor, tensors)):
        return kernel

    def call(*arguments: Any) -> list[Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return call


def _direction_autograd(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    below = _below_autograd(torch.ops.cellwise.direction.default, _checked_forward, x, *states, *weights)
    bias, reverse, tape = rest
    tensors = (x, *states, *weights)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    found = _Forward.apply(below, Asked(key, bias, reverse, len(states)), offsets, resets, *tensors)
    # A program that was traced without gradients, and asks for no tape, may be run with them.
    return list(found if tape else found[: 1 + len(states)])


def _backward_autograd(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    bias, reverse, output, kept, output_gradient, state_gradients, _ = rest
    tensors = (x, *states, *weights, output_gradient, *state_gradients)
    operator = torch.ops.cellwise.direction_backward.default
    below = _below_autograd(operator, _checked_backward, *tensors, output, *kept)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    asked = Asked(key, bias, reverse, len(states))
    return list(_Backward.apply(below, asked, offsets, resets, output, kept, *tensors))


def _forward_shapes(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: bool,
) -> list[Tensor]:
    engine, named = _named(key, x, weights, bias)
    sizes = sizes_of(engine, x, states, named)
    found = [x.new_empty(x.shape[0], sizes.output), *map(torch.empty_like, states)]
    if tape:
        kept = keeps(engine, sizes, resets is not None)
        found += [x.new_empty(x.shape[0], columns * width) for columns, width in kept.shapes.values()]
    return found


def _backward_shapes(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    like = (*([x] if rest[-1] else []), *states, *weights)
    found = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in like]
    return found if rest[-1] else [x.new_empty(0), *found]


class Implementation(NamedTuple):
    """What torch is told of an operator: what it does on a CPU, with gradients, and the shapes of what it returns."""

    kernel: Operator
    autograd: Operator
    shapes: Operator


OPERATORS = {
    "direction": Implementation(_checked_forward, _direction_autograd, _forward_shapes),
    "direction_backward": Implementation(_checked_backward, _backward_autograd, _backward_shapes),
}
