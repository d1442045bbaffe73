"""A backend whose kernels a compiler makes from a cell's equations."""

from __future__ import annotations

from typing import Any

import torch

from cellwise.backends.base import (
    Backend,
    Call,
    PlainBatch,
    Result,
    RunDirection,
    Setting,
    Shortcut,
    Stack,
    Stepper,
    Weights,
    run_stacked,
)
from cellwise.backends.compiled import compiler as compilers
from cellwise.backends.compiled.twice import define
from cellwise.graph.stored import MOST_NODES
from cellwise.plan.backward import projects


class Compiled(Backend):
    """Fused kernels for any cell, forward and backward. Abstract: a subclass names a device and loads a compiler.

    Args:
        definition: a differentiable way to run a direction, for derivatives of derivatives; the same for all.
    """

    device_type: str
    dtypes: tuple[torch.dtype, ...]
    takes_surplus = True

    def __init__(self, definition: RunDirection) -> None:
        define(definition)
        compilers.register(self.name, self.device_type, self.compiler)

    def compiler(self) -> compilers.KernelCompiler:
        """The compiler, loaded by the first call that needs it and not by `import cellwise`."""
        raise NotImplementedError

    def supports(self, stack: Stack, setting: Setting) -> str | None:
        graph = stack.graph
        if setting.device.type != self.device_type:
            return f"the input is on the device {setting.device}, these kernels run on {self._named()}"
        if setting.dtype not in self.dtypes:
            known = " and ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
            return f"the kernels compute in {known}, not in {setting.dtype}"
        if len(graph.nodes) > MOST_NODES:
            return f"{graph.name} has {len(graph.nodes)} nodes; at most {MOST_NODES} are compiled"
        if stack.proj_size and not projects(graph):
            return f"the first state of {graph.name} is used in ways that its projection does not allow"
        if setting.transforms:
            return "the kernels know no transforms of torch.func"
        if setting.forward_mode:
            return "the kernels know no forward-mode derivatives"
        return None

    def _named(self) -> str:
        return {"cpu": "a CPU", "cuda": "an NVIDIA GPU"}.get(self.device_type, self.device_type)

    def prepare(self, stack: Stack, setting: Setting) -> Any:
        # Imported here: it compiles nothing yet, but what it stands on is wanted by the first call alone.
        from cellwise.backends.compiled.layer_pass import LayerPass

        options = (bool(stack.proj_size), setting.recompute, setting.traced)
        return LayerPass.of(stack.graph, setting.dtype, self.name, stack.bias, *options)

    def run(self, stack: Stack, call: Call) -> Result:
        return run_stacked(stack, call, call.prepared.run, fresh=True)

    def shortcut(self, stack: Stack, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        from cellwise.backends.compiled.shortcut import CompiledShortcut

        return CompiledShortcut(stack, prepared, batch)

    def stepper(
        self, stack: Stack, prepared: Any, weights: tuple[Weights, ...], batch: int
    ) -> Stepper | None:
        engine = prepared.engine
        taken = [[each.by_stem[stem] for stem in prepared.stems] for each in weights]
        return engine.compiler.stepper(engine, stack, taken, batch)
