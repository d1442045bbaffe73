"""What the settings of every experiment are checked for, with the sentence for a person who typed them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellwise.errors import CellwiseError

__all__ = ["check_at_least", "check_names"]


def check_at_least(settings: Any, error: type[CellwiseError], **least: int) -> None:
    """Raise `error` for the first of the named settings that is smaller than given."""
    for name, limit in least.items():
        if getattr(settings, name) < limit:
            raise error(
                f"The {name.replace('_', ' ')} must be at least {limit}; got {getattr(settings, name)}."
            )


def check_names(names: Sequence[str], error: type[CellwiseError]) -> None:
    """Raise `error` if two cells have the same name."""
    if len(set(names)) < len(names):
        raise error(f"Two of the cells have the same name among {', '.join(names)}; give each its own.")
