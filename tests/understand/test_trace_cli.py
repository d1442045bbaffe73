"""`cellwise trace` as a person types it: what it writes, and one sentence for every mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import polars
import pytest
from test_trace_forecast import frame_of

from cellwise.cli import main
from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.text import corpus as characters_text
from cellwise.tasks.training.run_folder import RunFolder
from cellwise.understand.trace.run import passage

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(60))


class Result:
    """Exit status and both streams of one command."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["cellwise", "trace", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forecast, a model of characters, and two folders that are neither."""
    home = tmp_path_factory.mktemp("runs")
    Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1).fit(frame_of(60)).save(home / "sales")
    CharacterModel(hidden_size=6, embedding_size=4, epochs=1).fit(TEXT).save(home / "text")
    RunFolder(home / "other").write_json("config.json", {"task": "chess", "settings": {}})
    (home / "empty").mkdir()
    return home


def test_a_forecast_is_traced_over_its_own_data_or_a_file(trace, runs: Path, tmp_path: Path) -> None:
    made = trace(runs / "sales", "--overwrite")
    assert made.status == 0, made.err
    assert made.err == f"page: {runs / 'sales' / 'trace.html'}\n"
    assert "<title>a: inside the GRU forecast</title>" in (runs / "sales" / "trace.html").read_text()
    frame_of(40, name="new").drop_nulls().write_csv(tmp_path / "new.csv")
    made = trace(runs / "sales", "new.csv", "--out", "pages/new.html", "--series", "new")
    assert made.status == 0, made.err
    assert "<title>new: inside the GRU forecast</title>" in (tmp_path / "pages" / "new.html").read_text()


def test_a_model_of_characters_is_traced_over_what_it_never_saw_or_a_file(
    trace, runs: Path, tmp_path: Path
) -> None:
    made = trace(runs / "text", "--overwrite", "--steps", 50)
    assert made.status == 0, made.err
    assert "50 characters of text that training never saw" in (runs / "text" / "trace.html").read_text()
    (tmp_path / "own.txt").write_text("Ünknown whales? " * 10, encoding="utf8")
    made = trace(runs / "text", "own.txt", "--steps", 80, "--out", "own.html")
    assert made.status == 0, made.err
    assert "note: the first 80 of 160 characters are traced; --steps takes up to 2,000" in made.err
    assert "note: 15 characters the model never saw are read as one unknown sign: Ü k ?" in made.err
    page = (tmp_path / "own.html").read_text("utf8")
    assert "80 characters of own.txt" in page and "do not occur in what the model was trained on" in page


def test_the_demo_trains_and_then_refuses(trace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(characters_text, "bundled_text", lambda: TEXT)
    made = trace("--demo", "--out", "run", "--epochs", 1, "--cell", "mingru")
    assert made.status == 0, made.err
    assert "done after 1 epoch," in made.err and "bits per character" in made.err
    assert "Inside the MINGRU that reads a text" in (tmp_path / "run" / "trace.html").read_text()
    again = trace("--demo", "--out", "run", "--epochs", 1, "--cell", "mingru")
    assert again.status == 2
    assert "run holds a finished run; give --overwrite to replace it" in again.err
    assert trace("--demo", "--out", "run", "--epochs", 1, "--overwrite").status == 0
    assert "Inside the GRU that reads a text" in (tmp_path / "run" / "trace.html").read_text()


def test_a_page_that_is_there_is_kept_unless_told(trace, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    refused = trace(runs / "text", "--out", "mine.html")
    assert refused.status == 2 and (tmp_path / "mine.html").read_text() == "mine"
    assert refused.err == "cellwise: mine.html exists; give --overwrite to replace it, or another --out\n"
    assert trace(runs / "text", "--out", "mine.html", "--overwrite").status == 0


MISTAKES = {
    "nothing": ([], "give trace a run folder, or --demo alone"),
    "both": (["{runs}/text", "--demo"], "give trace a run folder, or --demo alone"),
    "no run": (["nowhere"], "there is no run folder nowhere"),
    "not a run": (["{runs}/empty"], "is not a run folder: it has no config.json"),
    "other task": (["{runs}/other"], "holds a run of the task 'chess'; traced are forecast, text"),
    "no text": (["{runs}/text", "nothing.txt"], "there is no file nothing.txt"),
    "a folder": (["{runs}/text", "{runs}"], "is a folder, not a text file"),
    "empty": (["{runs}/text", "empty.txt"], "shows 2 to 2,000 characters; this text has 0"),
    "unknown": (["{runs}/text", "snow.txt"], "knows none of the characters of snow.txt; it knows"),
    "not utf8": (["{runs}/text", "latin.txt"], "latin.txt is no text in UTF-8 (byte 3 is not); convert it first"),
    "steps": (["{runs}/text", "--steps", "1"], "--steps must be from 2 to 2,000, not 1"),
    "series of text": (["{runs}/text", "--series", "a"], "--series is for a forecast"),
    "steps of forecast": (["{runs}/sales", "--steps", "9"], "--steps is for a run on characters"),
    "no series": (["{runs}/sales", "--series", "b"], "there is no series 'b'; the data has a"),
    "no csv": (["{runs}/sales", "nothing.csv"], "there is no file nothing.csv"),
    "short csv": (["{runs}/sales", "short.csv"], "series 'y' has fewer than 2 values; nothing can be traced"),
    "out is a folder": (["{runs}/text", "--out", "{runs}"], "is a folder; give --out the name of a file"),
    "bad cell": (["--demo", "--cell", "grux", "--out", "run"], "No cell is called 'grux'"),
    "bad epochs": (["--demo", "--epochs", "0", "--out", "run"], "epochs must be a whole number from 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(trace, runs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "snow.txt").write_text("☃☃☃", encoding="utf8")
    (tmp_path / "latin.txt").write_bytes(b"abc\xe4\xff")
    polars.DataFrame({"ds": ["2024-01-01"], "y": [1.0]}).write_csv(tmp_path / "short.csv")
    for page in runs.glob("*/trace.html"):
        page.unlink()
    arguments, said = MISTAKES[name]
    made = trace(*(each.format(runs=runs) for each in arguments))
    assert made.status == 2
    assert said in made.err
    assert made.err.startswith("cellwise: ") and made.err.count("\n") == 1
    assert not list(tmp_path.glob("**/trace.html"))


def test_a_passage_begins_where_a_paragraph_does() -> None:
    assert passage("rest of one.\nAnother one.\n", 8) == "Another "
    assert passage("rest of one.\nShort", 8) == "rest of "
    assert passage("no end", 8) == "no end"
