"""What compiled backends share runs any compiler: here one that interprets programs, beside that of LLVM."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from interpreter import InterpreterBackend
from spans import spans_of
from torch import Tensor

from cellwise import Recurrent, cells
from cellwise.backends import registry
from cellwise.backends.compiled import cell_kernels
from cellwise.backends.reference.loop import run_direction
from cellwise.testing import CASES, Case, cases_of
from cellwise.testing.checks import check_case

INTERPRETER = InterpreterBackend(run_direction)
NAME = INTERPRETER.name


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, INTERPRETER))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_agrees_with_the_naive_run(case: Case) -> None:
    check_case(case, NAME)


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_a_case_agrees_where_steps_are_recomputed_and_gradients_taken_span_by_span(case: Case) -> None:
    with spans_of(4):
        check_case(replace(case, recompute=True), NAME)


def test_it_is_the_interpreter_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpreter.Run.launch", lambda *_: pytest.fail("interpreted"))
    with pytest.raises(pytest.fail.Exception, match="interpreted"):
        check_case(cases_of("gru")[0], NAME)


@pytest.mark.parametrize("name", ["lstm", "gru-reset-before", "lstm-peephole"])
def test_second_derivatives(name: str) -> None:
    layer = Recurrent(name, 2, 3, backend=NAME, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, named, (x,), {"lengths": [2, 3]})[0]

    inputs = (x, *(each.detach().requires_grad_() for each in parameters.values()))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_a_key_names_it_beside_the_compiler_that_its_device_has() -> None:
    graph = cells.get("gru").graph
    key = cell_kernels.key_of(graph, False, False, NAME)
    assert key.startswith("rows2.fives by.interpreter|")
    assert cell_kernels.kernels_of(key, torch.float32, "cpu").compiler is INTERPRETER.compiler()
    other = cell_kernels.kernels_of(cell_kernels.key_of(graph, False, False, "cpu"), torch.float32, "cpu")
    assert type(other.compiler) is not type(INTERPRETER.compiler())


def test_a_compiled_program_runs_it() -> None:
    torch.compiler.reset()
    layer = Recurrent("gru", 3, 4, bidirectional=True, backend=NAME)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    found, wanted = [
        (y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]))
        for y in (run(x, lengths=torch.tensor([5, 2]))[0] for run in (compiled, layer))
    ]
    torch.testing.assert_close(found, wanted)


def test_a_compiler_for_another_device_brings_the_operators_there() -> None:
    code = """
import torch, cellwise
from cellwise.backends.compiled import compiler

def kernels():
    names = ("cellwise::direction", "cellwise::direction_backward")
    return [torch._C._dispatch_has_kernel_for_dispatch_key(name, "XPU") for name in names]

assert kernels() == [False, False]
compiler.register("other", "xpu", lambda: None)
assert kernels() == [True, True]
assert compiler.name_for("xpu") == "other" and compiler.name_for("cpu") == "cpu"
assert compiler.name_for("cuda") == "cuda"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
