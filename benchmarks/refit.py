"""What a network gains when it learns what it was measured on, and how to do that.

    python benchmarks/refit.py [--sets births,vic_elec,aus_retail] [--seeds 1] [--out refit.json]

A run ends at several points of the development part of a set (of the births, other years: 1969 to 1988). Its network is
left as it is, continued on all data up to there in several ways, or trained anew on them, and each is measured on the
windows after that end, which none of them has seen. Ratios to the network as it is: below 1 is better. `worst` is the
largest ratio of MASE; `cost` the time, as a share of that of the first training.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from forecast_data import load

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import rolling_forecasts
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.training.loop import TrainSettings, torch_threads, train
from cellwise.tasks.training.stage import continued_settings

# Epochs for each one of the first training, and share of its learning rate.
WAYS = {
    "1/10, rate 1": (0.1, 1.0),
    "1/5, rate 0.3": (0.2, 0.3),
    "1/5, rate 1": (0.2, 1.0),
    "1/2, rate 1": (0.5, 1.0),
}
ENDS = (0.75, 0.85, 0.95)  # shares of the data
WINDOWS = 24  # after each end, half a horizon apart
MOST_STEPS = 8000  # of a series


@dataclass(frozen=True)
class Row:
    """One network: ratios of its scores to those of the network as it is, and of the time that it took."""

    set: str
    seed: int
    end: float
    way: str
    mase: float
    pinball: float
    cost: float


def tables() -> dict[str, tuple[Table, int, dict[str, Any]]]:
    """Name -> data, horizon, options of the forecaster."""
    found: dict[str, tuple[Table, int, dict[str, Any]]] = {}
    births = Forecaster(horizon=28).read(us_births("1969-1988"))
    found["births"] = births, 28, {"hidden_size": 64}
    for name in ("vic_elec", "aus_retail"):
        one = load(name, part="dev")
        reader = Forecaster(horizon=one.horizon, season_length=one.season_length)
        frame = one.frame.group_by("unique_id", maintain_order=True).tail(MOST_STEPS)
        found[name] = reader.read(frame.select("unique_id", "ds", "y")), one.horizon, {}
    return found


def measure(
    name: str, table: Table, horizon: int, options: dict[str, Any], seed: int, end: float
) -> list[Row]:
    """Fit up to an end, and measure what becomes of the network after it."""
    lengths = table.panel.lengths
    known = (end * lengths).astype(int)
    whole = replace(table, panel=table.panel.cut(known.tolist()))
    start = time.perf_counter()
    made = Forecaster(
        horizon=horizon, seed=seed, refit=False, calibrate=False, ensemble=False, **options
    ).fit(whole, progress=False)
    first = time.perf_counter() - start
    training = with_calendar(made.table_.panel, made.calendar_, horizon)
    settings = TrainSettings.of(made, made._epochs(made._data, training))
    assert made.trained_ is not None
    epochs = made.trained_.best.epoch
    cutoffs = known[:, None] + max(1, horizon // 2) * np.arange(WINDOWS)
    cutoffs = np.where(cutoffs + horizon <= lengths[:, None], cutoffs, -1)
    panel = with_calendar(table.panel, made.calendar_, horizon)

    def score(network: ForecastNetwork) -> tuple[float, float]:
        backtest = rolling_forecasts(
            network.forecast, panel, cutoffs, horizon,
            name="GRU", quantiles=network.config.quantiles, levels=(80, 90),
        )  # fmt: skip
        found = backtest.scores()["GRU"].overall
        return found["MASE"], found["scaled pinball"]

    base, rows = score(made.network_), []

    def tried(way: str, network: ForecastNetwork, chosen: TrainSettings) -> None:
        began = time.perf_counter()
        train(network, made._refit_objective(network, made._data, training), chosen)
        took = time.perf_counter() - began
        mase, pinball = (now / then for now, then in zip(score(network), base, strict=True))
        rows.append(Row(name, seed, end, way, mase, pinball, took / first))
        print(rows[-1], flush=True)

    for way, (share, rate) in WAYS.items():
        chosen = replace(
            continued_settings(settings, epochs),
            epochs=max(1, round(share * epochs)),
            learning_rate=rate * settings.learning_rate,
        )
        tried(way, copy.deepcopy(made.network_), chosen)
    tried("anew", made._new_network(made._data), replace(settings, epochs=epochs, patience=0))  # type: ignore[arg-type]
    return rows


def table_of(rows: list[Row]) -> list[str]:
    """Geometric means by set and way."""
    lines = [f"{'set':12}{'way':16}{'runs':>5}{'MASE':>9}{'pinball':>9}{'worst':>8}{'cost':>7}"]
    names = dict.fromkeys(row.set for row in rows)
    for name in (*names, "all"):
        for way in dict.fromkeys(row.way for row in rows):
            group = [row for row in rows if row.way == way and name in (row.set, "all")]
            mase, pinball, cost = (
                float(np.exp(np.mean(np.log([getattr(row, each) for row in group]))))
                for each in ("mase", "pinball", "cost")
            )
            worst = max(row.mase for row in group)
            lines.append(f"{name:12}{way:16}{len(group):5}{mase:9.3f}{pinball:9.3f}{worst:8.3f}{cost:7.2f}")
    return lines


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default="births,vic_elec,aus_retail")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found, rows = tables(), []
    with torch_threads(1):
        for name in given.sets.split(","):
            for seed in range(given.seeds):
                for end in ENDS:
                    rows += measure(name, *found[name], seed, end)
    print("\n".join(table_of(rows)))
    if given.out is not None:
        given.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
