"""The stages of a run: a training, and what continues it.

`train` is called once for each of them. Every stage has a file for its state, so that each resumes by itself, and one
for the weights that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cellwise.tasks.training.history import Epoch, History
from cellwise.tasks.training.run_folder import BEST, FINAL, LAST, REFIT
from cellwise.tasks.training.settings import TrainSettings

__all__ = ["TRAINING", "Stage", "continued_settings", "first_settings", "refit_stage", "update_stage"]

# A network that is continued on more data: so many epochs for each one of its training, with its learning rate, which
# falls again. Chosen by measuring, see docs/decisions/0032.
EPOCHS_SHARE = 0.2
WARMUP = 20
MINUTES_SHARE = 0.15  # of a budget in time; the training has the rest
# Added to the seed, so that no epoch of a training and of what continues it draw the same; above every seed there is.
OTHER_SEED = 2**31


@dataclass(frozen=True)
class Stage:
    """One stage.

    name: in metrics.csv; also in progress and messages, but for the first. state, weights: its files. earlier: rows of
    metrics.csv that stages before it have written."""

    name: str = "train"
    state: str = LAST
    weights: str = BEST
    earlier: tuple[Mapping[str, object], ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether this is the training itself."""
        return self.state == LAST

    def rows(self, epochs: Iterable[Epoch]) -> list[dict[str, object]]:
        """The rows of metrics.csv after these epochs of the stage."""
        return [*map(dict, self.earlier), *({**epoch.row, "stage": self.name} for epoch in epochs)]


TRAINING = Stage()


def refit_stage(earlier: History) -> Stage:
    """The stage that continues a training on all data."""
    return Stage("refit", REFIT, FINAL, tuple(TRAINING.rows(earlier.epochs)))


def update_stage(earlier: Iterable[Mapping[str, object]]) -> Stage:
    """The stage that continues a finished run on newer data. earlier: the rows of its metrics.csv."""
    return Stage("update", REFIT, FINAL, tuple(earlier))


def first_settings(settings: TrainSettings) -> TrainSettings:
    """Those of a training that will be continued: it leaves a share of the time limit."""
    if settings.minutes is None:
        return settings
    return replace(settings, minutes=(1 - MINUTES_SHARE) * settings.minutes)


def continued_settings(settings: TrainSettings, epochs: int) -> TrainSettings:
    """Those by which a network is continued that was trained for so many epochs."""
    return replace(
        settings,
        epochs=max(1, round(EPOCHS_SHARE * epochs)),
        warmup=WARMUP,
        patience=0,
        goal=None,
        seed=settings.seed + OTHER_SEED,
        minutes=None if settings.minutes is None else MINUTES_SHARE * settings.minutes,
    )
