"""The experiment on vanishing gradients: cells, ways to start and to train them, measured and summed up.

Each cell is started in each way of `STARTS`, with several seeds. The derivative of its last states is measured on
sequences of the adding problem (see `cellwise.experiments.memory`), before and after training on that problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from cellwise.cells.base import Cell
from cellwise.errors import did_you_mean
from cellwise.experiments.checks import check_at_least, check_names
from cellwise.experiments.initialization import add_forget_bias, orthogonal_
from cellwise.experiments.memory_tasks import TASKS
from cellwise.experiments.training import MemoryNetwork, MemoryTraining, TrialResult, learn
from cellwise.tasks.training.loop import torch_threads
from cellwise.understand.complexity import complexity
from cellwise.understand.gates import carry_gates
from cellwise.understand.jacobians import (
    NORMS,
    SMALLEST,
    Flow,
    GradientError,
    gradient_flow,
    rate_per_step,
)

__all__ = ["STARTS", "Curve", "GradientStudy", "StudySettings", "TrainingSummary", "study_gradients"]

TASK = TASKS["adding"]
# name -> (the change to a layer as torch.nn draws it; False if the cell has nothing to change, and is left out)
STARTS: dict[str, Callable[[MemoryNetwork, float], bool]] = {
    "as drawn": lambda network, bias: True,
    "forget bias": lambda network, bias: add_forget_bias(network.recurrent, bias),
    "orthogonal": lambda network, bias: orthogonal_(network.recurrent),
}


@dataclass(frozen=True)
class StudySettings:
    """How to measure. `length` T is that of the measured sequences, `train_length` that of those trained on."""

    length: int = 100
    hidden_size: int = 32
    seeds: int = 3
    sequences: int = 8
    bias: float = 1.0
    norm: str = "spectral"
    train: bool = True
    train_length: int = 30
    updates: int = 1000
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(
            self, GradientError,
            length=2, hidden_size=1, seeds=1, sequences=1, train_length=2, updates=1,
        )  # fmt: skip
        if not math.isfinite(self.bias):
            raise GradientError(f"The forget bias must be a finite number; got {self.bias:g}.")
        if not self.clip > 0:
            raise GradientError(f"The clip must be greater than 0; got {self.clip:g}.")
        if self.norm not in NORMS:
            hint = did_you_mean(self.norm, NORMS)
            raise GradientError(
                f"There is no norm called '{self.norm}'; {hint}there are: {', '.join(NORMS)}."
            )


@dataclass(frozen=True)
class TrainingSummary:
    """What the trainings of a curve, one a seed, came to: how many learned the task, mean updates, the share of updates
    whose gradient was above the clip, and the norm of the gradient at each update of the first seed."""

    solved: int
    seeds: int
    updates: float
    above_clip: float
    gradients: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """The derivative of one cell, started in one way, before or after training: by lag, 0 to T.

    `middle` is the geometric mean over sequences and seeds, `low` and `high` the 10th and 90th percentile; `blocks`
    holds the geometric mean for each pair of states, "c by c". `rate` is the factor per step.
    """

    cell: str
    start: str
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate: float
    blocks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    training: TrainingSummary | None = None
    clipped: bool = True

    def at(self, lag: int) -> float:
        return self.middle[min(lag, len(self.middle) - 1)]


@dataclass(frozen=True)
class GradientStudy:
    """All curves; `gates` says for each cell which gate keeps its state, `parameters` how many weights it has, `notes`
    what could not be measured and why."""

    settings: StudySettings
    cells: tuple[str, ...]
    curves: tuple[Curve, ...]
    gates: dict[str, tuple[str, ...]]
    parameters: dict[str, int]
    notes: tuple[str, ...] = ()

    def find(self, cell: str, start: str, trained: bool = False, clipped: bool = True) -> Curve | None:
        """The curve, if it was measured."""
        wanted = (cell, start, trained, clipped)
        return next(
            (c for c in self.curves if (c.cell, c.start, c.training is not None, c.clipped) == wanted), None
        )


def study_gradients(
    cells: Sequence[Cell], settings: StudySettings, report: Callable[[str], None] = lambda text: None
) -> GradientStudy:
    """Measure the cells, each under every start, untrained and trained. `report` is told what is being done.

    Raises:
        GradientError: a setting cannot be, two cells have one name, or no cell's states stay finite.

    >>> from cellwise import cells
    >>> settings = StudySettings(length=20, hidden_size=4, seeds=1, train=False)
    >>> study = study_gradients([cells.get("rnn"), cells.get("lstm")], settings)
    >>> [(curve.cell, curve.start) for curve in study.curves]
    [('rnn', 'as drawn'), ('rnn', 'orthogonal'), ('lstm', 'as drawn'), ('lstm', 'forget bias'), ('lstm', 'orthogonal')]
    """
    names = [cell.name for cell in cells]
    check_names(names, GradientError)
    curves: list[Curve] = []
    notes: list[str] = []
    with torch_threads(1):  # these networks are too small for a second one to help
        for measurement in (each for cell in cells for each in _measurements(cell, settings)):
            try:
                curves += measurement.run(settings, report)
            except GradientError as error:  # one network that explodes shall not cost all the others
                notes.append(f"{measurement}: {error}")
    if not curves:
        raise GradientError(notes[0])
    weights = {cell.name: complexity(cell).parameters for cell in cells}
    return GradientStudy(
        settings,
        tuple(names),
        tuple(curves),
        {cell.name: tuple(str(gate) for gate in carry_gates(cell.graph)) for cell in cells},
        {name: count.at(d=TASK.input_size, h=settings.hidden_size) for name, count in weights.items()},
        tuple(notes),
    )


@dataclass(frozen=True)
class _Measurement:
    """One curve that is to be measured: networks that differ in the seed, `trained` with a clip or without."""

    cell: Cell
    start: str
    trained: bool = False
    clip: float | None = None

    def __str__(self) -> str:
        after = f", trained {'un' if self.clip is None else ''}clipped" if self.trained else ""
        return f"{self.cell.name}, {self.start}{after}"

    def run(self, settings: StudySettings, report: Callable[[str], None]) -> list[Curve]:
        """The curve; nothing for a cell that cannot be started so."""
        networks = _networks(self.cell, self.start, settings)
        if networks is None:
            return []
        if not self.trained:
            report(f"{self}: measuring")
            return [_measured(self, networks, settings)]
        results = []
        for seed, network in enumerate(networks):
            report(f"{self}: network {seed + 1} of {len(networks)}")
            training = MemoryTraining(updates=settings.updates, clip=self.clip, seed=seed)
            results.append(learn(network, TASK, settings.train_length, training))
        curve = _measured(self, networks, settings)
        return [replace(curve, training=_summary(results, settings.clip), clipped=self.clip is not None)]


def _measurements(cell: Cell, settings: StudySettings) -> Iterator[_Measurement]:
    for start in STARTS:
        yield _Measurement(cell, start)
        if settings.train:
            yield _Measurement(cell, start, trained=True, clip=settings.clip)
        if settings.train and start == "as drawn":
            yield _Measurement(cell, start, trained=True, clip=None)


def _networks(cell: Cell, start: str, settings: StudySettings) -> list[MemoryNetwork] | None:
    """One network a seed, or None if this cell cannot be started so."""
    networks = []
    for seed in range(settings.seeds):
        network = MemoryNetwork(cell, TASK, settings.hidden_size, seed)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            if not STARTS[start](network, settings.bias):
                return None
        networks.append(network)
    return networks


def _summary(results: list[TrialResult], clip: float) -> TrainingSummary:
    norms = [norm for each in results for norm in each.gradients]
    return TrainingSummary(
        sum(each.solved for each in results),
        len(results),
        fmean(each.updates for each in results),
        fmean(norm > clip for norm in norms) if norms else 1.0,
        results[0].gradients,
    )


def _measured(about: _Measurement, networks: list[MemoryNetwork], settings: StudySettings) -> Curve:
    flows = [_flow(network, seed, settings) for seed, network in enumerate(networks)]
    whole = torch.cat([flow.whole for flow in flows], dim=1)
    blocks = {
        f"{later} by {earlier}": _geometric(torch.cat([flow.blocks[later, earlier] for flow in flows], dim=1))
        for later, earlier in flows[0].blocks
        if len(flows[0].states) > 1
    }
    middle = _geometric(whole)
    low, high = torch.quantile(whole, torch.tensor([0.1, 0.9], dtype=torch.float64), dim=1)
    return Curve(
        about.cell.name,
        about.start,
        _numbers(middle),
        _numbers(low),
        _numbers(high),
        rate_per_step(middle),
        {pair: _numbers(values) for pair, values in blocks.items()},
    )


def _flow(network: MemoryNetwork, seed: int, settings: StudySettings) -> Flow:
    # The same sequences for every cell and start, and none that were trained on.
    generator = torch.Generator().manual_seed(seed + 2_000_003)
    x, _ = TASK.draw(settings.length, settings.sequences, generator)
    return gradient_flow(network.recurrent, x, norm=settings.norm)


def _geometric(norms: Tensor) -> Tensor:
    """The geometric mean over sequences, (T + 1,); zero where any norm is, as for a unit that is switched off."""
    return torch.where((norms > SMALLEST).all(dim=1), norms.clamp_min(SMALLEST).log().mean(dim=1).exp(), 0.0)


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
