"""The experiment on vanishing gradients: cells, ways to start and to train them, measured and summed up.

Each cell is started in each way of `STARTS`, with several seeds. The derivative of its last states is measured on
sequences of the adding problem (see `cellwise.experiments.memory`), before and after training on that problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from cellwise.cells.base import Cell
from cellwise.errors import did_you_mean
from cellwise.experiments.initialization import keep_more, make_orthogonal
from cellwise.experiments.memory_tasks import TASKS
from cellwise.experiments.training import Learned, Learning, MemoryNetwork, learn
from cellwise.tasks.training.loop import threads
from cellwise.understand.gates import carry_gates
from cellwise.understand.gradients import (
    NORMS,
    SMALLEST,
    Flow,
    GradientError,
    gradient_flow,
    rate_per_step,
)

__all__ = ["STARTS", "Curve", "GradientStudy", "StudySettings", "Training", "study_gradients"]

TASK = TASKS["adding"]
# name -> (the change to a layer as torch.nn draws it; False if the cell has nothing to change, and is left out)
STARTS: dict[str, Callable[[MemoryNetwork, float], bool]] = {
    "as drawn": lambda network, bias: True,
    "forget bias": lambda network, bias: keep_more(network.recurrent, bias),
    "orthogonal": lambda network, bias: make_orthogonal(network.recurrent),
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
    updates: int = 500
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ("length", 2), ("hidden_size", 1), ("seeds", 1), ("sequences", 1), ("train_length", 2), ("updates", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise GradientError(
                    f"The {name.replace('_', ' ')} must be at least {least}; got {getattr(self, name)}."
                )
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
class Training:
    """What the trainings of a curve, one a seed, came to; `gradients` are those of the first seed, by update."""

    solved: int
    seeds: int
    right: float
    updates: float
    largest_gradient: float
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
    training: Training | None = None
    clipped: bool = True

    def at(self, lag: int) -> float:
        return self.middle[min(lag, len(self.middle) - 1)]

    def reach(self, share: float) -> int | None:
        """The first lag at which less than `share` is left; None if more is left of every state."""
        return next((lag for lag, value in enumerate(self.middle) if value < share), None)


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> GradientStudy:
        """The inverse of `as_json`, also after a trip through JSON text."""
        return cls(
            StudySettings(**saved["settings"]),
            tuple(saved["cells"]),
            tuple(_curve_from(each) for each in saved["curves"]),
            {cell: tuple(gates) for cell, gates in saved["gates"].items()},
            saved["parameters"],
            tuple(saved["notes"]),
        )


def _curve_from(saved: dict[str, Any]) -> Curve:
    training = saved["training"]
    if training is not None:
        training = Training(**{**training, "gradients": tuple(training["gradients"])})
    lists = {name: tuple(saved[name]) for name in ("middle", "low", "high")}
    blocks = {name: tuple(values) for name, values in saved["blocks"].items()}
    return Curve(**{**saved, **lists, "blocks": blocks, "training": training})


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
    if len(set(names)) < len(names):
        raise GradientError(
            f"Two of the cells have the same name among {', '.join(names)}; give each its own."
        )
    curves: list[Curve] = []
    notes: list[str] = []
    with threads(1):  # these networks are too small for a second one to help
        for cell in cells:
            for name, measure in _measurements(cell, settings, report):
                try:
                    curves += [measure()]
                except GradientError as error:  # one network that explodes shall not cost all the others
                    notes.append(f"{name}: {error}")
    if not curves:
        raise GradientError(notes[0])
    return GradientStudy(
        settings,
        tuple(names),
        tuple(curves),
        {cell.name: tuple(str(gate) for gate in carry_gates(cell.graph)) for cell in cells},
        {cell.name: _weights(cell, settings) for cell in cells},
        tuple(notes),
    )


def _weights(cell: Cell, settings: StudySettings) -> int:
    network = MemoryNetwork(cell, TASK, settings.hidden_size)
    return sum(parameter.numel() for parameter in network.recurrent.parameters())


def _measurements(
    cell: Cell, settings: StudySettings, report: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], Curve]]]:
    """What is to be measured of a cell: a name, and what does it."""
    for start in STARTS:
        networks = _networks(cell, start, settings)
        if networks is None:
            continue
        report(f"{cell.name}, {start}: measuring")
        yield f"{cell.name}, {start}", partial(_measured, cell, start, networks, settings)
        clips = (settings.clip, None) if start == "as drawn" else (settings.clip,)
        for clip in clips if settings.train else ():
            trained = _networks(cell, start, settings)
            assert trained is not None
            name = f"{cell.name}, {start}, trained {'un' if clip is None else ''}clipped"
            yield (
                name,
                partial(_trained, cell, start, trained, clip, settings, partial(_prefixed, report, name)),
            )


def _prefixed(report: Callable[[str], None], name: str, text: str) -> None:
    report(f"{name}: {text}")


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


def _trained(
    cell: Cell,
    start: str,
    networks: list[MemoryNetwork],
    clip: float | None,
    settings: StudySettings,
    report: Callable[[str], None],
) -> Curve:
    done: list[Learned] = []
    for seed, network in enumerate(networks):
        report(f"network {seed + 1} of {len(networks)}")
        learning = Learning(updates=settings.updates, clip=clip, seed=seed)
        done.append(learn(network, TASK, settings.train_length, learning))
    curve = _measured(cell, start, networks, settings)
    sizes = [size for each in done for size in each.gradients]
    training = Training(
        sum(each.solved for each in done),
        len(done),
        fmean(each.right for each in done),
        fmean(each.updates for each in done),
        max(sizes, default=float("inf")),
        fmean(size > settings.clip for size in sizes) if sizes else 1.0,
        done[0].gradients,
    )
    return replace(curve, training=training, clipped=clip is not None)


def _measured(cell: Cell, start: str, networks: list[MemoryNetwork], settings: StudySettings) -> Curve:
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
        cell.name,
        start,
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
