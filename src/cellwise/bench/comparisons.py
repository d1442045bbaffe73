"""A mode as a comparison: what each implementation is called with, and which results are compared first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cellwise.bench import onnx
from cellwise.bench.check import mismatch
from cellwise.bench.implementations import (
    AGAIN,
    HALF,
    OURS,
    PADDED,
    TORCH,
    Implementations,
    Results,
    infer,
    infer_packed,
    products,
    stepper,
    train,
    train_packed,
)
from cellwise.bench.settings import Shape

_CHECKED_STEPS = 5


@dataclass(frozen=True, eq=False)
class Candidate:
    """One side of a comparison: what is timed, and what is compared; None where there is nothing to compare."""

    name: str
    work: Callable[[], object]
    results: Callable[[], Results] | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Ours first, then those it is compared with; `flops` in the matrix products of one run of ours."""

    candidates: tuple[Candidate, ...]
    flops: int

    def mismatch(self) -> str | None:
        """What is wrong with any other side's results beside ours, in words."""
        ours, *others = self.candidates
        found = _results(ours)
        for other in others:
            wrong = None if other.results is None else mismatch(found, _results(other))
            if wrong:
                return f"{wrong} (beside {other.name})"
        return None


def _results(candidate: Candidate) -> Results:
    assert candidate.results is not None
    return {name: value.detach() for name, value in candidate.results().items()}


def comparison_of(mode: str, implementations: Implementations) -> Comparison:
    """The comparison of a mode; compiled kernels and sessions are made when it is first run."""
    return _COMPARISONS[mode](implementations)


def _batch_comparison(run: Callable[..., Results], passes: int) -> Callable[[Implementations], Comparison]:
    def comparison(implementations: Implementations) -> Comparison:
        candidates = [
            _same(OURS, lambda: run(implementations.ours, implementations.batch)),
            _same(implementations.their_name, lambda: run(implementations.theirs, implementations.batch)),
        ]
        half = _in_half(implementations)
        if half is not None:
            # Other numbers: it is no less right, and not equal.
            candidates.append(Candidate(HALF, lambda: run(half.theirs, half.batch), None))
        runner = _session(implementations) if run is infer else None
        if runner is not None:
            candidates.append(_same(onnx.NAME, onnx.inference(runner, implementations.batch)))
        return Comparison(
            tuple(candidates), passes * products(implementations.ours.cell.graph, implementations.shape)
        )

    return comparison


def _ragged_comparison(
    run: Callable[..., Results], packed: Callable[..., Results], passes: int
) -> Callable[[Implementations], Comparison]:
    def comparison(implementations: Implementations) -> Comparison:
        batch = implementations.batch
        torchs = packed if implementations.their_name == TORCH else _with_lengths(run)
        candidates = (
            _same(OURS, lambda: run(implementations.ours, batch, lengths=batch.lengths)),
            _same(implementations.their_name, lambda: torchs(implementations.theirs, batch)),
            # Right by `train`'s own check, and not equal: it goes on where rows have ended.
            Candidate(PADDED, lambda: run(implementations.ours, batch), None),
        )
        steps = int(batch.lengths.sum())
        return Comparison(
            candidates, passes * products(implementations.ours.cell.graph, implementations.shape, steps)
        )

    return comparison


def _recompute_comparison(implementations: Implementations) -> Comparison:
    candidates = (
        _same(OURS, lambda: train(implementations.ours, implementations.batch)),
        _same(AGAIN, lambda: train(implementations.again, implementations.batch)),
    )
    return Comparison(candidates, 3 * products(implementations.ours.cell.graph, implementations.shape))


def _with_lengths(run: Callable[..., Results]) -> Callable[..., Results]:
    return lambda layer, batch: run(layer, batch, lengths=batch.lengths)


def _step_comparison(implementations: Implementations, gives_out: bool = False) -> Comparison:
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        OURS: lambda: _stream(implementations, gives_out),
        implementations.their_name: lambda: stepper(implementations.theirs, implementations.batch),
    }
    runner = _session(implementations)
    if runner is not None:
        makers[onnx.NAME] = lambda: onnx.stepper(runner, implementations.batch)
    x = implementations.batch.x.detach()[0]
    candidates = tuple(_stepping(name, make, x) for name, make in makers.items())
    return Comparison(candidates, products(implementations.ours.cell.graph, implementations.shape))


def _stepping(name: str, make: Callable[[], Callable[[Tensor], Tensor]], x: Tensor) -> Candidate:
    timed = make()

    def several() -> Results:
        step = make()
        with torch.no_grad():
            return {f"output of step {t}": step(x * (t + 1)).clone() for t in range(_CHECKED_STEPS)}

    return Candidate(name, lambda: timed(x), several)


def _stream(implementations: Implementations, gives_out: bool) -> Callable[[Tensor], Tensor]:
    stream = implementations.ours.stream(implementations.shape.B)
    stream.state = implementations.batch.state
    out = implementations.batch.x.new_empty(implementations.shape.B, implementations.shape.H)
    return (lambda x: stream(x, out)) if gives_out else stream


def _same(name: str, work: Callable[[], Results]) -> Candidate:
    return Candidate(name, work, work)


def _in_half(implementations: Implementations) -> Implementations | None:
    """Theirs in float16, if ours are in bfloat16 on a GPU: there cuDNN is up to eight times as fast in float16."""
    batch = implementations.batch
    if batch.x.is_cpu or batch.x.dtype is not torch.bfloat16 or implementations.their_name != TORCH:
        return None

    def half(tensor: Tensor) -> Tensor:
        return tensor.detach().half().requires_grad_(tensor.requires_grad)

    states, weights = tuple(map(half, batch.states)), tuple(map(half, batch.weights))
    theirs = copy.deepcopy(implementations.theirs).half()
    batch = replace(batch, x=half(batch.x), states=states, weights=weights)
    return replace(implementations, theirs=theirs, batch=batch)


def _session(implementations: Implementations) -> Any | None:
    x = implementations.batch.x
    if x.dtype is not torch.float32 or not x.is_cpu:
        return None
    return onnx.session(implementations.theirs, torch.get_num_threads()) if onnx.version() else None


_COMPARISONS: dict[str, Callable[[Implementations], Comparison]] = {
    "forward": _batch_comparison(infer, 1),
    "train": _batch_comparison(train, 3),
    "step": _step_comparison,
    "step-out": partial(_step_comparison, gives_out=True),
    "small-forward": _batch_comparison(infer, 1),
    "small-train": _batch_comparison(train, 3),
    "recompute": _recompute_comparison,
    "ragged": _ragged_comparison(train, train_packed, 3),
    "ragged-forward": _ragged_comparison(infer, infer_packed, 1),
}


def tiny(implementations: Implementations) -> Implementations:
    """The same layers with two steps of two rows: enough to have their kernels compiled, and nothing to compute.

    On a GPU, whose kernels are others for more rows, with two steps of all rows.
    """
    batch = implementations.batch
    T, B = min(2, implementations.shape.T), implementations.shape.B
    B = min(2, B) if batch.x.is_cpu else B
    small = replace(
        batch,
        x=batch.x.detach()[:T, :B].clone().requires_grad_(),
        states=tuple(state.detach()[:, :B].clone().requires_grad_() for state in batch.states),
        weights=(batch.weights[0][:T, :B], *(weight[:, :B] for weight in batch.weights[1:])),
        lengths=batch.lengths[:B].clamp(max=T),
    )
    return replace(
        implementations, shape=Shape(T, B, implementations.shape.D, implementations.shape.H), batch=small
    )
