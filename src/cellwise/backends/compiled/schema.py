"""The names and schemas of the kernels' operators.

Torch knows them as soon as cellwise is imported, and so can load a program in which they stand (torch.export.load).
What they do is in `operator`, which loads a compiler and is imported when one of them is first called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from cellwise.torch_internals import dispatch_key_of

_LIBRARY = torch.library.Library("cellwise", "FRAGMENT")
_TAKEN = "str key, Tensor x, Tensor offsets, Tensor[] states, Tensor? resets, Tensor[] weights, bool bias, bool reverse"
_KEPT = "Tensor output, Tensor[] kept, Tensor output_gradient, Tensor[] state_gradients, bool wants_input"
_SCHEMAS = {
    "direction": f"({_TAKEN}, bool tape) -> Tensor[]",
    "direction_backward": f"({_TAKEN}, {_KEPT}) -> Tensor[]",
}
_REGISTERED: set[str] = set()


def _late(name: str, part: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        operators = import_module("cellwise.backends.compiled.operator").OPERATORS
        return getattr(operators[name], part)(*arguments)

    return call


for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(f"{_name}{_schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(_name, _late(_name, "autograd"), "Autograd")
    torch.library.register_fake(f"cellwise::{_name}", _late(_name, "shapes"), lib=_LIBRARY)


def register_device(device_type: str) -> None:
    """Let the operators run kernels on tensors of this type of device."""
    if device_type not in _REGISTERED:
        _REGISTERED.add(device_type)
        for name in _SCHEMAS:
            _LIBRARY.impl(name, _late(name, "kernel"), dispatch_key_of(device_type))
