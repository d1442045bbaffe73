"""Plain torch, one step after another: any device, any dtype, differentiable as often as torch can. The definition."""

from __future__ import annotations

from cellwise.backends.base import Backend, Call, Result, Stack, run_stacked
from cellwise.backends.reference.loop import run_direction


class Reference(Backend):
    name = "reference"
    summary = "interprets the equations step by step in plain torch; anything, anywhere, slowly"

    def supports(self, stack: Stack, call: Call) -> str | None:
        return None

    def run(self, stack: Stack, call: Call) -> Result:
        return run_stacked(stack, call, run_direction)
