"""Where cellwise keeps what can be made again: compiled kernels, fetched data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$CELLWISE_CACHE, or ~/.cache/cellwise. It may not exist yet."""
    given = os.environ.get("CELLWISE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "cellwise"
