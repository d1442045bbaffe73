"""Three tasks that cannot be solved without a memory, at any length. Sequences are drawn anew for every update.

Each defines what counts as right, and the chance level: the best answer that ignores what has to be remembered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.errors import CellwiseError, did_you_mean

__all__ = ["TASKS", "Adding", "MemoryTaskError", "Parity", "Recall", "Task", "task_of"]


class MemoryTaskError(CellwiseError, ValueError):
    """A memory experiment that cannot be run as asked."""


class Task(ABC):
    """One task. `lag` means what `meaning` says; `shortest` is the smallest one that makes sense."""

    name: ClassVar[str]
    meaning: ClassVar[str]
    counts: ClassVar[str]
    chance: ClassVar[float]
    shortest: ClassVar[int]
    input_size: ClassVar[int]
    output_size: ClassVar[int]

    @abstractmethod
    def draw(self, lag: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (T, B, D) and targets of `count` sequences."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of the outputs (T, B, O) of every step, a mean over what is asked."""

    @abstractmethod
    def right(self, outputs: Tensor, targets: Tensor) -> float:
        """The share of right answers."""


class Recall(Task):
    """Delayed recall, the copy task: symbols are shown, silence follows, a mark asks for them in their order.

    Two symbols out of four, each asked for exactly `lag` steps after it was shown: T = lag + 2, D = 5 (one place a
    symbol, one for the mark). Targets: (2, B) symbols. (Hochreiter and Schmidhuber 1997; in this form Arjovsky, Shah
    and Bengio 2016, with ten symbols of eight.)

    >>> x, target = Recall().draw(3, 1, torch.Generator().manual_seed(0))
    >>> target[:, 0].tolist()
    [0, 3]
    >>> x[:, 0].int().tolist()
    [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    """

    symbols: ClassVar[int] = 2
    alphabet: ClassVar[int] = 4
    name = "recall"
    meaning = "steps from showing a symbol to asking for it"
    counts = "symbols named right"
    chance = 1 / alphabet
    shortest = symbols
    input_size = alphabet + 1
    output_size = alphabet

    def draw(self, lag: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shown = torch.randint(0, self.alphabet, (self.symbols, count), generator=generator)
        x = torch.zeros(lag + self.symbols, count, self.input_size)
        x[: self.symbols, :, : self.alphabet] = F.one_hot(shown, self.alphabet).float()
        x[lag:, :, self.alphabet] = 1.0
        return x, shown

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs[-self.symbols :].flatten(0, 1), targets.flatten())

    def right(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs[-self.symbols :].argmax(-1) == targets).float().mean())


class Adding(Task):
    """The adding problem: of `lag` random numbers two are marked, one in each half; at the end their sum is asked.

    Numbers are uniform between 0 and 1, T = lag, D = 2 (number, mark). Targets: (B,) sums. Right is an answer within
    `tolerance` of the sum, a tenth of its range; the constant answer 1 is so in 36 % of all sequences. (Hochreiter and
    Schmidhuber 1997, experiment 4, with other constants.)
    """

    tolerance: ClassVar[float] = 0.2
    name = "adding"
    meaning = "length of the sequence; one of the numbers lies in each half"
    counts = "sums right to within 0.2"
    chance = 2 * tolerance - tolerance**2  # the area of the triangular density of the sum around 1
    shortest = 2
    input_size = 2
    output_size = 1

    def draw(self, lag: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.zeros(lag, count, 2)
        x[..., 0] = torch.rand(lag, count, generator=generator)
        first = torch.randint(0, lag // 2, (count,), generator=generator)
        second = torch.randint(lag // 2, lag, (count,), generator=generator)
        rows = torch.arange(count)
        x[first, rows, 1] = 1.0
        x[second, rows, 1] = 1.0
        return x, x[first, rows, 0] + x[second, rows, 0]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[-1, :, 0], targets)

    def right(self, outputs: Tensor, targets: Tensor) -> float:
        return float(((outputs[-1, :, 0] - targets).abs() < self.tolerance).float().mean())


class Parity(Task):
    """Parity: whether the number of ones so far is odd, asked after every bit, counted after the last.

    T = lag, D = 1 (a bit, as -1 or 1). Targets: (T, B), the parity after each step. To be right at the end, every
    single bit must have been taken in. (Hochreiter and Schmidhuber 1997 discuss it; asked after every bit, since with
    the last answer alone gradient descent hardly begins.)
    """

    name = "parity"
    meaning = "number of bits"
    counts = "parities of the whole sequence right"
    chance = 0.5
    shortest = 2
    input_size = 1
    output_size = 2

    def draw(self, lag: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        bits = torch.randint(0, 2, (lag, count), generator=generator)
        return (2.0 * bits - 1.0).unsqueeze(-1), bits.cumsum(0) % 2

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def right(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs[-1].argmax(-1) == targets[-1]).float().mean())


TASKS: dict[str, Task] = {task.name: task for task in (Recall(), Adding(), Parity())}


def task_of(name: str) -> Task:
    """The task of this name.

    Raises:
        MemoryTaskError: there is none.
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS)
        raise MemoryTaskError(
            f"There is no task called '{name}'; {hint}there are: {', '.join(TASKS)}, and all."
        )
    return TASKS[name]
