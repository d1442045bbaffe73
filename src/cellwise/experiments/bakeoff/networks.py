"""The networks that cells are compared in: one recurrent layer, and a linear map from its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cellwise.cells.base import Cell
from cellwise.nn import Recurrent

__all__ = ["AnswerNetwork"]


class AnswerNetwork(nn.Module):
    """A recurrent layer whose last outputs are mapped to answers. Equal seeds give equal weights.

    last: at how many of the last steps an answer is asked for."""

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, output_size: int, last: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        self._last = last
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.recurrent = Recurrent(cell, input_size, hidden_size)
            self.answer = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """From inputs (T, B, D) to the answers after the last steps (last, B, O)."""
        outputs, _ = self.recurrent(x)
        answers: Tensor = self.answer(outputs[-self._last :])
        return answers
