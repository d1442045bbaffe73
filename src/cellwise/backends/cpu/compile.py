"""From an LLVM module to a function in this process."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from cellwise.backends.cpu.cache import kept
from cellwise.backends.cpu.kernel import emit
from cellwise.backends.cpu.target import Target, host
from cellwise.plan.program import Program

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled program. Call it with the addresses of its pointers and sizes; the interpreter lock is let go."""

    program: Program
    call: Any
    engine: Any  # keeps the code in memory


def object_code(program: Program, element_bytes: int, target: Target) -> bytes:
    """The kernel as an object file for `target`, from the cache if it was made before."""
    source = str(emit(program, element_bytes, target))
    return kept(source, target, lambda: _compiled(source, target))


def _compiled(source: str, target: Target) -> bytes:
    module = llvm.parse_assembly(source)
    module.verify()
    machine = target.machine()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def load(program: Program, code: bytes) -> Kernel:
    """Make the code of an object file callable."""
    backing = llvm.parse_assembly(f'target triple = "{host().triple}"')
    engine = llvm.create_mcjit_compiler(backing, host().machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Kernel(program, _SIGNATURE(engine.get_function_address(program.name)), engine)
