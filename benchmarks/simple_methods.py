"""What every forecast has to beat: all simple methods on each set of series, the best first.

    python benchmarks/simple_methods.py                      # the development parts
    python benchmarks/simple_methods.py --part all m3 co2    # with the test windows

MASE and pinball are in units of the seasonal naive error; seconds are those of all methods of a set together.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from forecast_data import load, names

from cellwise.tasks.forecasting.backtest import cutoff_indices, rolling_forecasts
from cellwise.tasks.forecasting.frames import read_table
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import shortest_length

LEVELS, QUANTILES = (80, 90), (0.05, 0.1, 0.5, 0.9, 0.95)


def nothing(panel: Panel, horizon: int) -> np.ndarray:
    """In place of a network."""
    return np.full((len(panel), horizon, len(QUANTILES)), np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("dev", "all"), default="dev")
    parser.add_argument("sets", nargs="*", default=names())
    args = parser.parse_args()
    for name in args.sets:
        one = load(name, args.part)
        panel = read_table(one.frame, one.columns, season_length=one.season_length).panel
        shortest = shortest_length(one.horizon)
        cutoffs = cutoff_indices(panel.lengths, one.cutoffs, one.step, one.horizon, shortest)
        start = time.perf_counter()
        found = rolling_forecasts(
            nothing, panel, cutoffs, one.horizon, name="", quantiles=QUANTILES, levels=LEVELS
        )
        seconds = time.perf_counter() - start
        print(f"{name}, {args.part}: {found.count:,} windows of {one.horizon}; {seconds:.1f} s")
        scores = found.scores()
        for method in sorted(found.simple, key=lambda each: scores[each].overall["MASE"]):
            overall = scores[method].overall
            figures = f"{overall['MASE']:8.3f}{overall['scaled pinball']:9.4f}{overall['sMAPE']:8.2f}"
            print(f"  {method:22}{figures}{overall['coverage 90']:7.1f} % in the band of 90 %")


if __name__ == "__main__":
    main()
