"""A panel and all that goes with it, as one safetensors file: a run folder needs no other file to forecast
from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cellwise.tasks.base import RunFolderError
from cellwise.tasks.forecasting.frames import FrameStyle, Table
from cellwise.tasks.forecasting.frequency import Frequency
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.run_folder import Checkpoint, RunFolder

__all__ = ["DATA", "fingerprint", "read_table_back", "write_table"]

DATA = "data.safetensors"


def fingerprint(panel: Panel) -> str:
    """SHA-256 over names, times and values: equal data, equal text."""
    digest = hashlib.sha256("\0".join((*panel.ids, panel.frequency.name)).encode("utf8"))
    for arrays in (panel.times, panel.y, panel.known, panel.past):
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_table(folder: RunFolder, table: Table) -> None:
    """Write the series end to end, with their lengths."""
    panel = table.panel
    tensors = {
        "times": _join([times.astype(np.int64) for times in panel.times]),
        "y": _join(panel.y),
        "known": _join(panel.known),
        "past": _join(panel.past),
        "length": torch.from_numpy(panel.lengths),
        "reach": torch.tensor([len(known) for known in panel.known]),
    }
    about = {
        "ids": panel.ids,
        "frequency": asdict(panel.frequency),
        "known_names": panel.known_names,
        "past_names": panel.past_names,
        "style": asdict(table.style),
        "notes": table.notes,
    }
    folder.write_tensors(DATA, Checkpoint(tensors, about))


def read_table_back(folder: RunFolder) -> Table:
    """What `write_table` wrote. Raises RunFolderError if it is damaged."""
    saved = folder.read_tensors(DATA)
    try:
        return _rebuild(saved.tensors, saved.about)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunFolderError(
            f"the run folder {folder.path} is damaged: {DATA} does not hold whole series"
        ) from error


def _rebuild(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Table:
    frequency = Frequency(**about["frequency"])
    lengths, reaches = tensors["length"].tolist(), tensors["reach"].tolist()
    times = tensors["times"].numpy()
    panel = Panel(
        ids=tuple(about["ids"]),
        frequency=frequency,
        times=_cut(times if frequency.is_integer else times.astype("datetime64[us]"), lengths),
        y=_cut(tensors["y"].numpy(), lengths),
        known=_cut(tensors["known"].numpy(), reaches),
        past=_cut(tensors["past"].numpy(), lengths),
        known_names=tuple(about["known_names"]),
        past_names=tuple(about["past_names"]),
    )
    return Table(panel, tuple(about["notes"]), FrameStyle(**about["style"]))


def _join(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(arrays)))


def _cut(whole: np.ndarray, lengths: Sequence[int]) -> tuple[np.ndarray, ...]:
    if sum(lengths) != len(whole):
        raise ValueError(f"{sum(lengths)} rows are announced, {len(whole)} are there")
    return tuple(np.split(whole, np.cumsum(lengths)[:-1]))
