"""`cellwise compare-cells` as a person types it."""

import csv
import json

import pytest

TINY = ("--parameters", "200", "--updates", "3")
OWN = """
from cellwise import Cell, tanh


class Mine(Cell):
    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n + h.n)


class Timed(Mine):
    inputs = ("t",)

    def step(self, x, h, t):
        return tanh(x.n + t * h.n)
"""


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    return run


def rows(folder):
    with (folder / "runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_comparison_from_table_to_picture(run, tmp_path):
    words = ("compare-cells", "gru", "mine.py:Mine", "mine.py:Timed", *TINY, "--problems", "adding,recall")
    status, out, err = run(*words)
    assert status == 0
    assert "Networks of about 200 parameters, 3 updates each; lower is better everywhere" in out
    assert "cell              mean rank" in out and "a simple method" in out and "0.875" in out
    assert "4/4  recall: mine, seed 0" in err and "note: timed needs t beside x" in err
    folder = tmp_path / "runs/compare-cells"
    assert [(row["problem"], row["cell"]) for row in rows(folder)] == [
        ("adding", "gru"), ("adding", "mine"), ("recall", "gru"), ("recall", "mine"),
    ]  # fmt: skip
    picture = (folder / "comparison.svg").read_text()
    assert all(f"<!-- {text} -->" in picture for text in ("adding", "recall"))

    status, out, err = run(*words, "--json", "--seeds", "2", "--quiet")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["ended"], found["missing"], len(found["runs"])) == ("done", 0, 8)
    assert {each["cell"] for each in found["cells"]} == {"gru", "mine"}
    assert len(found["cells"][0]["problems"]["adding"]["scores"]) == 2
    assert list(found["left_out"]) == ["timed"]


def test_ctrl_c_loses_nothing(run, tmp_path, monkeypatch):
    from cellwise.experiments.bakeoff import study

    train_one, trained = study.train_one, []

    def interrupted(*words):
        trained.append(words)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train_one(*words)

    monkeypatch.setattr(study, "train_one", interrupted)
    words = ("compare-cells", "gru", "rnn", *TINY, "--problems", "adding,recall")
    status, out, err = run(*words)
    assert status == 130 and "mean rank" in out
    assert "stopped; 2 trainings are left, and the same command goes on" in err
    kept = rows(tmp_path / "runs/compare-cells")
    status, out, err = run(*words)
    assert status == 0 and "going on after 2 of 4 trainings" in err
    assert rows(tmp_path / "runs/compare-cells")[:2] == kept and len(trained) == 5


def test_no_training_begins_after_the_time(run):
    status, out, err = run("compare-cells", "rnn", *TINY, "--problems", "adding", "--minutes", "1e-9")
    assert (status, out) == (0, "")
    assert "the time is over; 1 training is left" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gur",), "did you mean 'gru'?"),
        (("mine.py:Timed",), "timed needs t beside x"),
        (("rnn", "--problems", "digit"), "no problem called 'digit'; did you mean 'digits'?"),
        (("rnn", "--problems", ","), "No problems are given"),
        (("rnn", "--parameters", "0"), "parameters must be at least 1; got 0"),
        (("rnn", "--parameters", "99999999"), "parameters must be at most 10,000,000"),
        (("rnn", "--seeds", "0"), "seeds must be at least 1; got 0"),
        (("rnn", "--seconds", "0"), "seconds must be more than 0; got 0"),
        (("rnn", "--learning-rate", "nan"), "learning rate must be more than 0; got nan"),
        (("rnn", "--out", "mine.py"), "mine.py is a file"),
    ],
)
def test_mistakes_are_one_sentence(run, words, said):
    status, out, err = run("compare-cells", *words)
    assert (status, out) == (2, "")
    assert said in err and len(err.strip().splitlines()) <= 2


def test_the_help_tells_the_defaults_that_hold():
    """They stand in the command once more, so that help need not load torch."""
    from inspect import signature

    from cellwise.cli.compare_cells import compare_cells
    from cellwise.experiments.bakeoff.study import BakeoffSettings

    told = {name: each.default for name, each in signature(compare_cells).parameters.items()}
    settings = BakeoffSettings()
    assert told["problems"] == ",".join(settings.problems)
    for name in ("parameters", "updates", "seconds", "seeds", "learning_rate", "minutes"):
        assert told[name] == getattr(settings, name)
