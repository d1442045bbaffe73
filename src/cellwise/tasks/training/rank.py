"""Which of several processes of one training this is. Without torch, so that commands can ask at once."""

from __future__ import annotations

import os
import sys

__all__ = ["is_first", "process_count"]


def process_count() -> int:
    """Processes that have joined into a group, or that torchrun has started to do so; 1 for a process by itself."""
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        return int(group.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that writes and reports: always, but for those that torchrun numbers from 1."""
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        return int(group.get_rank()) == 0
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"
