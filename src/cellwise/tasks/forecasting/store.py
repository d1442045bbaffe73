"""A panel and all that goes with it, as one safetensors file: a run folder needs no other file to forecast
from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from cellwise.tasks.forecasting.frames import FrameSchema, Table
from cellwise.tasks.forecasting.frequency import UNIT_WORDS, Frequency
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.training.digests import parts_digest
from cellwise.tasks.training.run_folder import DATA, Checkpoint, RunFolder

__all__ = ["DATA", "fingerprint", "read_table_back", "table_tensors", "write_table"]


def fingerprint(panel: Panel, schema: FrameSchema | None = None) -> str:
    """SHA-256 over all that a forecast depends on: names, grid, times, values. Equal data, equal text, and no other.

    Of the schema of the table only the time zone and the kind of the names belong to the data."""
    zone = None if schema is None else [schema.time_zone, schema.wall_clock, schema.id_is_integer]
    words = [asdict(panel.frequency), panel.ids, panel.known_names, panel.past_names, zone]
    parts: list[bytes | memoryview] = [json.dumps(words).encode("ascii")]
    for arrays in (panel.times, panel.y, panel.known, panel.past):
        parts.append(len(arrays).to_bytes(8, "little"))
        for array in arrays:
            if array.dtype.kind == "f":
                array = np.where(np.isnan(array), np.nan, array)  # there are many NaN in bits, one in meaning
            whole = np.ascontiguousarray(array)
            parts += [f"{whole.dtype.str} {whole.shape}".encode(), memoryview(whole.tobytes())]
    return parts_digest(parts)


def table_tensors(table: Table) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The series end to end, with their lengths; and all else that there is to say of them, JSON-able."""
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
        "style": asdict(table.schema),
        "notes": table.notes,
    }
    return tensors, about


def write_table(folder: RunFolder, table: Table) -> None:
    """Write data.safetensors."""
    folder.write_tensors(DATA, Checkpoint(*table_tensors(table)))


def read_table_back(folder: RunFolder, saved: Checkpoint | None = None) -> Table:
    """What `write_table` wrote. saved: data.safetensors, read already. Raises RunFolderError if it is damaged."""
    saved = saved or folder.read_tensors(DATA)
    return folder.guarded(f"{DATA} does not hold whole series", lambda: _rebuild(saved.tensors, saved.about))


def _rebuild(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Table:
    frequency = Frequency(**about["frequency"])
    _check_frequency(frequency)
    for name, value in tensors.items():
        wanted = torch.float64 if name in ("y", "known", "past") else torch.int64
        if value.dtype != wanted:
            raise ValueError(f"{name} is {value.dtype}")
    lengths, reaches = tensors["length"].tolist(), tensors["reach"].tolist()
    times = tensors["times"].numpy()
    panel = Panel(
        ids=_texts(about["ids"]),
        frequency=frequency,
        times=_cut(times if frequency.is_integer else times.astype("datetime64[us]"), lengths),
        y=_cut(tensors["y"].numpy(), lengths),
        known=_cut(tensors["known"].numpy(), reaches),
        past=_cut(tensors["past"].numpy(), lengths),
        known_names=_texts(about["known_names"]),
        past_names=_texts(about["past_names"]),
    )
    if len(set(panel.ids)) != len(panel.ids) or not panel.ids:
        raise ValueError("its series have no names of their own")
    for name, each in zip(panel.ids, _cut(times, lengths), strict=True):
        if not len(each) or (np.diff(each) <= 0).any() or (not frequency.is_integer and not _are_dates(each)):
            raise ValueError(f"the times of series {name!r:.60} are none")
    return Table(panel, _texts(about["notes"]), _schema_of(about["style"]))


def _check_frequency(frequency: Frequency) -> None:
    counts = (frequency.season_length, frequency.multiple)
    if frequency.unit not in UNIT_WORDS or not isinstance(frequency.name, str):
        raise ValueError("its frequency is none")
    if any(isinstance(each, bool) or not isinstance(each, int) or not 1 <= each < 2**31 for each in counts):
        raise ValueError("the steps of its frequency are no numbers")


def _are_dates(times: np.ndarray) -> bool:
    """Whether microseconds since 1970 are dates of the years 1 to 9999."""
    low, high = (np.datetime64(day, "us").astype(np.int64) for day in ("0001-01-01", "9999-12-31"))
    return bool(low <= times[0] and times[-1] <= high)


def _schema_of(values: dict[str, Any]) -> FrameSchema:
    schema = FrameSchema(**values)
    for each in fields(FrameSchema):
        value = getattr(schema, each.name)
        kinds = (str, type(None)) if each.default is None else (type(each.default),)
        if type(value) not in kinds:
            raise ValueError(f"the {each.name} of its table is {value!r:.40}")
    if schema.backend not in ("polars", "pandas", "pyarrow"):
        raise ValueError(f"its table was of the kind {schema.backend!r:.40}")
    return schema


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError("a list of names holds something else")
    return tuple(values)


def _join(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(arrays)))


def _cut(whole: np.ndarray, lengths: Sequence[int]) -> tuple[np.ndarray, ...]:
    if sum(lengths) != len(whole) or min(lengths, default=0) < 0:
        raise ValueError(f"{sum(lengths)} rows are announced, {len(whole)} are there")
    return tuple(np.split(whole, np.cumsum(lengths)[:-1]))
