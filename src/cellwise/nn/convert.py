"""Swap the recurrent modules of an existing model for cellwise's, in place, and back.

A module keeps its identity: only its class changes, so parameters, buffers, hooks, parametrizations and every
reference to it stay as they are.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from torch import nn

from cellwise.errors import ConversionWarning, InputError, a_or_an
from cellwise.nn.swapping import (
    OURS,
    SWAPS,
    Kind,
    base_of,
    become,
    obstacle,
    original_class,
    over,
    torchs_class,
)

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, *, subclasses: bool = True) -> Model:
    """Swap every torch.nn RNN, LSTM, GRU and cell of them inside `model`, or `model` itself, for cellwise's, in place.

    Weights are shared, results stay the same, and hooks and parametrizations are kept. Where a package has its own
    subclass of one of these classes, cellwise's takes the place of torch.nn's under it: all of the subclass's code
    still runs, and its `super().forward` arrives at cellwise. Modules for which that cannot be (a subclass that reaches
    into what torch.nn's forward calls, a scripted or a quantized module) are left alone, and one ConversionWarning
    names each with the reason.

    torch's tools that go by a module's exact class (torch.jit, torch.onnx.export, torch.ao.quantization) find
    torch.nn's layers in a converted model. For other such tools, a profiler with a table of classes for one, `revert`
    the model first, or a copy of it.

    Args:
        subclasses: False leaves subclasses of torch.nn's classes alone, without a warning.

    Returns:
        The same model.

    Raises:
        InputError: this is no model.

    >>> import torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 4)})
    >>> convert(model)["encoder"].backend
    'auto'
    """
    _check(model, "convert")
    left = []
    for name, module in model.named_modules():
        kind = original_class(module)
        target, reason = _target(module, kind, subclasses)
        if target is not None:
            become(module, target)
        elif reason is not None:
            left.append(f"{name or 'the model itself'} ({kind.__name__}): {reason}")
    if left:
        warnings.warn(
            f"convert left {len(left)} recurrent module(s) as they were: {'; '.join(left)}.",
            ConversionWarning,
            stacklevel=2,
        )
    return model


def revert(model: Model) -> Model:
    """Undo `convert`: every drop-in layer and cell inside `model` becomes torch.nn's class again, in place.

    A layer made as `cellwise.GRU(...)` becomes a torch.nn.GRU too. Returns the same model.
    """
    _check(model, "revert")
    for module in model.modules():
        target = torchs_class(original_class(module))
        if target is not None:
            become(module, target)
        if isinstance(module, tuple(SWAPS)) and not isinstance(module, OURS):
            for name in ("_backend", "recompute", "weight_dropout"):
                module.__dict__.pop(name, None)
    return model


def _check(model: Any, what: str) -> None:
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__}" if isinstance(model, type) else a_or_an(type(model).__name__)
        raise InputError(f"{what} takes a model, an instance of torch.nn.Module; got {found}.")


def _target(module: nn.Module, kind: Kind, subclasses: bool) -> tuple[Kind | None, str | None]:
    """The class that a module is to have, or why a recurrent module stays; neither for all others."""
    if kind in SWAPS:
        return SWAPS[kind], None
    if isinstance(module, OURS) or not isinstance(module, tuple(SWAPS)):
        return None, _reason(module, kind)
    if not subclasses:
        return None, None
    reason = obstacle(module, kind)
    if reason is not None:
        return None, reason
    try:
        return over(kind), None
    except TypeError as problem:
        return None, f"a subclass of torch.nn.{base_of(kind).__name__} that cannot be derived from: {problem}"


def _reason(module: nn.Module, kind: Kind) -> str | None:
    """Why a recurrent module that is none of torch.nn's own classes stays; None for all that is not recurrent."""
    if isinstance(module, OURS):
        return None
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "a recurrent module that is none of torch.nn's RNN, LSTM and GRU"
    script_name = getattr(module, "original_name", "")
    if script_name in {c.__name__ for c in SWAPS}:
        return "compiled by TorchScript, whose code is fixed"
    if kind.__module__.startswith("torch.ao.nn") and kind.__name__ in {c.__name__ for c in SWAPS}:
        return "a quantized module, whose weights are not numbers that can be shared"
    return None
