"""What a training changes as it goes: weights, optimizer, averages, the record, and how far it is in the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.tasks.training.history import Epoch, Watch, epoch_records, epochs_of, watch_of
from cellwise.tasks.training.run_folder import Checkpoint
from cellwise.tasks.training.settings import TrainSettings

__all__ = ["MOMENTS", "TrainingState", "Within", "by_prefix"]

MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each weight, beside the number of its steps


@dataclass
class Within:
    """How far a training is in an epoch: optimizer steps, the sum of their losses, seconds, the last learning rate."""

    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    learning_rate: float = 0.0


@dataclass
class TrainingState:
    """The state of one training, from which it goes on to the same bits."""

    model: nn.Module
    settings: TrainSettings
    watch: Watch
    epochs: list[Epoch] = field(default_factory=list)
    within: Within = field(default_factory=Within)
    seconds: float = 0.0  # of all sittings until now
    validation_seconds: float = 0.0  # the longest that a validation took
    random: dict[str, Tensor] = field(
        default_factory=dict
    )  # generators of this process as the next step finds them
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.settings
        # One pass over all weights in place of a dozen operators for each, on a CPU: a third to a fifth of the time.
        fused = all(each.is_cpu for each in self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=fused or None,
        )
        self.average = (
            {name: p.detach().clone() for name, p in self.model.named_parameters()}
            if settings.average
            else {}
        )

    @property
    def best(self) -> Epoch:
        """The best epoch so far; there must be one."""
        return self.watch.best(self.epochs)

    def update(self, step: int, rate: float) -> None:
        """Make a step, counted from 0 over the whole run, with the gradients as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        decay = min(self.settings.average, 1 - 1 / (step + 1))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights inside the block, with its own after it."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters() if name in self.average}
        _put(self.model, self.average)
        try:
            yield
        finally:
            _put(self.model, own)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the model's weights as they are."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def stored(self, random: Mapping[str, Tensor]) -> Checkpoint:
        """As last.safetensors keeps it. `random`: generators of all processes; they matter within an epoch only."""
        about: dict[str, Any] = epoch_records(self.epochs, self.watch)
        about |= {"seconds": self.seconds, "validation_seconds": self.validation_seconds}
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{key}": value for key, value in state.items()}
        if self.within.steps:
            about["within"] = asdict(self.within)
            tensors |= {f"random/{name}": value for name, value in random.items()}
        return Checkpoint(tensors, about)

    def restore(self, saved: Checkpoint) -> None:
        """Take up what `stored` has made. Raises ValueError, KeyError or TypeError if its record is none."""
        self.restore_record(saved.about)
        parts = by_prefix(saved.tensors)
        self.model.load_state_dict(parts.get("model", {}))
        for name, value in parts.get("average", {}).items():
            self.average[name].copy_(value)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in parts.get("optimizer", {}).items():
            number, _, key = name.partition("/")
            states.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})

    def restore_record(self, about: Mapping[str, Any]) -> None:
        """The record alone. Raises ValueError, KeyError or TypeError if it is none."""
        within = Within(**about.get("within", {}))
        epochs = epochs_of(about, watch_of(about) if "metric" in about else self.watch)
        seconds = about.get("seconds", sum(epoch.seconds for epoch in epochs))
        numbers = [seconds, about.get("validation_seconds", 0.0), *asdict(within).values()]
        if not all(type(number) in (int, float) for number in numbers) or type(within.steps) is not int:
            raise ValueError("its counters are no numbers")
        if within.steps < 0 or not (epochs or within.steps):
            raise ValueError("none is recorded")
        self.epochs, self.within, (self.seconds, self.validation_seconds) = epochs, within, numbers[:2]


@torch.no_grad()
def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])


def by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors named "part/name", by part."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition("/")
        parts.setdefault(prefix, {})[rest] = value
    return parts
