"""Linear regression on sparse features, by L-BFGS: of classes (multinomial logistic) and of numbers (ridge)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Rows", "fit_linear", "linear_loss"]

STEPS = 50


@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix (N, width): the column of each entry (E,), its value (E,), and where each row begins
    and the last one ends (N + 1,) int64."""

    columns: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    width: int

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def matrix(self) -> Tensor:
        """As torch has it, in compressed rows."""
        return _compressed(self.bounds, self.columns, self.values, (len(self), self.width))

    def transposed(self) -> Tensor:
        """The transpose, in compressed rows of its own: products with it are several times as fast as with a view."""
        order = np.argsort(self.columns, kind="stable")
        row = np.repeat(np.arange(len(self)), np.diff(self.bounds))
        bounds = np.r_[0, np.cumsum(np.bincount(self.columns, minlength=self.width))]
        return _compressed(bounds, row[order], self.values[order], (self.width, len(self)))


def _compressed(
    bounds: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(bounds.astype(np.int64)),
            torch.from_numpy(columns.astype(np.int64)),
            torch.from_numpy(values.astype(np.float32)),
            shape,
            check_invariants=False,
        )


def linear_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, C) at classes (N,) int64; half the mean squared error of numbers (N, 1) at
    targets (N,) float32."""
    if targets.is_floating_point():
        return nn.functional.mse_loss(outputs[:, 0], targets) / 2
    return nn.functional.cross_entropy(outputs, targets)


def fit_linear(
    rows: Rows, targets: Tensor, strength: float, weights: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights (width, C) and bias (C,) with the least `linear_loss` and `1 / (2 strength N)` times their square.

    targets (N,): classes from 0 to C - 1, int64, or numbers, float32, with C = 1. strength: C of scikit-learn's
    LogisticRegression, 1 / alpha of its Ridge. weights, bias: where to begin; they are not changed."""
    matrix, transposed, count = rows.matrix(), rows.transposed(), len(rows)
    weights, bias = weights.clone(), bias.clone()
    has_numbers = targets.is_floating_point()
    right = targets[:, None] if has_numbers else nn.functional.one_hot(targets, len(bias)).float()
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, history_size=8, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        outputs = matrix @ weights + bias
        error = ((outputs if has_numbers else outputs.softmax(1)) - right) / count
        weights.grad = transposed @ error + weights / (strength * count)
        bias.grad = error.sum(0)
        return float(linear_loss(outputs, targets) + weights.square().sum() / (2 * strength * count))

    with torch.no_grad():
        solver.step(loss)
    return weights, bias
