"""Where cellwise keeps what can be made again: compiled kernels, fetched data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$CELLWISE_CACHE, or ~/.cache/cellwise. It may not exist yet."""
    given = os.environ.get("CELLWISE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "cellwise"


def kernel_folder() -> Path | None:
    """Where compiled kernels are kept; None if they live in memory only.

    That is so where CELLWISE_CACHE is set and empty, and for a user who has no home.
    """
    if os.environ.get("CELLWISE_CACHE") == "":
        return None
    try:
        return cache_folder() / "kernels"
    except RuntimeError:  # Path.home() found none
        return None
