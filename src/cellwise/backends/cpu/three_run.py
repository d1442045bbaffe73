"""A run of a float32 kernel that multiplies as torch's settings for products of float32 say at each call.

With "highest", torch's default, and on processors without tile registers, it is the float32 kernel. With "high" and
"medium" products are three of bfloat16 (`three_kernel.py`) where a step has rows enough for tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from cellwise.backends.compiled.compiler import KernelRun, RunShape
from cellwise.backends.cpu.amx import FEWEST_ROWS
from cellwise.backends.cpu.amx_support import support
from cellwise.backends.cpu.few_rows import gates_of, is_small
from cellwise.backends.cpu.launch import CpuRun, Phase
from cellwise.backends.precision import allows_two_parts

if TYPE_CHECKING:
    from cellwise.backends.cpu.compiler import Kernel


def goes_by_three(rows: int) -> bool:
    """Whether products of float32 with so many rows of a batch are three of bfloat16 now."""
    return rows >= FEWEST_ROWS and allows_two_parts() and bool(support().form)


class PreciseRun(KernelRun):
    """Both runs of one shape; each call takes one of them."""

    def __init__(self, kernel: Kernel, shape: RunShape) -> None:
        self._kernel, self._shape = kernel, shape
        self._taken = self._exact = CpuRun(kernel.for_shape(shape), shape)
        # A small call has the same numbers whether it comes by the chain or by the way of all calls.
        gate_bytes = gates_of(kernel.program.graph) * kernel.word
        self._is_small = is_small(shape.schedule.rows, gate_bytes, shape.sizes.hidden, kernel.lanes)

    @cached_property
    def _by_three(self) -> CpuRun:
        return CpuRun(self._kernel.by_three, self._shape)

    def bind(
        self,
        buffers: Sequence[Tensor],
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
    ) -> None:
        by_three = not self._is_small and goes_by_three(self._shape.schedule.batch)
        self._taken = self._by_three if by_three else self._exact
        self._taken.at_once = self.at_once
        self._taken.bind(buffers, firsts, histories, weights, resets)

    def launch(self, first: int, end: int) -> None:
        self._taken.launch(first, end)

    def phases(self, first: int, end: int) -> list[Phase]:
        """As `CpuRun.phases`."""
        return self._taken.phases(first, end)

    def sums(self) -> dict[str, Tensor]:
        return self._taken.sums()

    def release(self) -> None:
        self._taken.release()
