"""A training that ends in the middle of an epoch, however it ends, goes on from there to the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from regression import SETTINGS, Clock, Line, assert_same_bits, run
from safetensors.torch import load_file
from torch import Tensor, nn

from cellwise.tasks.errors import RunFolderError, TrainingInterrupted
from cellwise.tasks.training.history import read_history
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.run_folder import LAST, Checkpoint, RunFolder, open_run


class Slow(Line):
    """Every step takes half a minute by a clock of its own."""

    def __init__(self, clock: Clock, fail_at: tuple[int, int] | None = None) -> None:
        super().__init__(fail_at, SystemExit(9))
        self.clock = clock

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.model.training:
            self.clock.now += 30
        return super().loss(batch)


def within(folder: Path) -> dict[str, float]:
    about = RunFolder(folder).read_tensors(LAST).about
    return {"epochs": len(about["epochs"]), **about.get("within", {})}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


@pytest.mark.parametrize(("epoch", "step", "saved"), [(1, 3, 2), (3, 2, 2), (3, 3, 2), (4, 0, 0)])
def test_a_run_that_ends_without_a_word_lost_no_more_than_a_minute(
    epoch: int, step: int, saved: int, whole: Path, tmp_path: Path
) -> None:
    clock = Clock()
    with pytest.raises(SystemExit):  # nothing is saved on the way out, as with kill -9
        run(tmp_path / "run", line=Slow(clock, (epoch, step)), clock=clock)
    there = within(tmp_path / "run")
    assert (there["epochs"], there.get("steps", 0)) == (epoch - 1, saved)
    torch.manual_seed(99)
    history, _ = run(tmp_path / "run")
    assert history.resumed_after == epoch - 1
    assert_same_bits(tmp_path / "run", whole)
    expected = read_history(RunFolder(whole))
    assert expected is not None
    assert [(e.loss, e.metrics) for e in history.epochs] == [(e.loss, e.metrics) for e in expected.epochs]


def test_nothing_is_saved_within_an_epoch_of_less_than_a_minute(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "run", line=Line((1, 3), SystemExit(9)))
    assert not RunFolder(tmp_path / "run").is_started


class Tied(Line):
    """One weight has two names."""

    def __init__(self, fail_at: tuple[int, int] | None = None) -> None:
        super().__init__(fail_at, SystemExit(9))
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.3), nn.Linear(3, 3), nn.Linear(3, 1))
        self.model[2].weight = self.model[0].weight


def test_a_weight_of_two_names_is_averaged_under_both(tmp_path: Path) -> None:
    path = tmp_path / "run/best.safetensors"
    with pytest.raises(SystemExit):
        run(tmp_path / "run", line=Tied((3, 0)))
    written = load_file(path)
    path.unlink()  # as if a kill had come before it was written
    with pytest.raises(SystemExit):
        run(tmp_path / "run", line=Tied((3, 0)))
    again = load_file(path)
    assert written.keys() == again.keys() >= {"0.weight", "2.weight"}
    assert all(torch.equal(written[name], again[name]) for name in written)


def test_accumulated_steps_resume_in_the_middle_too(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=3, warmup=2, patience=0, accumulate=2)
    run(tmp_path / "whole", settings)
    clock = Clock()
    with pytest.raises(SystemExit):
        run(tmp_path / "run", settings, Slow(clock, (2, 3)), clock)
    assert within(tmp_path / "run")["steps"] == 1
    run(tmp_path / "run", settings)
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


# --- processes that are really killed ---------------------------------------------------------------------------------

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import regression
from cellwise.tasks.errors import TrainingInterrupted
from cellwise.tasks.training import loop
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.run_folder import open_run
loop.SAVE_EVERY = {every}

class Told(Silent):
    def step(self, epoch, loss):
        print("step", epoch, flush=True)
        {then}

line = regression.Line()
folder = open_run(Path({folder!r}), "line", {{"seed": 3}}, "data")
try:
    loop.train(line.model, line, regression.SETTINGS, folder, Told())
except TrainingInterrupted as stop:
    print(stop, flush=True)
    sys.exit(stop.status)
"""


def started(folder: Path, then: str = "time.sleep(0.02)", every: float = 0.0) -> subprocess.Popen[str]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), then=then, every=every)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen[str], epoch: int, count: int) -> None:
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line == f"step {epoch}\n"
        if seen == count:
            return
    raise AssertionError("the training ended before")


def test_kill_in_the_middle_of_an_epoch(whole: Path, tmp_path: Path) -> None:
    process = started(tmp_path / "run")
    wait_for_step(process, 3, 3)  # what it says of a step comes after that step is saved
    process.kill()
    process.communicate()
    there = within(tmp_path / "run")
    assert (there["epochs"], there["steps"]) >= (2, 3) and there["epochs"] < 6
    run(tmp_path / "run")
    assert_same_bits(tmp_path / "run", whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_where_it_came(number: int, status: int, whole: Path, tmp_path: Path) -> None:
    process = started(tmp_path / "run", every=1e9)
    wait_for_step(process, 3, 2)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0].splitlines()[-1]
    assert process.returncode == status
    there = within(tmp_path / "run")
    steps = f", and {there['steps']} of the 4 steps of this one" if "steps" in there else ""
    assert said == (
        f"stopped in epoch {there['epochs'] + 1}; {there['epochs']} epochs are saved in {tmp_path / 'run'}{steps}; "
        "the same command resumes from there"
    )
    assert there["epochs"] >= 2
    run(tmp_path / "run")
    assert_same_bits(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: int, tmp_path: Path) -> None:
    process = started(tmp_path / "run", then="epoch == 2 and time.sleep(100)")
    wait_for_step(process, 2, 1)
    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):  # what shows the training is not interrupted
        process.wait(0.5)
    process.send_signal(number)
    process.communicate(timeout=60)
    # After a KeyboardInterrupt Python ends by the signal, unless code is made at exit: torch imports tabulate there.
    assert process.returncode in ((-number, 1) if number == signal.SIGINT else (-number,))


# --- signals inside this process ------------------------------------------------------------------------------------


class SendAt(Silent):
    """Sends a signal to its own process after a step."""

    def __init__(self, number: signal.Signals, epoch: int) -> None:
        self.number, self.at = number, epoch

    def step(self, epoch: int, loss: float) -> None:
        if epoch == self.at:
            self.at = 0
            signal.raise_signal(self.number)


def interrupted(folder: Path, number: signal.Signals = signal.SIGTERM, line: Line | None = None) -> str:
    line = line or Line()
    opened = open_run(folder, "line", {"seed": 3}, "data")
    with pytest.raises(TrainingInterrupted) as stop:
        train(line.model, line, SETTINGS, opened, SendAt(number, 2))
    assert stop.value.number == number
    return str(stop.value)


def test_the_handlers_of_before_are_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    interrupted(tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_handler_of_somebody_elses_stays(tmp_path: Path) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        line = Line()
        history = train(line.model, line, SETTINGS, None, SendAt(signal.SIGTERM, 2))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM] and len(history.epochs) == 6


def test_without_a_folder_the_interruption_is_as_it_came() -> None:
    line = Line()
    with pytest.raises(KeyboardInterrupt) as stop:
        train(line.model, line, SETTINGS, None, SendAt(signal.SIGINT, 2))
    assert str(stop.value) == ""


def test_a_training_in_another_thread_leaves_signals_alone() -> None:
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(len(run(None)[0].epochs)))
    thread.start()
    thread.join()
    assert made == [6]


def test_stopped_before_the_first_step_is_said(tmp_path: Path) -> None:
    said = r"stopped in epoch 1; nothing was saved in .* yet; the same command begins again"
    with pytest.raises(TrainingInterrupted, match=said):
        run(tmp_path / "run", line=Line((1, 0), KeyboardInterrupt()))
    with pytest.raises(
        TrainingInterrupted, match=r"stopped in epoch 1; 2 of the 4 steps of this one are saved"
    ):
        run(tmp_path / "run", line=Line((1, 2), KeyboardInterrupt()))
    assert read_history(RunFolder(tmp_path / "run")) is None  # some steps, no epoch


class StopInside(Line):
    """Ctrl-C in the middle of a step or of the validation."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part, self.left = part, 10

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        value = super().loss(
            batch
        )  # draws random numbers, which the step after the resumption must draw again
        self.left -= self.model.training == (self.part == "loss")
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return value


@pytest.mark.parametrize(("part", "epoch", "steps"), [("loss", 3, 1), ("validation", 10, 4)])
def test_an_interruption_inside_a_step_or_a_validation(
    part: str, epoch: int, steps: int, tmp_path: Path
) -> None:
    settings = TrainSettings(epochs=12, learning_rate=0.01, patience=0)
    run(tmp_path / "whole", settings)
    with pytest.raises(TrainingInterrupted, match=f"stopped in epoch {epoch}; .* and {steps} of the 4 steps"):
        run(tmp_path / "run", settings, StopInside(part))
    run(tmp_path / "run", settings)
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


class BestSecond(Line):
    """Its second epoch is the best."""

    def __init__(self, done: int = 0, fail_at: tuple[int, int] | None = None) -> None:
        super().__init__(fail_at, KeyboardInterrupt())
        self.values = iter([5.0, 1.0, 3.0, 3.0, 3.0, 3.0][done:])

    def validate(self) -> dict[str, float]:
        return {"error": next(self.values)}


def test_the_best_weights_are_not_those_of_the_epoch_in_progress(tmp_path: Path) -> None:
    _, whole = run(tmp_path / "whole", line=BestSecond())
    with pytest.raises(TrainingInterrupted, match=r"stopped in epoch 3; .* 3 of the 4 steps"):
        run(tmp_path / "run", line=BestSecond(fail_at=(3, 3)))
    history, line = run(tmp_path / "run", line=BestSecond(2))
    assert history.best.epoch == 2
    assert_same_bits(tmp_path / "run", tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(line.model.state_dict()[name], value)


def test_a_signal_during_the_last_save_is_heeded(whole: Path, tmp_path: Path) -> None:
    class Late(Silent):
        def epoch(self, epoch: object, best: object) -> None:
            if getattr(epoch, "epoch", 0) == 6:
                signal.raise_signal(signal.SIGTERM)

    line = Line()
    opened = open_run(tmp_path / "run", "line", {"seed": 3}, "data")
    with pytest.raises(TrainingInterrupted, match="stopped after the last epoch; 6 epochs are saved"):
        train(line.model, line, SETTINGS, opened, Late())
    history, _ = run(tmp_path / "run")
    assert history.resumed_after == 6
    assert_same_bits(tmp_path / "run", whole)


# --- what a folder may hold -------------------------------------------------------------------------------------------


def changed(folder: Path, change: Callable[[dict, dict], object]) -> None:
    saved = RunFolder(folder).read_tensors(LAST)
    tensors, about = dict(saved.tensors), json.loads(json.dumps(saved.about))
    change(tensors, about)
    RunFolder(folder).write_tensors(LAST, Checkpoint(tensors, about))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, a: a["within"].update(steps=-1), "has no epochs"),
        (lambda t, a: a["within"].update(steps=1.5), "has no epochs"),
        (lambda t, a: a["within"].update(loss="much"), "has no epochs"),
        (lambda t, a: a["within"].update(more=1), "has no epochs"),
        (lambda t, a: a.update(metric=3), "has no epochs"),
        (lambda t, a: a.update(seconds=None), "has no epochs"),
        (lambda t, a: a["epochs"][0]["metrics"].update(error="low"), "has no epochs"),
        (lambda t, a: a["epochs"][0].update(metrics={"other": 1.0}), "has no epochs"),
        (lambda t, a: t.pop("random/0/cpu"), "has no random numbers"),
        (lambda t, a: t.update({"random/0/cpu": torch.zeros(3, dtype=torch.uint8)}), "has no random numbers"),
        (lambda t, a: t.pop("model/0.weight"), "lacks weight '0.weight'"),
    ],
)
def test_damage_within_an_epoch_is_one_sentence(
    change: Callable[[dict, dict], object], sentence: str, tmp_path: Path
) -> None:
    interrupted(tmp_path / "run")
    changed(tmp_path / "run", change)
    with pytest.raises(RunFolderError, match=f"is damaged: .*{sentence}"):
        run(tmp_path / "run")


def test_a_run_that_watched_another_metric_is_not_gone_on_with(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    line = Line()
    line.metric = "accuracy"
    with pytest.raises(RunFolderError, match="watched the metric 'error', where lower is better"):
        run(tmp_path / "run", line=line)


def test_records_of_earlier_versions_are_read_and_gone_on_with(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "run", line=Line((4, 0), SystemExit(9)))

    def formerly(tensors: dict, about: dict) -> None:
        for record in about["epochs"]:
            record["validation"] = record.pop("metrics")["error"]
        for name in set(about) - {"epochs"}:
            del about[name]

    changed(tmp_path / "run", formerly)
    history = read_history(RunFolder(tmp_path / "run"))
    assert history is not None and history.watch.metric == "validation" and len(history.epochs) == 3
    run(tmp_path / "run")
    assert_same_bits(tmp_path / "run", whole)


def test_saving_costs_no_more_than_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves: list[str] = []
    write = RunFolder.write

    def counted(self: RunFolder, name: str, content: bytes) -> None:
        saves.append(name)
        write(self, name, content)

    monkeypatch.setattr(RunFolder, "write", counted)
    clock = Clock()

    class Quick(Line):
        def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            clock.now += 1.0
            return super().loss(batch)

    run(tmp_path / "run", TrainSettings(epochs=1, patience=0), Quick(sizes=(4,) * 200), clock)
    assert saves.count(LAST) == 200 // 50 + 1
