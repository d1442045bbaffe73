"""`cellwise bench` as a person types it, right and wrong."""

import json
import sys
from functools import partial

import pytest

from cellwise.backends.cpu import amx_support
from cellwise.backends.cpu.amx_support import Support
from cellwise.bench import measure

QUICK = ("--repeats", "3", "--seconds", "0.000001")


@pytest.fixture
def run(run):
    return partial(run, "bench")


def test_it_measures_prints_saves_and_draws(run, tmp_path):
    code, out, _ = run("gru", "mingru", "--shapes", "6,4,3,5", "5,1,2,8", *QUICK, "--out", str(tmp_path))
    assert code == 0
    assert "Peak of fused multiply-add" in out
    found = json.loads((tmp_path / "bench.json").read_text())
    # two shapes in forward, train and ragged, and a step for each of their sizes
    assert [(row["cell"], row["status"]) for row in found["rows"]] == [
        *[("gru", "timed")] * 8,
        *[("mingru", "timed")] * 8,
    ]
    assert {side["name"] for row in found["rows"][8:] for side in row["sides"]} == {
        "cellwise",
        "python loop",
        "padded",
    }
    assert "step by step in plain torch" in out
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_of_ones_own(run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from cellwise import Cell, tanh\n\n\nclass Mine(Cell):\n    gates = ('n',)\n\n"
        "    def step(self, x, h):\n        return tanh(x.n - h.n)\n"
    )
    words = (f"{file}:Mine", "--shapes", "6,4,3,5", "--modes", "train,step", *QUICK)
    code, out, _ = run(*words, "--out", str(tmp_path))
    assert code == 0
    assert "Mine" in out
    assert "python loop" in out


def test_ctrl_c_saves_what_there_is(run, tmp_path, monkeypatch):
    whole = measure._timed

    def interrupted(row, comparison, settings):
        if row.mode == "train":
            raise KeyboardInterrupt
        return whole(row, comparison, settings)

    monkeypatch.setattr(measure, "_timed", interrupted)
    words = ("rnn", "--shapes", "6,4,3,5", "--modes", "forward,train", *QUICK, "--out", str(tmp_path))
    code, out, err = run(*words)
    assert code == 130
    assert "measured so far: 1 of 2" in err
    assert "Beside torch.nn" in out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["interrupted"] is True
    assert [row["mode"] for row in found["rows"]] == ["forward"]
    assert (tmp_path / "bench.png").is_file()


def test_a_wrong_result_is_listed_everywhere_and_ends_with_status_1(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_first_mismatch", lambda comparisons: "forward: output is off by 0.5")
    words = ("rnn", "--shapes", "6,4,3,5", "--modes", "forward", *QUICK, "--out", str(tmp_path))
    code, out, _ = run(*words)
    assert code == 1
    assert "Not timed: rnn 6,4,3,5, forward: output is off by 0.5." in out
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert (row["status"], row["problem"]) == ("refused", "forward: output is off by 0.5")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Support(), "changes no kernel of ours: this processor has no AMX, so they stay true float32"),
        (Support(why_not="CELLWISE_AMX=off"), "changes no kernel of ours: CELLWISE_AMX=off, so"),
        (Support("instructions"), ""),
    ],
)
def test_a_precision_that_changes_nothing_here_is_said(run, tmp_path, monkeypatch, found, says):
    monkeypatch.setattr(amx_support, "support", lambda: found)
    words = ("rnn", "--shapes", "6,4,3,5", "--modes", "forward", *QUICK, "--out", str(tmp_path))
    code, out, _ = run(*words, "--precision", "high")
    assert code == 0
    assert says in out if says else "changes no kernel" not in out


def test_memory_alone(run, tmp_path):
    words = ("rnn", "--shapes", "6,4,3,5", "--modes", "none", "--memory", "--calls", "5")
    code, out, _ = run(*words, "--out", str(tmp_path))
    assert code == 0
    assert "Peak memory of the first training step" in out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(each["kind"], each["side"]) for each in found["memory"]] == [
        ("peak", "cellwise"),
        ("peak", "recomputing"),
        ("peak", "torch.nn"),
        ("growth", "cellwise"),
        ("growth", "torch.nn"),
    ]
    assert found["memory"][3]["calls"] == 5
    assert found["rows"] == []


def test_without_matplotlib_the_figures_are_saved(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ("rnn", "--shapes", "6,4,3,5", "--modes", "forward", *QUICK, "--out", str(tmp_path))
    code, out, _ = run(*words)
    assert code == 0
    assert "no plot" in out
    assert (tmp_path / "bench.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gur",), "did you mean 'gru'?"),
        (("nowhere.py:Mine",), "which does not exist"),
        (("gru", "--shapes", "1,2,3"), "four whole numbers T,B,D,H"),
        (("gru", "--shapes", "1,2,3,4", "5,6"), "got '5,6'"),
        (("gru", "--shapes", "0,2,3,4"), "at least 1; got '0,2,3,4'"),
        (("gru", "--modes", "backwards"), "no mode 'backwards'"),
        (("gru", "--modes", ""), "no mode ''"),
        (("gru", "--modes", "none"), "add --memory"),
        (("gru", "--repeats", "2"), "at least 3 repeats; got 2"),
        (("gru", "--seconds", "0"), "must be more than 0; got 0"),
        (("gru", "--threads", "0"), "--threads must be a whole number from 1 to"),
        (("gru", "--threads", "100000"), "the cores here; got 100000"),
        (("gru", "--memory", "--calls", "0"), "--calls must be at least 1; got 0"),
        (("gru", "--device", "tpu"), "the devices are: cpu, cuda"),
        (("gru", "--device", "cuda"), "torch sees none here"),
        (("gru", "--device", "cuda", "--memory"), "goes with --device cpu alone"),
        (("gru", "--device", "cuda", "--load"), "goes with --device cpu alone"),
        (("gru", "--dtype", "float16"), "no benchmark in 'float16' on cpu"),
        (("gru", "--tune"), "goes with --device cuda"),
        (("gru", "--out", __file__), "cannot be created"),
        (("gru", "--probe", "valley"), "A probe is 'peak' or 'growth'"),
    ],
)
def test_a_wrong_word_gets_one_clear_sentence(run, words, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_two_cells_of_one_name(run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            "from cellwise import Cell\n\n\nclass Mine(Cell):\n    gates = ('n',)\n\n"
            "    def step(self, x, h):\n        return x.n - h.n\n"
        )
    code, _, err = run(f"{tmp_path}/a/mine.py:Mine", f"{tmp_path}/b/mine.py:Mine")
    assert code == 2
    assert "Two cells are named Mine" in err
