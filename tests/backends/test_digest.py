"""The digest by which a step sees that weights hold other numbers: any one, anywhere, and two that changed places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellwise.backends.compiled.memory import Memory
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.digest import emit_digest
from cellwise.backends.cpu.target import WIDTHS, with_vectors_of

# Around vectors and blocks of them of all widths, and more than one part of what a step looks at.
SIZES = (1, 3, 4, 7, 8, 15, 16, 17, 31, 63, 64, 100, 127, 128, 129, 300)


@pytest.mark.parametrize("vector_bytes", WIDTHS)
def test_any_number_that_changes_is_seen(vector_bytes: int) -> None:
    target = with_vectors_of(vector_bytes)
    digest = load("digest", object_code(emit_digest(target), target))
    rng = np.random.default_rng(0)
    for size in SIZES:
        first, second = (torch.tensor(rng.standard_normal(n), dtype=torch.float32) for n in (size, 5))
        memory = Memory([first, second], digest)
        assert not memory.has_changed_anywhere()
        for each in (first, second):
            for place in range(len(each)):
                kept = each[place].item()
                for other in (np.nextafter(np.float32(kept), np.float32(9)), -kept, 0.0):
                    each[place] = float(other)
                    assert memory.has_changed_anywhere(), (size, place, other)
                each[place] = kept
        assert not memory.has_changed_anywhere()
        for one, two in ((0, size - 1), (0, size // 2)):
            if first[one] != first[two]:
                first[[one, two]] = first[[two, one]]
                assert memory.has_changed_anywhere()
                first[[one, two]] = first[[two, one]]
        assert not memory.has_changed_anywhere()


def test_what_is_large_is_looked_at_in_parts() -> None:
    target = with_vectors_of(WIDTHS[0])
    large = torch.zeros(2**15 + 3)
    memory = Memory([large], load("digest", object_code(emit_digest(target), target)))
    assert len(memory.parts) == 3
    for place in (0, 2**14 - 1, 2**14, 2**15 + 2):
        large[place] = 1
        assert memory.has_changed_anywhere()
        large[place] = 0
        assert not memory.has_changed_anywhere()
