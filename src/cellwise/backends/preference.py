"""What "auto" takes on CPU tensors where torch's operator and the kernels can both run a call: the faster one.

Which one that is depends on the call, and is estimated from measurements (`cost_model.py`). The kernels are taken where
they are faster by more than the estimate is uncertain: taken wrongly they would make a converted model slower than it
was, while torch's operator never does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from cellwise.backends.base import CallContext, LayerSpec, Workload
from cellwise.backends.cost_model import (
    CPU,
    INFER,
    MEASURED_THREADS,
    NATIVE,
    RECORD,
    TRAIN,
    Key,
    LayerSize,
    Model,
    models,
)
from cellwise.cells.gru import GRU
from cellwise.cells.lstm import LSTM
from cellwise.cells.rnn import RNN


@dataclass(frozen=True)
class Preference:
    """A backend, and why, as the end of a sentence."""

    backend: str
    reason: str


_TRACED = Preference(
    "cpu", "one call in a compiled graph, where torch's operator would be unrolled step by step"
)
_UNKNOWN = Preference("cpu", "one operator for all sizes, and these are not known")
_MODES = {INFER: "inference", RECORD: "a recorded forward pass", TRAIN: "training"}
# The kernels are to be faster by so much, and by so many times the uncertainty of the estimate; and by more with two
# threads, for which the estimates of one were checked, and with those for which nothing was measured.
_LEAST_GAIN, _CAUTION, _TWO, _MORE = 0.04, 0.5, 0.1, 0.2


def preferred(stack: LayerSpec, context: CallContext, workload: Workload | None) -> Preference | None:
    """What to take where torch's operator and the kernels can both run the call; None where nothing was measured.

    Args:
        workload: None where sizes are no numbers, as in a program that is traced.
    """
    if context.device.type != "cpu" or context.autocast not in (None, torch.bfloat16):
        return None
    if context.traced or workload is None:
        return _TRACED if context.traced else _UNKNOWN
    layers, threads = _layers(stack, workload), workload.threads
    estimates = [
        (mode, model.ratio(layers, threads), margin_of(model.uncertainty_at(layers), threads))
        for mode in _modes(workload)
        if (model := _model(stack, context, workload, mode)) is not None
    ]
    if not estimates:
        return None
    # What gains least decides: of a call that is recorded, only the caller knows whether it is a training step.
    mode, ratio, margin = min(estimates, key=lambda each: each[1] / each[2])
    return Preference(CPU if ratio > margin else NATIVE, _reason(stack, workload, mode, ratio, margin))


def margin_of(uncertainty: float, threads: int = 1) -> float:
    """How many times as long torch's operator has to take before the kernels are taken."""
    beyond_one = 0 if threads == 1 else _TWO if threads <= MEASURED_THREADS else _MORE
    return math.exp(_LEAST_GAIN + _CAUTION * uncertainty + beyond_one)


def _modes(workload: Workload) -> tuple[str, ...]:
    if not workload.recorded:
        return (INFER,)
    return (TRAIN,) if workload.training else (RECORD, TRAIN)


def _layers(stack: LayerSpec, workload: Workload) -> list[LayerSize]:
    """Every layer and direction of a stack."""
    T, B, N = (max(1, each) for each in workload[:3])  # nothing to do takes a call, too
    below = (stack.proj_size or stack.hidden_size) * stack.directions
    widths = [stack.input_size] + [below] * (stack.num_layers - 1)
    return [LayerSize(T, B, N, width, stack.hidden_size) for width in widths for _ in range(stack.directions)]


def _model(stack: LayerSpec, context: CallContext, workload: Workload, mode: str) -> Model | None:
    """The model of the calls that are most like this one."""
    family = family_of(stack)
    if family is None:
        return None
    known = models()
    # Of a processor with narrower vectors than were measured, those nearest to it.
    widths = {key.vectors for key in known}
    vectors = max((each for each in widths if each <= vector_bytes()), default=min(widths, default=0))
    number = context.dtype if context.dtype is torch.float64 else context.autocast or context.dtype
    if number is torch.bfloat16 and not multiplies_bfloat16():
        return None
    dtype = str(number).removeprefix("torch.")
    return known.get(Key(vectors, family, dtype, workload.ragged, mode))


def family_of(stack: LayerSpec) -> str | None:
    """The calls that a call is measured with, by the cell's equations; None if there are none."""
    family = _families().get(stack.graph.fingerprint)
    # Torch projects in a loop of its own.
    return f"{family}_projected" if family and stack.proj_size else family


@cache
def _families() -> dict[str, str]:
    cells = (
        ("lstm", LSTM()),
        ("gru", GRU()),
        ("rnn_tanh", RNN(nonlinearity="tanh")),
        ("rnn_tanh", RNN(nonlinearity="relu")),  # measured to differ by no more than two runs do
    )
    return {cell.graph.fingerprint: family for family, cell in cells}


@cache
def vector_bytes() -> int:
    """Of the vectors that torch computes with, and on the same processor the kernels."""
    return {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 16)


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor does so as the measured one: with AVX-512 BF16, and without AMX, which torch would use."""
    # newer than the oldest torch that is supported, where torch's operators then stay
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(has.get("avx512_bf16")) and not has.get("amx_bf16")


def _reason(stack: LayerSpec, workload: Workload, mode: str, ratio: float, margin: float) -> str:
    T, B, *_ = workload
    call = f"T={T}, B={B}, D={stack.input_size}, H={stack.hidden_size}"
    call += ", ragged rows," if workload.ragged else ""
    call += f" in {_MODES[mode]}"
    if workload.threads > 1:
        call += f" on {workload.threads} threads, estimated from one"
    if ratio > margin:
        said = f"{ratio:.1f} times as fast as torch's operator"
    elif ratio < 1 / margin:
        said = f"{1 / ratio:.1f} times as fast as the kernels"
    else:
        said = f"about as fast as the kernels (they would be {ratio:.2f} times as fast)"
    return f"by measurements {said} for {call}"
