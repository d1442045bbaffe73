"""Cells that nobody wrote, emulated in the layouts that a GPU has for them."""

from __future__ import annotations

import shutil

import pytest
from agreement import check
from emulated import Emulated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwise import Cell
from cellwise.backends import registry
from cellwise.backends.cuda.layout import STEPWISE, Layout
from cellwise.backends.reference.loop import run_direction
from cellwise.testing import Case, strategies

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
EMULATED = Emulated(run_direction)
LAYOUTS = (None, Layout("lanes", warps=2, tiles=2), Layout("solo", warps=1), STEPWISE)


@given(
    cell=strategies.cells(most_lines=6, widths=False),
    layout=st.sampled_from(LAYOUTS),
    resets=st.booleans(),
    ragged=st.booleans(),
    recompute=st.booleans(),
)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_random_cell_agrees_with_float64(
    cell: Cell, layout: Layout | None, resets: bool, ragged: bool, recompute: bool
) -> None:
    lengths = (3, 1, 2) if ragged else None
    case = Case(
        cell, steps=3, batch=3, input_size=5, hidden_size=13, initial=True,
        resets=resets, lengths=lengths, recompute=recompute,
    ).fitting  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))
        check(case, "emulated", "float32", layout)
