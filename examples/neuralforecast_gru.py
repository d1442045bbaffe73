"""A GRU of neuralforecast, trained as it is and after `cellwise.convert`, which is all that changes.

    pip install neuralforecast
    python examples/neuralforecast_gru.py

The data are the daily births in the United States that come with cellwise: a week ahead from ten weeks.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from statistics import median

import pandas
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MAE
from neuralforecast.models import GRU

import cellwise
from cellwise.tasks.forecasting.datasets import us_births

QUIET = {
    "enable_progress_bar": False,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


def train(frame: pandas.DataFrame, steps: int, seed: int, convert: bool) -> tuple[float, pandas.Series]:
    """Seconds of processor time of `fit`, and the forecast of a week."""
    model = GRU(
        h=7, input_size=70, encoder_n_layers=2, encoder_hidden_size=128, loss=MAE(), max_steps=steps, random_seed=seed,
        scaler_type="standard", accelerator="cpu", **QUIET,
    )  # fmt: skip
    if convert:
        cellwise.convert(model)
    forecaster = NeuralForecast(models=[model], freq="D")
    begin = time.process_time()
    forecaster.fit(frame)
    seconds = time.process_time() - begin
    return seconds, forecaster.predict()["GRU"]


def main() -> None:
    """Train both in turn, and print the ratio of their times."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--steps", type=int, default=50, help="updates of a training")
    options.add_argument("--rounds", type=int, default=3, help="trainings of each, in turn")
    given = options.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    births = us_births()
    frame = pandas.DataFrame({each: births[each].to_numpy() for each in ("ds", "y")}).assign(
        unique_id="births"
    )
    frame["ds"] = pandas.to_datetime(frame["ds"])
    train(frame, 2, 0, convert=True)  # kernels are compiled once, and kept on disk
    ratios = []
    for seed in range(given.rounds):
        torchs, wanted = train(frame, given.steps, seed, convert=False)
        ours, found = train(frame, given.steps, seed, convert=True)
        ratios.append(torchs / ours)
        apart = float(((found - wanted) / wanted).abs().max())
        print(
            f"seed {seed}: {torchs:.1f} s with torch, {ours:.1f} s with cellwise, forecasts {apart:.1e} apart",
            flush=True,
        )
    print(f"{median(ratios):.2f} times as fast (median of {len(ratios)}, processor time, one thread)")


if __name__ == "__main__":
    main()
