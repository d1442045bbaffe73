"""torch's tools that go by a module's exact class: to them our layers are torch.nn's.

torch.jit compiles the source of a module's forward, and torch.ao.quantization has tables of classes. While one of
them reads a model, our layers in it have torch.nn's classes (`as_torchs`). What they make of a layer is so what they
make of torch.nn's, and the model itself stays converted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from torch import nn

from cellwise._loading import when_loaded
from cellwise.backends.compiled import flops
from cellwise.errors import ToolError
from cellwise.nn.layer import RecurrentLayer
from cellwise.nn.swapping import as_torchs, original_class, torchs_class
from cellwise.torch_internals import MODEL_READERS


def _reader(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def read(model: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(model, nn.Module):
            return function(model, *arguments, **options)
        if function.__name__ == "create_script_module" and not options.get("is_tracing"):
            _refuse_what_has_no_script(model)
        with as_torchs(model):
            return function(model, *arguments, **options)

    return read


def _refuse_what_has_no_script(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, RecurrentLayer) and torchs_class(original_class(module)) is None:
            raise ToolError(
                tool="torch.jit.script", what=f"{type(module).__name__} ({name or 'the model itself'})"
            )


def _open(module: ModuleType) -> None:
    for name in MODEL_READERS[module.__name__]:
        # Where a release of torch has no such function its tool passes our layers by; tests say so.
        if hasattr(module, name):
            setattr(module, name, _reader(getattr(module, name)))


for _name in MODEL_READERS:
    when_loaded(_name, _open)
when_loaded("torch.utils.flop_counter", flops.register)
