"""A run folder holds everything one training writes, so that no kill can damage it.

Its files, in the order in which a training writes them:

    run.lock           while a training goes on: who trains here
    config.json        task, settings, cell, fingerprint of the data, versions
    data.safetensors   the data that predictions start from
    last.safetensors   after every epoch, and once a minute: weights, optimizer, averaged weights, random numbers, and
                       the record of all epochs
    best.safetensors   the weights of the best epoch, which are measured
    refit.safetensors  as last.safetensors, of the stage that continues the training on all data
    final.safetensors  the weights that come of it, which predict; without them those of best.safetensors do
    windows.safetensors  forecasts of what was held out, and what was learned from them: how bands are calibrated
    metrics.csv        one row per epoch and stage
    report.html, ...   for people; a run is complete without them
    summary.json       the run is finished; checksums of all the files above

Each file is replaced atomically (see `durable`) and can be derived from those above it, so a resumed training rewrites
what is missing after a kill. JSON and safetensors files carry a checksum of their own content; summary.json holds
one of every file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cellwise._version import __version__
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.options import short_repr
from cellwise.tasks.training.durable import sync_folder, write_atomically
from cellwise.tasks.training.rank import is_first
from cellwise.tasks.training.run_files import (
    BEST,
    CONFIG,
    DATA,
    FINAL,
    FORMAT,
    LAST,
    METRICS,
    REFIT,
    SUMMARY,
    WINDOWS,
    Checkpoint,
    RunFolder,
)
from cellwise.tasks.training.run_lock import RunLock, lock_run

__all__ = ["BEST", "CONFIG", "DATA", "FINAL", "LAST", "METRICS", "REFIT", "SUMMARY", "WINDOWS"]
__all__ += ["Checkpoint", "RunFolder", "check_place", "open_run", "own_run", "write_atomically"]


@contextmanager
def own_run(
    path: str | Path, task: str, settings: Mapping[str, Any], fingerprint: str, **options: Any
) -> Iterator[RunFolder]:
    """`open_run` with the folder locked against other trainings inside the block.

    Of several processes that train together (see `distributed`), the first opens the folder; to the others it is one
    that does not write. Raises RunFolderError, with who it is, if another training is there."""
    path = Path(path)
    if not is_first():
        yield RunFolder(path, writes=False)
        return
    check_place(path, bool(options.get("overwrite")))
    _make_place(path)
    with lock_run(path) as lock:
        yield open_run(path, task, settings, fingerprint, lock=lock, **options)


def check_place(path: Path, overwrite: bool) -> None:
    """Raise RunFolderError where no run may be, or where one is finished and not to be replaced."""
    _check_place(path)
    if RunFolder(path).is_finished and not overwrite:
        raise _finished(path)


def _check_place(path: Path) -> None:
    """Raise RunFolderError unless the path is free, empty or a run folder."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; a run needs a folder of its own")
    if path.is_dir() and not RunFolder(path).is_empty and not (path / CONFIG).is_file():
        raise RunFolderError(
            f"{path} is not empty and not a run folder (it has no {CONFIG}); choose another folder"
        )


def open_run(
    path: Path,
    task: str,
    settings: Mapping[str, Any],
    fingerprint: str,
    *,
    cell: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    lock: RunLock | None = None,
) -> RunFolder:
    """Start a run, or resume the unfinished one that is there with the same settings, cell and data.

    `cell`: the equations of the run's cell, as `stored_cell` writes them. `extra` is kept in config.json too, but
    follows from settings and data and is not compared. `defaults`: what settings were before there was a choice, for
    runs of earlier versions, which do not name them. Trainings hold the folder's `lock` (see `run_lock.lock_run`).
    Raises RunFolderError for a finished run (unless `overwrite`), other settings, another cell, other data, a folder
    that is no run."""
    folder = RunFolder(path, lock)
    _check_place(path)
    if path.is_dir() and not folder.is_empty:
        if not overwrite:
            _refuse_unless_same(folder, folder.config(task), settings, cell, fingerprint, defaults or {})
            folder.tidy()
            return folder
        if folder.is_foreign:
            raise RunFolderError(
                f"{path} is not a run folder: its {CONFIG} is another program's; choose another folder"
            )
        folder.clear()
    _make_place(path)
    folder.tidy()
    environment = {"cellwise": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    config = {
        "format": FORMAT,
        "task": task,
        "settings": dict(settings),
        "data": fingerprint,
        "environment": environment,
        **({} if cell is None else {"cell": dict(cell)}),
        **(extra or {}),
    }
    folder.write_json(CONFIG, config)
    return folder


def _make_place(path: Path) -> None:
    """Create a folder, and sync its parent so that it survives a power cut."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)
    except OSError as error:
        raise RunFolderError(f"the run folder {path} cannot be created: {error.strerror or error}") from error


def _refuse_unless_same(
    folder: RunFolder,
    config: dict[str, Any],
    settings: Mapping[str, Any],
    cell: Mapping[str, Any] | None,
    fingerprint: str,
    defaults: Mapping[str, Any],
) -> None:
    if folder.is_finished:
        raise _finished(folder.path)
    if config.get("format", 1) != FORMAT:
        raise RunFolderError(
            f"the unfinished run in {folder.path} was started by an earlier version of cellwise, whose runs cannot be "
            "resumed; choose another folder, or give --overwrite"
        )
    now, then = _flat(_as_stored(settings)), _as_stored(defaults) | _flat(config["settings"])
    for key in sorted(set(now) | set(then)):
        before, after = then.get(key), now.get(key)
        if before != after:
            _refuse(folder, f"{key} = {short_repr(before)}, not {short_repr(after)}", "the same settings")
    if config.get("cell") != (None if cell is None else _as_stored(cell)):
        _refuse(folder, "other equations of its cell", "the same cell")
    if config.get("data") != fingerprint:
        _refuse(folder, "other data", "the same data")


def _finished(path: Path) -> RunFolderError:
    return RunFolderError(f"{path} holds a finished run; give --overwrite to replace it, or another folder")


def _refuse(folder: RunFolder, what: str, same: str) -> None:
    raise RunFolderError(
        f"the unfinished run in {folder.path} was started with {what}; "
        f"resume it with {same}, choose another folder, or give --overwrite"
    )


def _as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON returns them: tuples become lists."""
    stored: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return stored


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, nested groups flattened."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat
