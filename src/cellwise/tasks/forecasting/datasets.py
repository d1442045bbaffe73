"""Real series that ship with cellwise. Source and licence stand beside them, in `data/LICENSE.txt`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import OptionError

__all__ = ["bundled", "us_births", "us_holidays"]

FOLDER = Path(__file__).parent / "data"
US_BIRTHS = {"1969-1988": "us_births_1969_1988.csv.gz", "2000-2014": "us_births_2000_2014.csv.gz"}


def us_births(years: str = "2000-2014", ahead: int = 0) -> Any:
    """Births in the United States, day by day: a polars frame `unique_id`, `ds`, `y`, `holiday`,
    `near_holiday`.

    `years` is "2000-2014" (5,479 days) or "1969-1988" (7,305 days). The two holiday columns are known in
    advance, see `us_holidays`; the births themselves are the published figures.

    >>> us_births().row(0)
    ('US births', datetime.date(2000, 1, 1), 9083, 1, 0)
    """
    if years not in US_BIRTHS:
        raise OptionError(f"there are no births for {years!r}; choose {' or '.join(US_BIRTHS)}")
    polars = require("polars")
    births = polars.read_csv(FOLDER / US_BIRTHS[years], try_parse_dates=True)
    if ahead:
        last = births["ds"][-1]
        days = polars.date_range(last, last + timedelta(days=ahead), closed="right", eager=True)
        births = polars.concat([births, polars.DataFrame({"ds": days})], how="diagonal")
    holiday, near = us_holidays(births["ds"].to_numpy())
    births = births.select(polars.lit("US births").alias("unique_id"), "ds", "y")
    return births.with_columns(holiday=holiday.astype(np.int64), near_holiday=near.astype(np.int64))


def us_holidays(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each day (datetime64[D]) is one of the six holidays on which the United States rest, or next
    to one.

    New Year's Day, Memorial Day (last Monday of May), Independence Day, Labor Day (first Monday of
    September), Thanksgiving (fourth Thursday of November), Christmas. Next to one: the day before or after
    it, itself none."""
    days = days.astype("datetime64[D]")
    years = np.arange(days.min().astype("datetime64[Y]"), days.max().astype("datetime64[Y]") + 2)
    months = years.astype("datetime64[M]")
    found = np.concatenate([
        (months + 0).astype("datetime64[D]"),
        np.busday_offset((months + 5).astype("datetime64[D]"), -1, roll="forward", weekmask="Mon"),
        (months + 6).astype("datetime64[D]") + 3,
        np.busday_offset((months + 8).astype("datetime64[D]"), 0, roll="forward", weekmask="Mon"),
        np.busday_offset((months + 10).astype("datetime64[D]"), 3, roll="forward", weekmask="Thu"),
        (months + 11).astype("datetime64[D]") + 24,
    ])  # fmt: skip
    on = np.isin(days, found)
    near = (np.isin(days + 1, found) | np.isin(days - 1, found)) & ~on
    return on, near


def bundled(name: str) -> Any | None:
    """The bundled table of this name ("us-births", "us-births-1969-1988"), with a year of days ahead; or
    None."""
    tables = {"us-births": "2000-2014"} | {f"us-births-{years}": years for years in US_BIRTHS}
    return us_births(tables[name], ahead=366) if name in tables else None
