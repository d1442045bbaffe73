"""A backend whose kernels a compiler makes from a cell's equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import (
    Backend,
    Call,
    CallContext,
    LayerSpec,
    PlainBatch,
    Result,
    RunDirection,
    Shortcut,
    Stepper,
    Weights,
    run_stacked,
)
from cellwise.backends.compiled import compiler as compilers
from cellwise.backends.compiled.double_backward import register_reference
from cellwise.graph.stored import MOST_NODES
from cellwise.plan.backward import projects


class Compiled(Backend):
    """Fused kernels for any cell, forward and backward. Abstract: a subclass names a device and loads a compiler.

    Args:
        definition: a differentiable way to run a direction, for derivatives of derivatives; the same for all.
    """

    device_type: str
    dtypes: tuple[torch.dtype, ...]
    accepts_padding = True

    def __init__(self, definition: RunDirection) -> None:
        register_reference(definition)
        compilers.register(self.name, self.device_type, self.compiler)

    def compiler(self) -> compilers.KernelCompiler:
        """The compiler, loaded by the first call that needs it and not by `import cellwise`."""
        raise NotImplementedError

    def supports(self, stack: LayerSpec, context: CallContext) -> str | None:
        graph = stack.graph
        if context.device.type != self.device_type:
            return f"the input is on the device {context.device}, these kernels run on {self._named()}"
        if context.dtype not in self.dtypes:
            known = " and ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
            return f"the kernels compute in {known}, not in {context.dtype}"
        if len(graph.nodes) > MOST_NODES:
            return f"{graph.name} has {len(graph.nodes)} nodes; at most {MOST_NODES} are compiled"
        if stack.proj_size and not projects(graph):
            return f"the first state of {graph.name} is used in ways that its projection does not allow"
        if context.transforms:
            return "the kernels know no transforms of torch.func"
        if context.forward_mode:
            return "the kernels know no forward-mode derivatives"
        return None

    def _named(self) -> str:
        return {"cpu": "a CPU", "cuda": "an NVIDIA GPU"}.get(self.device_type, self.device_type)

    def prepare(self, stack: LayerSpec, context: CallContext) -> Any:
        # Imported here: it compiles nothing yet, but what it stands on is wanted by the first call alone.
        from cellwise.backends.compiled.layer_pass import LayerPass

        options = (bool(stack.proj_size), context.recompute, context.traced)
        return LayerPass.of(stack.graph, context.dtype, self.name, stack.bias, *options)

    def run(self, stack: LayerSpec, call: Call) -> Result:
        return run_stacked(stack, call, call.prepared.run, True, call.prepared.run_both)

    def shortcut(self, stack: LayerSpec, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        from cellwise.backends.compiled.ragged import RaggedShortcut
        from cellwise.backends.compiled.shortcut import CompiledShortcut

        kind = CompiledShortcut if batch.sizes is None else RaggedShortcut
        return kind(stack, prepared, batch)

    def stepper(
        self,
        stack: LayerSpec,
        prepared: Any,
        weights: tuple[Weights, ...],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        kernels, graph = prepared.kernels, stack.graph
        if graph.asked_draws:  # there are none in evaluation
            return None
        stems = prepared.stems[: len(prepared.stems) - len(graph.given)]
        taken = [[each.by_stem[stem] for stem in stems] for each in weights]
        return kernels.compiler.stepper(kernels, stack, taken, batch, watched)
