"""How a forecaster's network does after every few epochs, on windows that neither training nor stopping has seen.

What the defaults of its training were chosen on (docs/decisions/0031): the development parts of the sets in
`forecast_data.py`, whose ends are cut off before anything else happens; births of 1969-1988; and short single series,
the ends of the training parts of some of M3's monthly series, each learned alone.

    python benchmarks/epochs.py births-1969 vic_elec [--every 5] [--seeds 2] [--set epochs=40 --set weight_decay=0.1]
    python benchmarks/epochs.py short-24 short-36 --set epochs=20 --every 1

MASE and pinball loss (in units of the naive error) are means over the windows. "fitted" is the pinball loss once all
bands are made wider by the one factor that suits these windows best: what calibration can make of their shape. Epoch 0
is the untrained network, which answers with its base forecast. Settings are those of training and network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from forecast_data import load, names

from cellwise.tasks.forecasting import m3
from cellwise.tasks.forecasting.backtest import windows_at
from cellwise.tasks.forecasting.config import DEFAULT_QUANTILES, NetworkConfig
from cellwise.tasks.forecasting.data import ForecastData, prepare_data
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.epochs import epochs_for
from cellwise.tasks.forecasting.frames import Columns, read_table
from cellwise.tasks.forecasting.metrics import covered, mean, naive_scale, pinball
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.objective import ForecastObjective, training_part
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.training.loop import TrainSettings, torch_threads, train

Figures = dict[str, float]
FACTORS = np.geomspace(0.5, 4.0, 25)
SHORT = {"short-24": 24, "short-36": 36}
SHORT_HORIZON, SHORT_CUTOFFS, EVERY_SERIES = 6, 4, 120
BATCH_SIZE = 64


@dataclass(frozen=True)
class Problem:
    """A table's frame, how it is read, and its test windows."""

    frame: Any
    horizon: int
    cutoffs: int
    step: int
    season_length: int | None = None
    columns: Columns = Columns()  # noqa: RUF009


def problems(name: str) -> Iterator[Problem]:
    """One, or several that are to be learned one by one."""
    if name in SHORT:
        held = SHORT_HORIZON + SHORT_CUTOFFS - 1
        series = m3.read_monthly(m3.fetch(m3.cache_folder()))
        for y in list(series.values())[::EVERY_SERIES]:
            frame = m3.table({"x": y[: -m3.HORIZON][-SHORT[name] - held :]})
            yield Problem(frame, SHORT_HORIZON, SHORT_CUTOFFS, 1, m3.SEASON_LENGTH)
    elif name == "births-1969":
        yield Problem(us_births("1969-1988"), 28, 24, 30, columns=Columns(known=("holiday", "near_holiday")))
    else:
        one = load(name, part="dev")
        yield Problem(one.frame, one.horizon, one.cutoffs, one.step, one.season_length, one.columns)


class Measured(ForecastObjective):
    """Measures the network on the test windows too, after every few epochs, with the weights as they are averaged."""

    def __init__(
        self, network: ForecastNetwork, data: ForecastData, panel: Panel, every: int, **more: Any
    ) -> None:
        super().__init__(network, panel, data.split, **more)
        self.every, self.epoch, self.found = every, 0, {}  # type: tuple[int, int, dict[int, Figures]]
        self.cut, self.truth, _ = windows_at(panel, data.split.test, network.config.horizon)
        self.scale = np.array([naive_scale(y, panel.frequency.season_length) for y in self.cut.y])
        self.note(self._validation())

    def _validation(self) -> Figures:
        return dict(super().validate())

    def validate(self) -> Figures:
        self.epoch += 1
        held = self._validation()
        if self.epoch % self.every == 0:
            self.note(held)
        return held

    def note(self, held: Figures) -> None:
        network = self._network
        quantiles, middle = network.config.quantiles, len(network.config.quantiles) // 2
        made = network.forecast(self.cut, network.config.horizon)
        median = made[..., middle]

        def loss(factor: float) -> float:
            wider = median[..., None] + factor * (made - median[..., None])
            return float(mean(mean(pinball(self.truth, wider, quantiles), axis=1) / self.scale))

        low, high = made[..., quantiles.index(0.1)], made[..., quantiles.index(0.9)]
        self.found[self.epoch] = {
            "MASE": float(mean(mean(np.abs(self.truth - median), axis=1) / self.scale)),
            "pinball": loss(1.0),
            "fitted": min(map(loss, FACTORS)),
            "coverage 80": float(mean(covered(self.truth, low, high))),
            "validation": held.get(self.metric, float("nan")),
        }


def run(problem: Problem, seed: int, every: int, options: dict[str, Any]) -> dict[int, Figures]:
    """Figures by epoch. options: of `NetworkConfig`, `TrainSettings`, and validation, the windows held out."""
    options = {"validation": 0} | options
    network_options = {
        each.name: options[each.name] for each in fields(NetworkConfig) if each.name in options
    }
    network_options |= {"horizon": problem.horizon, "quantiles": DEFAULT_QUANTILES}
    table = read_table(problem.frame, problem.columns, season_length=problem.season_length)
    data, panel = prepare_data(
        table,
        network_options,
        cutoffs=problem.cutoffs,
        step=problem.step,
        validation=options["validation"],
    )
    torch.manual_seed(seed)
    network = ForecastNetwork(data.config)
    objective = Measured(network, data, panel, every, batch_size=BATCH_SIZE, seed=seed, keeps_best=False)
    epochs = epochs_for(training_part(panel, data.split, problem.horizon), BATCH_SIZE)
    settings = {each.name: options[each.name] for each in fields(TrainSettings) if each.name in options}
    with torch_threads(1):
        train(network, objective, TrainSettings(**{"epochs": epochs, "patience": 0, "seed": seed} | settings))
    return objective.found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=("births-1969", *SHORT, *names()), metavar="SET")
    parser.add_argument("--every", type=int, default=5, help="epochs between two measurements")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    arguments = parser.parse_args()
    pairs = (text.partition("=") for text in arguments.set)
    options = {name: json.loads(value) for name, _, value in pairs}
    for name in arguments.sets:
        found = [
            run(problem, seed, arguments.every, options)
            for seed in range(arguments.seeds)
            for problem in problems(name)
        ]
        print(f"{name}, mean of {len(found)} trainings", flush=True)
        for epoch in sorted(set.intersection(*(set(each) for each in found))):
            means = {key: float(np.mean([each[epoch][key] for each in found])) for key in found[0][epoch]}
            print(f"  epoch {epoch:>3}  " + "  ".join(f"{key} {value:.4g}" for key, value in means.items()))


if __name__ == "__main__":
    main()
