"""Import packages that only tasks need, with a helpful error if one is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cellwise.tasks.errors import TaskError

__all__ = ["NEEDED", "require"]

# The extra `forecast` of pyproject.toml, by name: `pip install 'cellwise[forecast]'` finds no release yet.
NEEDED = ("polars", "narwhals", "matplotlib", "jinja2")


def require(module: str, install: Sequence[str] = NEEDED) -> Any:
    """Import a module that is optional, or say how to get it: `install` names the packages, by default those of the
    `forecast` extra."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != name:
            raise
        raise TaskError(
            f"cellwise.tasks needs {name}, which is not installed; all that it needs: pip install {' '.join(install)}"
        ) from error
