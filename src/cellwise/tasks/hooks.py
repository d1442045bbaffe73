"""What a task supplies to its estimator.

It implements (see docs/adding-a-task.md) `_read`, `_network`, `_objective`, `_store`, `_restore`, and
`measure`; and, where it has something to add, `_epochs`, `_learned`, `_notes`, `_report`, `_figures`. One whose network
is continued on all data after it was measured has `_refits` and `_refit_objective`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.run_folder import Checkpoint, RunFolder

__all__ = ["Hooks", "Stored"]

USUAL_EPOCHS = 20

Data = TypeVar("Data")
Training = TypeVar("Training")


@dataclass(frozen=True, eq=False)
class Stored:
    """The part of an estimator's data that a run folder holds, beside options and weights.

    fingerprint: a digest of the data; a run resumes only with equal data.
    tensors, about: contents of data.safetensors.
    config: additional entries of config.json, JSON-able."""

    fingerprint: str
    tensors: Mapping[str, torch.Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


class Hooks(ABC, Generic[Data, Training]):
    """The part of an estimator that differs from task to task."""

    task: ClassVar[str]
    """Name of the task: that of its command, and in run folders."""
    former_tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the task in run folders of earlier versions."""
    fit_options: ClassVar[type | None] = None
    """Declares the options of this task's `fit`, which the run folder stores too."""
    metric: ClassVar[str]
    """The figure of `measure` that `score` returns."""
    higher_is_better: ClassVar[bool] = False
    takes_several_cells: ClassVar[bool] = False
    """Whether the network has members, each of which may have a cell of its own."""

    @abstractmethod
    def _read(self, data: Any, *args: Any, **more: Any) -> tuple[Data, Training]:
        """Read the arguments of `fit`. Raises DataError.

        The parameters after `data` are those that this task's `fit` takes: `target`, `valid`, and the `fit_options`."""

    @abstractmethod
    def _network(self, data: Data) -> nn.Module:
        """A network with initial weights, drawn with the seed."""

    @abstractmethod
    def _objective(self, network: Any, data: Data, training: Training) -> Objective[Any]:
        """Batches, loss and validation."""

    @abstractmethod
    def _store(self, data: Data) -> Stored:
        """The data as a run folder stores it."""

    @abstractmethod
    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> Data:
        """The inverse of `_store`. Nothing in the folder is trusted.

        Raises RunFolderError, or ValueError, KeyError, ... if config.json is not as it was written."""

    @abstractmethod
    def measure(self, data: Any, target: Any = None) -> dict[str, float]:
        """The metrics of this network on any data, by name."""

    def _epochs(self, data: Data, training: Training) -> int:
        """How many epochs suit the data, where nobody says how many."""
        return USUAL_EPOCHS

    def _refits(self, data: Data) -> bool:
        """Whether the network, once it was measured, is continued on all data, for the predictions."""
        return False

    def _refit_objective(self, network: Any, data: Data, training: Training) -> Objective[Any]:
        """Batches and loss of all data, what was held out included; nothing to validate."""
        raise NotImplementedError(f"{type(self).__name__} does not continue its network")

    def _complete(self) -> tuple[str, ...]:
        """Learn from the trained network what else there is to learn; returns notes. All other fitted state is set."""
        return ()

    def _completion(self) -> Mapping[str, Checkpoint]:
        """Files that a run folder keeps of it."""
        return {}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        """The inverse, with nothing in the folder trusted; None if the run has no such files. Returns notes."""
        return ()

    def _learned(self, data: Data) -> None:
        """Set the fitted attributes, whose names end in an underscore, that come from the data."""

    def _notes(self, data: Data) -> tuple[str, ...]:
        """What was noticed in the data, in sentences."""
        return ()

    def _report(self, run: RunFolder) -> None:
        """Write the report, and whatever else people would look at. What it raises is caught, and becomes a note."""

    def _figures(self) -> dict[str, Any]:
        """Additional entries of summary.json, JSON-able."""
        return {}
