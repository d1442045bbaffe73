"""A mode as a contest: what each side is called with, and what of it is compared first. One table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cellwise.bench import onnx
from cellwise.bench.check import problem
from cellwise.bench.settings import Shape
from cellwise.bench.sides import (
    AGAIN,
    OURS,
    PADDED,
    TORCH,
    Results,
    Sides,
    infer,
    infer_packed,
    products,
    stepper,
    train,
    train_packed,
)

_CHECKED_STEPS = 5


@dataclass(frozen=True, eq=False)
class Contender:
    """One side of a contest: what is timed, and what is compared; None where there is nothing to compare."""

    name: str
    work: Callable[[], object]
    results: Callable[[], Results] | None


@dataclass(frozen=True, eq=False)
class Contest:
    """Ours first, then those it is compared with; `flops` in the matrix products of one run of ours."""

    contenders: tuple[Contender, ...]
    flops: int

    def problem(self) -> str | None:
        """What is wrong with any other side's results beside ours, in words."""
        ours, *others = self.contenders
        found = _results(ours)
        for other in others:
            wrong = None if other.results is None else problem(found, _results(other))
            if wrong:
                return f"{wrong} (beside {other.name})"
        return None


def _results(contender: Contender) -> Results:
    assert contender.results is not None
    return {name: value.detach() for name, value in contender.results().items()}


def contest_of(mode: str, sides: Sides) -> Contest:
    """The contest of a mode; compiled kernels and sessions are made when it is first run."""
    return _CONTESTS[mode](sides)


def _batch_contest(run: Callable[..., Results], passes: int) -> Callable[[Sides], Contest]:
    def contest(sides: Sides) -> Contest:
        contenders = [
            _same(OURS, lambda: run(sides.ours, sides.batch)),
            _same(sides.their_name, lambda: run(sides.theirs, sides.batch)),
        ]
        runner = _session(sides) if run is infer else None
        if runner is not None:
            contenders.append(_same(onnx.NAME, onnx.inference(runner, sides.batch)))
        return Contest(tuple(contenders), passes * products(sides.ours.cell.graph, sides.shape))

    return contest


def _ragged_contest(
    run: Callable[..., Results], packed: Callable[..., Results], passes: int
) -> Callable[[Sides], Contest]:
    def contest(sides: Sides) -> Contest:
        batch = sides.batch
        torchs = packed if sides.their_name == TORCH else _with_lengths(run)
        contenders = (
            _same(OURS, lambda: run(sides.ours, batch, lengths=batch.lengths)),
            _same(sides.their_name, lambda: torchs(sides.theirs, batch)),
            # Right by `train`'s own check, and not equal: it goes on where rows have ended.
            Contender(PADDED, lambda: run(sides.ours, batch), None),
        )
        steps = int(batch.lengths.sum())
        return Contest(contenders, passes * products(sides.ours.cell.graph, sides.shape, steps))

    return contest


def _recompute_contest(sides: Sides) -> Contest:
    contenders = (
        _same(OURS, lambda: train(sides.ours, sides.batch)),
        _same(AGAIN, lambda: train(sides.again, sides.batch)),
    )
    return Contest(contenders, 3 * products(sides.ours.cell.graph, sides.shape))


def _with_lengths(run: Callable[..., Results]) -> Callable[..., Results]:
    return lambda layer, batch: run(layer, batch, lengths=batch.lengths)


def _step_contest(sides: Sides) -> Contest:
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        OURS: lambda: _stream(sides),
        sides.their_name: lambda: stepper(sides.theirs, sides.batch),
    }
    runner = _session(sides)
    if runner is not None:
        makers[onnx.NAME] = lambda: onnx.stepper(runner, sides.batch)
    x = sides.batch.x.detach()[0]
    contenders = tuple(_stepping(name, make, x) for name, make in makers.items())
    return Contest(contenders, products(sides.ours.cell.graph, sides.shape))


def _stepping(name: str, make: Callable[[], Callable[[Tensor], Tensor]], x: Tensor) -> Contender:
    timed = make()

    def several() -> Results:
        step = make()
        with torch.no_grad():
            return {f"output of step {t}": step(x * (t + 1)).clone() for t in range(_CHECKED_STEPS)}

    return Contender(name, lambda: timed(x), several)


def _stream(sides: Sides) -> Callable[[Tensor], Tensor]:
    stream = sides.ours.stream(sides.shape.B)
    stream.state = sides.batch.state
    return stream


def _same(name: str, work: Callable[[], Results]) -> Contender:
    return Contender(name, work, work)


def _session(sides: Sides) -> Any | None:
    return onnx.session(sides.theirs, torch.get_num_threads()) if onnx.version() else None


_CONTESTS: dict[str, Callable[[Sides], Contest]] = {
    "forward": _batch_contest(infer, 1),
    "train": _batch_contest(train, 3),
    "step": _step_contest,
    "recompute": _recompute_contest,
    "ragged": _ragged_contest(train, train_packed, 3),
    "ragged-forward": _ragged_contest(infer, infer_packed, 1),
}


def tiny(sides: Sides) -> Sides:
    """The same layers with two steps of two rows: enough to have their kernels compiled, and nothing to compute."""
    batch = sides.batch
    T, B = min(2, sides.shape.T), min(2, sides.shape.B)
    small = replace(
        batch,
        x=batch.x.detach()[:T, :B].clone().requires_grad_(),
        states=tuple(state.detach()[:, :B].clone().requires_grad_() for state in batch.states),
        weights=(batch.weights[0][:T, :B], *(weight[:, :B] for weight in batch.weights[1:])),
        lengths=batch.lengths[:B].clamp(max=T),
    )
    return replace(sides, shape=Shape(T, B, sides.shape.D, sides.shape.H), batch=small)
