"""What the training loop needs to know of forecasting: its batches, its loss, its validation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from cellwise.tasks.forecasting.backtest import CHUNK, windows_at
from cellwise.tasks.forecasting.metrics import mean, naive_scale, pinball
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import Split, shortest_length
from cellwise.tasks.forecasting.windows import Batch

__all__ = ["ForecastLearning"]


class ForecastLearning:
    """Trains on what lies before the held-out windows and validates on them.

    The validation is the mean pinball loss over the quantiles, each series in units of its own seasonal
    naive error."""

    def __init__(
        self, network: ForecastNetwork, panel: Panel, split: Split, *, batch_size: int, seed: int
    ) -> None:
        self._network = network
        trained_on = training_part(panel, split, network.config.horizon)
        self._windows = network.windows(trained_on, batch_size=batch_size, seed=seed)
        self._held: tuple[Panel, np.ndarray, np.ndarray] | None = None
        if split.has_validation:
            cut, truth, _ = windows_at(panel, split.validation, network.config.horizon)
            scale = np.array([naive_scale(y, panel.frequency.season_length) for y in cut.y])
            size = np.array([float(mean(np.abs(y))) for y in cut.y])  # a constant series has no naive error
            self._held = cut, truth, np.where(np.isnan(scale), np.where(size > 0, size, 1.0), scale)

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self._windows)

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch."""
        return self._windows.epoch(epoch)

    def loss(self, batch: Batch) -> Tensor:
        """The network's own loss."""
        return self._network.loss(batch)

    def validate(self) -> float | None:
        """Scaled pinball loss on the held-out windows."""
        if self._held is None:
            return None
        cut, truth, scale = self._held
        quantiles, horizon = self._network.config.quantiles, self._network.config.horizon
        losses = []
        for start in range(0, len(cut), CHUNK):
            part = range(start, min(start + CHUNK, len(cut)))
            forecast = self._network.forecast(cut.select(part), horizon)
            losses.append(mean(pinball(truth[part], forecast, quantiles), axis=1) / scale[part])
        return float(mean(np.concatenate(losses)))


def training_part(panel: Panel, split: Split, horizon: int) -> Panel:
    """The series that are long enough, up to where their held-out windows begin."""
    chosen = np.flatnonzero(split.train >= shortest_length(horizon)).tolist()
    return panel.select(chosen).cut([int(split.train[i]) for i in chosen], reach=0)
