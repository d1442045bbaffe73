"""No kernel reads or writes beside what it was given: every buffer ends, or begins, at a page that may not be touched.

The kernels run in a process of their own (`guarded_runs.py`, `guarded_small.py`), since a touched page ends it;
`guarded.py` has the memory. Sizes are odd on purpose, and every other vector width has its turn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from guarded import TOUCHED

from cellwise import cells

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="guard pages are asked of Linux here"
)

# What the kernels of this cell are given, but for states "before" in their history, of which no step needs the last. Of
# the packed weights, which are one buffer, the last part.
CELL = "lstm-peephole"
BUFFERS = (
    "x,output,tape,gates,room,offsets,resets,h before first,h before rows,h before limits,h after history,"
    "h after rows,c before first,c after history,own p_i,own p_o,gradient output,gradient h before first,"
    "gradient h before limits,gradient c before history,gradient c after history,sums,bias sums,packed biases,"
    "weight_ih,weight_hh,bias_ih,bias_hh,input products sums,input products operands"
)


def _run(*arguments: str, script: str = "guarded_runs.py") -> subprocess.CompletedProcess[str]:
    script = str(Path(__file__).with_name(script))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", ["end", "begin"])
@pytest.mark.parametrize("cell", (*cells.FAMILIAR, "layernorm-gru", "time-aware-lstm"))
def test_kernels_stay_within_their_buffers(cell: str, side: str) -> None:
    done = _run(cell, side)
    assert done.returncode == 0, done.stderr
    calls, _, seen = done.stdout.partition(" calls; ")
    assert int(calls) > 250
    seen_names = set(seen.strip().split(", "))
    assert {"x", "room", "offsets", "resets", "packed biases", "tape", "input products sums"} <= seen_names


@pytest.mark.slow
@pytest.mark.parametrize("side", ["end", "begin"])
def test_small_calls_stay_within_the_tensors_of_a_call(side: str) -> None:
    done = _run(side, script="guarded_small.py")
    assert done.returncode == 0, done.stderr
    calls, _, in_place = done.stdout.partition(" calls; ")
    assert int(calls) > 700 and int(in_place) > 100


@pytest.mark.slow
def test_a_buffer_that_is_one_element_short_is_found_out() -> None:
    done = _run(CELL, "end", "--short", BUFFERS)
    ends = [line.partition(": ") for line in done.stdout.splitlines()]
    assert {name: status for name, _, status in ends} == dict.fromkeys(BUFFERS.split(","), str(TOUCHED)), (
        done.stderr
    )
    for name, told in zip(BUFFERS.split(","), done.stderr.splitlines(), strict=True):
        assert re.search(rf"[:,=] {name}( =[^,]*)? \(from byte", told), told
