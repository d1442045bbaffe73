"""Digits, births and characters: real data that ship with cellwise."""

from __future__ import annotations

import gzip
from abc import abstractmethod
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellwise.cells.base import Cell
from cellwise.experiments.bakeoff.problem import AnswerProblem, Batch, Problem
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.text.baselines import KneserNey
from cellwise.tasks.text.corpus import bundled_text
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.objective import TextObjective, bits_per_unit
from cellwise.tasks.text.units import Vocabulary
from cellwise.tasks.training.objective import Objective

__all__ = ["CharactersProblem", "DigitsProblem", "ForecastProblem"]

FOLDER = Path(__file__).parent / "data"


class _Sampled(AnswerProblem):
    """Examples of real data; each batch draws some of those that may be learned from."""

    @cached_property
    @abstractmethod
    def parts(self) -> tuple[Batch, Batch]:
        """Inputs (T, N, D) and targets to learn from, and those to be measured on."""

    def draw(self, generator: torch.Generator) -> Batch:
        x, targets = self.parts[0]
        chosen = torch.randint(x.shape[1], (self.batch,), generator=generator)
        return x[:, chosen], targets[chosen]


class DigitsProblem(_Sampled):
    """Handwritten digits, a pixel a step. The file is in the order of the writers, so that the last ones are new."""

    name = "digits"
    measure = "share of digits named wrong"
    sign = "wrong"
    simple = "nearest mean"
    learning_rate = 1e-2
    input_size = 1
    output_size = 10
    measured = 360
    about = f"which digit 8 by 8 pixels show, read one by one (the last {measured} of 1,797 are measured)"

    @cached_property
    def parts(self) -> tuple[Batch, Batch]:
        text = gzip.decompress((FOLDER / "digits.csv.gz").read_bytes()).decode("ascii")
        table = torch.tensor([[int(each) for each in line.split(",")] for line in text.splitlines()])
        x, labels = (table[:, :-1].float() / 8 - 1).T.unsqueeze(-1), table[:, -1]
        return (x[:, : -self.measured], labels[: -self.measured]), (
            x[:, -self.measured :],
            labels[-self.measured :],
        )

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(answers[-1], targets)

    def score(self, network: Any) -> float:
        x, labels = self.parts[1]
        return float((network(x)[-1].argmax(-1) != labels).float().mean())

    def simple_score(self) -> float:
        """Of the class whose mean picture is nearest."""
        (x, labels), (others, wanted) = self.parts
        means = torch.stack([x[:, labels == digit, 0].mean(1) for digit in range(10)])
        return float((torch.cdist(others[:, :, 0].T, means).argmin(1) != wanted).float().mean())

    @property
    def _settings(self) -> dict[str, Any]:
        return {"measured": self.measured}


class ForecastProblem(_Sampled):
    """Births in the United States: the next week from four, the holidays of the week ahead being known."""

    name = "forecast"
    measure = "mean absolute error over that of repeating the last week"
    sign = "error / last week's"
    simple = "last week again"
    learning_rate = 1e-2
    input_size = 3
    context, horizon, measured_days = 28, 7, 728
    output_size = horizon
    about = f"daily births in the United States, {horizon} days from {context} (the last {measured_days} are measured)"

    @cached_property
    def parts(self) -> tuple[Batch, Batch]:
        values, scaled, flags = self._days
        train_days = len(values) - self.measured_days
        starts = torch.arange(train_days - self.context - self.horizon + 1)
        held = torch.arange(
            train_days - self.context, len(values) - self.context - self.horizon + 1, self.horizon
        )
        return self._windows(scaled, flags, starts), self._windows(scaled, flags, held)

    @cached_property
    def _days(self) -> tuple[Tensor, Tensor, Tensor]:
        """Births (N,), the same scaled by what is learned from, and two flags of each day (N, 2)."""
        frame = us_births()
        values = torch.from_numpy(frame["y"].to_numpy().astype(np.float32))
        flags = torch.from_numpy(frame.select("holiday", "near_holiday").to_numpy().astype(np.float32))
        learned = values[: -self.measured_days]
        return values, (values - learned.mean()) / learned.std(), flags

    def _windows(self, scaled: Tensor, flags: Tensor, starts: Tensor) -> Batch:
        """Inputs (T, N, 3), each day's value with the flags of the day a week later, and targets (N, horizon)."""
        days = starts + torch.arange(self.context).unsqueeze(1)
        x = torch.cat([scaled[days].unsqueeze(-1), flags[days + self.horizon]], -1)
        ahead = starts.unsqueeze(1) + self.context + torch.arange(self.horizon)
        return x, scaled[ahead]

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(answers[-1], targets)

    def score(self, network: Any) -> float:
        x, targets = self.parts[1]
        error = float((network(x)[-1] - targets).abs().mean())
        return error / self._error_of_last_week

    @cached_property
    def _error_of_last_week(self) -> float:
        x, targets = self.parts[1]
        return float((x[-self.horizon :, :, 0].T - targets).abs().mean())

    def simple_score(self) -> float:
        return 1.0

    @property
    def _settings(self) -> dict[str, Any]:
        return {"context": self.context, "horizon": self.horizon, "measured_days": self.measured_days}


class _TextTraining(TextObjective):
    """Pieces of the text in epochs of so many steps, nothing held out."""

    def __init__(self, *given: Any, steps: int, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._steps = steps

    @property
    def steps(self) -> int:
        return self._steps

    def validate(self) -> dict[str, float]:
        return {}


class CharactersProblem(Problem):
    """A language model of characters, with an embedding."""

    name = "characters"
    measure = "bits per character"
    sign = "bits"
    simple = "trigrams"
    learning_rate = 1e-2
    embedding, length, measured, order = 16, 40, 40_000, 3
    about = f"the next character of Moby-Dick (the last {measured:,} of 495,424 are measured)"

    @cached_property
    def _text(self) -> tuple[int, Tensor, Tensor]:
        """The number of characters there are, ids to learn from and ids to be measured on."""
        text = bundled_text()
        vocabulary = Vocabulary.of(text)
        ids = vocabulary.encode(text)
        return len(vocabulary), ids[: -self.measured], ids[-self.measured :]

    @property
    def input_size(self) -> int:
        return self.embedding

    @property
    def output_size(self) -> int:
        return self._text[0]

    def around(self, hidden_size: int) -> int:
        return super().around(hidden_size) + self.output_size * self.embedding

    def network(self, cell: Cell, hidden_size: int, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return CharacterNetwork(cell, self.output_size, self.embedding, hidden_size, 1, 0.0)

    def objective(self, network: Any, steps: int, seed: int) -> Objective[Any]:
        _, learned, measured = self._text
        return _TextTraining(
            network, learned, measured, steps=steps, length=self.length, batch_size=self.batch, seed=seed
        )

    def score(self, network: Any) -> float:
        return bits_per_unit(network, self._text[2])

    @cache  # noqa: B019  (there is one such problem, for as long as the process lives)
    def simple_score(self) -> float:
        size, learned, measured = self._text
        model = KneserNey(learned.numpy(), size, self.order)
        return float(model.bits(measured.numpy()).mean())

    @property
    def _settings(self) -> dict[str, Any]:
        return {"embedding": self.embedding, "length": self.length, "measured": self.measured}
