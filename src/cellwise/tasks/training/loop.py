"""The training loop of every task.

A run is a pure function of its settings, seed and data. The batches of an epoch, the random numbers drawn
in it (dropout) and the learning rate of a step depend on nothing but the seed and the counters, so a run
that was killed and resumed ends in the same bits as one that was not, on the same machine with the same
number of threads."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cellwise.tasks.errors import TrainingError, TrainingInterrupted
from cellwise.tasks.training.progress import Epoch, Progress, Silent
from cellwise.tasks.training.run_folder import BEST, LAST, Checkpoint, RunFolder

__all__ = ["Learning", "TrainSettings", "Trained", "best_of", "epochs_of", "threads", "train"]

MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each weight, beside the number of its steps


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Schedule: `warmup` steps of linear rise, then a cosine that falls to zero at the last step. `average`:
    decay of the running mean of the weights, which is validated and kept instead of the weights themselves
    (0 switches it off). `patience`: epochs without a better validation before stopping (0: never). `clip`:
    largest norm of the gradient."""

    epochs: int = 20
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    warmup: int = 50
    average: float = 0.98
    clip: float = 1.0
    patience: int = 6
    seed: int = 0

    @classmethod
    def of(cls, estimator: Any) -> TrainSettings:
        """Those that a person gave to an estimator; the others as they are here."""
        names = ("epochs", "learning_rate", "weight_decay", "patience", "seed")
        return cls(**{name: getattr(estimator, name) for name in names})


class Learning(Protocol):
    """What a task gives to the loop."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""

    def batches(self, epoch: int) -> Iterable[Any]:
        """The batches of an epoch: a pure function of the epoch's number (the first is 1)."""

    def loss(self, batch: Any) -> Tensor:
        """A scalar to minimise."""

    def validate(self) -> float | None:
        """The model as it stands on what was held out: lower is better. None if nothing was."""


@dataclass(frozen=True)
class Trained:
    """What came of a training. The model then holds the best weights."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    stopped_early: bool
    resumed_after: int


def train(
    model: nn.Module,
    learning: Learning,
    settings: TrainSettings,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train `model` in place and leave it with its best weights.

    With a folder, every epoch is saved there, and what is saved there already is not done again.
    Raises TrainingError if the loss stops being finite; TrainingInterrupted on Ctrl-C.
    """
    loop = _Loop(model, learning, settings, folder)
    progress = progress or Silent()
    done = loop.resume()
    progress.start(settings.epochs, learning.steps, done)
    try:
        while not loop.is_over:
            loop.run_epoch(progress)
    except KeyboardInterrupt as stop:
        if folder is None:
            raise
        count = len(loop.epochs)
        saved = (
            f"{count} epochs are saved in {folder.path}"
            if count
            else f"nothing was saved in {folder.path} yet"
        )
        raise TrainingInterrupted(
            f"stopped in epoch {count + 1}; {saved}; the same command goes on from there"
        ) from stop
    finally:
        progress.end()
    loop.take_best()
    return Trained(tuple(loop.epochs), loop.best, loop.stopped_early, done)


class _Loop:
    """The state of one training: model, optimizer, averaged weights, epochs so far."""

    def __init__(
        self, model: nn.Module, learning: Learning, settings: TrainSettings, folder: RunFolder | None
    ) -> None:
        if learning.steps < 1:
            raise TrainingError("there is nothing to train on: the data gives no batch")
        self.model, self.learning, self.settings, self.folder = model, learning, settings, folder
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = (
            {name: p.detach().clone() for name, p in model.named_parameters()} if settings.average else {}
        )
        self.epochs: list[Epoch] = []
        self._best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Epoch:
        return best_of(self.epochs)

    @property
    def stopped_early(self) -> bool:
        patience = self.settings.patience
        return bool(self.epochs and patience and self.epochs[-1].epoch - self.best.epoch >= patience)

    @property
    def is_over(self) -> bool:
        return len(self.epochs) >= self.settings.epochs or self.stopped_early

    def run_epoch(self, progress: Progress) -> None:
        number, start, total = len(self.epochs) + 1, time.perf_counter(), 0.0
        with _own_randomness(self.settings.seed, number):
            for i, batch in enumerate(self.learning.batches(number)):
                value = self.run_step((number - 1) * self.learning.steps + i, batch)
                total += value
                progress.step(number, value)
            with self.averaged_weights():
                self.model.eval()
                with torch.no_grad():
                    validation = self.learning.validate()
                weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        rate = self.rate(number * self.learning.steps - 1)
        seconds = time.perf_counter() - start
        self.epochs.append(Epoch(number, total / self.learning.steps, validation, rate, seconds))
        if self.best.epoch == number:
            self._best_weights = weights
        self.save()
        progress.epoch(self.epochs[-1], self.best)

    def run_step(self, step: int, batch: Any) -> float:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.learning.loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in step {step + 1}; "
                f"lower the learning rate (now {self.settings.learning_rate:g}) or look for extreme values in the data"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        decay = min(self.settings.average, 1 - 1 / (step + 1))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(parameter, 1 - decay)
        return value

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        total, warmup = self.settings.epochs * self.learning.steps, self.settings.warmup
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / total))

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights inside the block, with its own after it."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters() if name in self.average}
        _put(self.model, self.average)
        try:
            yield
        finally:
            _put(self.model, own)

    def save(self) -> None:
        """Save an epoch. last.safetensors comes first, for the other files follow from it (see `resume`)."""
        if self.folder is None:
            return
        about = {"epochs": [asdict(epoch) for epoch in self.epochs]}
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{key}": value for key, value in state.items()}
        self.folder.write_tensors(LAST, Checkpoint(tensors, about))
        if self.best.epoch == len(self.epochs):
            self._save_best(self.folder)
        self.folder.write_metrics(asdict(epoch) for epoch in self.epochs)

    def _save_best(self, folder: RunFolder) -> None:
        folder.write_tensors(BEST, Checkpoint(self._best_weights, {"epoch": self.best.epoch}))

    def resume(self) -> int:
        """Take up what the folder holds; returns how many epochs that is.

        A kill can have come between the files of an epoch: then last.safetensors is ahead of the others, and they are
        written again."""
        folder = self.folder
        if folder is None or not folder.is_started:
            return 0
        saved = folder.read_tensors(LAST)
        self.epochs = folder.guarded(f"{LAST} has no epochs", lambda: _epochs_of(saved.about))
        parts = _by_prefix(saved.tensors)
        folder.load_weights(self.model, parts.get("model", {}), LAST)
        folder.check_weights(self.average, parts.get("average", {}), LAST)
        self.average = parts.get("average", {})
        self._resume_optimizer(folder, parts.get("optimizer", {}))
        if self.best.epoch == len(self.epochs):
            whole = self.model.state_dict() | self.average
            self._best_weights = {name: value.detach().clone() for name, value in whole.items()}
            self._save_best(folder)
        else:
            best = folder.read_tensors(BEST)
            if best.about.get("epoch") != self.best.epoch:
                raise folder.damaged(f"{BEST} is not of epoch {self.best.epoch}, the best one")
            self._best_weights = best.tensors
            folder.check_weights(self.model.state_dict(), self._best_weights, BEST)
        folder.write_metrics(asdict(epoch) for epoch in self.epochs)
        return len(self.epochs)

    def _resume_optimizer(self, folder: RunFolder, tensors: dict[str, Tensor]) -> None:
        there = {
            name.partition("/")[0] for name in tensors
        }  # a weight that no gradient reaches has no moments
        like: dict[str, Tensor] = {}
        for i, parameter in enumerate(self.model.parameters()):
            if str(i) in there:
                like |= {f"{i}/step": torch.tensor(0.0), **{f"{i}/{name}": parameter for name in MOMENTS}}
        folder.check_weights(like, tensors, LAST)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, _, key = name.partition("/")
            state.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def take_best(self) -> None:
        if self.folder is None:
            self.model.load_state_dict(self._best_weights)
        else:
            self.folder.load_weights(self.model, self._best_weights, BEST)
        self.model.eval()


def _epochs_of(about: dict[str, Any]) -> list[Epoch]:
    """The record of the epochs, numbered from 1. Raises ValueError, KeyError or TypeError if it is none."""
    epochs = [Epoch(**record) for record in about["epochs"]]
    for number, epoch in enumerate(epochs, 1):
        numbers = [epoch.loss, epoch.learning_rate, epoch.seconds]
        numbers += [] if epoch.validation is None else [epoch.validation]
        if epoch.epoch != number or not all(isinstance(each, int | float) for each in numbers):
            raise ValueError(f"record {number} is none of an epoch")
    if not epochs:
        raise ValueError("none is recorded")
    return epochs


def epochs_of(folder: RunFolder) -> tuple[Epoch, ...]:
    """The epochs that a run has saved; none for one that was saved after its training."""
    if not folder.is_started:
        return ()
    about = folder.read_tensors(LAST).about
    return tuple(folder.guarded(f"{LAST} has no epochs", lambda: _epochs_of(about)))


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest validation; the last one where nothing was held out, for a lower training
    loss proves nothing."""
    if epochs[-1].validation is None:
        return epochs[-1]
    return min(epochs, key=lambda epoch: (epoch.measure, epoch.epoch))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block.

    Barriers between threads cost small networks more than the threads bring, and ten times more as soon as
    another program wants a core (measured: 0.16 s a step with one thread, 0.5 to 5 s with two on a busy
    2-core machine)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_randomness(seed: int, epoch: int) -> Iterator[None]:
    """Random numbers that depend on the seed and the epoch only; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
        yield


@torch.no_grad()
def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])


def _by_prefix(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition("/")
        parts.setdefault(prefix, {})[rest] = value
    return parts
