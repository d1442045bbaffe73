"""Something done to a module of torch once it is loaded, without loading it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], None]


class _WhenLoaded(importlib.abc.MetaPathFinder):
    """Runs an action after a module is loaded: that may take seconds, which `import cellwise` must not cost."""

    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_and_act(module: ModuleType) -> None:
            load(module)
            self.action(module)

        spec.loader.exec_module = load_and_act  # type: ignore[method-assign]
        return spec


def when_loaded(name: str, action: Action) -> None:
    """Call `action` with the module of this name: now if it is loaded, else as soon as it is."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _WhenLoaded(name, action))
