"""Which class of cellwise stands for which of torch.nn, and what a module becomes.

A package's own subclass of a torch.nn layer keeps all of its code: its new class has ours between it and torch.nn's,
so that its `super().forward` arrives at ours.
"""

from __future__ import annotations

import copyreg
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from cellwise.nn.cells import GRUCell, LSTMCell, RNNCell
from cellwise.nn.layers import DROP_INS

Kind = type[nn.Module]

SWAPS: dict[Kind, Kind] = {**DROP_INS, nn.RNNCell: RNNCell, nn.LSTMCell: LSTMCell, nn.GRUCell: GRUCell}
_BACK: dict[Kind, Kind] = {ours: theirs for theirs, ours in SWAPS.items()}
OURS = tuple(_BACK)

# What a subclass may define anew though torch.nn's class has it: its forward asks for nothing else by name.
_FREE = {"forward", "reset_parameters", "extra_repr", "flatten_parameters"}


def original_class(module: nn.Module) -> Kind:
    """The class of a module under the one that torch's parametrize may have put over it."""
    kind = type(module)
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def become(module: nn.Module, target: Kind) -> None:
    """Give a module another class, under the parametrizations that it may have."""
    if parametrize.is_parametrized(module):
        # torch gives a parametrized module a class of its own, whose properties compute the weights; keep them.
        hidden = ("__dict__", "__weakref__", "__doc__")
        kept = {name: value for name, value in vars(type(module)).items() if name not in hidden}
        target = type(f"Parametrized{target.__name__}", (target,), kept)
    module.__class__ = target


def torchs_class(kind: Kind) -> Kind | None:
    """What a class of ours stands for: torch.nn's, or a package's own; None for any other."""
    found: Kind | None = vars(kind).get("_stands_for", _BACK.get(kind))
    return found


@contextmanager
def as_torchs(model: nn.Module) -> Iterator[None]:
    """Within, our layers have the classes that they stand for, for what reads a model and goes by exact class."""
    swapped = []
    for module in model.modules():
        target = torchs_class(original_class(module))
        if target is not None:
            swapped.append((module, type(module)))
            become(module, target)
    try:
        yield
    finally:
        for module, kind in swapped:
            module.__class__ = kind


# --- subclasses -----------------------------------------------------------------------------------------------------


def base_of(kind: Kind) -> Kind:
    """The class of torch.nn that a subclass is of."""
    return next(each for each in kind.__mro__ if each in SWAPS)


def over(kind: Kind) -> Kind:
    """A package's subclass of a torch.nn class, over ours.

    Raises:
        TypeError: the bases cannot be put in one order.
    """
    if kind not in _MADE:
        _MADE[kind] = _make(kind, SWAPS[base_of(kind)])
    return _MADE[kind]


_MADE: dict[Kind, Kind] = {}


def _make(kind: Any, ours: Kind) -> Kind:
    def reduce(self: nn.Module, protocol: Any) -> Any:
        rebuild, given, *rest = kind.__reduce_ex__(self, protocol)
        plain = rebuild is copyreg.__newobj__ and given == (made,)  # type: ignore[attr-defined]
        return (_rebuild, (kind,), *rest) if plain else (rebuild, given, *rest)

    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": reduce,  # pickle would look for this class under the name of the package's
        "_stands_for": kind,
    }
    made: Kind = types.new_class(kind.__name__, (kind, ours), exec_body=lambda space: space.update(names))
    return made


def _rebuild(kind: Kind) -> nn.Module:
    made = over(kind)
    return made.__new__(made)


def obstacle(module: nn.Module, kind: Kind) -> str | None:
    """Why ours cannot stand under this subclass, as the end of a sentence; None if nothing of its code is lost."""
    theirs = base_of(kind)
    own = [each for each in kind.__mro__ if each not in theirs.__mro__]
    defined = {name for each in own for name in vars(each)}
    if "__init_subclass__" in defined:
        return "a subclass of which no further one can be made without its __init_subclass__"
    ours = {name for each in _added(SWAPS[theirs]) for name in vars(each) if not name.startswith("__")}
    instance = {*vars(module), *module._parameters, *module._buffers, *module._modules}
    for name in sorted((defined | instance) & (ours - _FREE)):
        return f"a subclass of torch.nn.{theirs.__name__}, whose '{name}' would hide that of cellwise"
    helpers = {
        name for each in (theirs, *theirs.__bases__) for name in vars(each) if not name.startswith("__")
    }
    for name in sorted(defined & (helpers - _FREE)):
        return f"a subclass of torch.nn.{theirs.__name__}, whose own '{name}' cellwise would not call"
    words = [set(_words(value)) for each in own for value in vars(each).values()]
    if any(each & {"_flat_weights", "_flat_weights_names"} for each in words):
        return f"a subclass of torch.nn.{theirs.__name__} that works on _flat_weights, which cellwise does not read"
    if "forward" in defined and not any({"super", "forward"} <= each for each in words):
        return f"a subclass of torch.nn.{theirs.__name__}, whose own forward does not call super().forward"
    return None


def _added(ours: Kind) -> list[type]:
    return [each for each in ours.__mro__ if each not in _BACK[ours].__mro__]


def _words(value: Any) -> Iterator[str]:
    """The names and texts in the code of what a class defines: functions, properties, static and class methods."""
    for function in (value, *(getattr(value, part, None) for part in ("fget", "fset", "__func__"))):
        code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
        codes = [code] if isinstance(code, types.CodeType) else []
        while codes:
            code = codes.pop()
            yield from code.co_names
            yield from (each for each in code.co_consts if isinstance(each, str))
            codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
