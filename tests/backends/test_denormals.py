"""Subnormal numbers are zero within a kernel, and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from test_arm import ARM, COMPILER, EMULATOR, INSTALL, MISSING, Recorded

import cellwise
from cellwise import Cell, cells, log, sigmoid
from cellwise.backends.cpu.code import Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.denormals import flush_denormals, may_flush
from cellwise.backends.cpu.stages import PASSES
from cellwise.backends.cpu.target import Target, host

TINY = {4: 1e-40, 8: 1e-310}
KIND = {4: np.float32, 8: np.float64}


def _product(element_bytes: int, target: Target, flushing: bool) -> Code:
    """to[:] = a[:] * b[:], one vector of each; its pointers are a, b, to."""
    code = Code("product", element_bytes, target)
    pointers, _ = code.function.args
    restore = flush_denormals(code) if flushing else lambda: None
    a, b, to = (code.load_pointer(pointers, place) for place in range(3))
    code.store(code.b.fmul(code.load(a), code.load(b)), to)
    restore()
    code.b.ret_void()
    return code


# A subnormal operand, and a subnormal result of operands that are not.
def _operands(element_bytes: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    kind = KIND[element_bytes]
    a, b = np.full(lanes, TINY[element_bytes], kind), np.full(lanes, 4.0, kind)
    a[0], b[0] = np.sqrt(TINY[element_bytes]), np.sqrt(TINY[element_bytes])
    a[-1], b[-1] = 3.0, 5.0
    return a, b


@pytest.mark.parametrize("flushing", [False, True])
@pytest.mark.parametrize("element_bytes", [4, 8])
def test_a_kernel_flushes_and_leaves_its_thread_as_it_was(element_bytes: int, flushing: bool) -> None:
    code = _product(element_bytes, host(), flushing)
    run = load("product", object_code(code.module, host()))
    a, b = _operands(element_bytes, code.v.lanes)
    to = np.full_like(a, np.nan)
    pointers = np.array([each.ctypes.data for each in (a, b, to)], np.int64)
    run(pointers.ctypes.data, 0)
    assert np.all((to[:-1] == 0) == flushing)
    assert to[-1] == 15
    assert a[1] * b[1] > 0  # the thread multiplies subnormal numbers as before
    assert (
        torch.tensor(TINY[element_bytes], dtype=torch.float32 if element_bytes == 4 else torch.float64) * 2
        > 0
    )


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_every_shipped_cell_may_flush(name: str, which: str) -> None:
    assert may_flush(PASSES[which](cells.get(name).graph))


def test_what_makes_much_of_a_tiny_number_may_not() -> None:
    class LogGate(Cell):
        gates = ("z",)
        states = ("h",)

        def step(self, x, h):
            return h + log(sigmoid(x.z + h.z))

    graph = LogGate().graph
    assert not may_flush(PASSES["forward"](graph))
    assert not may_flush(PASSES["backward"](graph))


@pytest.mark.parametrize("name", ["gru", "mingru"])
def test_a_state_that_has_decayed_is_zero(name: str) -> None:
    layer = cellwise.Recurrent(name, 2, 5, backend="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        output, _ = layer(torch.zeros(3, 1, 2), torch.full((1, 1, 5), TINY[4]))
    assert torch.all(output == 0)


def test_arm_code_sets_its_register_and_puts_it_back() -> None:
    module = llvm.parse_assembly(str(_product(4, ARM, flushing=True).module))
    assembly = ARM.machine().emit_assembly(module).upper()
    assert assembly.count("MSR\tFPCR") == 2
    assert assembly.index("MSR\tFPCR") < assembly.index("FMUL") < assembly.rindex("MSR\tFPCR")


@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: {INSTALL}")
@pytest.mark.parametrize("flushing", [False, True])
def test_an_arm_kernel_flushes(flushing: bool, tmp_path: Path) -> None:
    code = _product(4, ARM, flushing)
    (tmp_path / "product.o").write_bytes(object_code(code.module, ARM))
    (tmp_path / "kernels.h").write_text("KERNEL(product)\n")
    driver = Path(__file__).with_name("arm_driver.c")
    made = tmp_path / "driver"
    subprocess.run(
        [COMPILER, "-static", "-I", tmp_path, driver, tmp_path / "product.o", "-o", made], check=True
    )
    a, b = _operands(4, code.v.lanes)
    call = Recorded(0, [bytes(24), a.tobytes(), b.tobytes(), bytes(a.nbytes)])
    call.addresses = [(0, 8 * place, 1 + place, 0) for place in range(3)]
    (tmp_path / "in").write_bytes(call.packed())
    subprocess.run([EMULATOR, made, tmp_path / "in", tmp_path / "out"], check=True)
    to = np.frombuffer((tmp_path / "out").read_bytes()[-a.nbytes :], np.float32)
    assert np.all((to[:-1] == 0) == flushing)
    assert to[-1] == 15
