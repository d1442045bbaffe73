"""The programs of one cell and their kernels, for one compiler and element type; each made when first needed."""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from cellwise.backends.compiled import compiler as compilers
from cellwise.backends.compiled.compiler import CompiledKernel, KernelCompiler
from cellwise.graph import StepGraph
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.backward import BackwardPlan, backward_plan, projects
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program


@dataclass(frozen=True, eq=False)
class CellKernels:
    """The kernels of a cell. `inference` keeps no tape; `training` does, for `backward`.

    `projected`: the output and the first state are projected, as with proj_size. `recompute`: nothing of a step is kept
    but the states. Whoever only infers never differentiates the cell: `plan` is made for a call that records.
    """

    graph: StepGraph
    dtype: torch.dtype
    compiler: KernelCompiler
    projected: bool = False
    recompute: bool = False

    def padded(self, size: int) -> int:
        """How far apart rows of so many numbers are."""
        return self.compiler.row_width(size, self.dtype)

    def pads(self, output: Tensor) -> bool:
        """Whether outputs, (N, ...) as they are given, were copied from rows that are wider."""
        size = output.shape[1] // (1 + len(self.graph.others))
        return self.padded(size) != size

    @cached_property
    def plan(self) -> BackwardPlan:
        return _backward_plan(self.graph, self.projected, self.recompute)

    @cached_property
    def inference(self) -> CompiledKernel:
        return self._compiled(_inference_program(self.graph, self.projected))

    @cached_property
    def training(self) -> CompiledKernel:
        if self.plan.tape.is_empty:
            return self.inference
        return self._compiled(forward_program(self.graph, self.plan.tape, self.projected))

    @cached_property
    def backward(self) -> CompiledKernel:
        return self._compiled(self.plan.program)

    def _compiled(self, program: Program) -> CompiledKernel:
        return self.compiler.compile(program, self.dtype)

    @cached_property
    def stems(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the weights that a layer takes, in the order of its parameters: without and with biases.

        After them the names of what it is given beside x (`plan.beside`): to torch they are operands like these.
        """
        return _stems(self, False), _stems(self, True)


def _stems(kernels: CellKernels, bias: bool) -> tuple[str, ...]:
    graph = kernels.graph
    kinds = [kind for kind, gates in (("ih", graph.input_gates), ("hh", graph.state_gates)) if gates]
    found = [f"weight_{kind}" for kind in kinds]
    if bias:
        found += [f"bias_{kind}" for kind in kinds]
    found += ["weight_hr"] if kernels.projected else []
    return (*found, *graph.vectors, *graph.scalars, *graph.given)


# What follows from the equations alone is made once for all layers, element types and compilers.


@lru_cache(maxsize=512)
def _backward_plan(graph: StepGraph, projected: bool, recompute: bool) -> BackwardPlan:
    return backward_plan(graph, projected, recompute)


@lru_cache(maxsize=512)
def _inference_program(graph: StepGraph, projected: bool) -> Program:
    return forward_program(graph, None, projected)


@lru_cache(maxsize=512)
def kernels_for(
    graph: StepGraph, dtype: torch.dtype, compiler: KernelCompiler, projected: bool, recompute: bool
) -> CellKernels:
    """The kernels of all layers of a cell."""
    return CellKernels(graph, dtype, compiler, projected, recompute)


# --- what torch knows a cell by -------------------------------------------------------------------------------------

_PROJECTED, _RECOMPUTE = "projected", "recompute"
# What a forward pass keeps, and in which order: counted up when that changes.
_ROWS = "rows2."
_BY = "by."
_GRAPHS: weakref.WeakValueDictionary[str, StepGraph] = weakref.WeakValueDictionary()


@lru_cache(maxsize=512)
def key_of(graph: StepGraph, projected: bool, recompute: bool, name: str) -> str:
    """What the operator knows a cell by: it takes plain values only, also in a program that another process runs.

    It names the layout of what is kept, too: torch.compile keeps programs on disk with the widths of its rows, under
    all that they are made from. A program that was exported elsewhere may name another one, which changes nothing.

    Args:
        name: that of the backend whose compiler runs it. A key names no compiler where it is the one for its type of
            device: an exported program that is moved to another device runs on the compiler for that.
    """
    text = store(graph)
    _GRAPHS.setdefault(text, graph)
    options = [word for word, on in ((_PROJECTED, projected), (_RECOMPUTE, recompute)) if on]
    options += [] if compilers.is_default(name) else [f"{_BY}{name}"]
    return f"{' '.join([f'{_ROWS}{compilers.load(name).layout}', *options])}|{text}"


@lru_cache(maxsize=512)
def kernels_of(key: str, dtype: torch.dtype, device_type: str) -> CellKernels:
    """The kernels for a key.

    Raises:
        GraphError: the key is none of `key_of`, or nobody compiles for such a device.
    """
    first, _, text = key.partition("|")
    options, graph = set(first.split()), _GRAPHS.get(text) or restore(text)
    named = {each.removeprefix(_BY) for each in options if each.startswith(_BY)}
    options = {each for each in options if not each.startswith(_BY)}
    if any(not re.fullmatch(rf"{_PROJECTED}|{_RECOMPUTE}|rows\d+\.\w+", each) for each in options):
        raise GraphError(f"there are no kernels with the options {first[:100]!r}")
    if _PROJECTED in options and not projects(graph):
        raise GraphError(f"{graph.name}: its first state cannot be projected")
    name = named.pop() if len(named) == 1 else None if named else compilers.name_for(device_type)
    if name is None or not compilers.is_known(name):
        raise GraphError(f"there are no kernels {first[:100]!r} for tensors on {device_type!r}")
    return kernels_for(graph, dtype, compilers.load(name), _PROJECTED in options, _RECOMPUTE in options)
