"""`cellwise classify`: what people type, and what they get."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cellwise.tasks import SequenceClassifier
from cellwise.tasks.classify import datasets, reproduce

SMALL = ("--epochs", "1", "--hidden-size", "4")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and series, and a trained network for each."""
    home = tmp_path_factory.mktemp("classify")
    rows = [f"{'a fine' if i % 2 else 'a dull'} film {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    (home / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    generator = np.random.default_rng(0)
    lines = ["series,label,step,x1,x2"]
    for number in range(24):
        for step in range(int(generator.integers(3, 9))):
            x = generator.normal() + 3 * (number % 2)
            lines.append(
                f"s{number},{'high' if number % 2 else 'low'},{step},{x:.4f},{generator.normal():.4f}"
            )
    (home / "series.csv").write_text("\n".join(lines) + "\n")
    for name in ("texts", "series"):
        SequenceClassifier(epochs=2, hidden_size=4, embedding_size=4).fit(
            home / f"{name}.csv", folder=home / f"run-{name}"
        )
    return home


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run


def test_fit_evaluate_predict_report(run, home: Path) -> None:
    done = run(
        "classify", "fit", f"{home}/series.csv", "--valid", f"{home}/series.csv", *SMALL, "--out", "mine"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("24 series of 2 channels, 3 to 8 steps, 2 classes\n")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["model", "-" * 28, "GRU", "linear"]
    assert "report: mine/report.html" in done.stderr
    made = json.loads(run("classify", "evaluate", "mine", f"{home}/series.csv", "--json").stdout)
    wanted = SequenceClassifier.load("mine").measure(home / "series.csv")
    assert {name: made[name] for name in wanted} == wanted
    assert set(made) == {"model", "sequences", "linear", *wanted} and set(made["linear"]) == set(wanted)
    before = Path("mine/report.html").read_text()
    Path("mine/report.html").unlink()
    assert run("classify", "report", "mine").returncode == 0
    assert Path("mine/report.html").read_text() == before
    assert run("classify", "check", "mine").returncode == 0
    assert run("classify", "predict", "mine", f"{home}/series.csv", "--out", "said.csv").returncode == 0
    rows = list(csv.DictReader(Path("said.csv").read_text().splitlines()))
    assert list(rows[0]) == ["series", "label", "p_high", "p_low"] and rows[0]["series"] == "s0"
    for row in rows:
        chances = {name: float(row[f"p_{name}"]) for name in ("high", "low")}
        assert row["label"] == max(chances, key=chances.__getitem__)
        assert sum(chances.values()) == pytest.approx(1, abs=1e-6)


def test_texts_may_be_piped_a_line_each(run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, count in (("a fine film\n\na dull, long one\n", 2), ("text\na fine film\n", 1)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.encode())))
        done = run("classify", "predict", f"{home}/run-texts", "-", "--json")
        made = json.loads(done.stdout)
        assert made[0]["text"] == "a fine film" and len(made) == count
    Path("new.txt").write_text("a fine film\n")
    assert json.loads(run("classify", "predict", f"{home}/run-texts", "new.txt", "--json").stdout) == made


def test_the_report_names_words_and_steps(home: Path) -> None:
    for name in ("texts", "series"):
        page = (home / f"run-{name}" / "report.html").read_text()
        for words in ("How good it is", "Class by class", "precision", "linear model on", "Training"):
            assert words in page
        plots = {path.name for path in (home / f"run-{name}" / "plots").iterdir()}
        assert {"confusion.svg", "reliability.svg", "loss.svg", "accuracy.svg"} <= plots


def test_the_most_confident_mistakes_are_shown_with_what_decided(tmp_path: Path) -> None:
    texts = ["a fine film", "a dull film"] * 20
    labels = ["good", "bad"] * 20
    labels[0], labels[1], labels[2] = "bad", "good", "bad"
    model = SequenceClassifier(epochs=10, hidden_size=4, embedding_size=4, learning_rate=0.03)
    model.fit(texts, labels, valid=(texts[:4], labels[:4]), folder=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "The most confident mistakes" in page
    assert "is bad, said good (" in page and "is good, said bad (" in page
    assert re.search(r'<tspan style="fill: var\(--model\)[^"]*">fine<title>\+', page), "fine speaks for good"
    assert re.search(r'<tspan style="fill: var\(--model\)[^"]*">dull<title>\+', page), "dull speaks for bad"


def test_the_demo_trains_on_what_ships(run, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = datasets.japanese_vowels()
    few = train.select(range(0, 270, 5)), test.select(range(0, 370, 10))
    monkeypatch.setitem(datasets.BUNDLED, "japanese-vowels", lambda: few)
    done = run("classify", "demo", "--epochs", "1", "--cell", "mingru")
    assert done.returncode == 0, done.stderr
    assert (
        "Measured on 37 series of 12 channels" in done.stderr and "which training has not seen" in done.stderr
    )
    assert Path("runs/japanese-vowels/report.html").is_file()


def test_reproduce_prints_what_was_measured(run, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = datasets.japanese_vowels()
    few = train.select(range(0, 270, 2)), test.select(range(0, 370, 10))
    monkeypatch.setitem(reproduce.BUNDLED, "japanese-vowels", lambda: few)
    done = run("reproduce", "japanese-vowels", "--seeds", "2", "--epochs", "1", "--out", "made.json")
    assert done.returncode == 0, done.stderr
    saved = json.loads(Path("made.json").read_text())
    own = [row for row in saved["rows"] if "of cellwise" in row["method"]]
    assert [row["method"] for row in own] == [
        "GRU of cellwise, seed 0",
        "GRU of cellwise, seed 1",
        "GRU of cellwise, mean of 2 seeds",
    ]
    assert own[2]["accuracy"] == pytest.approx((own[0]["accuracy"] + own[1]["accuracy"]) / 2)
    assert f"{own[2]['accuracy']:.3f}" in done.stdout and "MiniRocket" in done.stdout
    assert "is bundled" in run("reproduce", "movie-sentiment", "--data", "x.csv").stderr


def test_validation_data_are_read_as_the_training_data_are(run, tmp_path: Path) -> None:
    head, rows = "series,label,step,x,mode\n", []
    for number in range(20):
        for step in (0, 1, 5):
            rows.append(f"s{number},{number % 2},{step},{number % 2 + 0.1 * step},{'abc'[step % 3]}\n")
    (tmp_path / "train.csv").write_text(head + "".join(rows))
    (tmp_path / "valid.csv").write_text(head + "u,0,0,0.1,b\nu,0,1,0.2,d\nv,1,0,1.0,b\nv,1,1,1.1,b\n")
    done = run("classify", "fit", "train.csv", "--valid", "valid.csv", *SMALL, "--out", "mine")
    assert done.returncode == 0, done.stderr
    model = SequenceClassifier.load("mine")
    names = [(one.name, one.categories, one.is_interval) for one in model._data.schema.channels]
    assert names == [("x", None, False), ("mode", ("a", "b", "c"), False), ("step", None, True)]
    assert model.held_out_.inputs[0].tolist() == [[0.1, 0, 1, 0, 0], [0.2, 0, 0, 0, 1]]
    (tmp_path / "valid.csv").write_text("text,label\na,0\n")
    wrong = run("classify", "fit", "train.csv", "--valid", "valid.csv", *SMALL, "--out", "other")
    assert wrong.returncode == 2 and "a column 'series'" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fit", "nowhere.csv"), "there is no file nowhere.csv"),
        (("fit", "{home}/texts.csv", "--label", "lable"), "there is no column 'lable'"),
        (("fit", "{home}/texts.csv", "--text", "review"), "has a column 'review'"),
        (("fit", "one.csv"), "all 2 sequences have the label 'x'"),
        (("fit", "{home}/texts.csv", "--pooling", "sum"), "is not one of"),
        (("fit", "{home}/texts.csv", "--valid", "one.csv"), "has the label 'x'"),
        (("fit", "{home}/texts.csv", "--directions", "3"), "directions must be a whole number from 1 to 2"),
        (("predict", "{home}/run-texts", "{home}/series.csv"), "a column 'text'"),
        (("predict", "{home}/run-series", "{home}/texts.csv"), "a column 'series'"),
        (
            ("predict", "{home}/run-series", "{home}/series.csv", "--out", "x.doc"),
            "written to a file named .csv",
        ),
        (("evaluate", "{home}/run-texts", "unlabelled.csv"), "there is no column 'label'"),
        (("evaluate", "{home}/run-texts", "one.csv"), "has the label 'x'"),
    ],
)
def test_every_mistake_is_one_sentence(run, home: Path, tmp_path: Path, words, says: str) -> None:
    (tmp_path / "one.csv").write_text("text,label\na,x\nb,x\n")
    (tmp_path / "unlabelled.csv").write_text("text\na\nb\n")
    done = run("classify", *(each.format(home=home) for each in words))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
