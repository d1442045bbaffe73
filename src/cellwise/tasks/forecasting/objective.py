"""What the training loop needs to know of forecasting: its batches, its loss, its validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.forecasting.backtest import CHUNK, windows_at
from cellwise.tasks.forecasting.metrics import mean, naive_scale, pinball
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import Split, shortest_length
from cellwise.tasks.forecasting.windows import Batch
from cellwise.tasks.training.objective import Objective

__all__ = ["ForecastObjective"]


class ForecastObjective(Objective[Batch]):
    """Trains on what lies before the held-out windows and validates on them.

    The metric is the mean pinball loss over the quantiles, each series in units of its own seasonal naive error."""

    metric = "scaled_pinball"

    def __init__(
        self,
        network: ForecastNetwork,
        panel: Panel,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        keeps_best: bool = True,
    ) -> None:
        self.keeps_best = keeps_best
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

    def weight(self, batch: Batch) -> float:
        """The targets that are known: the loss is a mean over them."""
        return float((~batch.future[:, batch.cutoffs].isnan()).sum())

    def share(self, batch: Batch, rank: int, world: int) -> Batch | None:
        """Every `world`-th stretch, padded as the whole batch is."""
        rows = slice(rank, None, world)
        if rank >= len(batch.filled):
            return None
        parts = {
            field.name: getattr(batch, field.name)[rows] for field in fields(batch) if field.name != "cutoffs"
        }
        return replace(batch, **parts)

    def to(self, batch: Batch, device: torch.device) -> Batch:
        """As it is: scaling needs float64, which not every device has, and the network moves what it makes of it."""
        return batch

    def validate(self) -> dict[str, float]:
        """Scaled pinball loss on the held-out windows."""
        if self._held is None:
            return {}
        cut, truth, scale = self._held
        quantiles, horizon = self._network.config.quantiles, self._network.config.horizon
        losses = []
        for start in range(0, len(cut), CHUNK):
            part = range(start, min(start + CHUNK, len(cut)))
            forecast = self._network.forecast(cut.select(part), horizon)
            losses.append(mean(pinball(truth[part], forecast, quantiles), axis=1) / scale[part])
        return {self.metric: float(mean(np.concatenate(losses)))}


def training_part(panel: Panel, split: Split, horizon: int) -> Panel:
    """The series that are long enough, up to where their held-out windows begin."""
    chosen = np.flatnonzero(split.train >= shortest_length(horizon)).tolist()
    return panel.select(chosen).cut([int(split.train[i]) for i in chosen], reach=0)
