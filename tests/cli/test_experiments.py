"""`cellwise gradients` and `cellwise memory` as a person types them: numbers, pictures, answers, mistakes."""

import json

import pytest

GRADIENTS = ("gradients", "--length", "12", "--hidden-size", "4", "--seeds", "1", "--sequences", "2")
MEMORY = (
    "memory", "--task", "parity", "--lags", "2,4", "--hidden-size", "12", "--seeds", "1", "--budget", "200",
    "--cells", "gru,lstm+1",
)  # fmt: skip
OWN = """
from cellwise import Cell, sigmoid, tanh


class Mine(Cell):
    gates = ("k", "n")

    def step(self, x, h):
        k = sigmoid(x.k + h.k)
        return k * h + (1 - k) * tanh(x.n + h.n)
"""


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run


def test_gradients_prints_a_table_and_three_answers(run):
    status, out, _ = run(*GRADIENTS, "--no-train")
    assert status == 0
    assert "lag 1 " in out and "lag 10 " in out and "lag 12 " in out and "lag 20" not in out
    for name in ("rnn", "lstm", "gru", "as drawn", "bias +1", "orthogonal"):
        assert name in out
    assert "What is the vanishing gradient problem?" in out
    assert "By the equations, f keeps c in lstm and z keeps h in gru." in out
    assert "a layer of lstm has 128 parameters and one of gru 96, 1.33 to 1" in out


def test_gradients_of_ones_own_cell(run, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    status, out, _ = run(*GRADIENTS, "--no-train", "--cells", "mine.py:Mine")
    assert status == 0
    assert "By the equations, k keeps h in mine." in out
    assert "lstm and gru were not measured in this run." in out


def test_gradients_draws_and_draws_again_from_its_numbers(run, tmp_path):
    words = ("--train-length", "4", "--updates", "6", "--cells", "rnn,lstm")
    status, out, _ = run(*GRADIENTS, *words, "--out", "figures/g.png")
    assert status == 0 and "unclipped" in out
    picture, numbers = tmp_path / "figures/g.png", tmp_path / "figures/g.json"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(numbers.read_text())["result"]["settings"]["length"] == 12
    status, again, _ = run("gradients", "--redraw", str(numbers), "--out", "again.svg")
    assert status == 0
    assert again.splitlines()[:-1] == out.splitlines()[:-1]  # all but the name of the picture
    assert not (tmp_path / "again.json").exists()
    drawn = (tmp_path / "again.svg").read_text()
    for text in ("rnn", "lstm", "orthogonal recurrent rows", "as torch draws it, trained, no clip"):
        assert f"<!-- {text} -->" in drawn


def test_memory_prints_what_was_learned_and_keeps_it(run, tmp_path):
    status, out, err = run(*MEMORY)
    assert status == 0
    assert "parity at lag 2: gru, 1 of 1 seeds learned it in" in err
    assert "parity (chance 50%)" in out and "4 or more (1 of 1)" in out
    assert "Longest lags learned within 200 updates by the one seed, in parity: all 4 or more." in out
    status, again, _ = run("memory", "--redraw", "runs/memory.json", "--out", "m.svg")
    assert status == 0
    assert again.startswith(out.rstrip("\n"))
    picture = (tmp_path / "m.svg").read_text()
    for text in ("gru", "lstm+1", "parity  (chance 50%)", "lag: number of bits"):
        assert f"<!-- {text} -->" in picture


def test_ctrl_c_prints_and_keeps_what_is_finished(run, tmp_path, monkeypatch):
    from cellwise.experiments import memory as search

    learn, trials = search.learn, []

    def interrupted(*words):
        trials.append(words)
        if len(trials) > 2:
            raise KeyboardInterrupt
        return learn(*words)

    monkeypatch.setattr(search, "learn", interrupted)
    status, out, err = run(*MEMORY)
    assert status == 130
    assert "stopped after" in err
    assert "2 or more (1 of 1)" in out
    assert len(json.loads((tmp_path / "runs/memory.json").read_text())["result"]["trials"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gradients", "--cells", "lsmt"), "did you mean 'lstm'?"),
        (("gradients", "--cells", ","), "No cells are given"),
        (("gradients", "--cells", "lstm,,gru"), "One of the cells in 'lstm,,gru' is empty"),
        (("gradients", "--cells", "rnn,rnn"), "'rnn' is listed twice among the cells"),
        (("gradients", "--length", "1"), "length must be at least 2; got 1"),
        (("gradients", "--seeds", "0"), "seeds must be at least 1; got 0"),
        (("gradients", "--clip", "0"), "clip must be greater than 0; got 0"),
        (("gradients", "--norm", "nuclear"), "no norm called 'nuclear'"),
        (("gradients", "--forget-bias", "nan"), "forget bias must be a finite number; got nan"),
        (("gradients", "--out", "picture.gif"), "must end in one of .png, .svg, .pdf"),
        (("gradients", "--redraw", "nowhere.json"), "'nowhere.json' cannot be read: No such file"),
        (("memory", "--redraw", "other.json"), "holds no results of `cellwise memory`"),
        (("gradients", "--redraw", "other.json"), "cannot read: 'settings'"),
        (("gradients", "--cells", "rnn,mine.py:Mine"), "the same name among rnn, rnn"),
        (("memory", "--cells", "rnn,mine.py:Mine"), "the same name among rnn, rnn"),
        (("memory", "--cells", "rnn+x"), "No cell is called 'rnn+x'"),
        (("memory", "--cells", "lstm+inf"), "'lstm+inf' asks for a bias that is no finite number"),
        (("memory", "--redraw", "broken.json"), "is not JSON"),
        (("memory", "--task", "copying"), "no task called 'copying'"),
        (("memory", "--cells", "rnn+1"), "rnn has no such gate"),
        (("memory", "--cells", "gur"), "did you mean 'gru'?"),
        (("memory", "--lags", "4,x"), "'x' among the lags is not a whole number"),
        (("memory", "--lags", "8,4"), "lags must grow"),
        (("memory", "--budget", "0"), "updates must be at least 1; got 0"),
        (("memory", "--minutes", "-1"), "minutes must be more than 0"),
        (("memory", "--same", "size"), "either units or parameters; got 'size'"),
        (("memory", "--backend", "gpu"), "no backend called 'gpu'"),
        (("memory", "--out", "picture"), "must end in one of .png, .svg, .pdf"),
    ],
)
def test_a_wrong_word_gets_one_clear_sentence(run, tmp_path, words, said):
    (tmp_path / "other.json").write_text('{"kind": "gradients", "result": {}}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "mine.py").write_text(OWN.replace("    gates", '    name = "rnn"\n    gates'))
    status, out, err = run(*words)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1 and not out
