"""The machine that kernels are compiled for: its vector width, its registers, and LLVM's compiler for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Target:
    """A machine as the emitter sees it: LLVM's names for it, bytes of a vector, number of vector registers."""

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int

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
    """This machine."""
    _initialize()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    if features.get("avx512f") and features.get("avx512vl"):
        width, registers = 64, 32
    elif features.get("avx2") and features.get("fma"):
        width, registers = 32, 16
    else:
        width, registers = 16, 32 if triple.startswith(("aarch64", "arm64")) else 16
    return Target(triple, llvm.get_host_cpu_name(), features.flatten(), width, registers)
