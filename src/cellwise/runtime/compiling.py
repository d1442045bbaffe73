"""What torch.compile has to be told of cellwise, when and if it is loaded.

Two things. The functions marked `untraced` plan, in plain Python: their results are constants to it, and so must be
what they are given (`fixed`). And the drop-in layers may be traced: Dynamo refuses every instance of torch.nn's
recurrent classes, since it would unroll torch's operators step by step, but a layer of cellwise is one call for each
layer and direction.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from cellwise._loading import when_loaded

Function = TypeVar("Function", bound=Callable[..., Any])
_COMPILER = "torch._dynamo"

_UNTRACED: list[Callable[..., Any]] = []
_TRACED: list[type[nn.Module]] = []


def untraced(function: Function) -> Function:
    """Mark a function whose result torch.compile takes as a constant for the same arguments."""
    _UNTRACED.append(function)
    if _COMPILER in sys.modules:
        _tell()
    return function


def fixed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values while a program is traced, its numbers as constants that the program is good for.

    With dynamic=True the float of a module is a symbol to Dynamo, as its integers are if one asks for it. Where one
    of these numbers has changed, the program is traced anew.
    """
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return tuple([guard_scalar(each) if isinstance(each, (int, float)) else each for each in values])


def is_tracing() -> bool:
    """Whether this call is recorded into a program: by torch.compile, torch.export, torch.jit.trace or for ONNX."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def traced(kind: type[nn.Module]) -> None:
    """Let torch.compile trace instances of a class though it is one of torch.nn's recurrent ones."""
    _TRACED.append(kind)


def _tell() -> None:
    while _UNTRACED:
        torch.compiler.assume_constant_result(_UNTRACED.pop())


def _open() -> None:
    """Allow torch.nn's recurrent classes while, and only while, one of ours is looked at."""
    from torch._dynamo import config
    from torch._dynamo.variables.builder import VariableBuilder

    refusing = VariableBuilder.wrap_module

    def wrap_module(self: Any, value: nn.Module) -> Any:
        if not isinstance(value, tuple(_TRACED)):
            return refusing(self, value)
        with config.patch(allow_rnn=True):
            return refusing(self, value)

    VariableBuilder.wrap_module = wrap_module  # type: ignore[method-assign]


def _loaded(module: ModuleType) -> None:
    _open()
    _tell()


when_loaded(_COMPILER, _loaded)
