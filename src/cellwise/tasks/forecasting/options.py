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
    """What a forecaster is told: of the data, the network and its training."""

    horizon: int = option(
        default=28,
        help="How many steps to forecast.",
        at_least=1,
        at_most=100_000,
        flag=("--horizon", "-H"),
        required=True,
        kw_only=False,
    )
    freq: str | None = option(
        default=None,
        help="Distance of the times: D, h, MS, 30min, W-SUN, ...",
        none="read off the data",
        group=DATA,
    )
    season_length: int | None = option(
        default=None,
        help="Steps in a season.",
        at_least=1,
        at_most=1_000_000,
        flag="--season",
        none="by frequency, 7 for days",
        group=DATA,
    )
    known: Sequence[str] = option(
        default=(),
        help="Covariate known in advance, by column; repeat it or separate with commas. Rows with an empty target at "
        "the end hold its future.",
        what="column names",
        metavar="COLUMN",
        group=DATA,
    )
    past: Sequence[str] = option(
        default=(),
        help="Covariate known only up to now, by column.",
        what="column names",
        metavar="COLUMN",
        group=DATA,
    )
    id_column: str = option(
        default="unique_id",
        help="Column that names the series; may be missing if there is one series.",
        what="the name of a column",
        flag="--id",
        group=DATA,
    )
    time_column: str = option(
        default="ds",
        help="Column of the times: dates or whole numbers.",
        what="the name of a column",
        flag="--time",
        group=DATA,
    )
    target_column: str = option(
        default="y",
        help="Column of the values to forecast.",
        what="the name of a column",
        flag="--target",
        group=DATA,
    )
    levels: Sequence[int] = option(
        default=(80, 90),
        help="Band in percent; may be repeated.",
        what="different whole percentages from 1 to 99 such as 80 and 90",
        accepts=_are_levels,
        flag="--level",
    )
    members: int = option(
        default=1,
        help="Networks that are trained side by side and averaged.",
        at_least=1,
        at_most=1000,
        group=NETWORK,
    )
    validation: int | None = option(
        default=None,
        help="Windows of one horizon held out to decide when to stop; 0 for none.",
        at_least=0,
        at_most=10_000,
        none="by the data's length",
        group=TRAINING,
    )
    date_format: str | None = option(
        default=None,
        help="How dates are written, such as %d/%m/%Y.",
        metavar="FORMAT",
        none="read off the data",
        group=DATA,
    )
    decimal: str | None = option(
        default=None,
        help="Mark before decimals, . or ,",
        metavar="MARK",
        none="read off the data",
        group=DATA,
    )
    encoding: str | None = option(
        default=None, help="Encoding of a text file, such as cp1252.", none="UTF-8 or UTF-16", group=DATA
    )
    dropout: float = 0.1


@with_options
class TestWindows:
    """What `fit` keeps from training at the end of the data, to measure itself on."""

    cutoffs: int = option(
        default=0, help="Test windows at the end of the data, kept from training.", at_least=0, at_most=10_000
    )
    step: int | None = option(
        default=None, help="Steps between two cutoffs.", at_least=1, at_most=1_000_000, none="one horizon"
    )
