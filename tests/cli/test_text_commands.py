"""`cellwise text generate`, `score`, `report`, and what `fit` and `evaluate` of texts alone can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellwise.tasks import LanguageModel

TEXT = "The whale swims. A ship sails on, and the sea is wide.\n" * 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "run"
    sizes = {"hidden_size": 16, "embedding_size": 8, "batch_size": 4, "length": 40}
    model = LanguageModel(**sizes, epochs=12, learning_rate=0.02)
    model.fit(TEXT, folder=folder, progress=False)
    return folder


def test_a_text_is_written_as_it_is_drawn(run, trained: Path) -> None:
    done = run("text", "generate", str(trained), "--start", "The ", "--length", "40", "--seed", "3")
    assert done.stdout == LanguageModel.load(trained).generate(40, "The ", seed=3) + "\n"


def test_choices_reach_the_model(run, trained: Path) -> None:
    words = ("text", "generate", str(trained), "--length", "30", "--temperature", "5")
    greedy = LanguageModel.load(trained).generate(30, temperature=0)
    assert run(*words, "--top-k", "1").stdout == greedy + "\n"
    assert run(*words, "--min-p", "1").stdout == greedy + "\n"
    assert run(*words, "--top-p", "0.0001").stdout == greedy + "\n"
    assert run(*words).stdout != greedy + "\n"
    wrong = run(*words, "--top-p", "2")
    assert wrong.returncode == 2 and "top-p" in wrong.stderr


def test_several_texts_come_whole(run, trained: Path) -> None:
    words = ("text", "generate", str(trained), "--samples", "3", "--length", "20", "--temperature", "3")
    texts = [each["text"] for each in json.loads(run(*words, "--json").stdout)]
    assert len(set(texts)) == 3 and all(len(text) == 20 for text in texts)
    assert run(*words).stdout == "".join(f"--- {n}\n{text}\n" for n, text in enumerate(texts, 1))


def test_lines_are_scored(run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("The whale swims.\n\nThe zzz.\n")
    rows = json.loads(run("text", "score", str(trained), str(tmp_path / "lines.txt"), "--json").stdout)
    assert [row["line"] for row in rows] == ["The whale swims.", "The zzz."]
    wanted = LanguageModel.load(trained).surprises(["The zzz."])[0]
    assert rows[1]["bits"] == pytest.approx(float(wanted.sum()), rel=1e-5)
    assert rows[1]["surprising"][0]["text"] == "z"
    done = run("text", "score", str(trained), str(tmp_path / "lines.txt"), "--most", "1")
    assert "'z' at " in done.stdout and len(done.stdout.splitlines()) == 4


def test_evaluate_may_adapt(run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("sea sea ship sea " * 40)
    words = ("text", "evaluate", str(trained), str(tmp_path / "other.txt"), "--json")
    still, adapted = json.loads(run(*words).stdout), json.loads(run(*words, "--dynamic").stdout)
    assert set(still) == {"model", "bits_per_character", "perplexity"}
    assert adapted["bits_per_character"] < still["bits_per_character"]


def test_a_report_is_made_again(run, trained: Path) -> None:
    (trained / "report.html").unlink()
    assert run("text", "report", str(trained)).returncode == 0
    again = (trained / "report.html").read_text()
    assert "Kneser-Ney, order 7" in again and "What surprises it" in again


def test_a_folder_and_a_validation_text(run, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "books" / name).write_text(TEXT)
    (tmp_path / "valid.txt").write_text(TEXT[:300])
    out = tmp_path / "run"
    quick = ("--hidden-size", "4", "--embedding-size", "4", "--epochs", "1", "--unit", "bytes")
    done = run(
        "text",
        "fit",
        str(tmp_path / "books"),
        "--valid",
        str(tmp_path / "valid.txt"),
        *quick,
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    assert f"{2 * len(TEXT) + 1:,} characters" in done.stderr
    assert "Measured on the validation text, 300 characters" in done.stderr
    assert "Kneser-Ney" in done.stdout and "xz" in done.stdout
    assert LanguageModel.load(out).held_out_ == TEXT[:300]


def test_the_experiment_measures_both_sides(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    done = run("reproduce", "moby-dick", "--data", "text.txt", "--seeds", "1", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    rows = json.loads(Path("runs/moby-dick.json").read_text())["rows"]
    assert [row["method"] for row in rows] == [
        "the network alone",
        "Kneser-Ney, order 7",
        "xz",
        "PPMd",
        "gru of cellwise, seed 0",
        "gru of cellwise, adapting, seed 0",
        "gru of cellwise, mean of 1 seed",
        "gru of cellwise, adapting, mean of 1 seed",
    ]
    assert all(0 <= row["bits_per_character"] < 8 for row in rows)
