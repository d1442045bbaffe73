"""One recurrent network of a forecaster: from scaled inputs to quantiles that cannot cross."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cellwise.nn import Recurrent
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.scaling import num_features

__all__ = ["Member", "make_layer", "ordered"]

MIXED_SIZE = 64  # between the state and the answers
EMBEDDING_SIZE = 16  # of what is known of one future step


def make_layer(config: NetworkConfig, input_size: int) -> nn.Module:
    """The recurrent layer of one member, called as layer(x) -> (output (T, B, H), state)."""
    dropout = config.dropout if config.num_layers > 1 else 0.0
    return Recurrent(config.cell, input_size, config.hidden_size, config.num_layers, dropout=dropout)


class Member(nn.Module):
    """One recurrent network: inputs (C, B, D) to quantiles (C, B, H, Q) in units of the spread, at every
    cutoff.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.horizon, self.num_quantiles = config.horizon, len(config.quantiles)
        num_lags = len(config.lags.steps)
        input_size = num_features(config.season_length) + config.num_known + config.num_past + num_lags
        hidden_size = config.hidden_size
        self.layer = make_layer(config, input_size)
        self.mix = nn.Sequential(nn.Linear(hidden_size, MIXED_SIZE), nn.GELU(), nn.Dropout(config.dropout))
        self.decode = nn.Linear(MIXED_SIZE, config.horizon * self.num_quantiles)
        self.embed = (
            nn.Sequential(nn.Linear(config.num_known, EMBEDDING_SIZE), nn.Tanh())
            if config.num_known
            else None
        )
        self.read = nn.Linear(MIXED_SIZE, EMBEDDING_SIZE * self.num_quantiles) if config.num_known else None
        self.read_lags = nn.Linear(MIXED_SIZE, num_lags * self.num_quantiles) if num_lags else None
        self._begin_at_base(config.quantiles)

    def _begin_at_base(self, quantiles: tuple[float, ...]) -> None:
        """Start near the base forecast, with the bands of a normal error of one spread."""
        if self.decode.weight.is_meta:  # a network that only takes up weights of a file
            return
        with torch.no_grad():
            for head in (self.decode, self.read, self.read_lags):
                if head is not None:
                    head.weight.mul_(0.1)
                    head.bias.zero_()
            normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(quantiles))
            gaps = normal.diff()  # of the quantiles, each to the next
            middle = len(quantiles) // 2
            bias = self.decode.bias.view(self.horizon, -1)
            bias[:, :middle] = torch.log(torch.expm1(gaps[:middle]))
            bias[:, middle + 1 :] = torch.log(torch.expm1(gaps[middle:]))

    def forward(self, inputs: Tensor, known: Tensor, cutoffs: Tensor, lagged: Tensor | None = None) -> Tensor:
        """inputs (C, B, D); known (C + H, B, K), of the same steps and the horizon after the last; cutoffs
        (M,): the steps to answer at; lagged (M, B, H, G), where the network has lags. Gives (M, B, H, Q).
        """
        return self.answer(self.walk(inputs)[cutoffs], known, cutoffs, lagged)

    def walk(self, inputs: Tensor) -> Tensor:
        """The states (C, B, hidden) after each step of inputs (C, B, D)."""
        output, _ = self.layer(inputs)
        return output

    def answer(
        self, state: Tensor, known: Tensor, cutoffs: Tensor | None = None, lagged: Tensor | None = None
    ) -> Tensor:
        """States at the cutoffs (M, B, hidden), and known (M + H, B, K) from the first of them on, to
        quantiles (M, B, H, Q). Cutoffs that do not follow each other say where in known they lie:
        cutoffs (M,). lagged (M, B, H, G).
        """
        mixed = self.mix(state)
        raw = self.decode(mixed).unflatten(-1, (self.horizon, self.num_quantiles))
        if self.embed is not None and self.read is not None:
            ahead = self.embed(known[1:]).unfold(0, self.horizon, 1)  # (C, B, E, H)
            ahead = ahead if cutoffs is None else ahead[cutoffs]
            reader = self.read(mixed).unflatten(-1, (EMBEDDING_SIZE, self.num_quantiles))
            raw = raw + ahead.transpose(-1, -2) @ reader
        if self.read_lags is not None and lagged is not None:
            raw = raw + lagged @ self.read_lags(mixed).unflatten(-1, (-1, self.num_quantiles))
        return ordered(raw)


def ordered(raw: Tensor) -> Tensor:
    """Any numbers (..., Q) to quantiles that cannot cross: the middle one is the median, the others are
    positive steps away from it.
    """
    middle = raw.shape[-1] // 2
    median = raw[..., middle : middle + 1]
    below = F.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
    above = F.softplus(raw[..., middle + 1 :]).cumsum(-1)
    return torch.cat([median - below, median, median + above], dim=-1)
