"""The training objective: batches of sequences of like lengths, the loss, the metrics on what was held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cellwise.tasks.classify.augment import augmented
from cellwise.tasks.classify.blend import blend_of_logits, blend_of_numbers
from cellwise.tasks.classify.metrics import class_metrics, number_metrics
from cellwise.tasks.classify.network import Batch, SequenceNetwork
from cellwise.tasks.classify.start import WarmStart
from cellwise.tasks.training.objective import Objective

__all__ = ["ClassObjective", "Encoded", "NumberObjective", "SequenceObjective", "Training", "outputs_of"]

LEAST_STEPS = 25  # an epoch of few sequences goes over them several times
POOL = 20  # batches whose sequences are sorted by length together, so that little is padded
CHUNK = 16_384  # tokens or steps that are read at once when nothing is learned
MOST_SEQUENCES = 256


@dataclass(frozen=True, eq=False)
class Encoded:
    """Sequences as the network reads them (T,) or (T, D), targets (N,), and what the linear model says of them (N, C),
    or None."""

    inputs: list[Tensor]
    targets: Tensor
    linear: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Tensor) -> Batch:
        """These, padded with zeros."""
        chosen = [self.inputs[row] for row in rows.tolist()]
        lengths = torch.tensor([len(each) for each in chosen])
        made = nn.utils.rnn.pad_sequence(chosen)
        if not len(made):  # empty texts only: layers take at least one step
            made = made.new_zeros((1, *made.shape[1:]))
        return Batch(made, lengths, self.targets[rows])

    def lengths(self) -> Tensor:
        """(N,) int64."""
        return torch.tensor([len(each) for each in self.inputs])


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained on, and what decides when to stop, if anything does. weights (C,): of the
    classes in the loss, or None. start: what the network begins with, or None."""

    train: Encoded
    valid: Encoded | None
    weights: Tensor | None = None
    start: WarmStart | None = None


class SequenceObjective(Objective[Batch]):
    """What classes and numbers share."""

    def __init__(
        self,
        network: SequenceNetwork,
        training: Training,
        *,
        batch_size: int,
        seed: int,
        augment: float,
        label_smoothing: float = 0.0,
    ) -> None:
        self._network, self._training, self._seed = network, training, seed
        self._batch_size = min(batch_size, len(training.train))
        self._augment = 0.0 if network.config.tokens else augment
        self._smoothing = label_smoothing
        self._lengths = training.train.lengths()
        self._per_pass = -(-len(training.train) // self._batch_size)
        self._passes = max(1, LEAST_STEPS // self._per_pass)

    @property
    def steps(self) -> int:
        """Batches per epoch: one pass over the sequences, or several over few."""
        return self._per_pass * self._passes

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every sequence once a pass, in an order of the epoch's own: it does not matter in which the data came."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        for _ in range(self._passes):
            order = torch.randperm(len(self._training.train), generator=generator)
            pools = order.split(self._batch_size * POOL)
            batches = [rows for pool in pools for rows in self._sorted(pool).split(self._batch_size)]
            for index in torch.randperm(len(batches), generator=generator).tolist():
                yield self._training.train.batch(batches[index])

    def _sorted(self, pool: Tensor) -> Tensor:
        return pool[self._lengths[pool].argsort(stable=True)]

    def weight(self, batch: Batch) -> float:
        """Sequences."""
        return float(len(batch.targets))

    def share(self, batch: Batch, rank: int, world: int) -> Batch | None:
        """Every `world`-th sequence."""
        if rank >= len(batch.targets):
            return None
        part = slice(rank, None, world)
        return Batch(batch.inputs[:, part], batch.lengths[part], batch.targets[part])

    def _outputs(self, batch: Batch) -> Tensor:
        if self._augment:
            inputs, lengths = augmented(batch.inputs, batch.lengths, self._augment)
            batch = replace(batch, inputs=inputs, lengths=lengths)
        made: Tensor = self._network(batch.inputs, batch.lengths)
        return made


class ClassObjective(SequenceObjective):
    """Cross-entropy. The blend with the linear model is fitted on what was held out, after every epoch."""

    metric = "log_loss"

    def loss(self, batch: Batch) -> Tensor:
        """In nats."""
        logits = self._outputs(batch)
        made = nn.functional.cross_entropy(
            logits, batch.targets, label_smoothing=self._smoothing, reduction="none"
        )
        if self._training.weights is not None:  # their mean over the training is 1
            made = made * self._training.weights.to(made.device)[batch.targets]
        return made.mean()

    def validate(self) -> dict[str, float]:
        """Log loss of the blended probabilities, accuracy and macro F1."""
        valid, network = self._training.valid, self._network
        if valid is None:
            return {}
        logits = outputs_of(network, valid)
        network.blend.copy_(blend_of_logits(logits, valid.linear, valid.targets))
        chances = network.blended(logits, valid.linear).softmax(1)
        made = class_metrics(chances.numpy(), valid.targets.numpy())
        return {name: made[name] for name in ("log_loss", "accuracy", "macro_f1")}


class NumberObjective(SequenceObjective):
    """Huber's loss of numbers in units of their spread."""

    metric = "mean_absolute_error"

    def loss(self, batch: Batch) -> Tensor:
        """Squared within a spread of the truth, absolute beyond: one wrong label does not decide."""
        return nn.functional.huber_loss(self._outputs(batch)[:, 0], batch.targets)

    def validate(self) -> dict[str, float]:
        """In units of the spread."""
        valid, network = self._training.valid, self._network
        if valid is None:
            return {}
        outputs = outputs_of(network, valid)
        network.blend.copy_(blend_of_numbers(outputs, valid.linear, valid.targets))
        said = network.blended(outputs, valid.linear)[:, 0].numpy()
        made = number_metrics(said, valid.targets.double().numpy())
        return {name: made[name] for name in ("mean_absolute_error", "root_mean_squared_error")}


def outputs_of(network: SequenceNetwork, encoded: Encoded) -> Tensor:
    """The network's outputs (N, C) without gradients, float64 on the CPU. Like lengths are read together."""
    device = next(network.parameters()).device
    lengths = encoded.lengths()
    made = torch.zeros(len(encoded), network.config.outputs, dtype=torch.float64)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for rows in _chunks(lengths):
                batch = encoded.batch(rows)
                made[rows] = network(batch.inputs.to(device), batch.lengths.to(device)).double().cpu()
    finally:
        network.train(training)
    return made


def _chunks(lengths: Tensor) -> Iterator[Tensor]:
    """Rows sorted by length, as many at once as have about CHUNK steps with their padding."""
    order = lengths.argsort(stable=True)
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and end - begin < MOST_SEQUENCES:
            if int(lengths[order[end]]) * (end - begin + 1) > CHUNK:
                break
            end += 1
        yield order[begin:end]
        begin = end
