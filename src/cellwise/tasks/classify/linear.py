"""Multinomial logistic regression on sparse features, by L-BFGS: what a person would try first on texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Rows", "fit_logistic"]

STEPS = 60


@dataclass(frozen=True, eq=False)
class Rows:
    """Sparse rows: column of each entry (E,) int64, its value (E,) float32, and where each row starts (N,) int64."""

    columns: Tensor
    values: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def times(self, weights: Tensor) -> Tensor:
        """The product with a matrix (columns, C): (N, C)."""
        return nn.functional.embedding_bag(
            self.columns, weights, self.starts, mode="sum", per_sample_weights=self.values
        )

    def select(self, rows: Tensor) -> Rows:
        """Only these rows, in this order."""
        ends = torch.cat([self.starts[1:], torch.tensor([len(self.columns)])])
        lengths = (ends - self.starts)[rows]
        starts = torch.cumsum(lengths, 0) - lengths
        inside = torch.arange(int(lengths.sum())) - torch.repeat_interleave(starts, lengths)
        entries = torch.repeat_interleave(self.starts[rows], lengths) + inside
        return Rows(self.columns[entries], self.values[entries], starts)


def fit_logistic(
    rows: Rows, labels: Tensor, classes: int, width: int, strength: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights (width, C) and bias (C,) with the least mean cross-entropy and `1 / (2 strength N)` times their square.

    strength: C of scikit-learn's LogisticRegression. weights (N,): of the examples."""
    matrix = torch.zeros(width, classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [matrix, bias], max_iter=STEPS, history_size=8, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )
    count = len(rows)
    share = torch.full((count,), 1 / count) if weights is None else weights / weights.sum()

    def loss() -> Tensor:
        solver.zero_grad()
        entropy = nn.functional.cross_entropy(rows.times(matrix) + bias, labels, reduction="none")
        value = (entropy * share).sum() + matrix.square().sum() / (2 * strength * count)
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    return matrix.detach(), bias.detach()
