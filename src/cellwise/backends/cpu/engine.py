"""The compiled programs of one cell for one element type, made when first needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
import torch

from cellwise.backends.cpu.code import symbol
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.kernel import emit, widths_of
from cellwise.backends.cpu.pack import Packer, Packing, emit_pack
from cellwise.backends.cpu.products import routine
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.tiles import groups_of
from cellwise.graph import StepGraph
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.backward import BackwardPlan, backward_plan, projects
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program, Width

ELEMENT_BYTES = {torch.float32: 4, torch.float64: 8}
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}

Native = Callable[[int | bytes, int | bytes], None]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled program. Call it with the addresses of its pointers and sizes; the interpreter lock is let go."""

    engine: Engine
    program: Program
    call: Native

    @cached_property
    def vectors(self) -> int:
        """Sums that a row and a pair of tiles have, in the stage that has the most."""
        groups = [groups_of(stage, self.engine.target) for stage in self.program.stages]
        return max([sum(group.vectors for group in each) for each in groups], default=0)

    def packing(self, lengths: tuple[int, int, int], stems: tuple[str, ...]) -> Packing:
        """How the weights `stems` are packed for this kernel, with these D, H and P."""
        return _packing(self, lengths, stems)


@lru_cache(maxsize=256)
def _packing(kernel: Kernel, lengths: tuple[int, int, int], stems: tuple[str, ...]) -> Packing:
    engine = kernel.engine
    graph = engine.graph
    rows = {"weight_ih": graph.input_gates, "weight_hh": graph.state_gates, "weight_hr": ("",)}
    rows |= {"bias_ih": graph.input_gates, "bias_hh": graph.state_gates}
    by_width = dict(zip((Width.INPUT, Width.HIDDEN, Width.PROJECTED), lengths, strict=True))
    return Packer(kernel.program, engine.target, engine.element_bytes, rows, by_width, stems).plan()


@dataclass(frozen=True, eq=False)
class Engine:
    """The kernels of a cell for a target. `inference` keeps no tape; `training` does, for `backward`.

    `projected`: the output and the first state are projected, as with proj_size. `recompute`: nothing of a step is kept
    but the states.
    """

    graph: StepGraph
    dtype: torch.dtype
    target: Target
    projected: bool = False
    recompute: bool = False

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def lanes(self) -> int:
        return self.target.lanes(self.element_bytes)

    def padded(self, size: int) -> int:
        """The length of a row of so many numbers in whole vectors."""
        return -(-size // self.lanes) * self.lanes

    @cached_property
    def plan(self) -> BackwardPlan:
        return backward_plan(self.graph, self.projected, self.recompute)

    @cached_property
    def inference(self) -> Kernel:
        return self._compiled(forward_program(self.graph, None, self.projected))

    @cached_property
    def training(self) -> Kernel:
        if not self.plan.tape.columns:
            return self.inference
        return self._compiled(forward_program(self.graph, self.plan.tape, self.projected))

    @cached_property
    def backward(self) -> Kernel:
        return self._compiled(self.plan.program)

    @cached_property
    def pack(self) -> Native:
        """The compiled loop over the jobs of a packing."""
        return _pack(self.element_bytes, self.target)

    def _compiled(self, program: Program) -> Kernel:
        code = object_code(emit(program, self.element_bytes, self.target), self.target)
        shared = [
            routine(width, self.element_bytes, self.target) for width in widths_of(program, self.target)
        ]
        return Kernel(self, program, load(symbol(program.name), code, *shared))


@cache
def _pack(element_bytes: int, target: Target) -> Native:
    return load("pack", object_code(emit_pack(element_bytes, target), target))


_PROJECTED, _RECOMPUTE = "projected", "recompute"
# What a forward pass keeps, and in which order: counted up when that changes.
_ROWS = "rows2."


def key_of(graph: StepGraph, projected: bool, recompute: bool) -> str:
    """What the operator knows a cell by: it takes plain values only, also in a program that another process runs.

    It names the layout of what is kept, too: torch.compile keeps programs on disk with the widths of its rows, under
    all that they are made from. A program that was exported elsewhere may name another one, which changes nothing.
    """
    options = [name for name, on in ((_PROJECTED, projected), (_RECOMPUTE, recompute)) if on]
    return f"{' '.join([f'{_ROWS}{host().vector_bytes}', *options])}|{store(graph)}"


@lru_cache(maxsize=512)
def engine_of(key: str, dtype: torch.dtype) -> Engine:
    """The engine for a key.

    Raises:
        GraphError: the key is none of `key_of`.
    """
    first, _, text = key.partition("|")
    options, graph = set(first.split()), restore(text)
    if any(not re.fullmatch(rf"{_PROJECTED}|{_RECOMPUTE}|rows\d+\.\d+", each) for each in options):
        raise GraphError(f"there are no kernels with the options {first[:100]!r}")
    if _PROJECTED in options and not projects(graph):
        raise GraphError(f"{graph.name}: its first state cannot be projected")
    return Engine(graph, dtype, host(), _PROJECTED in options, _RECOMPUTE in options)
