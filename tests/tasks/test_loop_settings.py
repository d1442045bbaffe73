"""What the training loop can be told: metrics with a direction, accumulation, a budget in time, a device, autocast."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from regression import Clock, Line, run
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.errors import OptionError, TrainingError
from cellwise.tasks.forecasting.stretches import Batch
from cellwise.tasks.training.device import choose_device, moved
from cellwise.tasks.training.history import Epoch, Watch, read_history
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.progress import Lines
from cellwise.tasks.training.run_folder import RunFolder, open_run
from cellwise.tasks.training.state import TrainingState, Within

# --- updates ----------------------------------------------------------------------------------------------------------


def test_updates_on_a_cpu_are_adamws_in_one_pass_and_go_on_from_either_kind() -> None:
    """A run folder that was begun by an earlier version holds what the operators kept one by one."""
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(37, 5) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = TrainSettings(clip=1e9, average=0)
    watch = Watch("error", higher_is_better=False)
    state = TrainingState(ours, settings, watch)
    assert state.optimizer.defaults["fused"]
    plain = torch.optim.AdamW(
        theirs.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=False
    )

    def steps(first: int, end: int) -> None:
        for number in range(first, end):
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                one.grad = torch.randn(one.shape)
                other.grad = one.grad.clone()
            state.update(number, settings.learning_rate)
            plain.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)

    steps(0, 5)
    state.within = Within(5)
    kept = state.stored({})
    for number, parameter in enumerate(theirs.parameters()):
        for name, value in plain.state[parameter].items():
            kept.tensors[f"optimizer/{number}/{name}"] = value.clone()
    state = TrainingState(ours, settings, watch)
    state.restore(kept)
    steps(5, 10)


# --- metrics ----------------------------------------------------------------------------------------------------------


class Scripted(Line):
    """A task that is measured by an accuracy, beside something else."""

    metric = "accuracy"
    higher_is_better = True

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = iter(values)

    def validate(self) -> dict[str, float]:
        return {"seconds_of_speech": 3.0, "accuracy": next(self.values)}


def test_higher_is_better_where_the_task_says_so() -> None:
    line = Scripted(0.5, 0.7, 0.7, 0.6, 0.65, 0.99)
    history, _ = run(None, TrainSettings(epochs=6, patience=3), line)
    assert history.stopped_early and len(history.epochs) == 5
    assert history.best.epoch == 2  # the first of equals
    assert history.watch == Watch("accuracy", higher_is_better=True)


def test_a_metric_that_is_no_number_is_never_the_best() -> None:
    for values, best in (((math.nan, 0.2, 0.1), 2), ((0.2, math.nan, math.nan), 1)):
        history, _ = run(None, TrainSettings(epochs=3, patience=0), Scripted(*values))
        assert history.best.epoch == best


def test_every_metric_is_a_column_under_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = Scripted(0.5, 0.25)
    folder = open_run(tmp_path / "run", "line", {}, "data")
    history = train(line.model, line, TrainSettings(epochs=2, patience=0), folder, Lines(), clock=Clock())
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,accuracy,seconds_of_speech,learning_rate,seconds,stage"
    assert [row.split(",")[2] for row in rows[1:]] == ["0.5", "0.25"]
    said = capsys.readouterr().err.splitlines()
    loss = history.epochs[0].loss
    assert said[0] == f"epoch   1/2  loss {loss:.4f}  accuracy 0.5000  seconds of speech 3.0000  0.0 s *"
    assert not said[1].endswith("*")
    assert read_history(RunFolder(tmp_path / "run")) == history


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"recall": 0.1}, "the metric 'error' is to decide, but there are recall"),
        ({"error": 0.1, "loss": 0.1}, "a metric must not be called 'loss'"),
    ],
)
def test_metrics_that_cannot_be(metrics: dict[str, float], sentence: str) -> None:
    line = Line()
    line.validate = lambda: metrics  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=sentence):
        run(None, line=line)


@pytest.mark.parametrize(("goal", "epochs"), [(0.7, 2), (0.69, 2), (0.71, 4)])
def test_a_goal_ends_the_training_that_reaches_it(goal: float, epochs: int) -> None:
    history, _ = run(None, TrainSettings(epochs=4, patience=0, goal=goal), Scripted(0.5, 0.7, 0.1, 0.2))
    assert len(history.epochs) == epochs
    below = Watch("error").reaches(Epoch(1, 0.0, {"error": 0.5}, 0.0, 0.0), 0.5)
    assert below and not Watch("error").reaches(Epoch(1, 0.0, {"error": 0.51}, 0.0, 0.0), 0.5)


# --- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "accumulate", "large"),
    [
        ((8, 8, 8, 8, 8, 8), 2, (16, 16, 16)),
        ((8, 3, 5, 9, 1, 2), 3, (16, 12)),  # batches of different sizes: the mean over all their rows
        ((8, 3, 5, 9, 1), 2, (11, 14, 1)),  # the last step takes what is left
    ],
)
def test_accumulated_batches_equal_one_that_is_as_large(
    small: tuple[int, ...], accumulate: int, large: tuple[int, ...]
) -> None:
    def settings(count: int) -> TrainSettings:
        return TrainSettings(epochs=3, warmup=2, patience=0, accumulate=count)

    parts, line = run(None, settings(accumulate), Line(sizes=small, dropout=0.0))
    whole, other = run(None, settings(1), Line(sizes=large, dropout=0.0))
    for one, two in zip(parts.epochs, whole.epochs, strict=True):
        assert one.learning_rate == two.learning_rate  # steps are counted, not batches
        assert one.loss == pytest.approx(two.loss, rel=1e-5)
    for name, value in line.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name], rtol=1e-4, atol=1e-6)


# --- a budget in time -------------------------------------------------------------------------------------------------


class Timed(Line):
    """A step takes a second, a validation three."""

    def __init__(self, clock: Clock, steps: int = 4) -> None:
        super().__init__(sizes=(4,) * steps)
        self.clock = clock

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.clock.now += 1 if self.model.training else 3
        return super().loss(batch)


def test_a_budget_in_time_is_kept_and_used(tmp_path: Path) -> None:
    clock = Clock()
    settings = TrainSettings(epochs=None, minutes=2, warmup=0, patience=0)
    history, _ = run(None, settings, Timed(clock), clock)
    assert 115 < clock.now <= 120  # the last validation included
    assert len(history.epochs) == 17
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.95 * settings.learning_rate and rates[-1] < 0.01 * settings.learning_rate
    # Half of the time, half of the cosine.
    assert rates[8] == pytest.approx(settings.learning_rate / 2, rel=0.15)


@pytest.mark.parametrize("minutes", [1, 0.5])
def test_an_epoch_longer_than_the_budget_ends_early_and_is_validated(minutes: float) -> None:
    clock = Clock()
    history, _ = run(None, TrainSettings(epochs=None, minutes=minutes), Timed(clock, 1000), clock)
    assert len(history.epochs) == 1 and history.best.metrics
    assert 0.9 * 60 * minutes <= clock.now <= 60 * minutes


def test_epochs_bound_a_training_with_a_budget_too() -> None:
    clock = Clock()
    settings = TrainSettings(epochs=3, minutes=60, warmup=0, patience=0)
    history, _ = run(None, settings, Timed(clock), clock)
    assert len(history.epochs) == 3
    assert (
        history.epochs[-1].learning_rate < 0.05 * settings.learning_rate
    )  # the schedule is that of the epochs


def test_a_resumed_run_has_the_time_that_is_left(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=None, minutes=2, patience=0)
    clock = Clock()
    line = Timed(clock)
    line.fail_at, line.error = (8, 2), KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", settings, line, clock)
    spent = clock.now
    clock.now += 10_000  # the time between the sittings is not counted
    history, _ = run(tmp_path / "run", settings, Timed(clock), clock)
    assert 115 < spent + clock.now - 10_000 - spent <= 120
    assert history.resumed_after == 7 and len(history.epochs) == 17
    assert sum(epoch.seconds for epoch in history.epochs) == pytest.approx(clock.now - 10_000)


def test_a_budget_that_is_used_up_ends_the_epoch_that_had_begun(tmp_path: Path) -> None:
    clock = Clock()
    line = Timed(clock, 1000)
    line.fail_at, line.error = (1, 50), KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", TrainSettings(epochs=None, minutes=1), line, clock)
    history, _ = run(tmp_path / "run", TrainSettings(epochs=None, minutes=0.8), Timed(clock, 1000), clock)
    assert len(history.epochs) == 1 and history.best.metrics
    assert clock.now == 53  # no step more, one validation


def test_epochs_left_at_their_default_do_not_bound_a_budget() -> None:
    class Options: ...

    def settings(epochs: int | None, minutes: float | None) -> TrainSettings:
        options = Options()
        names = {"learning_rate": 0.1, "weight_decay": 0.0, "patience": 1, "seed": 0}
        for name, value in {**names, "epochs": epochs, "minutes": minutes}.items():
            setattr(options, name, value)
        return TrainSettings.of(options, 11)

    assert settings(20, None).epochs == settings(20, 5.0).epochs == 20  # a number that is given counts
    assert settings(None, None).epochs == 11  # else that of the data
    assert settings(None, 5.0).epochs is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"epochs": None}, "a training needs an end"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"minutes": 0.0}, "minutes must be above 0; got 0"),
        ({"minutes": math.nan}, "minutes must be above 0; got nan"),
        ({"accumulate": 0}, "accumulate must be at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, float | None], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        TrainSettings(**given)  # type: ignore[arg-type]


# --- devices ----------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(
            OptionError, match=f"device '{name}' was asked for, but torch finds none here; use"
        ):
            choose_device(name)
    for name in ("gpu", "meta", ""):
        with pytest.raises(OptionError, match=f"device '{name}' is none of auto, cpu, cuda"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda") and choose_device("cuda:1").index == 1
    with pytest.raises(OptionError, match="torch finds 2 CUDA devices, counted from 0"):
        choose_device("cuda:2")
    with pytest.raises(OptionError, match="was asked for, but torch finds none here"):
        run(None, TrainSettings(device="mps"))


def test_a_batch_is_moved_at_any_depth() -> None:
    class Pair(NamedTuple):
        x: Tensor
        name: str

    one, there = torch.ones(2), torch.device("meta")
    made = moved({"a": [one, (one, 3)], "b": Pair(one, "mine")}, there)
    assert made["a"][0].is_meta and made["a"][1][0].is_meta and made["a"][1][1] == 3
    assert isinstance(made["b"], Pair) and made["b"].x.is_meta and made["b"].name == "mine"
    batch = Batch(*(torch.ones(2, 2) for _ in fields(Batch)))
    assert moved(batch, there).future.is_meta and not batch.future.is_meta
    assert moved(one, torch.device("cpu")) is one


def test_the_model_comes_back_on_the_device_it_came_on(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[str] = []
    line = Line()
    to = line.model.to

    def watched(device: torch.device) -> nn.Module:
        moves.append(str(device))
        return to(device)

    monkeypatch.setattr(line.model, "to", watched)
    run(None, line=line)
    assert moves == ["cpu", "cpu"]


# --- autocast ---------------------------------------------------------------------------------------------------------


class Recurring(Objective[Tensor]):
    """Sums of a sequence, by a layer of ours."""

    metric = "error"
    steps = 8

    def __init__(self, cell: str, backend: str) -> None:
        torch.manual_seed(1)
        self.model = nn.ModuleDict({"layer": Recurrent(cell, 2, 8, backend=backend), "read": nn.Linear(8, 1)})
        self.seen: list[tuple[bool, torch.dtype]] = []

    def batches(self, epoch: int) -> list[Tensor]:
        x = torch.randn(self.steps, 6, 16, 2, generator=torch.Generator().manual_seed(epoch))
        return list(x)

    def loss(self, batch: Tensor) -> Tensor:
        output, _ = self.model["layer"](batch)
        made = self.model["read"](output[-1])
        self.seen.append((self.model.training, made.dtype))
        return nn.functional.mse_loss(made.float(), batch.sum((0, 2))[:, None])

    def validate(self) -> dict[str, float]:
        return {"error": float(self.loss(self.batches(99)[0]))}


@pytest.mark.parametrize("backend", ["cpu", "auto", "reference"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_autocast_learns_as_well(cell: str, backend: str) -> None:
    settings = TrainSettings(epochs=12, learning_rate=0.02, warmup=0, patience=0)
    half = TrainSettings(epochs=12, learning_rate=0.02, warmup=0, patience=0, autocast=True)
    plain, cast = Recurring(cell, backend), Recurring(cell, backend)
    errors = [
        train(each.model, each, how).best.metrics["error"] for each, how in ((plain, settings), (cast, half))
    ]
    assert errors[1] < 2 * errors[0] + 0.1 and errors[1] < 0.3 * 12
    assert (True, torch.bfloat16) in cast.seen and (True, torch.bfloat16) not in plain.seen
    assert (False, torch.bfloat16) not in cast.seen  # what is validated is what will predict
    assert all(value.dtype == torch.float32 for value in cast.model.state_dict().values())


def test_settings_of_an_estimator() -> None:
    given = {"epochs": 3, "learning_rate": 0.1, "weight_decay": 0.0, "patience": 1, "seed": 4}
    assert TrainSettings.of(SimpleNamespace(**given), 20) == TrainSettings(**given)
    more = {"minutes": None, "accumulate": 2, "device": "auto", "autocast": True}
    assert TrainSettings.of(SimpleNamespace(**given, **more), 20) == TrainSettings(**given, **more)
