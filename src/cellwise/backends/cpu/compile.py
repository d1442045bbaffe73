"""From an LLVM module to a function in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from cellwise.backends.compiled.cache import cached
from cellwise.backends.cpu.target import Target, host

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


# The inner loops come out as after LLVM's -O2, in a small part of its time: the emitter leaves little to improve.
_PASSES = ("loop_rotate", "instruction_combine")


def object_code(module: ir.Module, target: Target) -> bytes:
    """The module as an object file for `target`, from the cache if it was made before."""
    source = str(module)
    return cached(_made_from(source, target), lambda: compiled(source, target))


def object_code_by(emit: Callable[[], ir.Module], name: str, files: Sequence[Path], target: Target) -> bytes:
    """The same of what `emit` makes, which depends on nothing but `name`, the target and what stands in `files`.

    So what was compiled before need not even be emitted.
    """
    source = "\n".join([name, *(file.read_bytes().hex() for file in files)])
    return cached(_made_from(source, target), lambda: compiled(str(emit()), target))


def _made_from(source: str, target: Target) -> str:
    return "\n".join((llvmlite.__version__, repr(target), f"{source}; {' '.join(_PASSES)}"))


def compiled(source: str, target: Target) -> bytes:
    module, machine = optimized(source, target)
    return machine.emit_object(module)


def optimized(source: str, target: Target) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """LLVM's text of a module as it is after all passes, and what makes machine code of it."""
    module = llvm.parse_assembly(source)
    module.verify()
    machine = target.machine()
    passes = llvm.create_new_module_pass_manager()
    for name in _PASSES:
        getattr(passes, f"add_{name}_pass")()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=0))
    passes.run(module, builder)
    return module, machine


def load(name: str, *objects: bytes) -> Callable[[int, int], None]:
    """The function `name` of object files, callable with two addresses; it lets the interpreter lock go."""
    engine = _engine(*objects)
    function: Any = _SIGNATURE(address := engine.get_function_address(name))
    function.kernels = engine  # keeps the code in memory
    function.address = address  # where it begins, for `chain`
    return function


def _engine(*objects: bytes) -> Any:
    backing = llvm.parse_assembly(f'target triple = "{host().triple}"')
    kernels = llvm.create_mcjit_compiler(backing, host().machine())
    for code in objects:
        kernels.add_object_file(llvm.ObjectFileRef.from_data(code))
    kernels.finalize_object()
    return kernels
