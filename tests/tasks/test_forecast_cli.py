"""`cellwise forecast` as a person types it: what it prints, what it writes, and one sentence for every
mistake."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars
import pytest
from safetensors.torch import load_file

from cellwise.cli import main
from cellwise.tasks.training.run_folder import RunFolder

QUICK = ["--hidden-size", "4", "--epochs", "1"]


class Result:
    """Exit status and both streams of one command."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def cellwise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["cellwise", "forecast", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    steps = np.arange(120)
    ds = np.datetime64("2024-01-01", "D") + steps
    y = 20 + 5 * np.sin(2 * np.pi * steps / 7) + np.random.default_rng(0).normal(size=120)
    polars.DataFrame({"ds": ds, "y": y}).write_csv(tmp_path / "sales.csv")
    return tmp_path / "sales.csv"


def test_fit_then_predict_then_backtest(cellwise, sales: Path, tmp_path: Path) -> None:
    made = cellwise("fit", sales, "--horizon", 7, *QUICK)
    assert made.status == 0, made.err
    assert "one series, 120 values, one every day, 2024-01-01 to 2024-04-29" in made.err
    assert re.search(r"^GRU\+\S+ +[\d.]+ ", made.out, re.MULTILINE)
    assert re.search(r"^SeasonalNaive +[\d.]+ ", made.out, re.MULTILINE)
    run = tmp_path / "runs" / "sales-gru"
    assert (run / "report.html").is_file()

    printed = cellwise("predict", run)
    table = polars.read_csv(printed.out.encode(), try_parse_dates=True)
    assert table.columns == ["unique_id", "ds", "GRU", "GRU-lo-80", "GRU-hi-80", "GRU-lo-90", "GRU-hi-90"]
    assert str(table["ds"][0]) == "2024-04-30"
    written = cellwise("predict", run, sales, "--horizon", 10, "--out", "made/forecasts.csv")
    assert "wrote 10 rows to made/forecasts.csv" in written.err
    again = polars.read_csv(tmp_path / "made" / "forecasts.csv", try_parse_dates=True)
    assert again.head(7).equals(table)

    measured = cellwise("backtest", run, "--cutoffs", 4)
    assert "a fresh network is trained with its settings" in measured.err
    assert "which neither training nor early stopping has seen" in measured.err
    assert "GRU" in measured.out


def test_a_run_that_kept_its_test_is_measured_as_it_is(cellwise, sales: Path) -> None:
    first = cellwise("backtest", sales, "-H", 7, "--cutoffs", 2, "--out", "run", *QUICK)
    assert first.status == 0, first.err
    again = cellwise("backtest", "run", "--cutoffs", 2)
    assert "epoch" not in again.err
    assert again.out == first.out


def test_a_finished_run_is_kept_unless_told(cellwise, sales: Path) -> None:
    command = ["fit", sales, "-H", 7, "--out", "run", *QUICK]
    assert cellwise(*command).status == 0
    refused = cellwise(*command)
    assert refused.status == 2
    assert "run holds a finished run; give --overwrite to replace it, or another folder" in refused.err
    assert cellwise(*command, "--overwrite").status == 0


def test_names_of_columns_and_covariates(cellwise, sales: Path, tmp_path: Path) -> None:
    frame = polars.read_csv(sales).rename({"ds": "day", "y": "sold"})
    steps = np.arange(frame.height)
    frame = frame.with_columns(shop=polars.lit("x"), promo=steps % 5, price=steps % 3, rain=steps % 2)
    frame.write_parquet(tmp_path / "shops.parquet")
    columns = [
        "--id",
        "shop",
        "--time",
        "day",
        "--target",
        "sold",
        "--known",
        "promo,price",
        "--past",
        "rain",
    ]
    made = cellwise("fit", "shops.parquet", "-H", 7, *columns, *QUICK, "--out", "run")
    assert made.status == 0, made.err
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The known covariates do not reach past the data" in report
    refused = cellwise("predict", "run")
    assert refused.status == 2
    assert "a forecast of 7 steps needs promo, price for as many steps after the last value" in refused.err


DAYS = "ds,y\n" + "".join(f"2024-01-{day:02d},{day % 7}\n" for day in range(1, 31))
BAD = {
    "no such file": (None, ["-H", 7], "there is no file"),
    "empty file": ("", ["-H", 7], "is empty"),
    "missing column": ("ds,value\n2024-01-01,1\n", ["-H", 7], "there is no column 'y'; the table has 'ds', 'value'"),
    "missing covariate": (DAYS, ["-H", 7, "--known", "promo"], "there is no column 'promo'"),
    "not numeric": ("ds,y\n2024-01-01,1\n2024-01-02,x\n", ["-H", 1], "column 'y' is not numeric: line 3 holds 'x'"),
    "unreadable dates": ("ds,y\nsoon,1\nlater,2\n", ["-H", 1], "column 'ds' holds 'soon' at line 2"),
    "duplicates": ("ds,y\n2024-01-01,1\n2024-01-01,2\n", ["-H", 1], "has two rows for 2024-01-01"),
    "infinite": ("ds,y\n2024-01-01,1\n2024-01-02,-inf\n", ["-H", 1], "an infinite value at line 3"),
    "too short": (DAYS, ["-H", 28], "series 'y' has 30 values, but a horizon of 28 needs at least"),
    "wrong frequency": (DAYS, ["-H", 7, "--freq", "MS"], "the frequency MS does not fit the data"),
    "no frequency": (DAYS, ["-H", 7, "--freq", "often"], "'often' is not a frequency"),
    "unknown cell": (DAYS, ["-H", 7, "--cell", "grru"], "did you mean 'gru'?"),
    "horizon": (DAYS, ["-H", 0], "horizon must be a whole number from 1 to"),
    "epochs": (DAYS, ["-H", 7, "--epochs", -3], "epochs must be"),
    "level": (DAYS, ["-H", 7, "--level", 120], "levels must be"),
    "two meanings": (DAYS, ["-H", 7, "--known", "y"], "column 'y' is given two meanings"),
    "not a number": (DAYS, ["-H", "seven"], "a valid integer"),
    "no horizon": (DAYS, [], "--horizon"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_every_mistake_is_one_sentence_and_status_2(case: str, cellwise, tmp_path: Path) -> None:
    text, arguments, sentence = BAD[case]
    if text is not None:
        (tmp_path / "data.csv").write_text(text)
    made = cellwise("fit", "data.csv", *arguments, "--out", "run")
    assert made.status == 2
    assert sentence in made.err
    assert "Traceback" not in made.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", "there is no run folder"),
        ("foreign", "is not a run folder: it has no config.json"),
        ("json", "config.json is not JSON"),
        ("weights", "best.safetensors is cut short or altered"),
    ],
)
def test_a_damaged_run_folder(damage: str, sentence: str, cellwise, sales: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if damage in ("json", "weights"):
        assert cellwise("fit", sales, "-H", 7, "--out", "run", *QUICK).status == 0
    if damage == "foreign":
        run.mkdir()
    if damage == "json":
        (run / "config.json").write_text("{")
    if damage == "weights":
        (run / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:200])
    for command in ("predict", "backtest"):
        if (command, damage) == ("backtest", "missing"):
            continue  # then it is a missing file
        made = cellwise(command, run)
        assert made.status == 2
        assert sentence in made.err


def test_check_says_of_each_file_whether_it_is_whole(cellwise, sales: Path, tmp_path: Path) -> None:
    assert cellwise("fit", sales, "-H", 7, "--out", "run", *QUICK).status == 0
    made = cellwise("check", "run")
    assert made.status == 0 and "BAD" not in made.out
    assert "ok   run: finished; it loads" in made.out
    for name in (
        "config.json",
        "best.safetensors",
        "metrics.csv",
        "report.html",
        "plots/loss.svg",
        "summary.json",
    ):
        assert f"ok   {name}: " in made.out
    (tmp_path / "run/plots/loss.svg").unlink()
    made = cellwise("check", "run")
    assert made.status == 2 and "the run folder run is damaged" in made.err
    assert "BAD  plots/loss.svg: is missing; make it again with: cellwise forecast report run" in made.out
    assert cellwise("report", "run").status == 0
    assert cellwise("check", "run").status == 0
    for name, content in (("best.safetensors", b"x"), ("config.json", b"{"), ("summary.json", b"[]")):
        before = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).write_bytes(content)
        made = cellwise("check", "run")
        assert made.status == 2 and f"BAD  {name}: " in made.out and "Traceback" not in made.err
        (tmp_path / "run" / name).write_bytes(before)
    assert cellwise("check", "run").status == 0
    assert "there is no run folder" in cellwise("check", "nowhere").err
    assert "is not a run folder" in cellwise("check", ".").err


def test_check_of_a_run_that_is_not_finished(cellwise, sales: Path, tmp_path: Path) -> None:
    assert cellwise("fit", sales, "-H", 7, "--out", "run", *QUICK).status == 0
    (tmp_path / "run/summary.json").unlink()
    made = cellwise("check", "run")
    assert made.status == 0
    assert "not finished: 1 epoch is saved; the command that started it resumes it" in made.out
    (tmp_path / "run/last.safetensors").write_bytes(b"x")
    assert cellwise("check", "run").status == 2


def test_a_report_that_fails_costs_no_training(
    cellwise, sales: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellwise.tasks.forecasting import report

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(report, "write_report", fail)
        made = cellwise("fit", sales, "-H", 7, "--out", "run", *QUICK)
        again = cellwise("report", "run")
    assert made.status == 0
    assert "note: the run is finished, but its report could not be made (OSError: no space left)" in made.err
    assert "report: run" not in made.err and "Warning" not in made.err
    assert again.status == 2 and "could not be made" in again.err
    assert cellwise("predict", "run").status == 0
    assert cellwise("report", "run").status == 0


def test_where_not_to_write(cellwise, sales: Path, tmp_path: Path) -> None:
    assert "is a file; a run needs a folder" in cellwise("fit", sales, "-H", 7, "--out", sales, *QUICK).err
    refused = cellwise("fit", sales, "-H", 7, "--out", tmp_path, "--overwrite", *QUICK)
    assert refused.status == 2
    assert "is not empty and not a run folder" in refused.err
    assert sales.exists()
    assert cellwise("fit", sales, "-H", 7, "--out", "run", *QUICK).status == 0
    refused = cellwise("predict", "run", "--out", "forecasts.docx")
    assert refused.status == 2
    assert "a file named .csv, .xlsx, .parquet, .pq or .jsonl" in refused.err


def test_backtest_asks_for_what_it_needs(cellwise, sales: Path) -> None:
    assert "a backtest of a file needs --horizon" in cellwise("backtest", sales).err
    refused = cellwise("backtest", sales, "-H", 7, "--cutoffs", 0)
    assert refused.status == 2
    assert "at least one cutoff" in refused.err


def test_help_names_every_option_in_words(cellwise) -> None:
    for command in ("fit", "predict", "backtest", "demo", "check", "report"):
        shown = cellwise(command, "--help")
        assert shown.status == 0
        for line in re.findall(r"^  (?:-\w, )?--[\w-]+.*$", shown.out, re.MULTILINE):
            assert len(line.split()) > 2 or line.strip().endswith(">"), line


FIT = ["-H", 7, "--hidden-size", 4, "--epochs", 6]


def start_until(signal_number: int, sales: Path, run: Path, epochs: int) -> tuple[int, str]:
    """Fit in a process of its own; send it a signal as soon as so many epochs are saved."""
    code = "import sys; from cellwise.cli import main; sys.argv[0] = 'cellwise'; main()"
    arguments = [sys.executable, "-c", code, "forecast", "fit", sales, *FIT, "--out", run]
    process = subprocess.Popen([*map(str, arguments)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    folder = RunFolder(run)
    while time.monotonic() < deadline and process.poll() is None:
        if folder.is_started and len(folder.read_tensors("last.safetensors").about["epochs"]) >= epochs:
            break
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_stopped_killed_and_resumed_equals_uninterrupted(cellwise, sales: Path, tmp_path: Path) -> None:
    status, err = start_until(signal.SIGINT, sales, tmp_path / "parts", 1)
    assert status == 130
    assert re.search(
        r"stopped in epoch \d; \d epochs? (is|are) saved in .*; the same command resumes from there", err
    )
    status, err = start_until(signal.SIGKILL, sales, tmp_path / "parts", 3)
    assert status == -signal.SIGKILL
    resumed = cellwise("fit", sales, *FIT, "--out", "parts")
    assert "resumed after" in resumed.err
    whole = cellwise("fit", sales, *FIT, "--out", "whole")
    assert "resumed after" not in whole.err
    assert resumed.out == whole.out
    weights = [load_file(tmp_path / run / "best.safetensors") for run in ("parts", "whole")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_an_update_measures_then_learns_and_keeps_a_record(cellwise, sales: Path, tmp_path: Path) -> None:
    assert cellwise("fit", sales, "--horizon", 7, *QUICK, "--out", "run").status == 0
    before = cellwise("predict", "run").out
    newer = (
        polars.read_csv(sales, try_parse_dates=True).tail(20).with_columns(polars.col.ds.dt.offset_by("14d"))
    )
    newer.write_csv(tmp_path / "newer.csv")
    told = cellwise("update", "run", "newer.csv", "--json")
    assert told.status == 0, told.err
    value = json.loads(told.out)
    assert (value["held_out"], value["windows"]) == ("test", 2)
    assert "6 values that the run has were revised" in told.err
    assert "update 1: " in told.err and "14 new values; MASE GRU+" in told.err
    assert "2024-05-14" in cellwise("predict", "run").out and "2024-05-14" not in before
    again = cellwise("update", "run", "newer.csv", "--out", "other")
    assert again.status == 2 and "there is nothing new" in again.err
    assert not (tmp_path / "other").exists()
    assert cellwise("check", "run").status == 0
    assert "report: run/report.html" in cellwise("report", "run").err
