"""What of cellwise needs torch is loaded with torch: torch takes seconds, and a line of help should not.

`import cellwise` loads cells and equations. The layers come when torch is there already, when torch is imported later,
or when one of them is asked for. So torch knows our operators wherever both are imported, whichever is first: a program
that was exported with our layers in it runs in a process that has only imported cellwise.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from cellwise._loading import when_loaded

_LAYERS, _INTERNALS = "cellwise.nn", "cellwise.torch_internals"
# Packages of ours that were attributes of cellwise as soon as it was imported.
_PACKAGES = ("backends", "nn", "passes", "plan", "runtime")


def find(name: str) -> Any:
    """A layer or a package of cellwise, loaded now.

    Raises:
        AttributeError: there is none of this name.
    """
    if name in _PACKAGES:
        return import_module(f"cellwise.{name}")
    if not name.startswith("_"):
        layers = import_module(_LAYERS)
        if name in layers.__all__:
            return getattr(layers, name)
    raise AttributeError(f"module 'cellwise' has no attribute {name!r}")


def follow_torch() -> None:
    """Load the layers: now, if torch is loaded, else right after it."""
    when_loaded("torch", lambda _: None if _INTERNALS in sys.modules else load_layers())


def load_layers() -> None:
    """Load the layers. Where `torch_internals` is what loads torch it does this itself, once it is whole."""
    import_module(_LAYERS)
