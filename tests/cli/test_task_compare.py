"""`cellwise TASK compare`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import polars
import pytest

from cellwise.cli.task_compare import parse_settings
from cellwise.tasks import CharacterModel
from cellwise.tasks.comparing.progress import RunLines
from cellwise.tasks.errors import OptionError
from cellwise.tasks.forecasting.options import ForecastOptions
from cellwise.tasks.options import options_of

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(30))
TINY = ("--epochs", "1", "--hidden-size", "4")
COMPARE = ("text", "compare", "my whales.txt", *TINY, "--embedding-size", "3")
MINE = "from cellwise import Cell\nclass Mine(Cell):\n  gates = ('n',)\n  def step(self, x, h): return x.n + 0.5 * h\n"


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my whales.txt").write_text(TEXT)
    (tmp_path / "mine.py").write_text(MINE)
    days = np.datetime64("2024-01-01", "D") + np.arange(80)
    polars.DataFrame({"ds": days, "y": np.sin(np.arange(80.0)) + 3}).write_csv(tmp_path / "sales.csv")
    return run


def test_a_line_a_training_a_table_and_a_command_that_trains_the_best(run) -> None:
    done = run(*COMPARE, "--cells", "gru, mine.py:Mine", "--seeds", "2", "--seed", "5")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line[1:3] == "/4"]
    assert [line.split("  ")[1] for line in lines] == [
        "gru, seed 5",
        "mine, seed 5",
        "mine, seed 6",
        "gru, seed 6",
    ]
    title, _, *rows = done.stdout.splitlines()
    assert title.split()[:3] == ["model", "bits", "per"] and len(rows) == 2
    assert rows[0].partition(" ")[2].startswith("*") and " ± " in rows[0]
    said = done.stderr
    assert "Measured on the last 73 characters of the text, which training has not seen." in said
    assert "has the best bits per character" in said and "over 2 seeds" in said
    command = shlex.split(said.partition("train the best: ")[2].splitlines()[0])
    assert command[:4] == ["cellwise", "text", "fit", "my whales.txt"] and "--seeds" not in command
    assert run(*command[1:], "--out", "best").returncode == 0
    runs = json.loads(Path("runs/my whales.compare/comparison.json").read_text())["runs"]
    fitted = CharacterModel.load("best")
    best = runs[f"{fitted.cell_name}-seed5"]["run"]["metrics"]["bits_per_character"]
    assert fitted.evaluate() == pytest.approx(best, rel=1e-12)
    assert Path("runs/my whales.compare/report.html").is_file()


def test_one_s_own_cell_is_in_the_command_as_it_was_typed(run) -> None:
    done = run(*COMPARE, "--cells", "mine.py:Mine", "--seeds", "1")
    assert "--cell mine.py:Mine" in done.stderr.partition("train the best: ")[2]


def test_json_tells_all_and_nothing_else(run) -> None:
    done = run("forecast", "compare", "sales.csv", "-H", "3", *TINY, "--cutoffs", "2", "--seeds", "1",
               "--cells", "gru,gru+lstm", "--json", "--quiet")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["metric"], found["higher_is_better"], found["held_out"]) == ("MASE", False, "test")
    assert {each["model"] for each in found["rows"]} >= {"gru", "gru+lstm", "SeasonalNaive"}
    assert found["measured_on"] == "2 windows of 3 days at the end of the data"
    assert [each["candidate"] for each in found["runs"]] == ["gru", "gru+lstm"]
    assert found["folder"] == "runs/sales.compare" and found["command"].startswith(
        "cellwise forecast fit sales.csv"
    )
    assert len(found["verdict"]) == 3


def test_the_table_goes_to_a_file_and_the_runs_to_a_folder(run) -> None:
    words = (*COMPARE, "--set", "length=10,20", "--set", "layers=1", "--seeds", "1", "--folder", "here")
    done = run(*words, "--out", "made/table.csv")
    assert done.returncode == 0 and done.stdout == "" and "wrote 2 rows to made/table.csv" in done.stderr
    table = polars.read_csv("made/table.csv")
    assert sorted(table["length"].to_list()) == [10, 20] and table["cell"].to_list() == ["gru", "gru"]
    assert table["num_layers"].to_list() == [1, 1] and table["best"].to_list() == [True, False]
    assert sorted(each.name for each in Path("here").iterdir() if each.is_dir()) == [
        "gru-length=10-num_layers=1-seed0", "gru-length=20-num_layers=1-seed0", "plots",
    ]  # fmt: skip
    again = run(*words)
    assert "going on after 2 of 2 trainings" in again.stderr and again.stdout.count("\n") == 4


def test_without_cells_gru_and_lstm_are_compared(run) -> None:
    done = run(*COMPARE, "--seeds", "1")
    assert {line.split()[0] for line in done.stdout.splitlines()[2:]} == {"gru", "lstm"}
    assert "A single seed shows no spread" in done.stderr


def test_ctrl_c_prints_what_was_found(run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RunLines.run

    def interrupted(self, done, metric) -> None:
        whole(self, done, metric)
        if done.candidate == "lstm":
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLines, "run", interrupted)
    done = run(*COMPARE)
    assert done.returncode == 130 and {line.split()[0] for line in done.stdout.splitlines()[2:]} == {
        "gru",
        "lstm",
    }
    *_, last = done.stderr.splitlines()
    assert last == (
        "cellwise: stopped in training 3 of 6; 2 are kept in runs/my whales.compare; the same command goes on from "
        "there"
    )
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*COMPARE, "--cells", "gro"), "No cell is called 'gro'"),
        ((*COMPARE, "--cells", ","), "No cells are given; name at least one"),
        ((*COMPARE, "--cells", ""), "No cells are given; name at least one"),
        ((*COMPARE, "--cells", "gru+lstm"), "cell must be one cell for a LanguageModel, not gru+lstm"),
        ((*COMPARE, "--seeds", "0"), "seeds must be a whole number from 1"),
        ((*COMPARE, "--set", "hidden_size"), "--set takes NAME=VALUE,VALUE"),
        ((*COMPARE, "--set", "width=3"), "--set width: there is no such option"),
        ((*COMPARE, "--set", "dropout=a"), "dropout must be a number, not 'a'"),
        ((*COMPARE, "--set", "dropout=2"), "dropout must be a number from 0.0 to 0.95"),
        ((*COMPARE, "--out", "table.docx"), "table.docx"),
        ((*COMPARE, "--out", "table.csv", "--json"), "give one of them"),
        (
            ("forecast", "compare", "sales.csv", "-H", "3", "--set", "horizon=3,4"),
            "horizon decides how the networks",
        ),
        (("forecast", "compare", "sales.csv", "-H", "3", "--set", "known=a"), "which takes a list"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, words, says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr.splitlines()[-1]
    assert not Path("runs").exists()


def test_values_are_read_as_their_option_is_declared() -> None:
    options = options_of(ForecastOptions)
    texts = [
        "hidden-size=64,128",
        "dropout=0,0.5",
        "autocast=true,no",
        "minutes=none,0.5",
        "freq=D",
        "layers=2",
    ]
    assert parse_settings(options, texts) == {
        "hidden_size": [64, 128],
        "dropout": [0.0, 0.5],
        "autocast": [True, False],
        "minutes": [None, 0.5],
        "freq": ["D"],
        "num_layers": [2],
    }
    for wrong, says in (
        (["hidden_size=1.5"], "hidden_size must be a whole number, not '1.5'"),
        (["autocast=maybe"], "autocast must be true or false"),
        (["layers=1", "num_layers=2"], "is given twice"),
    ):
        with pytest.raises(OptionError, match=says):
            parse_settings(options, wrong)


def test_help_says_what_options_are_here(run) -> None:
    shown = " ".join(run("forecast", "compare", "--help").stdout.split())
    assert "The first seed. [default: 0]" in shown and "Time limit of each training" in shown
    assert "--cell " not in shown and "cellwise forecast compare sales.csv --horizon 28 --cells" in shown
