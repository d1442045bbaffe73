"""What of cellwise needs torch is loaded with torch: torch takes seconds, and a line of help should not.

`import cellwise` loads cells and equations. The layers come when torch is there already, when torch is imported later,
or when one of them is asked for. So torch knows our operators wherever both are imported, whichever is first: a program
that was exported with our layers in it runs in a process that has only imported cellwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LAYERS = "cellwise.nn"
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
    if "torch" in sys.modules:
        import_module(_LAYERS)
    else:
        sys.meta_path.insert(0, _Follower())


class _Follower:
    """A finder: finds torch as Python would, and has our layers loaded after it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_follow(module: ModuleType) -> None:
            load(module)
            # Only now: who merely asks whether there is a torch loads none.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            import_module(_LAYERS)

        spec.loader.exec_module = load_and_follow  # type: ignore[method-assign]
        return spec
