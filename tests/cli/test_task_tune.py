"""`cellwise TASK tune`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellwise.tasks import CharacterModel
from cellwise.tasks.tuning.progress import TrialLines

pytest.importorskip("optuna")

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(30))
TUNE = ("text", "tune", "my whales.txt", "--epochs", "2", "--hidden-size", "4", "--embedding-size", "3")
HERE = Path("runs/my whales-gru.tune/search.json")


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my whales.txt").write_text(TEXT)
    return run


def test_a_line_a_trial_a_table_and_a_command_that_does_it(run) -> None:
    done = run(*TUNE, "--trials", "3")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("trial  ")]
    assert [line.split()[1] for line in lines] == ["0", "1", "2"]
    assert lines[0].endswith("the settings as given")
    title, _, *rows = done.stdout.splitlines()
    assert title.split()[:2] == ["trial", "default"] and {*title.split()[2:]} == {"1", "2"}
    assert max(map(len, done.stdout.splitlines())) <= 80
    table = {row[:18].rstrip(): row[18:].split() for row in rows}
    assert list(table) == [
        "bits per character", "length", "layers", "batch size", "learning rate", "weight decay",
        "epochs", "seconds",
    ]  # fmt: skip
    assert table["length"][0] == "100" and table["learning rate"][0] == "0.003", "the defaults come first"
    assert table["epochs"] == ["2"] * 3 and all(float(each) >= 0 for each in table["seconds"])
    figures = [float(each) for each in table["bits per character"]]
    assert figures[1:] == sorted(figures[1:])
    command = shlex.split(done.stderr.partition("the best settings: ")[2].strip())
    assert command[:4] == ["cellwise", "text", "fit", "my whales.txt"]
    assert run(*command[1:], "--out", "best").returncode == 0
    epochs = Path("best/metrics.csv").read_text().splitlines()[1:]
    assert min(float(row.split(",")[2]) for row in epochs) == pytest.approx(min(figures), rel=1e-3)


def test_out_fits_the_best_and_json_tells_all(run) -> None:
    done = run(*TUNE, "--trials", "2", "--out", "best", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["metric"] == "bits_per_character" and found["run"] == "best"
    assert [each["number"] for each in found["trials"]] == [0, 1]
    assert found["default"] == found["trials"][0]["value"] >= found["value"]
    fitted = CharacterModel.load("best")
    assert found["best"].items() <= fitted.get_params().items() and fitted.hidden_size == 4
    assert Path("best.tune/search.json").is_file() and not Path("runs").exists()
    refused = run(*TUNE, "--trials", "3", "--out", "best")
    assert refused.returncode == 2 and "holds a finished run; give --overwrite" in refused.stderr
    assert "trial" not in refused.stderr, "it is said before the search"
    again = run(*TUNE, "--trials", "2", "--out", "best", "--overwrite")
    assert again.returncode == 0 and "predict with: cellwise text predict best" in again.stderr
    assert again.stdout.count("bits per character") == 2, "the table, and what the network is worth"


def test_more_trials_are_added_to_those_that_are_there(run) -> None:
    run(*TUNE, "--trials", "2")
    before = json.loads(HERE.read_text())["trials"]
    done = run(*TUNE, "--trials", "3")
    assert "going on after 2 trials" in done.stderr and "trial   1" not in done.stderr
    assert json.loads(HERE.read_text())["trials"][:2] == before
    other = run(*TUNE, "--trials", "3", "--dropout", "0.1")
    assert other.returncode == 2 and "was made with" in other.stderr and other.stdout == ""
    HERE.write_text(HERE.read_text()[:-100])
    damaged = run(*TUNE, "--trials", "3")
    assert damaged.returncode == 2 and "search.json is not JSON" in damaged.stderr
    assert run(*TUNE, "--trials", "1", "--overwrite").returncode == 0


def test_an_option_that_is_given_is_fixed_even_at_its_default(run) -> None:
    done = run(*TUNE, "--trials", "2", "--batch-size", "32", "--dropout", "0.25")
    assert "batch size" not in done.stdout and "dropout" not in done.stdout
    settings = json.loads(HERE.read_text())
    assert (settings["settings"]["batch_size"], settings["settings"]["dropout"]) == (32, 0.25)
    assert list(settings["search"]) == ["length", "num_layers", "learning_rate", "weight_decay"]
    command = done.stderr.partition("the best settings: ")[2]
    assert "--dropout 0.25" in command and "--hidden-size 4" in command and "--batch-size" not in command


def test_what_fit_must_be_told_is_in_the_command(run) -> None:
    words = (
        "us-births",
        "-H",
        "28",
        "--cutoffs",
        "1",
        "--known",
        "holiday",
        "--level",
        "80",
        "--level",
        "95",
    )
    done = run("forecast", "tune", *words, "--epochs", "1", "--hidden-size", "4", "--trials", "1")
    command = done.stderr.partition("the best settings: ")[2]
    assert command == (
        "cellwise forecast fit us-births --horizon 28 --known holiday --level 80 --level 95 --hidden-size 4 "
        "--epochs 1 --cutoffs 1\n"
    )


def test_ctrl_c_prints_what_was_found(run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TrialLines.trial

    def trial(self, trial, tuned) -> None:
        whole(self, trial, tuned)
        if trial.number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrialLines, "trial", trial)
    done = run(*TUNE, "--trials", "9")
    assert done.returncode == 130
    assert done.stdout.split()[:3] == ["trial", "default", "1"]
    *_, last = done.stderr.splitlines()
    assert last == (
        "cellwise: stopped in trial 2; 2 trials are over and kept in runs/my whales-gru.tune; the same command goes on "
        "from there"
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_a_training(run, number: int, status: int) -> None:
    words = [*TUNE[:3], "--epochs", "100000", "--patience", "0", "--hidden-size", "4"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cellwise", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not HERE.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert printed == "" and "stopped in trial 0; 0 trials are over" in said and "Traceback" not in said


def test_a_terminal_is_shown_the_epochs_and_keeps_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cellwise.tasks.tuning.trial import DONE, Trial, Tuned

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    lines = TrialLines()
    lines.epoch(3, 1, 20, 0.51234)
    first = Trial(3, {}, DONE, 0.5, (0.5123, 0.5), 2.0)
    lines.trial(first, Tuned("scaled_pinball", False, (first,)))
    shown = capsys.readouterr().err
    assert shown.startswith("\rtrial   3  epoch 1/20  0.5123\r")
    kept = [line.rpartition("\r")[2] for line in shown.removesuffix("\n").split("\n")]
    assert kept == ["trial   3  scaled pinball 0.5  2 epochs  2.0 s *"]


def test_without_optuna_one_sentence(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = run(*TUNE)
    assert (done.returncode, done.stdout) == (2, "") and "pip install optuna" in done.stderr
    assert done.stderr.count("\n") == 1, "before the data are read"
    assert run("text", "tune", "--help").returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("forecast", "tune", "us-births", "-H", "7", "--validation", "0"),
            "nothing is held out from training",
        ),
        ((*TUNE, "--trials", "0"), "trials must be a whole number from 1"),
        ((*TUNE, "--minutes", "0"), "minutes must be a number above 0"),
        ((*TUNE, "--dropout", "2"), "dropout must be a number from 0.0 to 0.95"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, words, says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr.splitlines()[-1]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("out", "beside"), [("runs/a", "runs/a.tune"), ("a.b/", "a.b.tune"), (".", "{parent}/{here}.tune")]
)
def test_trials_are_kept_beside_the_run(run, tmp_path: Path, out: str, beside: str) -> None:
    from cellwise.cli.task_tune import beside_run

    assert f"{beside_run(Path(out))}" == beside.format(parent=tmp_path.resolve().parent, here=tmp_path.name)


def test_help_says_where_is_searched(run) -> None:
    shown = " ".join(run("forecast", "tune", "--help").stdout.split())
    assert "Hidden size of the recurrent layers. [searched: 16 to 256; first 128]" in shown
    assert "[searched: 0 to 0.5; first 0.1]" in shown, "the first is this task's own default"
    assert "cellwise forecast tune sales.csv --horizon 28 --minutes 10" in shown
    assert "Random seed; equal seeds give equal results. [default: 0]" in shown
