"""How good the forecasts are, and how honest their bands: one table over nine sets of real series.

    python benchmarks/forecasts.py [--sets births,co2] [--seeds 1] [--quick] [--set epochs=40] [--out forecasts.json]

For each set a Forecaster with its defaults is fitted to all but the last windows (`forecast_data.py` says which), and
forecasts those. What is measured lies after everything that training, stopping, weighing and calibration have seen.
Three rows a set: the network alone with its own bands, what is handed over (the mean with a simple method, its bands
calibrated), and the best (by MASE, on these very windows) of the simple methods. MASE, pinball, interval score and
width are in units of the seasonal naive error, so that sets can be compared; coverage is in percent; every series
counts alike. `scored` is the number of forecasts with a known truth. There is no refit, since what has learned all data
cannot be measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from forecast_data import ForecastSet, load, names

import cellwise
from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest, rolling_forecasts
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.metrics import score

LEVELS = (80, 90)
COLUMNS = (
    "MASE", "scaled pinball",
    *(f"{name} {level}" for level in LEVELS for name in ("coverage", "scaled width", "scaled interval")),
)  # fmt: skip
HEADINGS = (
    "MASE",
    "pinball",
    *(f"{name} {level}" for level in LEVELS for name in ("cover", "width", "interval")),
)
QUICK = {"epochs": 3, "hidden_size": 16}
QUICK_SERIES, QUICK_STEPS = 12, 3000


@dataclass(frozen=True)
class Row:
    """One line of the table: a method on a set, with a seed. scores: all metrics; seconds: of fit and backtest."""

    set: str
    method: str
    seed: int
    scored: int
    scores: dict[str, float]
    seconds: float | None


def measure(one: ForecastSet, seed: int, settings: dict[str, Any]) -> list[Row]:
    """Fit and forecast one set: the network alone, what is handed over, and the best simple method."""
    start = time.perf_counter()
    forecaster = Forecaster(
        horizon=one.horizon, season_length=one.season_length, known=one.known, past=one.past, levels=LEVELS,
        seed=seed, refit=False, **settings,
    )  # fmt: skip
    forecaster.fit(one.frame, cutoffs=one.cutoffs, step=one.step)
    after = forecaster.backtest_
    assert after is not None  # every set is long enough for its test windows
    seconds = time.perf_counter() - start
    before = network_alone(forecaster, after)
    scores = {name: each.overall for name, each in after.scores().items()}
    own = scores.pop(after.model)
    best = min(scores, key=lambda name: scores[name]["MASE"])
    scored = int((~np.isnan(after.y)).sum())
    return [
        Row(one.name, "network alone", seed, scored, before, None),
        Row(one.name, "handed over", seed, scored, own, seconds),
        Row(one.name, best, seed, scored, scores[best], None),
    ]


def network_alone(forecaster: Forecaster, after: Backtest) -> dict[str, float]:
    """The scores of the network's own forecasts and bands on the windows of a backtest."""
    panel = with_calendar(forecaster.table_.panel, forecaster.calendar_, after.horizon)
    quantiles = forecaster.network_.config.quantiles
    raw = rolling_forecasts(
        forecaster.network_.forecast, panel, after.cutoffs, after.horizon,
        name=after.model, quantiles=quantiles, levels=LEVELS,
    )  # fmt: skip
    return score(raw.y, raw.forecasts[after.model], quantiles, raw.scale, LEVELS).overall


def smaller(one: ForecastSet) -> ForecastSet:
    """A few series, and the end of them: to see that everything works."""
    kept = one.frame["unique_id"].unique(maintain_order=True).head(QUICK_SERIES)
    frame = one.frame.filter(pl.col("unique_id").is_in(kept.to_list()))
    frame = frame.group_by("unique_id", maintain_order=True).tail(QUICK_STEPS).select(one.frame.columns)
    return replace(one, frame=frame, cutoffs=min(one.cutoffs, 4))


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """The mean over seeds of each method on each set, in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.set, row.method), []).append(row)
    made = []
    for (name, method), group in groups.items():
        scores = {metric: float(np.mean([row.scores[metric] for row in group])) for metric in group[0].scores}
        seconds = [row.seconds for row in group if row.seconds is not None]
        made.append(
            Row(name, method, -1, group[0].scored, scores, float(np.mean(seconds)) if seconds else None)
        )
    return made


def lines(rows: Iterable[Row]) -> Iterable[str]:
    """The table as text."""
    yield (
        f"{'set':13}{'method':22}{'scored':>8}"
        + "".join(f"{each:>12}" for each in HEADINGS)
        + f"{'seconds':>9}"
    )
    for row in rows:
        figures = "".join(
            f"{row.scores[each]:12.1f}" if each.startswith("coverage") else f"{row.scores[each]:12.3f}"
            for each in COLUMNS
        )
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        yield f"{row.set:13}{row.method:22}{row.scored:8,}{figures}{seconds:>9}"


def about(settings: dict[str, Any]) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "cellwise": cellwise.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "settings": settings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default=",".join(names()), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="little data, little training: does it run?")
    parser.add_argument(
        "--part", choices=("all", "dev"), default="all", help="dev: the tests are cut off before"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of Forecaster"
    )
    parser.add_argument("--out", type=Path, default=Path("forecasts.json"), help="the figures as JSON")
    arguments = parser.parse_args()
    pairs = (text.partition("=") for text in arguments.set)
    settings = (QUICK if arguments.quick else {}) | {name: json.loads(value) for name, _, value in pairs}
    rows: list[Row] = []
    for name in arguments.sets.split(","):
        one = load(name, arguments.part)
        for seed in range(arguments.seeds):
            rows += measure(smaller(one) if arguments.quick else one, seed, settings)
        shown = list(lines(mean_rows([row for row in rows if row.set == name])))
        print("\n".join(shown if len(rows) == 3 * arguments.seeds else shown[1:]), flush=True)
        found = {"about": about(settings), "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
