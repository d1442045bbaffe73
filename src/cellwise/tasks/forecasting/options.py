"""The options of forecasting, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import option, with_options

__all__ = ["ForecastOptions", "TestWindows"]

DATA = "data"


def _are_levels(levels: Any) -> bool:
    try:
        values = list(levels)
    except TypeError:
        return False
    whole = all(isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= 99 for each in values)
    return bool(values) and whole and len(set(values)) == len(values)


@with_options
class ForecastOptions(CommonOptions):
    """The options of a forecaster: data, network and training."""

    horizon: int = option(
        default=28,
        help="Steps to forecast.",
        at_least=1,
        at_most=100_000,
        flag=("--horizon", "-H"),
        required=True,
        kw_only=False,
    )
    freq: str | None = option(
        default=None,
        help="Frequency of the series: D, h, MS, 30min, W-SUN, ...",
        none="inferred from the data",
        group=DATA,
    )
    season_length: int | None = option(
        default=None,
        help="Season length in steps.",
        at_least=1,
        at_most=1_000_000,
        flag="--season",
        none="found in the data; where none shows, that of the frequency: 7 for days",
        group=DATA,
    )
    known: Sequence[str] = option(
        default=(),
        help="Column of a covariate known in advance; repeat it or separate with commas. Rows at the end with an "
        "empty target hold its future.",
        what="column names",
        metavar="COLUMN",
        group=DATA,
    )
    past: Sequence[str] = option(
        default=(),
        help="Column of a covariate known only up to the present.",
        what="column names",
        metavar="COLUMN",
        group=DATA,
    )
    holidays: Sequence[str] = option(
        default=(),
        help="Country whose public holidays are covariates, as US, or US-CA for a part of one; repeat it or separate "
        "with commas.",
        what='places such as "US" or "US-CA"',
        metavar="COUNTRY",
        group=DATA,
    )
    id_column: str = option(
        default="unique_id",
        help="Column with the names of the series; several, with commas, name them together (store,item). Optional for "
        "a single series.",
        what="the name of a column",
        flag="--id",
        group=DATA,
    )
    time_column: str = option(
        default="ds",
        help="Column with the times: dates or whole numbers.",
        what="the name of a column",
        flag="--time",
        group=DATA,
    )
    target_column: str = option(
        default="y",
        help="Column with the values to forecast.",
        what="the name of a column",
        flag="--target",
        group=DATA,
    )
    levels: Sequence[int] = option(
        default=(80, 90),
        help="Prediction interval in percent; may be repeated.",
        what="different whole percentages from 1 to 99 such as 80 and 90",
        accepts=_are_levels,
        flag="--level",
    )
    members: int = option(
        default=1,
        help="Networks trained side by side whose forecasts are averaged; of several cells at least one each.",
        at_least=1,
        at_most=1000,
        group=NETWORK,
    )
    validation: int | None = option(
        default=None,
        help="Validation windows of one horizon each, for calibration, and with --epochs, --minutes or "
        "--patience for early stopping; 0 for none.",
        at_least=0,
        at_most=10_000,
        none="by the data's length",
        group=TRAINING,
    )
    calibrate: bool = option(
        default=True,
        help="Widen or narrow the bands by what the held-out windows show.",
        group=TRAINING,
    )
    best: bool = option(
        default=False,
        help="Hand over the better of the network and the best simple method, instead of a mean of both.",
        group=TRAINING,
    )
    ensemble: bool = option(
        default=True,
        help="Hand over a mean of the network and the best simple method, weighted by the held-out windows.",
        group=TRAINING,
    )
    refit: bool = option(
        default=True,
        help="Learn the held-out data too, once the network is measured.",
        group=TRAINING,
    )
    wide: bool = option(
        default=False,
        help="The table is wide: one column of times and one per series, or one row per series and one column per "
        "time. Columns of --known and --past hold for every series.",
        group=DATA,
    )
    drop: Sequence[str] = option(
        default=(),
        help="Column, or row, of a wide table that is no series, such as a total.",
        what="names of series",
        metavar="NAME",
        group=DATA,
    )
    date_format: str | None = option(
        default=None,
        help="Format of the dates, such as %d/%m/%Y.",
        metavar="FORMAT",
        none="inferred from the data",
        group=DATA,
    )
    decimal: str | None = option(
        default=None,
        help="Decimal mark, . or ,",
        metavar="MARK",
        none="inferred from the data",
        group=DATA,
    )
    encoding: str | None = option(
        default=None, help="Encoding of a text file, such as cp1252.", none="UTF-8 or UTF-16", group=DATA
    )
    cell: Any = option(
        default="gru",
        help="A cell's name (see `cellwise cells`), or FILE.py:Class for one of your own; gru+lstm for members of "
        "both.",
        metavar="CELL",
        group=NETWORK,
        kw_only=False,
    )
    patience: int | None = option(
        default=None,
        help="Epochs without improvement on validation before training stops; 0 disables early stopping.",
        at_least=0,
        at_most=1_000_000,
        none="6 for few series with four validation windows or more, and where epochs or minutes are given; else 0",
        group=TRAINING,
    )
    sheet: str | None = option(
        default=None,
        help="Sheet of an Excel workbook.",
        what="the name of a sheet",
        metavar="NAME",
        none="the first",
        group=DATA,
    )
    dropout: float = 0.1


@with_options
class TestWindows:
    """The test windows that `fit` holds out at the end of the data."""

    cutoffs: int | None = option(
        default=None,
        help="Test windows held out at the end of the data; 0 for none.",
        at_least=0,
        at_most=10_000,
        none="by the data's length",
    )
    step: int | None = option(
        default=None, help="Steps between two cutoffs.", at_least=1, at_most=1_000_000, none="one horizon"
    )
