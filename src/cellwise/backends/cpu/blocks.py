"""When a call's inputs are multiplied for a block of steps at once (`ahead.py`), and how long a block is.

Measured as the time of kernels that multiply each step's input within the step over that of kernels that do it block by
block, in turns, inference of 64 steps, 32 where there are more than 10 MiB (LSTM / GRU, float32; the second-level cache
had 1 MiB): `python benchmarks/blocks.py`.

| weights, MiB | D, H | 1 row | 2 | 3 | 4 | 8 | 16 | 20 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0.4 / 0.3 | 64, 128 | 1.13 / 1.03 | 1.00 / 0.94 | 0.91 / 0.93 | 0.95 / 0.95 | 0.97 / 0.97 | 0.98 / 0.99 | |
| 2 / 1.5 | 256, 256 | 1.19 / 1.47 | 1.02 / 1.15 | 0.97 / 1.02 | 0.98 / 1.04 | 1.00 / 1.01 | 0.99 / 1.00 | |
| 3 / 2.3 | 512, 256 | 1.35 / 1.42 | 1.10 / 1.10 | 1.00 / 1.08 | 0.97 / 1.04 | 0.99 / 1.01 | 1.00 / 0.99 | |
| 8 / 6 | 512, 512 | 1.35 / 1.40 | 1.08 / 1.17 | 1.10 / 1.11 | 1.01 / 1.07 | 1.07 / 1.05 | 1.08 / 0.99 | |
| 13 / 10 | 650, 650 | | | | 1.15 / 1.13 | 1.17 / 1.09 | 1.08 / 1.07 | 1.03 / 1.03 |
| 32 / 24 | 1024, 1024 | | | | 1.58 / 1.52 | 1.26 / 1.21 | 1.14 / 1.09 | 1.03 / 1.02 |

That was a Zen 4. A Zen 5 multiplies twice as fast, but reads what lies beyond its second cache no faster:

| weights, MiB | D, H | 4 rows | 8 | 16 | 20 | 32 | 48 | 64 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0.9 / 0.7 | 128, 192 | 1.05 / 1.06 | | | | | | |
| 2 / 1.5 | 256, 256 | 1.21 / 1.30 | 1.09 / 1.11 | 1.01 / 1.04 | | | | 0.99 |
| 3 / 2.3 | 512, 256 | | 1.09 / 1.12 | 1.03 / 1.05 | | | | |
| 8 / 6 | 512, 512 | | 1.08 / 1.12 | 1.02 / 1.05 | 1.02 / 1.06 | 1.02 / 1.04 | | 1.01 |
| 13 / 10 | 650, 650 | | | 1.03 / 1.09 | 1.04 / 1.09 | 1.04 / 1.06 | 1.01 / 1.04 | 1.03 / 1.06 |
| 32 / 24 | 1024, 1024 | | | | 1.35 / 1.31 | 1.26 / 1.22 | | 1.03 / 1.07 |

A single row gains as a rule, since a core otherwise multiplies each weight that it loads once. With more rows what
counts is how many of the weights come from beyond the cache. The input's weights must be a part that matters: with D 1
to 8 a single row took 0.96 to 1.08 times as long. Blocks of 32, 64, 96 and 192 rows took the same time.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from cellwise.backends.compiled.compiler import RunShape
from cellwise.plan.hoist import hoisted
from cellwise.plan.program import Program

# Rows of a block.
_ROWS = 96
_FEWEST_STEPS, _SMALLEST_INPUT = 8, 16
_LEAST_PART = 0.125  # of the weights, the input's
# Rows of a step for which it is worth it, for each time that the weights fill the cache; and the most.
_ROWS_FOR_A_CACHE, _MOST_ROWS = 5, 64


def block_steps(steps: int, rows: int) -> int:
    """How many steps are a block, of a share of so many rows."""
    return max(1, min(steps, _ROWS // max(1, rows)))


def in_blocks(program: Program, shape: RunShape, element_bytes: int) -> bool:
    """Whether a program's inputs are to be multiplied for a block of steps at once.

    It depends on the shape alone, and not on the number of threads: runs are kept, and the same call is to have the
    same bits whatever was called before it.
    """
    steps, sizes, graph = shape.schedule.steps, shape.sizes, program.graph
    if hoisted(program) is program or not steps:
        return False
    inputs = len(graph.input_gates) * sizes.input
    all_weights = inputs + len(graph.state_gates) * sizes.output
    filled = all_weights * sizes.hidden * element_bytes / second_level_cache()
    return is_worth_it(steps, shape.schedule.rows / steps, sizes.input, inputs / all_weights, filled)


def is_worth_it(steps: int, rows: float, input_size: int, part: float, filled: float) -> bool:
    """Whether blocks of steps are faster, by size.

    Args:
        rows: of a step. part: of the weights, the input's. filled: how often the weights would fill the cache.
    """
    if steps < _FEWEST_STEPS or input_size < _SMALLEST_INPUT or part < _LEAST_PART:
        return False
    return rows <= 1 or rows <= min(_MOST_ROWS, _ROWS_FOR_A_CACHE * filled)


@cache
def second_level_cache() -> int:
    """Bytes of a core's cache of the second level, as torch or the system says; 1 MiB where neither does."""
    # Newer than the oldest torch that is supported.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if size := capabilities.get("l2_cache_size"):
        return int(size)
    told = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    text = told.read_text().strip() if told.exists() else ""
    return int(text[:-1]) * 2**10 if text[:-1].isdecimal() and text.endswith("K") else 2**20
