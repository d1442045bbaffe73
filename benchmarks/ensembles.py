"""What a mean of forecasts brings: of networks of different cells, and of a network and a simple method.

    python benchmarks/ensembles.py co2 births --seeds 4 --cells gru lstm
    python benchmarks/ensembles.py co2 births pieces --seeds 2 --simple

The first: networks of each cell trained alone, their forecasts averaged in all pairs. On what lies before each set's
test windows (part="dev"), with as many windows at its end held out. A pair of one cell has two seeds; a pair of two
cells any seed of each. All pairs are averaged, which tells more of a few trainings than
training a few ensembles would.

The second, as a person has it: a forecaster is fitted to what lies before those windows, weighs network and simple
method on what it holds out, learns that too, and forecasts what follows. Printed: the errors of the network alone, of
the mean, and of the simple method that was chosen, and how often each is a tenth worse than that. `pieces` are short
series (`bands.py`), each by itself. MASE and pinball loss (in units of the naive error) of several series or seeds are
geometric means. Bands are not calibrated.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import bands
import numpy as np
from forecast_data import ForecastSet, before_test, load, names

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest, cutoff_indices, rolling_forecasts
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.metrics import score
from cellwise.tasks.forecasting.splits import shortest_length

PIECES = "pieces"


def train(chosen: ForecastSet, cell: str, seed: int) -> Backtest:
    """One network's forecasts of the held-out windows, as it makes them."""
    made = Forecaster(
        cell, chosen.horizon, seed=seed, season_length=chosen.season_length, known=chosen.known, past=chosen.past,
        calibrate=False, refit=False, ensemble=False,
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


def pieces() -> Iterator[ForecastSet]:
    """Short series, each by itself, and what follows them."""
    for name, frame, horizon, length in bands.short_pieces():
        yield ForecastSet(name, "", frame, horizon, (), frame.height - length - horizon + 1, 1)


def handed_over(one: ForecastSet, seed: int) -> dict[str, tuple[float, float]]:
    """MASE and pinball loss of network, mean and simple method on the windows after what was learned."""
    made = Forecaster(
        horizon=one.horizon, seed=seed, season_length=one.season_length, known=one.known, past=one.past
    )
    made.fit(before_test(one), cutoffs=0, progress=False)
    blend = made._postprocessing.blend
    assert blend is not None  # the default
    panel = with_calendar(made.read(one.frame).panel, made.calendar_, one.horizon)
    cutoffs = cutoff_indices(panel.lengths, one.cutoffs, one.step, one.horizon, shortest_length(one.horizon))
    quantiles = made.network_.config.quantiles
    found = rolling_forecasts(
        made.network_.forecast,
        panel,
        cutoffs,
        one.horizon,
        name="network",
        quantiles=quantiles,
        levels=(80, 90),
    )
    network, simple = found.forecasts["network"], found.forecasts[blend.method]
    forecasts = {
        "network": network,
        "mean": blend.weight * network + (1 - blend.weight) * simple,
        "simple": simple,
    }
    overall = {
        name: score(found.y, made_by, quantiles, found.scale, found.levels).overall
        for name, made_by in forecasts.items()
    }
    return {name: (each["MASE"], each["scaled pinball"]) for name, each in overall.items()}


def weigh(name: str, seeds: int) -> None:
    """Print a row for each of network, mean and simple method."""
    chosen = list(pieces()) if name == PIECES else [load(name, "dev")]
    rows = [handed_over(one, seed) for one in chosen for seed in range(seeds)]
    print(f"{name}: {len(rows)} trainings\n  {'':8}   MASE  pinball  a tenth worse than the simple method")
    for method in rows[0]:
        mase, pinball = np.exp(np.mean(np.log([row[method] for row in rows]), axis=0))
        worse = sum(row[method][0] > 1.1 * row["simple"][0] for row in rows)
        print(f"  {method:8} {mase:.4f}  {pinball:.4f}  {worse:3} of {len(rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=(*names(), PIECES))
    parser.add_argument("--cells", nargs="+", default=["gru", "lstm"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--simple", action="store_true", help="of a network and a simple method")
    given = parser.parse_args()
    if PIECES in given.sets and not given.simple:
        parser.error("pieces are for --simple")
    for name in given.sets:
        if given.simple:
            weigh(name, given.seeds)
        else:
            compare(load(name, "dev"), given.cells, given.seeds)


if __name__ == "__main__":
    main()
