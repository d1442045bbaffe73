"""Tables of people, from file to forecast and back: `--wide`, `--sheet`, `--holidays`, `--out`, `export`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars
import pytest

from cellwise.tasks.data.files import read_file
from cellwise.tasks.data.workbook import write_workbook

pytest.importorskip("xlsxwriter")
pytest.importorskip("python_calamine")

QUICK = ["--hidden-size", "4", "--epochs", "1", "--quiet"]
SHEETS = ["forecast", "backtest", "scores", "scores_by_series", "scores_by_horizon", "settings"]


@pytest.fixture
def cellwise(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run("forecast", *arguments)


def wide() -> polars.DataFrame:
    steps = np.arange(72)
    months = np.datetime64("2018-01", "M") + steps
    shape = 100 + 10 * np.sin(2 * np.pi * steps / 12)
    frame = polars.DataFrame({"Month": months.astype("datetime64[D]"), "=North": shape, "South": 2 * shape})
    return frame.with_columns(Total=polars.col("=North") + polars.col("South"))


@pytest.fixture
def trained(cellwise, tmp_path: Path) -> Path:
    """A run of a wide workbook."""
    write_workbook({"Sales": wide()}, tmp_path / "sales.xlsx")
    made = cellwise("fit", "sales.xlsx", "--wide", "--drop", "Total", "-H", 6, "--out", "run", *QUICK)
    assert made[0] == 0, made[2]
    return tmp_path / "run"


def test_a_wide_run_forecasts_long_and_wide(cellwise, trained: Path, tmp_path: Path) -> None:
    long = polars.read_csv(cellwise("predict", trained)[1].encode(), try_parse_dates=True)
    assert long["unique_id"].unique(maintain_order=True).to_list() == ["=North", "South"]
    status, out, err = cellwise("predict", trained, "sales.xlsx", "--wide")
    medians = polars.read_csv(out.encode(), try_parse_dates=True)
    assert (status, medians.columns) == (0, ["Month", "=North", "South"])
    assert medians["Month"].to_list() == long["Month"].to_list()[:6]
    assert medians["South"].to_list() == long["GRU"].to_list()[6:]
    assert "these are the medians" in err

    status, _, err = cellwise("predict", trained, "--wide", "--out", "made/f.xlsx")
    assert status == 0 and "wrote 6 rows in each of 5 sheets to made/f.xlsx" in err
    high = read_file(tmp_path / "made/f.xlsx", sheet="hi-90")[0]
    assert high.columns == medians.columns
    assert high["South"].to_list() == long["GRU-hi-90"].to_list()[6:]


def test_every_table_of_a_run(cellwise, trained: Path, tmp_path: Path) -> None:
    status, _, err = cellwise("export", trained)
    assert status == 0 and f"wrote 6 sheets ({', '.join(SHEETS)}) to {trained}.xlsx" in err
    for name in SHEETS:
        csv = polars.read_csv(trained / f"{name}.csv", try_parse_dates=True)
        sheet = read_file(tmp_path / "run.xlsx", sheet=name)[0]
        assert sheet.columns == csv.columns
        assert len(sheet) == len(csv) > 0
        numbers = [each.name for each in csv if each.dtype == polars.Float64]
        for each in numbers:
            made = sheet[each].cast(polars.Float64).to_list()
            assert made == pytest.approx(csv[each].to_list(), rel=1e-12, nan_ok=True)
    assert polars.read_csv(trained / "settings.csv").filter(setting="drop")["value"].item() == "Total"
    before = (trained / "forecast.csv").read_bytes()
    (trained / "forecast.csv").write_text("gone")
    assert cellwise("check", trained)[0] == 2
    assert cellwise("report", trained)[0] == 0
    assert (trained / "forecast.csv").read_bytes() == before
    assert cellwise("check", trained)[0] == 0
    assert "must end in one of .xlsx" in cellwise("export", trained, "--out", "a.csv")[2]


def test_evaluate_and_backtest_write_tables(cellwise, trained: Path, tmp_path: Path) -> None:
    status, out, err = cellwise("evaluate", trained, "sales.xlsx", "--by", "series", "--out", "scores.csv")
    assert (status, out) == (0, "") and "rows to scores.csv" in err
    models = polars.read_csv(tmp_path / "scores.csv")["model"].to_list()
    assert all(each.startswith("GRU+") for each in models[:2]) and models.count("SeasonalNaive") == 2
    assert (
        "tables are written to a file named"
        in cellwise("evaluate", trained, "sales.xlsx", "--out", "a.pdf")[2]
    )
    assert "give one of them" in cellwise("evaluate", trained, "sales.xlsx", "--out", "a.csv", "--json")[2]

    made = cellwise("backtest", trained, "--cutoffs", 2, "--out", "past.xlsx", "--quiet")
    assert made[0] == 0, made[2]
    assert read_file(tmp_path / "past.xlsx", sheet="backtest")[0].height == 2 * 2 * 6
    assert not (tmp_path / "past.xlsx").is_dir()
    models = read_file(tmp_path / "past.xlsx", sheet="scores")[0]["model"].to_list()
    assert models[0].startswith("GRU+") and "SeasonalNaive" in models


def test_holidays_of_a_country(cellwise) -> None:
    pytest.importorskip("holidays")
    refused = cellwise("fit", "us-births", "-H", 7, "--holidays", "US,UK", *QUICK)
    assert (refused[0], refused[2]) == (2, "cellwise: holidays are not known for 'UK'; did you mean 'GB'?\n")


def test_a_workbook_through_standard_input(cellwise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_workbook({"Sales": wide()}, tmp_path / "sales.xlsx")
    with (tmp_path / "sales.xlsx").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": file})())
        refused = cellwise("fit", "-", "-H", 6, *QUICK)
    assert "it looks wide, with one column per series" in refused[2]
