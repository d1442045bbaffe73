"""What is exported is in the reference, and what is in the reference is exported: docs/stability.md promises both."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.rst"
PUBLIC = ("cellwise", "cellwise.cells", "cellwise.tasks", "cellwise.testing")
DIRECTIVE = re.compile(
    r"^\.\. (currentmodule|automodule|auto\w+|py:data):: (\S+)((?:\n   :[^\n]*)*)", re.MULTILINE
)


def public(module: ModuleType) -> list[str]:
    """What a module exports: `__all__`, or else what it defines without an underscore."""
    own = [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def documented() -> set[tuple[str, str]]:
    """(module, name) of everything that reference.rst documents."""
    found: set[tuple[str, str]] = set()
    module = ""
    for directive, name, options in DIRECTIVE.findall(REFERENCE.read_text(encoding="utf8")):
        if directive == "currentmodule":
            module = name
        elif directive == "automodule":
            listed = re.search(r":members:(.*)", options)
            assert listed is not None, f"{name} is documented without its members"
            names = [each.strip() for each in listed[1].split(",") if each.strip()]
            found |= {(name, each) for each in names or public(import_module(name))}
        else:
            home, _, last = name.rpartition(".")
            found.add((home or module, last))
    return found


def exported(module: str) -> dict[str, object]:
    """Name -> object of what a public module exports, its submodules and its version apart."""
    home = import_module(module)
    values = {name: getattr(home, name) for name in home.__all__ if name != "__version__"}
    return {name: value for name, value in values.items() if not isinstance(value, ModuleType)}


def test_the_reference_is_read() -> None:
    assert ("cellwise", "GRU") in documented()
    assert ("cellwise.cells", "register") in documented()
    assert ("cellwise.graph.functions", "tanh") in documented()
    assert len(documented()) > 60


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_exported_is_in_the_reference(module: str) -> None:
    entries = documented()
    objects = [getattr(import_module(home), name) for home, name in entries]
    missing = [
        name
        for name, value in exported(module).items()
        if (module, name) not in entries and not any(value is each for each in objects)
    ]
    assert missing == []


def test_what_is_in_the_reference_is_exported() -> None:
    private = [f"{home}.{name}" for home, name in documented() if name not in public(import_module(home))]
    assert private == []
