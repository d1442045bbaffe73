"""Swap the recurrent modules of an existing model for cellwise's, in place, and back.

A module keeps its identity: only its class changes, so parameters, buffers, hooks, parametrizations and every
reference to it stay as they are.
"""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from cellwise.errors import ConversionWarning
from cellwise.nn.cells import GRUCell, LSTMCell, RNNCell
from cellwise.nn.layers import DROP_INS

Model = TypeVar("Model", bound=nn.Module)
Classes = dict[type[nn.Module], type[nn.Module]]

_SWAPS: Classes = {**DROP_INS, nn.RNNCell: RNNCell, nn.LSTMCell: LSTMCell, nn.GRUCell: GRUCell}
_BACK: Classes = {ours: theirs for theirs, ours in _SWAPS.items()}


def convert(model: Model) -> Model:
    """Swap every torch.nn RNN, LSTM, GRU and cell of them inside `model`, or `model` itself, for cellwise's, in place.

    Weights are shared, results stay the same, and hooks and parametrizations are kept. Modules whose behaviour is
    not that of torch.nn's class (a subclass, a scripted or a quantized module) are left alone, and one
    ConversionWarning names each with the reason.

    Returns:
        The same model.

    >>> import torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 4)})
    >>> convert(model)["encoder"].backend
    'auto'
    """
    left = _swap(model, _SWAPS)
    if left:
        named = "; ".join(f"{name or 'the model itself'} ({kind}): {reason}" for name, kind, reason in left)
        warnings.warn(
            f"convert left {len(left)} recurrent module(s) as they were: {named}.",
            ConversionWarning,
            stacklevel=2,
        )
    return model


def revert(model: Model) -> Model:
    """Undo `convert`: every drop-in layer and cell inside `model` becomes torch.nn's class again, in place.

    A layer made as `cellwise.GRU(...)` becomes a torch.nn.GRU too. Returns the same model.
    """
    _swap(model, _BACK)
    for module in model.modules():
        if type(module) in _SWAPS:
            for name in ("_backend", "recompute"):
                module.__dict__.pop(name, None)
    return model


def _swap(model: nn.Module, classes: Classes) -> list[tuple[str, str, str]]:
    left = []
    for name, module in model.named_modules():
        kind = _original_class(module)
        if kind in classes:
            module.__class__ = _with_parametrizations(module, classes[kind])
        elif (reason := _reason(module, kind)) and classes is _SWAPS:
            left.append((name, kind.__name__, reason))
    return left


def _original_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module under the one that torch's parametrize may have put over it."""
    kind = type(module)
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def _with_parametrizations(module: nn.Module, target: type[nn.Module]) -> type[nn.Module]:
    if not parametrize.is_parametrized(module):
        return target
    # torch gives a parametrized module a class of its own, whose properties compute the weights; keep them.
    over = type(module)
    kept = {
        name: value
        for name, value in vars(over).items()
        if name not in ("__dict__", "__weakref__", "__doc__")
    }
    return type(f"Parametrized{target.__name__}", (target,), kept)


def _reason(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why a recurrent module that is none of torch.nn's own classes stays; None for all that is not recurrent."""
    if isinstance(module, tuple(_BACK)):
        return None
    if isinstance(module, tuple(_SWAPS)):
        parent = next(c.__name__ for c in kind.__mro__ if c in _SWAPS)
        return f"a subclass of torch.nn.{parent}, whose own code would be lost"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "a recurrent module that is none of torch.nn's RNN, LSTM and GRU"
    script_name = getattr(module, "original_name", "")
    if script_name in {c.__name__ for c in _SWAPS}:
        return "compiled by TorchScript, whose code is fixed"
    if kind.__module__.startswith("torch.ao.nn") and kind.__name__ in {c.__name__ for c in _SWAPS}:
        return "a quantized module, whose weights are not numbers that can be shared"
    return None
