"""A task from end to end: a recurrent network reads a sequence of numbers and says their sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent
from cellwise.tasks.errors import DataError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.options import option, with_options
from cellwise.tasks.training.digests import parts_digest
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.run_folder import DATA, RunFolder


@dataclass(frozen=True)
class Unit:
    """What stays with the network: what a 1 of its own is in the user's numbers, and a hash of the data."""

    size: float
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Examples:
    """What only the training looks at: sequences (T, N), padded with zeros, their lengths (N,) and sums (N,)."""

    values: Tensor
    lengths: Tensor
    sums: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Any], sums: Sequence[float]) -> Examples:
        """Raises DataError unless there is one sum for each sequence."""
        if len(sequences) != len(sums) or not len(sums):
            raise DataError(f"{len(sequences)} sequences have {len(sums)} sums; each needs one")
        rows = [torch.as_tensor(each, dtype=torch.float32) for each in sequences]
        lengths = torch.tensor([len(row) for row in rows])
        return cls(nn.utils.rnn.pad_sequence(rows), lengths, torch.tensor(list(sums), dtype=torch.float32))

    def select(self, rows: Tensor) -> Examples:
        """Only these."""
        return Examples(self.values[:, rows], self.lengths[rows], self.sums[rows])


class SumNetwork(nn.Module):
    """Sequences (T, B) to sums (B,), in units of `size`."""

    def __init__(self, cell: Any, hidden_size: int, num_layers: int, size: float) -> None:
        super().__init__()
        self.size = size
        self.layer = Recurrent(cell, 1, hidden_size, num_layers)
        self.decode = nn.Linear(hidden_size, 1)

    def forward(self, examples: Examples) -> Tensor:
        output, _ = self.layer(examples.values[:, :, None] / self.size, lengths=examples.lengths)
        last = output[examples.lengths - 1, torch.arange(output.shape[1])]
        return self.decode(last)[:, 0]


class SumObjective(Objective[Examples]):
    """Squared error in batches that are drawn anew in every epoch; the mean absolute error on what was held out."""

    metric = "mean_absolute_error"

    def __init__(self, network: SumNetwork, train: Examples, valid: Examples, batch_size: int, seed: int):
        self._network, self._train, self._valid = network, train, valid
        self._batch_size, self._seed = batch_size, seed

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._train.sums) // self._batch_size)

    def batches(self, epoch: int) -> Iterator[Examples]:
        """A pure function of the epoch: what a run resumes on."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._train.sums), generator=generator)
        return (self._train.select(rows) for rows in order.split(self._batch_size))

    def loss(self, batch: Examples) -> Tensor:
        """In units of the network."""
        return nn.functional.mse_loss(self._network(batch), batch.sums / self._network.size)

    def validate(self) -> dict[str, float]:
        """In the user's units."""
        return {self.metric: mean_absolute_error(self._network, self._valid)}


def mean_absolute_error(network: SumNetwork, examples: Examples) -> float:
    """In the user's units."""
    with torch.no_grad():
        return float((network(examples) * network.size - examples.sums).abs().mean())


@with_options
class SumRegressor(Estimator[Unit, tuple[Examples, Examples]]):
    """Learns the sum of a sequence of numbers: `SumRegressor().fit(sequences, sums, valid=(sequences, sums))`.

    The sequences may have different lengths. Without `valid`, the last tenth is held out."""

    task = "sums"
    metric = "mean_absolute_error"

    held_out: float = option(
        default=0.1, help="Share of the examples that decides when to stop.", above=0.0, below=1.0
    )
    hidden_size: int = 16
    batch_size: int = 16

    def _read(self, data: Any, *, target: Any, valid: Any = None) -> tuple[Unit, tuple[Examples, Examples]]:
        train = Examples.of(data, target)
        if valid is not None:
            held_out = Examples.of(*valid)
        else:
            order, count = torch.arange(len(train.sums)), max(1, int(self.held_out * len(train.sums)))
            train, held_out = train.select(order[:-count]), train.select(order[-count:])
        parts = [bytes(each.numpy()) for each in (train.values, train.sums, held_out.values, held_out.sums)]
        return Unit(float(train.sums.abs().max()) or 1.0, parts_digest(parts)), (train, held_out)

    def _network(self, data: Unit) -> SumNetwork:
        return SumNetwork(self._cell, self.hidden_size, self.num_layers, data.size)

    def _objective(self, network: Any, data: Unit, training: tuple[Examples, Examples]) -> SumObjective:
        return SumObjective(network, *training, self.batch_size, self.seed)

    def _store(self, data: Unit) -> Stored:
        return Stored(data.fingerprint, {"size": torch.tensor([data.size], dtype=torch.float64)})

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> Unit:
        return Unit(float(run.read_tensors(DATA).tensors["size"]), config["data"])

    def predict(self, data: Sequence[Any]) -> list[float]:
        """The sum of each sequence, as the network sees it."""
        self._check_fitted()
        with torch.no_grad():
            made = self.network_(Examples.of(data, [0.0] * len(data)))
        return [value * self._data.size for value in made.tolist()]

    def measure(self, data: Any, target: Any = None) -> dict[str, float]:
        """The mean absolute error on sequences whose sums are known."""
        self._check_fitted()
        return {self.metric: mean_absolute_error(self.network_, Examples.of(data, target))}
