"""Training by several processes: what they agree on, and what only the first one does.

`torchrun --nproc-per-node 2 -m cellwise forecast fit ...` starts the same command several times. Every process builds
the same network and goes through the same batches; each computes the gradient of its share of a batch, the gradients
are summed, and each makes the same step. So the weights stay equal without being sent around. The first process alone
reads and writes the run folder, validates and reports.

A process that fails or is interrupted says so before the others would wait for it: see `Processes.together`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from cellwise.tasks.errors import TrainingError, TrainingInterrupted
from cellwise.tasks.training.rank import process_count

__all__ = ["Processes", "join"]

# Others wait as long while the first one validates. Those that wait for a dead one are ended by torchrun.
LONGEST_WAIT = timedelta(hours=12)
_FINE, _INTERRUPTED, _FAILED = 0, 1, 2


def join(device: torch.device) -> Processes:
    """The processes that torchrun has started, once all have come here; this one alone if there are no others.

    They stay together until they end. Raises TrainingError if torch cannot bring them together."""
    count = process_count()
    if count == 1:
        return Processes(0, 1, device)
    if not dist.is_available():
        raise TrainingError(
            "this torch was built without torch.distributed; start the training without torchrun"
        )
    if device.type == "cuda":
        own = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        device = torch.device("cuda", own)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        with _said("the processes could not be brought together"):
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return Processes(dist.get_rank(), count, device)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """An error of torch.distributed inside the block as one sentence."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0][:200]
        raise TrainingError(f"{what}: {reason}") from error


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `world`. With one process, nothing is sent."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def together(self) -> _Together:
        """A block that all leave in the same way: if one of them raises, all do.

        The others raise TrainingInterrupted if it was that, else a TrainingError that says which process failed.
        What is sent between processes must not be sent inside the block."""
        return _Together(self)

    def first(self, value: Any) -> Any:
        """What the first process has, given to all: numbers, texts, tensors in dicts and lists."""
        if self.world == 1:
            return value
        box = [value if self.is_first else None]
        with _lost_touch():
            dist.broadcast_object_list(box, 0, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of their numbers."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        with _lost_touch():
            dist.all_gather_object(box, value)
        return box

    def sum_gradients(self, parameters: Iterable[Tensor], loss: float, seconds: float) -> tuple[float, float]:
        """Add up the gradients of all processes in place; returns the sum of their losses, and the first one's clock.

        A weight whose gradient is None in every process keeps it so."""
        if self.world == 1:
            return loss, seconds
        weights = list(parameters)
        has = [float(weight.grad is not None) for weight in weights]
        numbers = [loss, seconds if self.is_first else 0.0, *has]
        counts: list[float] = self._sum(torch.tensor(numbers, dtype=torch.float64)).tolist()
        alike: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for weight, number in zip(weights, counts[2:], strict=True):
            if number:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                alike[weight.dtype].append(weight.grad)
        for gradients in alike.values():
            total = self._sum(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, summed in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(summed.view_as(gradient))
        return counts[0], counts[1]

    def _sum(self, value: Tensor) -> Tensor:
        value = value.to(self.device)
        with _lost_touch():
            dist.all_reduce(value)
        return value

    def _worst(self, outcome: int) -> int:
        value = torch.tensor(outcome, device=self.device)
        with _lost_touch():
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)


def _lost_touch() -> Any:
    return _said("another process of this training has ended without a word")


class _Together:
    """See `Processes.together`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = self._processes
        if processes.world == 1:
            return
        own = _FINE if error is None else _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED
        if processes._worst(own) == _FINE:
            return
        words = processes.gather(None if error is None else (own, getattr(error, "number", 2), f"{error}"))
        if error is None:
            raise _of_others(words)


def _of_others(words: Sequence[tuple[int, int, str] | None]) -> BaseException:
    """The error of a process that is fine itself, from the outcome, signal and text of each."""
    said = [(rank, *outcome) for rank, outcome in enumerate(words) if outcome is not None]
    rank, outcome, number, text = max(said, key=lambda each: each[1])
    if outcome == _INTERRUPTED:
        return TrainingInterrupted("", number)
    return TrainingError(f"process {rank} of this training failed: {text}")
