"""`cellwise regress`: what people type, and what they get."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cellwise.tasks import SequenceRegressor
from cellwise.tasks.classify import datasets

pytestmark = pytest.mark.draws

SMALL = ("--epochs", "1", "--hidden-size", "4")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and series with numbers, and a run of each."""
    home = tmp_path_factory.mktemp("regress")
    words = {"fine": 2.5, "dull": -1.5, "odd": 0.0}
    rows = [
        f"a {word} film{' again' * (i % 3)},{value + i / 100}"
        for i in range(15)
        for word, value in words.items()
    ]
    (home / "texts.csv").write_text("text,stars\n" + "\n".join(rows) + "\n")
    generator = np.random.default_rng(0)
    lines = ["series,label,step,x1"]
    for number in range(30):
        level = generator.normal()
        lines += [f"s{number},{level:.4f},{step},{level + 0.1:.4f}" for step in range(3 + number % 4)]
    (home / "series.csv").write_text("\n".join(lines) + "\n")
    for name, label in (("texts", "stars"), ("series", "label")):
        SequenceRegressor(epochs=2, hidden_size=4, embedding_size=4, label_column=label).fit(
            home / f"{name}.csv", folder=home / f"run-{name}"
        )
    return home


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run


def test_fit_evaluate_predict(run, home: Path) -> None:
    done = run("regress", "fit", f"{home}/texts.csv", "--label", "stars", *SMALL, "--out", "mine")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("45 texts, 10 to 23 characters\n")
    assert [line.split()[0] for line in done.stdout.splitlines()][2:] == ["GRU", "linear", "always"]
    assert "predict with: cellwise regress predict mine" in done.stderr
    made = json.loads(run("regress", "evaluate", "mine", f"{home}/texts.csv", "--json").stdout)
    model = SequenceRegressor.load("mine")
    wanted = model.measure(home / "texts.csv")
    assert {name: made[name] for name in wanted} == wanted
    assert made["linear"] == model.measure_linear(home / "texts.csv")
    assert set(made) == {"model", "sequences", "linear", "mean", *wanted}
    truth = np.array(
        [float(row["stars"]) for row in csv.DictReader((home / "texts.csv").read_text().splitlines())]
    )
    mean = model._data.targets.mean
    assert made["mean"]["mean_absolute_error"] == pytest.approx(np.abs(truth - mean).mean())
    assert run("regress", "predict", "mine", f"{home}/texts.csv", "--out", "said.csv").returncode == 0
    rows = list(csv.DictReader(Path("said.csv").read_text().splitlines()))
    assert list(rows[0]) == ["text", "label", "low", "high"]
    np.testing.assert_allclose([float(row["label"]) for row in rows], model.predict(home / "texts.csv"), 1e-5)
    bounds = [[float(row[name]) for name in ("low", "high")] for row in rows]
    np.testing.assert_allclose(bounds, model.predict_interval(home / "texts.csv"), 1e-4)


@pytest.mark.parametrize("name", ["texts", "series"])
def test_the_report_says_how_far_off_how_sure_and_where(run, home: Path, name: str) -> None:
    page = (home / f"run-{name}" / "report.html").read_text()
    for words in (
        "How good it is",
        "Where it errs",
        "How sure it is",
        "The largest errors",
        "R²",
        "always the mean",
    ):
        assert words in page
    plots = {path.name for path in (home / f"run-{name}" / "plots").iterdir()}
    assert plots >= {"predicted.svg", "error-by-value.svg", "errors.svg", "mistakes.svg", "loss.svg"}
    assert ElementTree.fromstring((home / f"run-{name}/plots/predicted.svg").read_text()) is not None
    before = page
    (home / f"run-{name}" / "report.html").unlink()
    assert run("regress", "report", home / f"run-{name}").returncode == 0
    assert (home / f"run-{name}" / "report.html").read_text() == before


def test_the_demo_trains_on_what_ships(run, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = datasets.movie_ratings()
    ratings = [float(label) for label in train.labels]
    assert (len(train), len(test), min(ratings), max(ratings)) == (9065, 1007, -3.875, 3.941)
    assert min(map(abs, ratings)) == 0.5
    few = train.select(range(0, 9065, 90)), test.select(range(0, 1007, 30))
    monkeypatch.setitem(datasets.BUNDLED, "movie-ratings", lambda: few)
    done = run("regress", "demo", "--epochs", "1", "--cell", "mingru")
    assert done.returncode == 0, done.stderr
    assert "Measured on 34 texts" in done.stderr and "which training has not seen" in done.stderr
    assert Path("runs/movie-ratings/report.html").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fit", "{home}/texts.csv"), "there is no column 'label'"),
        (("fit", "same.csv"), "all targets are the same number"),
        (
            ("fit", "words.csv"),
            "the label 'good', which is no number; SequenceClassifier (cellwise classify)",
        ),
        (("fit", "comma.csv"), "'1,5', which is no number; where the comma stands before decimals"),
        (("fit", "infinite.csv"), "sequence '2' has a label that is not finite"),
        (("evaluate", "{home}/run-texts", "words.csv"), "the label 'good', which is no number"),
        (("predict", "{home}/run-texts", "{home}/series.csv"), "a column 'text'"),
    ],
)
def test_every_mistake_is_one_sentence(run, home: Path, tmp_path: Path, words, says: str) -> None:
    for name, label in (("same", "1"), ("words", "good"), ("infinite", "inf")):
        (tmp_path / f"{name}.csv").write_text(f"text,label,stars\na,1,good\nb,{label},good\n")
    (tmp_path / "comma.csv").write_text("text;label\na;1,5\nb;2,5\n")
    done = run("regress", *(each.format(home=home) for each in words))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
