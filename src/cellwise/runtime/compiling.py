"""What torch.compile has to be told of cellwise, when and if it is loaded.

Two things. The functions marked `untraced` plan, in plain Python: their results are constants to it, and so must be
what they are given (`fixed`). And the drop-in layers may be traced: Dynamo refuses every instance of torch.nn's
recurrent classes, since it would unroll torch's operators step by step, but a layer of cellwise is one call for each
layer and direction.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

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


def traced(kind: type[nn.Module]) -> None:
    """Let torch.compile trace instances of a class though it is one of torch.nn's recurrent ones."""
    _TRACED.append(kind)


def _tell() -> None:
    import torch

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


class _WhenLoaded(importlib.abc.MetaPathFinder):
    """Runs `_open` after Dynamo is loaded: that takes seconds, which `import cellwise` must not cost."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _COMPILER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_and_open(module: ModuleType) -> None:
            load(module)
            _open()
            _tell()

        spec.loader.exec_module = load_and_open  # type: ignore[method-assign]
        return spec


if _COMPILER in sys.modules:
    _open()
else:
    sys.meta_path.insert(0, _WhenLoaded())
