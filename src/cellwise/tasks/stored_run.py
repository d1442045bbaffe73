"""What a run folder says that was not written as it would be today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellwise.tasks.training.run_folder import Checkpoint

__all__ = ["epoch_of", "note_of_unfinished", "notes_of", "without_groups"]


def without_groups(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name. Runs of version 0.1 nested those of a forecaster in a group."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def notes_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes of a finished run."""
    return tuple(str(note) for note in summary.get("notes", ()))


def note_of_unfinished(best: Checkpoint) -> str:
    """The note that a run is not finished."""
    epoch = best.about.get("epoch")
    return f"the run is not finished; these are its weights of epoch {epoch}, the best so far"


def epoch_of(best: Checkpoint) -> int | None:
    """The epoch that weights are of, as far as their file says it."""
    epoch = best.about.get("epoch")
    return epoch if type(epoch) is int and 1 <= epoch <= 1_000_000 else None
