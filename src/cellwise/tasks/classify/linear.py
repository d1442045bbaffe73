"""Multinomial logistic regression on sparse features, by L-BFGS: what a person would try first on texts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Rows", "fit_logistic"]

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


def fit_logistic(
    rows: Rows, labels: Tensor, strength: float, weights: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights (width, C) and bias (C,) with the least mean cross-entropy and `1 / (2 strength N)` times their square.

    labels (N,): from 0 to C - 1. strength: C of scikit-learn's LogisticRegression. weights, bias: where to begin; they
    are not changed."""
    matrix, transposed, count = rows.matrix(), rows.transposed(), len(rows)
    weights, bias = weights.clone(), bias.clone()
    right = nn.functional.one_hot(labels, len(bias)).float()
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, history_size=8, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        logits = matrix @ weights + bias
        error = (logits.softmax(1) - right) / count
        weights.grad = transposed @ error + weights / (strength * count)
        bias.grad = error.sum(0)
        entropy = nn.functional.cross_entropy(logits, labels)
        return float(entropy + weights.square().sum() / (2 * strength * count))

    with torch.no_grad():
        solver.step(loss)
    return weights, bias
