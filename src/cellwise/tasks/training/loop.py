"""The training loop of every task.

A run is a pure function of its settings, seed and data. The batches of an epoch and the learning rate of a step depend
on nothing but the seed and the counters, and the state of the random numbers (dropout) is saved with the weights, so a
run that was killed and resumed ends in the same bits as one that was not, on the same machine with the same number of
threads and processes. A budget in time is the exception: what fits into it differs from run to run."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import nn

from cellwise.tasks.errors import TrainingError, TrainingInterrupted
from cellwise.tasks.training.checkpoint import save_state, take_up
from cellwise.tasks.training.device import choose_device
from cellwise.tasks.training.distributed import Processes, join
from cellwise.tasks.training.history import RESERVED, Epoch, History, Watch
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.progress import Progress, Silent
from cellwise.tasks.training.randomness import own_randomness, random_state, set_random_state
from cellwise.tasks.training.run_folder import RunFolder
from cellwise.tasks.training.schedule import Schedule, Stopwatch
from cellwise.tasks.training.settings import TrainSettings
from cellwise.tasks.training.signals import Signals
from cellwise.tasks.training.stage import TRAINING, Stage
from cellwise.tasks.training.state import TrainingState, Within, by_prefix

__all__ = ["TrainSettings", "torch_threads", "train"]

CARRIED = "carried "  # before the names of what an objective carries on, among the generators of a process
SAVE_EVERY = 50.0  # seconds: with steps of up to ten seconds, a kill costs at most a minute of work


def train(
    model: nn.Module,
    objective: Objective[Any],
    settings: TrainSettings,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
    *,
    stage: Stage = TRAINING,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Train `model` in place and leave it with its best weights, on the device that it came on.

    With a folder, the state is saved there after every epoch and at least once a minute, and what is saved there
    already is not done again. stage: which stage of the run this is. Under torchrun, all its processes must come here
    with the same arguments. Raises TrainingError if the loss stops being finite or another process fails; OptionError
    for a device that is not there; TrainingInterrupted, a KeyboardInterrupt, on Ctrl-C and SIGTERM.
    """
    processes = join(choose_device(settings.device))
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with Signals() as signals:
            loop = _Loop(
                model.to(processes.device), objective, settings, folder, processes, signals, stage, clock
            )
            loop.run((progress or Silent()) if processes.is_first else Silent())
    finally:
        model.to(home)
    return loop.history


class _Loop:
    """The state of one training, and the steps that change it."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective[Any],
        settings: TrainSettings,
        folder: RunFolder | None,
        processes: Processes,
        signals: Signals,
        stage: Stage,
        clock: Callable[[], float],
    ) -> None:
        if objective.steps < 1:
            raise TrainingError("there is nothing to train on: the data gives no batch")
        self.model, self.objective, self.settings, self.folder = model, objective, settings, folder
        self.processes, self.signals, self.stage = processes, signals, stage
        self.schedule = Schedule(settings, math.ceil(objective.steps / settings.accumulate))
        watch = Watch(objective.metric, objective.higher_is_better, objective.keeps_best)
        self.state = TrainingState(model, settings, watch)
        self.stopwatch = Stopwatch(clock)
        self.resumed_after = 0
        self._saved_at = 0.0
        self._saved_steps = 0  # of the epoch that is not over
        self._is_updating = False

    @property
    def history(self) -> History:
        """The record so far."""
        state = self.state
        return History(tuple(state.epochs), state.watch, self._stopped_early, self.resumed_after)

    @property
    def _stopped_early(self) -> bool:
        state, patience = self.state, self.settings.patience
        return bool(state.epochs and patience and len(state.epochs) - state.best.epoch >= patience)

    @property
    def is_over(self) -> bool:
        """Whether no further epoch will start. An epoch that has begun is finished first."""
        state, settings = self.state, self.settings
        if state.within.steps or not state.epochs:
            return False
        reached = settings.goal is not None and state.watch.reaches(state.epochs[-1], settings.goal)
        enough = settings.epochs is not None and len(state.epochs) >= settings.epochs
        return enough or reached or self._stopped_early or self._is_time_up

    @property
    def _is_time_up(self) -> bool:
        return self.schedule.is_time_up(self.state.seconds, self.state.validation_seconds)

    def run(self, progress: Progress) -> None:
        """Train to the end, from the state in the folder."""
        self.resume()
        state, steps = self.state, self.schedule.steps
        done = len(state.epochs) * steps + state.within.steps
        budget = self.schedule.budget
        more: dict[str, Any] = {} if budget is None else {"seconds": max(0.0, budget - state.seconds)}
        if not self.stage.is_first:
            more["stage"] = self.stage.name
        progress.start(self.settings.epochs, steps, done, **more)
        try:
            while not self.is_over:
                self.run_epoch(progress)
            with self._together():
                pass  # a signal that came during the last save
        except KeyboardInterrupt as stop:
            if self.folder is None or self.signals.is_ending:
                raise
            raise self._interrupted(stop, self.folder) from stop
        finally:
            progress.end()
        self.take_best()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """A block that may be interrupted, and that all processes leave in the same way."""
        with self.processes.together(), self.signals.interruptible():
            yield

    # --- an epoch -----------------------------------------------------------------------------------------------

    def run_epoch(self, progress: Progress) -> None:
        """Do an epoch, or what is left of it, and save it. A budget in time may end it before its last batch."""
        state, number = self.state, len(self.state.epochs) + 1
        began = state.seconds - state.within.seconds
        with own_randomness(self.processes.device, self.settings.seed, number, self.processes.rank):
            batches = self._batches(number)
            while not (state.within.steps and self._is_time_up):
                with self._together():
                    group = list(islice(batches, self.settings.accumulate))
                    loss = self.backward(group)
                if not group:
                    break
                loss = self.run_step(number, loss, began)
                if state.seconds - self._saved_at >= SAVE_EVERY:
                    self.save()
                with self.processes.together():
                    progress.step(number, loss)
            self.finish_epoch(number, began)
        with self.processes.together():
            newest = state.epochs[-1]
            progress.epoch(newest, state.best if newest.metrics and state.watch.keeps_best else None)

    def _batches(self, number: int) -> Iterator[Any]:
        """Those of an epoch that are not done yet; the generators then stand as after the last one."""
        with self._together():
            batches = iter(self.objective.batches(number))
            for _ in range(self.state.within.steps * self.settings.accumulate):
                next(batches, None)
        if self.state.within.steps and self.state.random:
            set_random_state(self.processes.device, self.state.random)
            carried = {
                name.removeprefix(CARRIED): value
                for name, value in self.state.random.items()
                if name.startswith(CARRIED)
            }
            self.objective.carry(carried)
        return batches

    def backward(self, group: list[Any]) -> float:
        """Gradients of this process's share of some batches, which together make a step; returns its share of the
        loss. Weighted so that the sum over batches and processes is the mean over all terms."""
        objective, processes = self.objective, self.processes
        self.model.train()
        self.state.optimizer.zero_grad(set_to_none=True)
        alone = len(group) == 1 and processes.world == 1
        weights = [1.0] if alone else [objective.weight(batch) for batch in group]
        total, loss = sum(weights), 0.0
        for batch, weight in zip(group, weights, strict=True):
            part = batch
            if processes.world > 1:
                part = objective.share(batch, processes.rank, processes.world)
                if part is None:
                    continue
                weight = objective.weight(part)
            portion = weight / total if total else 1 / (len(group) * processes.world)
            with self._autocast():
                value = portion * objective.loss(objective.to(part, processes.device))
            value.backward()
            loss += float(value.detach())
        return loss

    def _autocast(self) -> Any:
        if not self.settings.autocast:
            return nullcontext()
        return torch.autocast(self.processes.device.type, torch.bfloat16)

    def run_step(self, number: int, loss: float, began: float) -> float:
        """Make a step with the gradients of all processes; returns the loss over all of them."""
        state, schedule = self.state, self.schedule
        loss, state.seconds = self.processes.sum_gradients(
            self.model.parameters(), loss, self.stopwatch.seconds
        )
        step = (number - 1) * schedule.steps + state.within.steps
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in step {step + 1}; lower the learning rate (now "
                f"{self.settings.learning_rate:g}) or look for extreme values in the data"
            )
        rate = schedule.rate(step, schedule.progress(step, state.seconds, state.validation_seconds))
        self._is_updating = True
        state.update(step, rate)
        before = state.within
        state.within = Within(before.steps + 1, before.loss + loss, state.seconds - began, rate)
        state.random = random_state(self.processes.device)
        state.random |= {CARRIED + name: value for name, value in self.objective.carried().items()}
        self._is_updating = False
        return loss

    def finish_epoch(self, number: int, began: float) -> None:
        """Validate, record and save an epoch whose steps are done."""
        state, within = self.state, self.state.within
        if not within.steps:
            raise TrainingError(
                f"the data gave no batch in epoch {number}, though {self.objective.steps} were promised"
            )
        started = self.stopwatch.seconds
        with state.averaged_weights():
            with self._together():
                metrics = self.validate() if self.processes.is_first else {}
            weights = state.weights()
        now = self.stopwatch.seconds
        metrics, state.seconds, took = self.processes.first((metrics, now, now - started))
        state.validation_seconds = max(state.validation_seconds, took)
        loss, seconds = within.loss / within.steps, state.seconds - began
        state.epochs.append(Epoch(number, loss, metrics, within.learning_rate, seconds))
        state.within = Within()
        if state.best.epoch == number:
            state.best_weights = weights
        self.save()

    def validate(self) -> dict[str, float]:
        """The metrics of the model as it stands, the watched one first."""
        self.model.eval()
        with torch.no_grad():
            found = {name: float(value) for name, value in self.objective.validate().items()}
        watched = self.objective.metric
        if found and watched not in found:
            raise TrainingError(f"the metric {watched!r} is to decide, but there are {', '.join(found)}")
        for name in RESERVED:
            if name in found:
                raise TrainingError(
                    f"a metric must not be called {name!r}: metrics.csv has another column of that name"
                )
        return {name: found[name] for name in sorted(found, key=lambda name: name != watched)}

    # --- what is saved ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Take up what the folder holds. The first process reads it; the others get it from there."""
        state, processes, saved = self.state, self.processes, None
        with processes.together():
            if self.folder is not None and processes.is_first:
                saved = take_up(self.folder, self.stage, state)
        if processes.world > 1:
            saved = processes.first(saved)
            weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(processes.first(weights))
            if saved is not None and not processes.is_first:
                state.restore(saved)
        if saved is not None:
            everyones = by_prefix(by_prefix(saved.tensors).get("random", {}))
            state.random = everyones.get(str(processes.rank), {})
        self.resumed_after = len(state.epochs)
        self.stopwatch.before = self._saved_at = state.seconds
        self._saved_steps = state.within.steps

    def save(self) -> None:
        """Save the state as it stands between two steps, or at the end of an epoch."""
        if self.folder is None:
            return
        everyones = enumerate(self.processes.gather(self.state.random))
        random = {f"{rank}/{name}": value for rank, each in everyones for name, value in each.items()}
        with self.processes.together():
            if self.processes.is_first:
                save_state(self.folder, self.stage, self.state, random)
        self._saved_at, self._saved_steps = self.state.seconds, self.state.within.steps

    def _interrupted(self, stop: KeyboardInterrupt, folder: RunFolder) -> TrainingInterrupted:
        """Save what was done since the last save; the error that says what is saved."""
        state = self.state
        if state.within.steps and not self._is_updating:
            self.save()
        count, steps = len(state.epochs), self._saved_steps if state.within.steps else 0
        of = "" if self.stage.is_first else f" of the {self.stage.name}"
        saved = f"{count} epoch{'s are' if count != 1 else ' is'} saved in {folder.path}"
        if steps:
            done = f"{steps} of the {self.schedule.steps} steps of this one"
            saved = f"{saved}, and {done}" if count else f"{done} are saved in {folder.path}"
        elif not count:
            saved = f"nothing{of} was saved in {folder.path} yet"
        where = f"after the last epoch{of}" if self.is_over else f"in epoch {count + 1}{of}"
        number = stop.number if isinstance(stop, TrainingInterrupted) else signal.SIGINT
        is_lost = self.stage.is_first and not count and not steps
        later = "begins again" if is_lost else "resumes from there"
        return TrainingInterrupted(f"stopped {where}; {saved}; the same command {later}", number)

    def take_best(self) -> None:
        """Leave every process with the best weights."""
        weights = {name: value.cpu() for name, value in self.state.best_weights.items()}
        weights = self.processes.first(weights)
        if self.folder is None:
            self.model.load_state_dict(weights)
        else:
            self.folder.load_weights(self.model, weights, self.stage.weights)
        self.model.eval()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch inside the block, and restore it afterwards.

    Barriers between threads cost small networks more than the threads bring, and ten times more as soon as
    another program wants a core (measured: 0.16 s a step with one thread, 0.5 to 5 s with two on a busy
    2-core machine)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
