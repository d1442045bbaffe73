"""What a training shows as it goes: a bar that fits its terminal, and leaves the terminal as it was."""

from __future__ import annotations

import io
import re

import pytest
from regression import Line

from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.progress import Bar, Lines, Silent, choose_progress

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """Takes what is drawn, as a terminal would."""

    def isatty(self) -> bool:
        return True

    @property
    def last_line(self) -> str:
        """The last state of the line that is drawn again and again, without its colours."""
        drawn = re.split(r"\r\x1b\[2K|\n", self.getvalue().removesuffix(f"\n{SHOW_CURSOR}"))
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn[-1]).rstrip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    def make(columns: int) -> Terminal:
        made = Terminal()
        monkeypatch.setattr("sys.stderr", made)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        return made

    return make


def epoch(number: int, value: float, name: str = "bits_per_character") -> Epoch:
    return Epoch(number, 1.5, {name: value}, learning_rate=0.01, seconds=1.0)


@pytest.mark.parametrize(
    ("columns", "name", "shown"),
    [
        (120, "bits_per_character", "loss 1.5000, bits per character 2.2500, best 2.1250"),
        (100, "error", "loss 1.5000, error 2.2500, best 2.1250"),
        (80, "error", "loss 1.5000, error 2.2500, best 2.1250"),
        (80, "bits_per_character", "bits per character 2.2500, best 2.1250"),
        (60, "error", "2.2500, best 2.1250"),
        (40, "error", "2.2500, best 2.1250"),
        (24, "error", "2.2500"),
    ],
)
def test_a_bar_shows_what_there_is_room_for_and_cuts_nothing(
    terminal, columns: int, name: str, shown: str
) -> None:
    screen, bar = terminal(columns), Bar()
    bar.start(12, 10, 0)
    for number, value in enumerate((2.5, 2.125, 2.25), 1):
        for _ in range(10):
            bar.step(number, 1.0)
        bar.epoch(epoch(number, value, name), epoch(2, 2.125, name) if number > 1 else epoch(1, 2.5, name))
    bar.end()
    line = screen.last_line
    assert len(line) <= columns
    assert "…" not in line
    assert line.startswith("epoch 3/12") and "25%" in line
    assert f" {shown}" in line
    assert ("━" in line) == (columns >= 100)
    assert ("left" in line) == (columns >= 60)


def test_no_epoch_is_shown_as_the_best_where_the_last_is_kept(
    terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, bar, lines = terminal(100), Bar(), Lines()
    bar.start(12, 10, 0)
    bar.epoch(epoch(1, 2.5, "error"), None)
    bar.end()
    assert "loss 1.5000, error 2.5000" in screen.last_line
    assert "best" not in screen.last_line
    lines.start(12, 10, 0)
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    lines.epoch(epoch(1, 2.5, "error"), None)
    lines.epoch(epoch(2, 2.5, "error"), epoch(2, 2.5, "error"))
    planned, chosen = log.getvalue().splitlines()
    assert "*" not in planned
    assert chosen.endswith(" *")


def test_before_the_first_validation_a_bar_shows_the_loss(terminal) -> None:
    screen, bar = terminal(40), Bar()
    bar.start(4, 2, 2)
    bar.step(2, 0.25)
    bar.end()
    assert screen.last_line.split() == ["epoch", "2/4", "38%", "loss", "0.2500"]


def test_a_budget_in_time_moves_the_bar_where_no_epochs_are_set(terminal) -> None:
    screen, bar = terminal(80), Bar()
    bar.start(None, 10, 0, seconds=0.0)  # nothing of it is left
    bar.step(1, 0.5)
    bar.end()
    assert screen.last_line.startswith("epoch 1 100% loss 0.5000")


def test_the_cursor_is_back_after_a_training_and_after_ctrl_c(terminal) -> None:
    settings = TrainSettings(epochs=2, patience=0)
    for task in (Line(), Line(fail_at=(2, 1), error=KeyboardInterrupt())):
        screen = terminal(80)
        if task.error is None:
            train(task.model, task, settings, None, Bar())
            assert "epoch 2/2 100%" in screen.last_line
        else:
            with pytest.raises(KeyboardInterrupt):
                train(task.model, task, settings, None, Bar())
        drawn = screen.getvalue()
        assert HIDE_CURSOR in drawn
        assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)


def test_who_shows_a_training(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Lines()
    assert choose_progress(own) is own
    terminal(80)
    assert isinstance(choose_progress(None), Bar)
    assert isinstance(choose_progress(False), Silent)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(choose_progress(None), Silent)
    assert isinstance(choose_progress(None, log=True), Lines)
    assert isinstance(choose_progress(True), Lines)
