"""The textbook exercise: a small recurrent network learns a sequence of four steps by gradient descent
through time.

Inputs of two bits, (1,0) (0,1) (1,1) (0,0), with the targets 0, 1, 1, 0: the second bit of each input. With
other sizes the bits are drawn at random, and target k of a step is bit k + 1 of its input, counted around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellwise.experiments.textbook_settings import Settings, TextbookError
from cellwise.nn import Recurrent
from cellwise.runtime.outputs import first_of

__all__ = ["Exercise", "Settings", "TextbookError", "TextbookNetwork", "run", "sequence"]

_TEXTBOOK = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0))


@dataclass(frozen=True, eq=False)
class Exercise:
    """A finished run: inputs (T, D), targets (T, O), outputs (T, O) after training, and the loss of every
    epoch."""

    inputs: Tensor
    targets: Tensor
    outputs: Tensor
    losses: tuple[float, ...]


class TextbookNetwork(nn.Module):
    """A recurrent layer, whose one set of weights serves every step, and an output layer of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.recurrent = Recurrent(settings.cell, settings.input_size, settings.hidden_size)
        self.output = nn.Linear(settings.hidden_size, settings.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """From inputs (T, D) to outputs (T, O)."""
        states, _ = self.recurrent(x)
        return self.output(first_of(states))


def sequence(settings: Settings) -> tuple[Tensor, Tensor]:
    """The inputs (T, D) and targets (T, O) of the exercise, T = 4."""
    if settings.input_size == len(_TEXTBOOK[0]):
        inputs = torch.tensor(_TEXTBOOK)
    else:
        generator = torch.Generator().manual_seed(settings.seed)
        inputs = torch.randint(0, 2, (len(_TEXTBOOK), settings.input_size), generator=generator).float()
    wanted = [(place + 1) % settings.input_size for place in range(settings.output_size)]
    return inputs, inputs[:, wanted]


def run(settings: Settings, report: Callable[[int, float], None] = lambda epoch, loss: None) -> Exercise:
    """Train on the one sequence with Adam (Kingma and Ba 2015) on the mean squared error, and read the
    outputs.

    Args:
        report: called after every epoch with its number, from 1, and its loss.

    Raises:
        TextbookError: a setting cannot be.
        UnknownCellError: no cell has this name.

    >>> exercise = run(Settings("rnn", epochs=300))
    >>> exercise.losses[-1] < exercise.losses[0]
    True
    """
    # Work this small only waits for a second thread, seconds long when another process holds the core.
    with _one_thread():
        return _train(settings, report)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(settings: Settings, report: Callable[[int, float], None]) -> Exercise:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(settings.seed)
        network = TextbookNetwork(settings)
    inputs, targets = sequence(settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    losses = []
    for epoch in range(1, settings.epochs + 1):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(epoch, losses[-1])
    with torch.no_grad():
        return Exercise(inputs, targets, network(inputs), tuple(losses))
