"""The state of a training in its run folder.

last.safetensors is the truth: it is written first, after every epoch, and within an epoch at least once a minute.
best.safetensors and metrics.csv follow from it as long as it stands at the end of an epoch; within the next epoch, they
are there already. The same holds for the files of a stage that continues the training (see `stage`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.history import Watch, watch_of
from cellwise.tasks.training.run_folder import Checkpoint, RunFolder
from cellwise.tasks.training.stage import Stage
from cellwise.tasks.training.state import MOMENTS, TrainingState, by_prefix

__all__ = ["save_state", "take_up"]


def save_state(folder: RunFolder, stage: Stage, state: TrainingState, random: Mapping[str, Tensor]) -> None:
    """Save a training as it stands between two steps. `random`: the generators of all processes, by "rank/name".

    Raises RunFolderError if it cannot be written."""
    folder.write_tensors(stage.state, state.stored(random))
    if not state.within.steps:
        _save_what_follows(folder, stage, state)


def _save_what_follows(folder: RunFolder, stage: Stage, state: TrainingState) -> None:
    if state.best.epoch == len(state.epochs):
        folder.write_tensors(stage.weights, Checkpoint(state.best_weights, {"epoch": state.best.epoch}))
    folder.write_metrics(stage.rows(state.epochs))


def take_up(folder: RunFolder, stage: Stage, state: TrainingState) -> Checkpoint | None:
    """Put into `state` what the folder holds, and return it; None if nothing is saved there.

    A kill can have come between the files of an epoch: then last.safetensors is ahead of the others, and they are
    written again. Raises RunFolderError if anything is damaged."""
    name = stage.state
    if not folder.has(name):
        return None
    saved = folder.read_tensors(name)
    folder.guarded(f"{name} has no epochs", lambda: state.restore_record(saved.about))
    _check_watch(folder, state.watch, saved.about)
    parts = by_prefix(saved.tensors)
    folder.check_weights(state.model.state_dict(), parts.get("model", {}), name)
    folder.check_weights(state.average, parts.get("average", {}), name)
    folder.check_weights(_moments_like(state, parts.get("optimizer", {})), parts.get("optimizer", {}), name)
    folder.guarded(f"{name} has no epochs", lambda: state.restore(saved))
    if state.within.steps:
        folder.guarded(f"{name} has no random numbers", lambda: _check_random(parts.get("random", {})))
    if state.epochs:
        _take_up_best(folder, stage, state)
    return saved


def _take_up_best(folder: RunFolder, stage: Stage, state: TrainingState) -> None:
    if state.best.epoch == len(state.epochs) and not state.within.steps:
        with state.averaged_weights():
            state.best_weights = state.weights()
    else:
        best = folder.read_tensors(stage.weights)
        if best.about.get("epoch") != state.best.epoch:
            raise folder.damaged(f"{stage.weights} is not of epoch {state.best.epoch}, the best one")
        folder.check_weights(state.model.state_dict(), best.tensors, stage.weights)
        state.best_weights = best.tensors
    if not state.within.steps:
        _save_what_follows(folder, stage, state)


def _moments_like(state: TrainingState, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the optimizer keeps; a weight that no gradient reaches has no moments."""
    there = {name.partition("/")[0] for name in found}
    like: dict[str, Tensor] = {}
    for i, parameter in enumerate(state.model.parameters()):
        if str(i) in there:
            like |= {f"{i}/step": torch.tensor(0.0), **{f"{i}/{name}": parameter for name in MOMENTS}}
    return like


def _check_watch(folder: RunFolder, watch: Watch, about: Mapping[str, Any]) -> None:
    """Raise RunFolderError if the run watched another metric. Earlier versions knew one only, without a name."""
    then = watch_of(about)
    if "metric" in about and then != watch:
        better = "higher" if then.higher_is_better else "lower"
        raise RunFolderError(
            f"the unfinished run in {folder.path} watched the metric {then.metric!r:.60}, where {better} is better, "
            f"not {watch.metric!r}; choose another folder, or give --overwrite"
        )


def _check_random(found: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError, TypeError or KeyError unless torch takes the first process's state."""
    torch.Generator().set_state(found["0/cpu"])
