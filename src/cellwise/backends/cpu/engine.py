"""The compiled programs of one cell for one element type, made when first needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from cellwise.backends.cpu.compile import Kernel, load, object_code
from cellwise.backends.cpu.target import Target, host
from cellwise.graph import StepGraph
from cellwise.plan.backward import BackwardPlan, backward_plan
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program

ELEMENT_BYTES = {torch.float32: 4, torch.float64: 8}


@dataclass(frozen=True, eq=False)
class Engine:
    """The kernels of a cell for a target. `inference` keeps no tape; `training` does, for `backward`."""

    graph: StepGraph
    dtype: torch.dtype
    target: Target

    @property
    def lanes(self) -> int:
        return self.target.lanes(ELEMENT_BYTES[self.dtype])

    def padded(self, hidden_size: int) -> int:
        """The length of a row of H numbers in whole vectors."""
        return -(-hidden_size // self.lanes) * self.lanes

    @cached_property
    def plan(self) -> BackwardPlan:
        return backward_plan(self.graph)

    @cached_property
    def inference(self) -> Kernel:
        return self._compiled(forward_program(self.graph, None))

    @cached_property
    def training(self) -> Kernel:
        return self._compiled(forward_program(self.graph, self.plan.tape))

    @cached_property
    def backward(self) -> Kernel:
        return self._compiled(self.plan.program)

    def _compiled(self, program: Program) -> Kernel:
        return load(program, object_code(program, ELEMENT_BYTES[self.dtype], self.target))


_GRAPHS: dict[str, StepGraph] = {}


def remember(graph: StepGraph) -> str:
    """A key under which the operator finds the graph again; operators take plain values only."""
    _GRAPHS.setdefault(_key(graph), graph)
    return _key(graph)


@lru_cache(maxsize=512)
def _key(graph: StepGraph) -> str:
    # The fingerprint forgets names; the names of parameters are needed to find their tensors.
    return "|".join((graph.fingerprint, *graph.gates, *graph.states, *graph.vectors, *graph.scalars))


@lru_cache(maxsize=512)
def engine_of(key: str, dtype: torch.dtype) -> Engine:
    return Engine(_GRAPHS[key], dtype, host())
