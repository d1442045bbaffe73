"""The training objective of a recogniser: batches, the CTC loss, validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from cellwise.tasks.speech.augment import drawn_speed, masked, noisy
from cellwise.tasks.speech.data import Clips
from cellwise.tasks.speech.features import LogMel
from cellwise.tasks.speech.network import BLANK, SpeechNetwork
from cellwise.tasks.training.objective import Objective

__all__ = ["Augmentation", "SpeechBatch", "SpeechObjective", "mean_loss", "padded"]

ORDERED_EPOCHS = 1  # which go from short recordings to long ones
BLUR = 0.3  # later a recording counts as up to so much longer, so that its batch differs from epoch to epoch


@dataclass(frozen=True)
class Augmentation:
    """What happens to recordings in training: masks, the largest change of speed, the share that gets noise."""

    masking: bool = True
    speed: float = 0.1
    noise: float = 0.3


@dataclass(frozen=True)
class SpeechBatch:
    """Rows of recordings, and the characters that are said in them; their sound is computed with the loss."""

    rows: tuple[int, ...]
    characters: int


class SpeechObjective(Objective[SpeechBatch]):
    """Trains on all recordings in each epoch: first from short to long (Amodei et al. 2016), then drawn anew."""

    metric = "cer"

    def __init__(
        self,
        network: SpeechNetwork,
        mel: LogMel,
        clips: Clips,
        targets: list[Tensor],
        validate: Callable[[], Mapping[str, float]],
        *,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
    ) -> None:
        self._network, self._mel, self._clips, self._targets = network, mel, clips, targets
        self._validate, self._augmentation = validate, augmentation
        self._lengths = torch.tensor([len(samples) for samples in clips.samples], dtype=torch.float32)
        self._batch_size, self._seed = batch_size, seed

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self._lengths) / self._batch_size)

    def batches(self, epoch: int) -> Iterator[SpeechBatch]:
        """The batches of an epoch, recordings of a like length together."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        factor = 1 + BLUR * torch.rand(len(self._lengths), generator=generator)
        batches = (self._lengths * factor).argsort().split(self._batch_size)
        order = list(range(len(batches)))
        if epoch > ORDERED_EPOCHS:
            order = torch.randperm(len(batches), generator=generator).tolist()
        for number in order:
            yield self._batch(tuple(batches[number].tolist()))

    def _batch(self, rows: tuple[int, ...]) -> SpeechBatch:
        return SpeechBatch(rows, sum(len(self._targets[row]) for row in rows))

    def loss(self, batch: SpeechBatch) -> Tensor:
        """The negative log-likelihood of the transcripts, per character."""
        features, lengths = padded([self._features(row) for row in batch.rows])
        device = self._network.mean.device
        scores = self._network(features.to(device), lengths)
        return mean_loss(scores, self._network.steps(lengths), [self._targets[row] for row in batch.rows])

    def _features(self, row: int) -> Tensor:
        """Features (T, F), normalised, of a recording as it might have been."""
        chosen, sound = self._augmentation, self._clips.sound(row)
        if chosen.noise and float(torch.rand(())) < chosen.noise:
            sound = noisy(sound)
        features = self._mel(sound, drawn_speed(chosen.speed) if chosen.speed else 1.0)
        mean, scale = self._network.mean.cpu(), self._network.scale.cpu()
        normal = (features - mean) * scale
        return masked(normal) if chosen.masking else normal

    def weight(self, batch: SpeechBatch) -> float:
        """The characters."""
        return float(batch.characters)

    def share(self, batch: SpeechBatch, rank: int, world: int) -> SpeechBatch | None:
        """Every `world`-th recording."""
        rows = batch.rows[rank::world]
        return self._batch(rows) if rows else None

    def validate(self) -> Mapping[str, float]:
        """The metrics on the recordings that were held out."""
        return self._validate()


def padded(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Features (T, F) of each as (T, B, F), zero behind their ends, and their lengths (B,)."""
    return torch.nn.utils.rnn.pad_sequence(features), torch.tensor([len(each) for each in features])


def mean_loss(scores: Tensor, steps: Tensor, targets: list[Tensor]) -> Tensor:
    """CTC loss per character of log-probabilities (T', B, K), of which `steps` (B,) count.

    A text that its steps cannot hold, after a recording was sped up, adds nothing to the loss and its gradient."""
    counts = torch.tensor([len(each) for each in targets])
    every = torch.cat(targets).to(scores.device)
    total = ctc_loss(scores.float(), every, steps, counts, blank=BLANK, reduction="sum", zero_infinity=True)
    return total / counts.sum()
