"""The kernels for a GPU without one: their text compiled by g++, every thread a fiber (`emulation.h`)."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from agreement import BOUNDS, Given, Normed, Several, Tempered, ThreeProducts, check
from emulated import Emulated

from cellwise import (
    Cell,
    Recurrent,
    clamp,
    cos,
    dropout,
    elu,
    erf,
    exp,
    floor,
    gelu,
    hard_sigmoid,
    hard_tanh,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    sqrt,
    stop_gradient,
    tanh,
    where,
)
from cellwise.backends import registry
from cellwise.backends.compiled import backward_pass
from cellwise.backends.cuda import layout as layouts
from cellwise.backends.cuda import stepwise_run
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.layout import Layout, trying
from cellwise.backends.cuda.machine import LateError
from cellwise.backends.reference.loop import run_direction
from cellwise.cells.rnn import RNN
from cellwise.testing import Case, cases_of

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")

EMULATED = Emulated(run_direction)
WIDE = Layout("wide", units=8, warps=2, hold=1)
WIDE_OF_64 = Layout("wide", units=16, warps=4, hold=1)
STEPWISE = Layout("stepwise", warps=1)
ROWWISE = Layout("rowwise", warps=1)
LOOPS = Layout("wide", units=8, warps=4, tiles=4, at_once=2, chunk=1)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, EMULATED))
    # Of seven steps four and two are recorded, and one is launched by itself.
    monkeypatch.setattr(stepwise_run, "RECORDED", (4, 2))
    # Cells without products run in three stretches of time.
    monkeypatch.setattr(layouts, "LONG", 4)
    monkeypatch.setattr(layouts, "STRETCH", 2)
    monkeypatch.setattr(layouts, "STRETCHES", 2)


class AllOps(Cell):
    """Every op once, where its derivative is no large number."""

    gates = ("a", "b")
    states = ("h",)

    def step(self, x, h):
        a, b = sigmoid(x.a + h.a), tanh(x.b + h.b)
        c = cos(b) - sin(a) + maximum(a, b) * minimum(a, 0.5) - clamp(b, -0.4, 0.3)
        d = log(1 + exp(b)) + softplus(b) / sqrt(1 + a) + abs(c)
        e = erf(b) + gelu(c) - silu(b) * elu(c) + hard_tanh(2 * b) * (1 + a) ** 1.5
        d = d + 0.2 * hard_sigmoid(3 * e) + 0.1 * floor(1.3 + a) * sign(0.3 + a)
        return tanh(-d * relu(c) + where(b <= 0.1, a, stop_gradient(a) * b)) * h + 0.5 * a


class Fading(Cell):
    """Affine in its state, by an input and a mask; what it adds is an output, too."""

    gates = ("n",)
    states = ("h",)
    inputs = ("d",)
    outputs = ("h", "n")

    def step(self, x, h, d):
        n = dropout(tanh(x.n), 0.5)
        return n, exp(-d) * h + n


def _case(cell: str | type[Cell], situation: str) -> Case:
    return next(case for case in cases_of(cell) if case.situation == situation)


@pytest.mark.parametrize(
    ("cell", "situation", "layout", "number"),
    [
        ("lstm", "plain", None, "float32"),
        ("lstm", "resets-ragged-both-ways", STEPWISE, "float32"),
        ("lstm", "seventeen-units", STEPWISE, "bfloat16"),
        ("lstm", "projected-two-layers-both-ways", STEPWISE, "float32"),
        ("lstm", "projected-ragged", STEPWISE, "float32"),
        ("lstm", "projected-resets", STEPWISE, "float16"),
        ("gru", "ragged-with-empty-rows", STEPWISE, "tf32"),
        ("gru-reset-before", "both-ways", STEPWISE, "float32"),
        ("lstm-peephole", "resets", STEPWISE, "float16"),
        (AllOps, "seventeen-units", STEPWISE, "float32"),
        (ThreeProducts, "ragged-none-full", STEPWISE, "float32"),
        ("lstm", "resets-ragged-both-ways", None, "bfloat16"),
        ("lstm", "resets-ragged-both-ways", WIDE, "float32"),
        ("lstm", "seventeen-units", LOOPS, "bfloat16"),
        ("gru", "ragged-with-empty-rows", WIDE, "tf32"),
        ("gru", "ragged", Layout("solo", warps=2), "float16"),
        ("gru", "ragged", Layout("lanes", warps=2, tiles=1), "float32"),
        ("lstm", "resets-ragged-both-ways", Layout("lanes", warps=2, tiles=2), "tf32"),
        (ThreeProducts, "seventeen-units", Layout("lanes", warps=4, tiles=4), "float32"),
        ("gru-reset-before", "both-ways", None, "float32"),
        ("gru-reset-before", "seventeen-units", WIDE, "float32"),
        ("lstm-peephole", "resets", WIDE, "float32"),
        ("mingru", "ragged", None, "float32"),
        ("mingru", "seventeen-units", Layout("solo", warps=1), "bfloat16"),
        ("indrnn", "resets-ragged", None, "float32"),
        (AllOps, "seventeen-units", None, "float32"),
        (ThreeProducts, "resets-ragged-both-ways", None, "float32"),
        (ThreeProducts, "seventeen-units", WIDE, "bfloat16"),
        (ThreeProducts, "ragged-none-full", LOOPS, "float32"),
        (Several, "plain", None, "float16"),
        (Several, "resets-ragged-both-ways", WIDE, "bfloat16"),
        (Several, "seventeen-units", LOOPS, "bfloat16"),
        (Several, "no-bias", STEPWISE, "tf32"),
        ("time-aware-lstm", "ragged-full", WIDE, "float32"),
        ("zoneout-lstm", "ragged-both-ways", None, "float16"),
        (Given, "plain", None, "bfloat16"),
        (Given, "resets-ragged-both-ways", WIDE, "float32"),
        (Given, "two-layers-no-bias-both-ways", STEPWISE, "bfloat16"),
        (Given, "ragged-none-full", STEPWISE, "float32"),
        (Fading, "ragged-both-ways", None, "float32"),
        ("layernorm-lstm", "seventeen-units", None, "bfloat16"),
        ("layernorm-gru", "seventeen-units", ROWWISE, "float16"),
        (Normed, "resets-ragged-both-ways", Layout("solo", warps=1), "float32"),
        (Normed, "seventeen-units", Layout("solo", warps=2), "tf32"),
        (Normed, "resets-ragged-both-ways", ROWWISE, "float32"),
        (Tempered, "resets-ragged-both-ways", None, "float32"),
        (Tempered, "seventeen-units", ROWWISE, "bfloat16"),
    ],
)
def test_a_case_agrees_with_float64(
    cell: str | type[Cell], situation: str, layout: Layout | None, number: str
) -> None:
    case = _case(cell, situation)
    if number in ("bfloat16", "float16") and layout and layout.kind == "solo":
        case = replace(case, hidden_size=29)
    if case.cell.inputs and not case.initial:  # rows of one number are shorter than those of many units
        case = replace(case, hidden_size=37)
    check(case, "emulated", number, layout)


@pytest.mark.parametrize(
    ("cell", "layout"),
    [
        *(("lstm", layout) for layout in (None, WIDE, STEPWISE)),
        *((RNN(nonlinearity="relu"), layout) for layout in (None, STEPWISE)),
        (Normed, ROWWISE),
    ],
    ids=str,
)
def test_a_case_agrees_where_steps_are_recomputed_and_gradients_taken_span_by_span(
    cell: str | type[Cell] | Cell, layout: Layout | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backward_pass, "span_rows", lambda *_: 4)
    backward_pass.backward_pass.cache_clear()  # which remembers the spans of each shape
    case = next(case for case in cases_of(cell) if case.situation == "resets-ragged")
    check(replace(case, recompute=True), "emulated", layout=layout)
    backward_pass.backward_pass.cache_clear()


@pytest.mark.parametrize(
    ("number", "layout"),
    [*((number, None) for number in BOUNDS), ("tf32", Layout("solo", warps=4)), ("float32", WIDE_OF_64)],
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_of_64_units_come_as_near_as_their_numbers_allow(
    cell: str, number: str, layout: Layout | None
) -> None:
    case = replace(_case(cell, "plain"), hidden_size=64, input_size=32, batch=16, steps=8)
    check(case, "emulated", number, layout, bound=BOUNDS[number])


def test_a_layout_of_more_blocks_than_multiprocessors_is_launched_all_the_same() -> None:
    check(replace(_case("lstm", "plain"), hidden_size=64), "emulated", layout=WIDE)


def test_a_block_that_waits_in_vain_gives_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Recurrent("gru", 3, 17, backend="emulated")
    x = torch.randn(3, 2, 3)
    with trying(WIDE, WIDE), torch.no_grad():
        wanted = layer(x)[0]
        with monkeypatch.context() as patched:
            patched.setattr(CudaRun, "grid", lambda *_: (1, 1))  # the blocks of other units are missing
            assert layer(x[:2])[0].isnan().any()
        with pytest.raises(LateError, match="gave up"):
            layer(x)
        torch.testing.assert_close(layer(x)[0], wanted)
