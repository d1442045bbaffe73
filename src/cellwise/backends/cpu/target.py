"""The machine that kernels are compiled for: its vector width, its registers, and LLVM's compiler for it.

CELLWISE_VECTOR_BYTES=16, 32 or 64 makes kernels as for a machine with vectors so wide, so that one machine can test
them all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm

from cellwise.errors import CellwiseError

VARIABLE = "CELLWISE_VECTOR_BYTES"
# The x86 processors that have vectors so wide and none wider, by LLVM's name; and how many vector registers they have.
_X86 = {16: ("x86-64-v2", 16), 32: ("x86-64-v3", 16), 64: ("x86-64-v4", 32)}
WIDTHS = tuple(_X86)


@dataclass(frozen=True)
class Target:
    """A machine as the emitter sees it: LLVM's names for it, bytes of a vector, number of vector registers.

    `fused`: whether it multiplies and adds in one instruction. `dots`: whether it adds two products of bfloat16 numbers
    in one (AVX-512 BF16). `tiles`: how it multiplies bfloat16 numbers by tile registers (`amx.py`), by "instructions"
    of AMX or by "loops" that do what these would; empty if it does not.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fused: bool = True
    dots: bool = False
    tiles: str = ""

    def lanes(self, element_bytes: int) -> int:
        return self.vector_bytes // element_bytes

    @property
    def accumulators(self) -> int:
        """How many vectors a product may keep in registers, beside the few that it loads."""
        return self.registers - (4 if self.registers <= 16 else 8)

    def machine(self) -> llvm.TargetMachine:
        _initialize()
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, jit=True
        )


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def host() -> Target:
    """This machine, with vectors as wide as it has them or as CELLWISE_VECTOR_BYTES says.

    Raises:
        CellwiseError: the variable is none of `WIDTHS`.
    """
    asked = os.environ.get(VARIABLE)
    if not asked:
        return _this_machine()
    if asked not in map(str, WIDTHS):
        raise CellwiseError(f"{VARIABLE} is {asked!r}; it must be 16, 32 or 64, or not set.")
    return with_vectors_of(int(asked))


def with_vectors_of(vector_bytes: int) -> Target:
    """This machine, as if its vectors were so wide.

    Narrower ones than it has get the code of a machine that has no wider ones. Of wider ones LLVM makes several.
    """
    own = _this_machine()
    name, registers = _X86[vector_bytes]
    if not own.triple.startswith("x86_64"):
        return replace(own, vector_bytes=vector_bytes)
    if vector_bytes < own.vector_bytes:
        return Target(own.triple, name, "", vector_bytes, registers, fused=vector_bytes > min(WIDTHS))
    return (
        own
        if vector_bytes == own.vector_bytes
        else replace(own, vector_bytes=vector_bytes, registers=registers)
    )


@cache
def _this_machine() -> Target:
    _initialize()
    features = llvm.get_host_cpu_features()
    triple, cpu, flat = llvm.get_process_triple(), llvm.get_host_cpu_name(), features.flatten()
    if triple.startswith(("aarch64", "arm64")):
        return Target(triple, cpu, flat, 16, 32)
    if features.get("avx512f") and features.get("avx512vl"):
        return Target(triple, cpu, flat, 64, 32, dots=bool(features.get("avx512bf16")))
    fused = bool(features.get("fma"))
    if features.get("avx2") and fused:
        return Target(triple, cpu, flat, 32, 16)
    return Target(triple, cpu, flat, 16, 16, fused)
