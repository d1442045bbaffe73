"""Layers of bfloat16 on the kernels: bfloat16 in memory and in products, float32 sums, states and equations.

Guard pages and poisoned memory: `guarded_runs.py` has cases of this type, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from spans import spans_of
from test_accuracy import Own, layers_of, rows_of, same_bits
from test_accuracy import given as arguments_of
from test_products import PAIRS, Call
from torch import Tensor, nn

import cellwise
from cellwise import Cell, amax, sigmoid, tanh
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.cpu import threads
from cellwise.backends.cpu.bf16 import Bf16Memory
from cellwise.backends.cpu.bf16_products import bf16_routine, bf16_routine_name
from cellwise.backends.cpu.code import Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.products import TERM
from cellwise.backends.cpu.target import Target, host, with_vectors_of
from cellwise.backends.cpu.tiles import most_rows
from cellwise.backends.cpu.vectors import LOWERINGS
from cellwise.plan import state_sizes
from cellwise.testing import Arguments, Results, assert_as_good, cases_of, pooled, results, strategies
from cellwise.testing.compare import call_layer

BF16 = torch.bfloat16


def cast(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    states = tuple(state.to(dtype) for state in arguments.states)
    return replace(
        arguments, x=arguments.x.to(dtype), state=states if len(states) > 1 else states[0] if states else None
    )


def _call(layer: nn.Module, arguments: Arguments, x: Tensor, states: tuple[Tensor, ...]) -> Any:
    """Gradients arrive rounded to bfloat16 on all sides, also in float64."""
    output, finals = call_layer(layer, arguments, x, states)
    several = isinstance(output, tuple)
    outputs = output if several else (output,)
    if outputs[0].dtype is BF16:
        wide = [each.float() for each in outputs]
        return type(output)(*wide) if several else wide[0], tuple(final.float() for final in finals)
    for each in (*outputs, *finals):
        if each.requires_grad:
            each.register_hook(lambda gradient: gradient.to(BF16).to(gradient.dtype))
    return output, finals


def three(other: nn.Module, ours: nn.Module, arguments: Arguments) -> tuple[Results, Results, Results]:
    """Ours, the other layer's, and those in float64 of the same numbers of bfloat16."""
    arguments = cast(arguments, BF16)
    found, others = results(ours.to(BF16), arguments, _call), results(other.to(BF16), arguments, _call)
    return found, others, results(other.double(), cast(arguments, torch.float64), _call)


def check(
    cell: Any, steps: int, batch: int, inputs: int, hidden: int, draws: int = 2, **options: Any
) -> None:
    """Every result is at most twice as far from float64 as the other layer's in bfloat16."""
    drawn = []
    for seed in range(draws):
        torch.manual_seed(seed)
        other, ours = layers_of(cell, (inputs, hidden), **options)
        drawn.append(three(other, ours, arguments_of(other, steps, batch)))
    found, others, truths = zip(*drawn, strict=True)
    assert_as_good(pooled(found), pooled(others), pooled(truths))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden"),
    [(20, 9, 7, 33), (6, 3, 32, 512), (6, 4, 2048, 24), (100, 60, 1, 16), (500, 1, 3, 8)],
)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_result_is_as_near_as_torchs(
    cell: str, steps: int, batch: int, inputs: int, hidden: int
) -> None:
    check(cell, steps, batch, inputs, hidden)


def test_own_parameters_and_projections() -> None:
    check(Own, 20, 9, 5, 33)
    check("lstm", 12, 5, 24, 48, proj_size=31)


def test_gradients_of_weights_from_many_spans() -> None:
    """Added up in bfloat16 they were 3 and 6 times as far off as torch's in 64 and 8 steps at a time."""
    with spans_of(3):
        check("lstm", 300, 3, 16, 32, draws=1)


@pytest.mark.parametrize("name", ["gru-reset-before", "lstm-peephole", "mingru"])
def test_cases_of_ragged_and_reset_rows(name: str) -> None:
    """All forms of a call, those without a row too, against the equations one by one in bfloat16."""
    cell = cellwise.cells.get(name)
    drawn = []
    for case in cases_of(cell):
        ours, other = case.layer("cpu"), case.layer("reference")
        drawn.append(three(other, ours, case.arguments()))
    together = [
        {
            name: torch.cat([each[name].reshape(-1).double() for each in kind if name in each])
            for name in dict.fromkeys(name for each in kind for name in each)
        }
        for kind in zip(*drawn, strict=True)
    ]
    assert_as_good(*together)


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(cell=strategies.cells(gradient=False))
def test_random_cells(cell: Cell) -> None:
    """Outputs and final states; a random cell may make any error of a gradient as large as it likes."""
    torch.manual_seed(0)
    width = len(cell.graph.input_parts) * 19 or 5
    ours, other = (cellwise.Recurrent(cell, width, 19, backend=name) for name in ("cpu", "reference"))
    other.load_state_dict(ours.state_dict())
    states = tuple(torch.randn(1, 6, size) for size in state_sizes(cell.graph, 19))
    every = three(other, ours, Arguments(torch.randn(5, 6, width), states if len(states) > 1 else states[0]))
    kept = [{name: value for name, value in each.items() if "gradient" not in name} for each in every]
    assert_as_good(*kept)


class Largest(Cell):
    """The largest of values that a backward pass would rather compute again."""

    gates = ("a", "b")
    states = ("h",)

    def step(self, x: Any, h: Any) -> Any:
        n = tanh(x.a + h.a) * sigmoid(x.b)
        return n * amax(n * h + n) + 0.3 * h


def test_the_largest_of_a_row_is_found_again_among_rounded_values() -> None:
    layer = cellwise.Recurrent(Largest, 4, 37, backend="cpu", dtype=torch.bfloat16)
    layer(torch.randn(9, 16, 4, dtype=torch.bfloat16))[0].sum().backward()
    assert all(each.grad.isfinite().all() for each in layer.parameters())


def test_a_long_sum_does_not_stand_still() -> None:
    """A state that grows by a 512th of itself 512 times: in bfloat16 alone it would stay what it was."""

    class Sum(Cell):
        gates = ("a",)
        states = ("c",)

        def step(self, x: Any, c: Any) -> Any:
            return c + x.a

    layer = cellwise.Recurrent(Sum, 1, 16, bias=False, dtype=BF16, backend="cpu")
    nn.init.constant_(layer.weight_ih_l0, 1 / 512)
    x, state = torch.ones(512, 3, 1, dtype=BF16), torch.ones(1, 3, 16, dtype=BF16)
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            assert torch.equal(layer(x, state)[1], 2 * state)


# --- bits and rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", Own])
def test_bits_depend_on_nothing_but_the_row(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on NaN in other rows nor on their number from eight on, nor on threads; twice the same."""
    other, ours = layers_of(cell, (5, 50))
    layer, arguments = ours.to(BF16), cast(arguments_of(other, 9, 40), BF16)
    wanted, rows = results(layer, arguments), rows_of(layer, arguments, range(40))
    assert same_bits(results(layer, arguments), wanted)
    states = len(arguments.states)
    for first, count in ((3, 9), (10, 13), (1, 39)):
        found = rows_of(layer, arguments, range(first, first + count))
        for a, b in zip(found[: 1 + states], rows[: 1 + states], strict=True):
            assert torch.equal(a, b[:, first : first + count]), count
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    torch.set_num_threads(2)
    together = results(layer, arguments)
    assert all(torch.equal(together[name], wanted[name]) for name in wanted if "gradient" not in name)
    assert same_bits(results(layer, arguments), together)
    arguments.x[:, 1:] = float("nan")
    found = rows_of(layer, arguments, range(40))
    assert all(torch.equal(a[:, 0], b[:, 0]) for a, b in zip(found, rows, strict=True))


# --- the processor ----------------------------------------------------------------------------------------------------


def without_dots(target: Target) -> Target:
    return replace(target, dots=False)


TARGETS = {
    "dots": with_vectors_of(64),
    "avx512": without_dots(with_vectors_of(64)),
    "avx2": with_vectors_of(32),
    "sse": with_vectors_of(16),
}
HAS_DOTS = pytest.mark.skipif(not host().dots, reason="this processor has no AVX-512 BF16")
EVERY = [pytest.param(name, marks=HAS_DOTS) if name == "dots" else name for name in TARGETS]


class Bf16Call(Call):
    """Words of two numbers; behind a row of an odd length, and in rows that lie elsewhere, is NaN."""

    def term(self, length: int, limit: int) -> list[int]:
        words = -(-length // 2)
        rows = torch.randn(self.rows, length).to(BF16)
        weights = torch.randn(PAIRS, self.panels, length, self.width, self.lanes).to(BF16)
        self.sums += torch.einsum("rk,pkvl->prvl", rows.double(), weights[1].double()).numpy()
        packed = torch.zeros(PAIRS, self.panels, 2 * words, self.width, self.lanes).to(BF16)
        packed[:, :, :length] = weights
        packed = packed.unflatten(2, (words, 2)).permute(0, 1, 2, 4, 5, 3).contiguous()
        here, there = (torch.full((self.rows, length + 3), torch.nan).to(BF16) for _ in range(2))
        here[:limit, :length], there[limit:, :length] = rows[:limit], rows[limit:]
        here, there, packed = (each.view(torch.int16).numpy() for each in (here, there, packed))
        self.held += [here, there, packed]
        told = {"operand": here.ctypes.data, "first": there.ctypes.data, "limit": limit, "row": length + 3}
        told |= {"length": length, "run": 0, "weights": packed.ctypes.data}
        return [told[name] for name in TERM]


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("name", EVERY)
def test_sums_are_those_of_numpy(name: str, width: int) -> None:
    target = TARGETS[name]
    if width > 2 and target.registers == 16:
        return  # no machine of this kind has such panels
    run = load(bf16_routine_name(width, target), bf16_routine(width, target))
    for rows in (*range(1, most_rows(width, target) + 1), 13):
        for panels in (1, 3, 7):
            for lengths in ([], [1], [5, 0, 6], [33, 640]):
                call = Bf16Call(rows, panels, width, target.lanes(4), lengths, np.float32)
                run(call.table.ctypes.data, 1)
                told = f"{rows} {panels} {lengths}"
                np.testing.assert_allclose(call.room[:, :rows], call.sums, rtol=1e-4, atol=1e-4, err_msg=told)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "avx512"])
def test_every_processor_computes_the_same(name: str) -> None:
    """With its own instructions or by float32; sums are in another order, so that a rounding may fall the other way."""
    from test_cpu import _everything

    wanted = _everything(without_dots(host()), "gru-reset-before", 17, BF16)
    found = _everything(TARGETS[name], "gru-reset-before", 17, BF16)
    for key, value in wanted.items():
        distance = (found[key].double() - value.double()).norm()
        assert distance <= 2**-7 * value.double().norm() + 1e-30, key


@pytest.mark.parametrize("name", EVERY)
def test_numbers_are_rounded_as_torch_rounds(name: str) -> None:
    """Ties, the largest numbers, infinities, NaN: what an identity writes of c = x + 0."""
    bits = torch.arange(-(2**31), 2**31, 65_521 * 3, dtype=torch.int64).to(torch.int32)
    ties = torch.arange(0x3F80_0000, 0x3F88_0000, 0x8000, dtype=torch.int32)
    special = torch.tensor([0x7F80_0000, 0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, -1, 0x7F7F_FFFF])
    given = torch.cat([bits, ties, special.to(torch.int32)]).view(torch.float32)
    given = given[(given.abs() > 2e-38) | given.isnan() | (given == 0)]
    found, wanted = _narrowed(given, TARGETS[name]), given.to(BF16)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found[~found.isnan()].view(torch.int16), wanted[~found.isnan()].view(torch.int16))


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "avx512"])
def test_rough_functions_have_a_dozen_bits(name: str, function: str) -> None:
    given = torch.cat([torch.linspace(-30, 30, 4003), torch.logspace(-20, 2, 1001), torch.zeros(1)])
    given = torch.cat([given, torch.tensor([torch.inf, -torch.inf, torch.nan])])
    code = Code("rough", 4, TARGETS[name])
    code.v.rough, code.v.reciprocal = True, TARGETS[name].dots
    pointer, out = code.function.args
    code.store(LOWERINGS[function](code.v, code.load(pointer)), out)
    code.b.ret_void()
    run, lanes = load("rough", object_code(code.module, TARGETS[name])), code.v.lanes
    padded = torch.nn.functional.pad(given, (0, -len(given) % lanes))
    found = torch.empty_like(padded)
    for first in range(0, len(padded), lanes):
        run(padded[first:].data_ptr(), found[first:].data_ptr())
    found, wanted = found[: len(given)].double(), getattr(torch, function)(given.double())
    assert torch.equal(found.isnan(), wanted.isnan())
    error = ((found - wanted) / wanted.abs().clamp_min(1e-30)).nan_to_num()
    assert float(error.abs().max()) < 2**-13


def _narrowed(values: Tensor, target: Target) -> Tensor:
    code = Bf16Memory("narrow", 4, target)
    pointer, out = code.function.args
    code.store(code.b.load(pointer, typ=code.v.vector, align=4), out)
    code.b.ret_void()
    run, lanes = load("narrow", object_code(code.module, target)), code.v.lanes
    padded = torch.nn.functional.pad(values, (0, -len(values) % lanes))
    found = torch.empty_like(padded, dtype=BF16)
    for first in range(0, len(padded), lanes):
        run(padded[first:].data_ptr(), found[first:].data_ptr())
    return found[: len(values)]


# --- autocast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_under_autocast_results_are_as_near_and_of_the_dtypes_of_torchs(cell: str) -> None:
    torch.manual_seed(0)
    other, ours = layers_of(cell, (7, 20), num_layers=2, bidirectional=True)
    x = torch.randn(9, 6, 7)

    def call(layer: nn.Module, arguments: Arguments, x: Tensor, states: tuple[Tensor, ...]) -> Any:
        with torch.autocast("cpu", BF16):
            return call_layer(layer, arguments, x, states)

    arguments = Arguments(x)
    found, others = results(ours, arguments, call), results(other, arguments, call)
    assert {name: each.dtype for name, each in found.items()} == {n: each.dtype for n, each in others.items()}
    truth = results(other.double(), Arguments(x.double()))
    assert_as_good(found, others, truth)


def test_under_autocast_other_dtypes_and_own_cells() -> None:
    layer, x = cellwise.Recurrent(Own, 3, 20), torch.randn(5, 2, 3)
    plain = layer(x)[0]
    with torch.autocast("cpu", BF16):
        assert cellwise.explain(layer, x).chosen == "cpu"
        found = layer(x)[0]
        assert layer(x.to(BF16))[0].dtype is BF16
        stream = layer.stream(2)
        torch.testing.assert_close(stream(x[0]), plain[0])  # a stream computes in the dtype of its weights
    assert found.dtype is torch.float32 and torch.equal(found, found.to(BF16).float())
    torch.testing.assert_close(found, plain, rtol=0.02, atol=0.02)
    for elsewhere in (torch.autocast("cpu", torch.float16), torch.autocast("mps", torch.float16)):
        with elsewhere:
            assert torch.equal(layer(x)[0], plain)
    layer.double()
    with torch.autocast("cpu", BF16):
        assert torch.equal(layer(x.double())[0].float(), layer(x.double())[0].to(torch.float32))


def test_a_traced_program_gives_the_same_bits() -> None:
    layer, x = cellwise.GRU(3, 20, backend="cpu"), torch.randn(5, 2, 3)

    def cast_call(x: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            return layer(x)[0]

    assert torch.equal(torch.compile(cast_call, backend="aot_eager", fullgraph=True)(x), cast_call(x))


def test_kernels_of_a_type_are_apart() -> None:
    graph, compiler = cellwise.cells.get("rnn").graph, llvm_compiler(host())
    rows = {dtype: CellKernels(graph, dtype, compiler).padded(5) for dtype in (BF16, torch.float32)}
    lanes = host().lanes(4)
    assert rows == dict.fromkeys(rows, -(-5 // lanes) * lanes)
