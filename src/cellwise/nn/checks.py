"""What a layer asks of its input and states; the words are those of torch.nn where torch.nn checks the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cellwise.errors import InputError, LayerError, a_or_an
from cellwise.torch_internals import is_autocast_enabled


def check_input(name: str, data: Tensor, weight: Tensor, input_size: int, packed: bool) -> None:
    """Raise InputError if the input's number of dimensions, dtype or size does not fit."""
    allowed = (2,) if packed else (2, 3)
    if data.dim() not in allowed:
        if packed:
            raise InputError(f"input must have 2 dimensions, got {data.dim()}")
        raise InputError(f"{name}: Expected input to be 2D or 3D, got {data.dim()}D instead")
    if data.dtype != weight.dtype and not is_autocast_enabled():
        model = f", or convert model: model.to({data.dtype})" if data.is_floating_point() else ""
        raise InputError(
            f"RNN input dtype ({data.dtype}) does not match weight dtype ({weight.dtype}). "
            f"Convert input: input.to({weight.dtype}){model}"
        )
    if data.size(-1) != input_size:
        raise InputError(
            f"input.size(-1) must be equal to input_size. Expected {input_size}, got {data.size(-1)}"
        )


def check_weights(
    name: str,
    weights: Sequence[Mapping[str, Tensor]],
    names: Sequence[Sequence[tuple[str, str]]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
    data: Tensor,
) -> bool:
    """Raise InputError if a weight is on another device than the input, or of another shape or dtype than it should be.

    It is asked at every call and costs less than a microsecond for each weight: `.data`, functional_call and
    load_state_dict(assign=True) put others in place without a trace.

    Returns:
        Whether all have the dtype of the input, which under autocast they need not.
    """
    dtype, device, alike = data.dtype, data.device, True
    for place, each in enumerate(weights):
        for tensor, shape in zip(each.values(), shapes[place], strict=True):
            # Not with !=, at which torch 2.11's compiler fails.
            if not (tensor.dtype == dtype and tensor.shape == shape and tensor.device == device):
                index = next(i for i, other in enumerate(each.values()) if other is tensor)
                _check_weight(name, names[place][index][1], tensor, shape, data)
                alike = False
    return alike


def _check_weight(layer: str, name: str, tensor: Tensor, shape: tuple[int, ...], data: Tensor) -> None:
    if tensor.device != data.device:
        raise InputError(
            "Input and parameter tensors are not at the same device, found input tensor at "
            f"{data.device} and parameter tensor at {tensor.device} ({name})"
        )
    if tensor.shape != shape:
        raise InputError(
            f"{name} of this {layer} must have shape {shape}; it has shape {tuple(tensor.shape)}"
        )
    if not is_autocast_enabled():
        raise InputError(
            f"Input and parameter tensors are not the same dtype: {name} has {tensor.dtype}, the input "
            f"{data.dtype}. Convert the model as a whole: model.to({data.dtype})"
        )


def check_steps(steps: int) -> None:
    """Raise InputError for a batch without any step."""
    if steps == 0:
        raise InputError("Expected sequence length to be larger than 0 in RNN")


def as_states(state: Any, count: int, name: str) -> tuple[Tensor, ...]:
    """The states that a caller gave: a tensor for a cell of one state, a tuple of as many tensors for others."""
    given = (state,) if count == 1 and isinstance(state, Tensor) else state
    if (
        not isinstance(given, (tuple, list))
        or len(given) != count
        or not all(isinstance(s, Tensor) for s in given)
    ):
        wanted = "one tensor" if count == 1 else f"a tuple of {count} tensors"
        found = f"{len(state)} values" if isinstance(state, (tuple, list)) else a_or_an(type(state).__name__)
        raise InputError(f"{name} carries {wanted} as its state; got {found}.")
    return tuple(given)


def check_states(
    states: Sequence[Tensor], wanted: Sequence[tuple[int, ...]], unbatched: bool, data: Tensor
) -> None:
    """Raise InputError if a state does not have the shape that is wanted of it, or the input's device and dtype."""
    dims = 2 if unbatched else 3
    if any(state.dim() != dims for state in states):
        kind = "unbatched 2-D" if unbatched else "batched 3-D"
        found = [f"{state.dim()}-D" for state in states]
        if len(states) == 1:
            raise InputError(f"For {kind} input, hx should also be {dims}-D but got {found[0]} tensor")
        raise InputError(
            f"For {kind} input, hx and cx should also be {dims}-D but got ({', '.join(found)}) tensors"
        )
    for place, (state, shape) in enumerate(zip(states, wanted, strict=True)):
        if tuple(state.shape) != (shape[0], shape[2]) if unbatched else tuple(state.shape) != shape:
            which = f"hidden[{place}]" if len(states) > 1 else "hidden"
            raise InputError(f"Expected {which} size {shape}, got {list(state.size())}")
        if state.device != data.device:
            raise InputError(
                "Input and hidden tensors are not at the same device, found input tensor at "
                f"{data.device} and hidden tensor at {state.device}"
            )
        if state.dtype != data.dtype and not is_autocast_enabled():
            raise InputError(
                f"Input and hidden tensors are not the same dtype, found input tensor with {data.dtype} "
                f"and hidden tensor with {state.dtype}. Convert the state: state.to({data.dtype})"
            )


def check_weight_dropout(p: Any) -> float:
    """The probability with which a recurrent weight is zero in a call; LayerError if it is none."""
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p < 1:
        raise LayerError(
            "weight_dropout should be a number in range [0, 1), the probability of a recurrent weight being zeroed in "
            f"training; got {p!r}"
        )
    return float(p)
