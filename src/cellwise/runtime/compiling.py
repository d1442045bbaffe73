"""What torch.compile has to be told of cellwise, when and if it is loaded.

Two things. The functions marked `constant_result` plan, in plain Python: their results are constants to it, and so
must be what they are given (`specialize`). And the drop-in layers may be traced: Dynamo refuses every instance of torch.nn's
recurrent classes, since it would unroll torch's operators step by step, but a layer of cellwise is one call for each
layer and direction.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from cellwise import torch_internals
from cellwise._loading import when_loaded

Function = TypeVar("Function", bound=Callable[..., Any])
_tracing_state = torch_internals.tracing_state

_UNTRACED: list[Callable[..., Any]] = []
_TRACED: list[type[nn.Module]] = []


def constant_result(function: Function) -> Function:
    """Mark a function whose result torch.compile takes as a constant for the same arguments."""
    _UNTRACED.append(function)
    if torch_internals.is_compiler_loaded():
        _tell()
    return function


def specialize(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values while a program is traced, its numbers as constants that the program is good for.

    With dynamic=True the float of a module is a symbol to Dynamo, as its integers are if one asks for it. Where one
    of these numbers has changed, the program is traced anew.
    """
    as_constant = torch_internals.as_constant
    return tuple([as_constant(each) if isinstance(each, (int, float)) else each for each in values])


def is_tracing() -> bool:
    """Whether this call is recorded into a program: by torch.compile, torch.export, torch.jit.trace or for ONNX."""
    return torch.compiler.is_compiling() or _tracing_state() is not None


def traced(kind: type[nn.Module]) -> None:
    """Let torch.compile trace instances of a class though it is one of torch.nn's recurrent ones."""
    _TRACED.append(kind)


def _tell() -> None:
    while _UNTRACED:
        torch.compiler.assume_constant_result(_UNTRACED.pop())


def _loaded(module: ModuleType) -> None:
    torch_internals.let_compiler_trace(lambda value: isinstance(value, tuple(_TRACED)))
    _tell()


when_loaded(torch_internals.COMPILER, _loaded)
