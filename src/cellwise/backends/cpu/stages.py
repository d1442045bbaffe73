"""What a cell becomes on its way to the processor, as text: its programs, their LLVM code, their assembly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from cellwise.backends.cpu.compile import optimized
from cellwise.backends.cpu.kernel import emit
from cellwise.backends.cpu.target import Target, host
from cellwise.graph import StepGraph
from cellwise.plan.backward import backward_plan
from cellwise.plan.forward import forward_program
from cellwise.plan.hoist import hoisted
from cellwise.plan.listing import listing
from cellwise.plan.program import Program

__all__ = ["PASSES", "STAGES", "Stage", "stage_text"]

PASSES: dict[str, Callable[[StepGraph], Program]] = {
    "forward": lambda graph: forward_program(graph, None),
    "hoisted": lambda graph: hoisted(forward_program(graph, None)),
    "training": lambda graph: forward_program(graph, backward_plan(graph).tape),
    "backward": lambda graph: backward_plan(graph).program,
    "recomputing": lambda graph: backward_plan(graph, recompute=True).program,
}


@dataclass(frozen=True)
class Stage:
    """Args: passes: those shown if none is asked for. comment: what begins a line that is none of the code."""

    of: Callable[[Program, StepGraph, Target], str]
    passes: tuple[str, ...] = ("forward",)
    comment: str = ""


def _plan(program: Program, graph: StepGraph, target: Target) -> str:
    return listing(program, graph)


def _llvm(program: Program, graph: StepGraph, target: Target) -> str:
    return str(emit(program, torch.float32.itemsize, target, whole=True)).strip()


def _assembly(program: Program, graph: StepGraph, target: Target) -> str:
    module, machine = optimized(_llvm(program, graph, target), target)
    return machine.emit_assembly(module).strip()


STAGES: dict[str, Stage] = {
    "plan": Stage(_plan, passes=("forward", "backward")),
    "llvm": Stage(_llvm, comment="; "),
    "asm": Stage(_assembly, comment="# "),
}


def stage_text(graph: StepGraph, stage: str, which: str | None = None, target: Target | None = None) -> str:
    """A stage of STAGES as text, for float32 and this machine, or for `target`.

    Code begins with the program that it comes from, as comments.

    Args:
        which: one of PASSES: forward keeps nothing, and hoisted multiplies the inputs of many steps at once; training
            keeps a tape for backward, recomputing needs none.

    >>> from cellwise import cells
    >>> text = stage_text(cells.get("gru").graph, "llvm")
    >>> "r = σ(W_ir x + b_ir + W_hr h + b_hr)" in text
    True
    """
    chosen, target = STAGES[stage], target or host()
    parts = []
    for name in chosen.passes if which is None else (which,):
        program = PASSES[name](graph)
        if chosen.comment:
            sign = "// " if target.triple.startswith("aarch64") and stage == "asm" else chosen.comment
            parts.append(_commented(listing(program, graph).splitlines(), sign))
        parts.append(chosen.of(program, graph, target))
    return "\n\n".join(parts)


def _commented(lines: Iterable[str], sign: str) -> str:
    return "\n".join(f"{sign}{line}".rstrip() for line in lines)
