"""Plain torch, one step after another: any device, any dtype, differentiable as often as torch can. The definition."""

from __future__ import annotations

from cellwise.backends.base import Backend, Call, CallContext, LayerSpec, Result, run_stacked
from cellwise.backends.reference.loop import run_direction


class Reference(Backend):
    name = "reference"
    summary = "interprets the equations step by step in plain torch; anything, anywhere, slowly"

    def supports(self, stack: LayerSpec, context: CallContext) -> str | None:
        if context.recompute:
            return "autograd keeps all that the definition computed, and recomputes nothing"
        return None

    def prepare(self, stack: LayerSpec, context: CallContext) -> None:
        # Worked out here, since torch.compile reads what is kept but cannot follow how it is made.
        graph = stack.graph
        _ = graph.into_loop, graph.products, graph.input_gates, graph.state_gates

    def run(self, stack: LayerSpec, call: Call) -> Result:
        return run_stacked(stack, call, run_direction)
