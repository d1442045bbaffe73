"""A run folder: everything one training leaves behind, written so that no kill can damage it.

config.json        task, settings, fingerprint of the data, versions; written first metrics.csv        one
row per epoch last.safetensors   weights, optimizer and averaged weights after the last whole epoch, with
the record of all epochs best.safetensors   the weights that forecast summary.json       written last: the
run is finished

Every file is written beside its place and then moved there, so that a reader sees the old one or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cellwise._version import __version__
from cellwise.tasks.base import RunFolderError

__all__ = ["Checkpoint", "RunFolder", "open_run", "write_atomically"]

CONFIG, METRICS, LAST, BEST, SUMMARY = (
    "config.json",
    "metrics.csv",
    "last.safetensors",
    "best.safetensors",
    "summary.json",
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, and what is said about them (JSON-able)."""

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. `open_run` starts or resumes one; `RunFolder(path)` reads one that is there."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def is_finished(self) -> bool:
        """Whether everything, the report included, was written."""
        return (self.path / SUMMARY).is_file()

    @property
    def is_started(self) -> bool:
        """Whether at least one epoch is saved."""
        return (self.path / LAST).is_file()

    def config(self, task: str | None = None) -> dict[str, Any]:
        """config.json; RunFolderError if this is no run folder, a damaged one, or one of another task."""
        if not self.path.exists():
            raise RunFolderError(f"there is no run folder {self.path}")
        if not (self.path / CONFIG).is_file():
            raise RunFolderError(f"{self.path} is not a run folder: it has no {CONFIG}")
        config = self.read_json(CONFIG)
        if not isinstance(config.get("settings"), dict) or "task" not in config:
            raise RunFolderError(
                f"the run folder {self.path} is damaged: {CONFIG} lacks its task or settings"
            )
        if task is not None and config["task"] != task:
            raise RunFolderError(f"{self.path} holds a run of the task {config['task']!r}, not {task!r}")
        return config

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object; RunFolderError if it is missing or damaged."""
        try:
            value = json.loads((self.path / name).read_text("utf8"))
        except FileNotFoundError as error:
            raise RunFolderError(f"the run folder {self.path} is damaged: {name} is missing") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"the run folder {self.path} is damaged: {name} is not JSON") from error
        if not isinstance(value, dict):
            raise RunFolderError(f"the run folder {self.path} is damaged: {name} holds no JSON object")
        return value

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object that a person can read."""
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode("utf8"))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_atomically(self.path / name, text.encode("utf8"))

    def write_metrics(self, rows: Iterable[Mapping[str, object]]) -> None:
        """metrics.csv from rows with equal keys."""
        rows = list(rows)
        lines = [",".join(rows[0])] + [
            ",".join("" if v is None else str(v) for v in row.values()) for row in rows
        ]
        self.write_text(METRICS, "\n".join(lines) + "\n")

    def write_tensors(self, name: str, checkpoint: Checkpoint) -> None:
        """A safetensors file whose metadata holds `about`: tensors and counters change together or not at
        all."""
        tensors = {key: value.detach().clone().contiguous() for key, value in checkpoint.tensors.items()}
        write_atomically(self.path / name, save(tensors, metadata={"about": json.dumps(checkpoint.about)}))

    def read_tensors(self, name: str) -> Checkpoint:
        """A file of `write_tensors`; RunFolderError if it is missing or damaged."""
        try:
            with safe_open(str(self.path / name), framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
                about = json.loads((file.metadata() or {})["about"])
        except FileNotFoundError as error:
            raise RunFolderError(f"the run folder {self.path} is damaged: {name} is missing") from error
        except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
            raise RunFolderError(
                f"the run folder {self.path} is damaged: {name} is cut short or altered"
            ) from error
        return Checkpoint(tensors, about)

    def load_weights(self, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
        """Put weights into a model; RunFolderError if names or shapes do not match."""
        wanted = model.state_dict()
        for key in sorted(set(wanted) | set(tensors)):
            if key not in tensors or key not in wanted:
                which = "lacks" if key not in tensors else "has an unknown"
                raise RunFolderError(f"the run folder {self.path} is damaged: {name} {which} weight {key!r}")
            if wanted[key].shape != tensors[key].shape:
                raise RunFolderError(
                    f"the run folder {self.path} is damaged: in {name} the weight {key!r} has shape "
                    f"{tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
                )
        model.load_state_dict(dict(tensors))

    def clear(self) -> None:
        """Delete the files of the run, and nothing else that may lie in the folder."""
        known = {
            CONFIG,
            METRICS,
            LAST,
            BEST,
            SUMMARY,
            "report.html",
            "trace.html",
            "data.safetensors",
            "forecasts.csv",
            "backtest.csv",
        }
        for entry in self.path.iterdir():
            if entry.name in known or entry.name.endswith(".part"):
                entry.unlink()
        for plot in (self.path / "plots").glob("*.svg"):
            plot.unlink()


def open_run(
    path: Path,
    task: str,
    settings: Mapping[str, Any],
    fingerprint: str,
    *,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> RunFolder:
    """Start a run, or resume the unfinished one that is there with the same settings and data.

    `extra` is kept in config.json too, but follows from settings and data and is not compared.
    Raises RunFolderError for a finished run (unless `overwrite`), other settings, other data, a folder that
    is no run."""
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; a run needs a folder of its own")
    if path.is_dir() and any(path.iterdir()):
        if not (path / CONFIG).is_file():
            raise RunFolderError(
                f"{path} is not empty and not a run folder (it has no {CONFIG}); choose another folder"
            )
        if not overwrite:
            _refuse_unless_same(folder, folder.config(task), settings, fingerprint)
            return folder
        folder.clear()
    path.mkdir(parents=True, exist_ok=True)
    environment = {"cellwise": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    config = {
        "task": task,
        "settings": dict(settings),
        "data": fingerprint,
        "environment": environment,
        **(extra or {}),
    }
    folder.write_json(CONFIG, config)
    return folder


def _refuse_unless_same(
    folder: RunFolder, config: dict[str, Any], settings: Mapping[str, Any], fingerprint: str
) -> None:
    if folder.is_finished:
        raise RunFolderError(
            f"{folder.path} holds a finished run; give --overwrite to replace it, or another folder"
        )
    now, then = (
        _flat(json.loads(json.dumps(dict(settings)))),
        _flat(config["settings"]),
    )  # tuples become lists, as in the file
    for key in sorted(set(now) | set(then)):
        before, after = then.get(key), now.get(key)
        if before != after:
            raise RunFolderError(
                f"the unfinished run in {folder.path} was started with {key} = {before!r}, not {after!r}; "
                "resume it with the same settings, choose another folder, or give --overwrite"
            )
    if config.get("data") != fingerprint:
        raise RunFolderError(
            f"the unfinished run in {folder.path} was started with other data; "
            "resume it with the same data, choose another folder, or give --overwrite"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the names of their groups."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the place, then move there: whoever reads sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
