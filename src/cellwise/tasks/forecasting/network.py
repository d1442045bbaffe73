"""A recurrent forecaster: one network for many series, which answers with quantiles for every step of the
horizon.

Each member walks over what `scaling` shows of each step. All steps of the horizon are decoded from its last
state (and from what is known of the future), so the newest observation reaches every forecast. Trained with
the pinball loss (Koenker and Bassett 1978) at every step of a segment at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.lags import lag_features
from cellwise.tasks.forecasting.member import Member
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.scaling import Scaled, scale
from cellwise.tasks.forecasting.series import prepare
from cellwise.tasks.forecasting.stretches import (
    CONTEXT,
    Batch,
    PreparedSeries,
    Window,
    collate,
    history_steps,
)
from cellwise.tasks.forecasting.windows import WindowSampler

__all__ = ["ForecastNetwork"]

BAND_WEIGHT = 0.3  # of the outer quantiles in the loss: the median comes first
CHUNK = 256  # series that are forecast at once


class ForecastNetwork(nn.Module):
    """The members and what they share: scaling before, averaging after. Its state_dict and config are all
    that a forecast needs.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))

    def _members(self) -> Iterator[Member]:
        return (cast(Member, member) for member in self.members)

    @property
    def device(self) -> torch.device:
        """Where the weights are. Series are scaled on the CPU, in float64, and go there afterwards."""
        return next(self.parameters()).device

    def windows(self, panel: Panel, *, batch_size: int = 64, seed: int = 0) -> WindowSampler:
        """Training batches of a panel for this network."""
        config = self.config
        return WindowSampler(
            panel,
            horizon=config.horizon,
            covariates=config.covariates,
            typical_step=config.typical_step,
            batch_size=batch_size,
            seed=seed,
            lags=config.lags,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Pinball loss in units of the answers, mean over cutoffs, steps, quantiles and members; a float32
        scalar.
        """
        seen = self._see(batch)
        target = ((batch.future - seen.base) / seen.spread[..., None]).float()  # (B, C, H)
        target = target.transpose(0, 1)[batch.cutoffs].to(self.device)
        known = ~target.isnan()
        target = target.nan_to_num()[..., None]
        levels = torch.tensor(self.config.quantiles, device=self.device)
        weights = torch.where(levels == 0.5, 1.0, BAND_WEIGHT) * known[..., None] / known.sum().clamp(min=1)
        losses = []
        inputs, future = seen.inputs.to(self.device), batch.known.transpose(0, 1).to(self.device)
        lagged = self._lagged(batch, seen).to(self.device)
        for member in self._members():
            error = target - member(inputs, future, batch.cutoffs.to(self.device), lagged)
            losses.append((torch.maximum(levels * error, (levels - 1) * error) * weights).sum())
        return torch.stack(losses).mean()

    def _see(self, batch: Batch) -> Scaled:
        """Scaling over history and context, then the context only: inputs (C, B, D) float32 with
        covariates and lags, base (B, C, H), and as spread (B, C) the unit of the answers.
        """
        config = self.config
        with torch.no_grad():
            scaled = scale(
                batch.filled,
                batch.observed,
                batch.linear,
                config.season_length,
                config.horizon,
                config.typical_step,
            )
            context = batch.past.shape[1]
            rows = (batch.start[:, None] + torch.arange(context)).clamp(max=batch.filled.shape[1] - 1)
            row = torch.arange(len(rows))[:, None]
            unit = config.unit * scaled.spread[row, rows]
            before = lag_features(batch.lagged[:, :context] + batch.moved, batch.filled[row, rows], unit)
            inputs = torch.cat(
                [scaled.inputs[row, rows].float(), batch.known[:, :context], batch.past, before], dim=-1
            )
            return Scaled(inputs.transpose(0, 1), scaled.base[row, rows], unit)

    def _lagged(self, batch: Batch, seen: Scaled) -> Tensor:
        """What the lags say of the horizon after each cutoff, float32 (M, B, H, G)."""
        at = batch.cutoffs
        ahead = batch.lagged.unfold(1, self.config.horizon, 1)[:, at + 1]  # (B, M, G, H)
        values = ahead.transpose(-1, -2) + batch.moved[:, at, None]
        return lag_features(values, seen.base[:, at], seen.spread[:, at, None]).transpose(0, 1)

    @property
    def context_length(self) -> int:
        """How many steps at the end of a series a forecast looks at, apart from its scale and season."""
        config = self.config
        return CONTEXT + max(history_steps(config.season_length), config.lags.reach)

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """Quantiles for the `horizon` steps after each series, in units of y: float64 (N, horizon, Q).

        No trainer, no copy of the weights; dropout is off. `panel.known`, where the network has such
        covariates, must reach the horizon. Raises SeriesTooShortError for a series without a single
        observation, DataError for covariates that are missing or end too soon.
        """
        self._check(panel, horizon)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                parts = [
                    self._forecast(panel.select(range(begin, min(begin + CHUNK, len(panel)))), horizon)
                    for begin in range(0, len(panel), CHUNK)
                ]
        finally:
            self.train(training)
        return np.concatenate(parts) if parts else np.zeros((0, horizon, len(self.config.quantiles)))

    def _forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """A horizon longer than the trained one is walked in blocks: medians are taken as observed for the
        next block, and the bands keep the width they had reached, to which the next block's is added as
        independent errors add up.
        """
        middle = len(self.config.quantiles) // 2
        sources = [self._source(panel, index, horizon) for index in range(len(panel))]
        blocks: list[np.ndarray] = []
        width: np.ndarray | float = 0.0  # of the bands at the end of the block before
        for _ in range(math.ceil(horizon / self.config.horizon)):
            block = self._block(sources)  # (N, H, Q)
            median = block[..., middle : middle + 1]
            offset = block - median
            offset = np.sign(offset) * np.sqrt(offset**2 + np.square(width))
            blocks.append(median + offset)
            width = offset[:, -1:]
            sources = [one.extend(values) for one, values in zip(sources, median[..., 0], strict=True)]
        learned = np.concatenate(blocks, axis=1)[:, :horizon]
        return np.stack([one.series.restore(values) for one, values in zip(sources, learned, strict=True)])

    def _source(self, panel: Panel, index: int, horizon: int) -> PreparedSeries:
        """What a forecast looks at of one series: the end of it, and as much of what is known after it."""
        config = self.config
        y, known, past = panel.y[index], panel.known[index], panel.past[index]
        series = prepare(y, config.season_length, config.typical_step)
        series = series.tail(self.context_length)
        begin, end = len(y) - len(series.values), len(y)
        return PreparedSeries(
            series,
            config.covariates.known(known[begin : end + horizon]),
            config.covariates.past(past[begin:end]),
        )

    def _block(self, sources: list[PreparedSeries]) -> np.ndarray:
        """The next H steps of each series in learned units, (N, H, Q)."""
        batch = collate([self._last_window(one) for one in sources], self.config.horizon)
        seen = self._see(batch)
        row, last = torch.arange(len(sources)), batch.length - 1
        reach = last[:, None] + torch.arange(self.config.horizon + 1)
        ahead = batch.known[row[:, None], reach].transpose(0, 1).to(self.device)
        inputs = seen.inputs.to(self.device)
        base, unit = seen.base[row, last], seen.spread[row, last][:, None]
        values = batch.lagged[row[:, None], reach[:, 1:]] + batch.moved[row, last, None]
        lagged = lag_features(values, base, unit)[None].to(self.device)
        answers = [
            member.answer(member.walk(inputs)[last, row][None], ahead, lagged=lagged)[0]
            for member in self._members()
        ]
        answer = torch.stack(answers).mean(0).cpu().double()  # (N, H, Q)
        return (base[..., None] + answer * unit[..., None]).numpy()

    def _last_window(self, source: PreparedSeries) -> Window:
        """The window that a forecast sees: it ends with the series."""
        start = max(0, len(source) - CONTEXT)
        begin = max(0, start - history_steps(self.config.season_length))
        return source.cut(begin, start, len(source), self.config.horizon, lags=self.config.lags)

    def _check(self, panel: Panel, horizon: int) -> None:
        config = self.config
        found = len(panel.known_names), len(panel.past_names)
        if found != (config.num_known, config.num_past):
            raise DataError(
                f"the network was trained with {config.num_known} known and {config.num_past} past covariates, "
                f"but the data has {found[0]} and {found[1]}; give the same columns"
            )
        for name, y, known in zip(panel.ids, panel.y, panel.known, strict=True):
            if np.isnan(y).all():
                raise SeriesTooShortError(
                    f"series {name!r} has no observation to forecast from; leave it out"
                )
            if config.num_known and len(known) < len(y) + horizon:
                raise DataError(
                    f"series {name!r}: the covariates known in advance end {len(known) - len(y)} steps after "
                    f"the last observation, but the horizon is {horizon}; add rows for the missing steps"
                )
