"""What members of different cells bring: networks of each cell trained alone, their forecasts averaged in all pairs.

    python benchmarks/ensembles.py co2 births --seeds 4 --cells gru lstm

On what lies before each set's test windows (part="dev"), with as many windows at its end held out. A pair of one cell
has two seeds; a pair of two cells any seed of each. All pairs are averaged, which tells more of a few trainings than
training a few ensembles would.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from forecast_data import ForecastSet, load, names

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import score


def train(chosen: ForecastSet, cell: str, seed: int) -> Backtest:
    """One network's forecasts of the held-out windows, as it makes them."""
    made = Forecaster(
        cell, chosen.horizon, seed=seed, season_length=chosen.season_length, known=chosen.known, past=chosen.past,
        calibrate=False, refit=False,
    ).fit(chosen.frame, cutoffs=chosen.cutoffs, step=chosen.step, progress=False)  # fmt: skip
    backtest = made.backtest_
    assert backtest is not None and made.backtest_is_test_
    return backtest


def figures(members: tuple[Backtest, ...]) -> tuple[float, float]:
    """MASE and pinball loss of the mean of some forecasts."""
    first = members[0]
    mean = np.mean([each.forecasts[each.model] for each in members], axis=0)
    overall = score(first.y, mean, first.quantiles, first.scale, first.levels).overall
    return overall["MASE"], overall["pinball"]


def compare(chosen: ForecastSet, cells: list[str], seeds: int) -> None:
    """Train, and print a row for each cell and each pair."""
    trained = {cell: [train(chosen, cell, seed) for seed in range(seeds)] for cell in cells}
    groups: dict[str, list[tuple[Backtest, ...]]] = {
        cell: [(each,) for each in trained[cell]] for cell in cells
    }
    for cell in cells:
        groups[f"2 x {cell}"] = list(itertools.combinations(trained[cell], 2))
    for one, other in itertools.combinations(cells, 2):
        groups[f"{one}+{other}"] = list(itertools.product(trained[one], trained[other]))
    print(f"{chosen.name}: {chosen.what}, {seeds} seeds\n  {'':16}  of    MASE   pinball")
    for name, several in groups.items():
        mase, pinball = np.mean([figures(each) for each in several], axis=0) if several else (np.nan, np.nan)
        print(f"  {name:16} {len(several):3}  {mase:.4f}  {pinball:8.4g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=names())
    parser.add_argument("--cells", nargs="+", default=["gru", "lstm"])
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    for name in given.sets:
        compare(load(name, "dev"), given.cells, given.seeds)


if __name__ == "__main__":
    main()
