"""What every test stands on: uninitialised memory reads as NaN, one thread, a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cellwise.testing import poisoned_memory


@pytest.fixture(autouse=True)
def _ground() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with poisoned_memory():
        yield
    torch.set_num_threads(threads)
