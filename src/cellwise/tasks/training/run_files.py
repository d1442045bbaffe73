"""The files of a run: reading them with every doubt, writing them whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training import durable
from cellwise.tasks.training.digests import file_digest, json_digest, tensors_digest
from cellwise.tasks.training.run_lock import LOCK, RunLock, who_trains

__all__ = [
    "BACKTEST",
    "BEST",
    "CONFIG",
    "CORE",
    "DATA",
    "FINAL",
    "FORMAT",
    "LAST",
    "METRICS",
    "NEXT",
    "PLOTS",
    "REFIT",
    "REPORT",
    "SUMMARY",
    "TABLES",
]
__all__ += ["WINDOWS", "Checkpoint", "RunFolder"]

CONFIG, DATA, METRICS, LAST, BEST, SUMMARY = (
    "config.json",
    "data.safetensors",
    "metrics.csv",
    "last.safetensors",
    "best.safetensors",
    "summary.json",
)
REFIT, FINAL, WINDOWS = "refit.safetensors", "final.safetensors", "windows.safetensors"
NEXT = "next"  # a folder within that of a run: what is to replace it (see `replacing`)
REPORT, BACKTEST, PLOTS = "report.html", "backtest.csv", "plots"
CORE = (CONFIG, DATA, LAST, BEST, REFIT, FINAL, WINDOWS, METRICS)  # what a run is
# What a task found out, for a spreadsheet.
TABLES = (
    "forecast.csv", "scores.csv", "scores_by_series.csv", "scores_by_horizon.csv", BACKTEST, "settings.csv",
)  # fmt: skip
EXTRA = (REPORT, *TABLES, "trace.html", "forecasts.csv")  # what can be made again from it

FORMAT = 2  # 1: without checksums
_OWN_DIGEST = "sha256"  # the key under which a JSON file holds the checksum of the rest of it
T = TypeVar("T")
_BROKEN = (KeyError, TypeError, ValueError, LookupError, AttributeError, RuntimeError, OverflowError)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, and what is said about them (JSON-able)."""

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. `open_run` starts or resumes one; `RunFolder(path)` reads one that is there.

    With a lock, every write makes sure that the folder is still the one that was locked.
    writes: False in all but the first of several processes of one training; then nothing is written or deleted.
    """

    path: Path
    lock: RunLock | None = field(default=None, compare=False, repr=False)
    writes: bool = True

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def is_foreign(self) -> bool:
        """Whether config.json is whole and none that a run has: many programs call a file so."""
        try:
            config = json.loads((self.path / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        return not isinstance(config, dict) or not {"task", "settings"} & config.keys()

    @property
    def is_finished(self) -> bool:
        """Whether everything was written."""
        return (self.path / SUMMARY).is_file()

    @property
    def is_started(self) -> bool:
        """Whether anything of the training is saved: an epoch, or some steps of the first."""
        return self.has(LAST)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.path / name).is_file()

    def damaged(self, what: str) -> RunFolderError:
        """The error that says what is wrong with this folder."""
        return RunFolderError(f"the run folder {self.path} is damaged: {what}")

    def unfinished(self) -> RunFolderError:
        """The error for a run that has no summary yet."""
        there = who_trains(self.path)
        now = f" ({there}, is training there)" if there else ""
        return RunFolderError(
            f"the run in {self.path} is not finished{now}; the command that started it resumes it"
        )

    def guarded(self, what: str, read: Callable[[], T]) -> T:
        """The result of `read`, which takes apart what a file says; any mistake in it is damage to `what`."""
        try:
            return read()
        except RecursionError as error:
            raise self.damaged(f"{what} is nested too deeply") from error
        except _BROKEN as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise self.damaged(f"{what} ({reason[:200]})") from error

    # --- reading ------------------------------------------------------------------------------------------------

    def config(self, task: str | None = None) -> dict[str, Any]:
        """config.json; RunFolderError if this is no run folder, a damaged one, or one of another task."""
        if not self.path.exists():
            raise RunFolderError(f"there is no run folder {self.path}")
        if not (self.path / CONFIG).is_file():
            raise RunFolderError(f"{self.path} is not a run folder: it has no {CONFIG}")
        config = self._parse(CONFIG)
        if not isinstance(config.get("settings"), dict) or not isinstance(config.get("task"), str):
            raise self.damaged(f"{CONFIG} lacks its task or settings")
        if task is not None and config["task"] != task:
            raise RunFolderError(f"{self.path} holds a run of the task {config['task']!r:.60}, not {task!r}")
        written = config.get("format", 1)
        if not isinstance(written, int) or written > FORMAT:
            raise RunFolderError(
                f"{self.path} was written by a later version of cellwise, in format {written!r:.20}, and this one "
                f"reads up to {FORMAT}; update cellwise"
            )
        return self._proved(CONFIG, config, written > 1)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object of `write_json`; RunFolderError if it is missing or damaged."""
        return self._proved(name, self._parse(name), needed=False)

    def summary(self) -> dict[str, Any]:
        """summary.json, once every file that it vouches for was found to be as it was when the run was finished.

        A run of an earlier version has no checksums, and is taken as it is.
        """
        has_checksums = self.config().get("format", 1) > 1
        found = self._proved(SUMMARY, self._parse(SUMMARY), has_checksums)
        if has_checksums:
            for name in (name for name in self.recorded(found) if name in CORE):
                problem = self.problem(name, found["files"][name])
                if problem:
                    raise self.damaged(f"{name} {problem}")
        return found

    def recorded(self, summary: Mapping[str, Any]) -> list[str]:
        """The names of the files that a summary vouches for."""
        files = summary.get("files")
        if not isinstance(files, dict) or CONFIG not in files:
            raise self.damaged(f"{SUMMARY} has no checksums")
        return list(files)

    def problem(self, name: str, recorded: object) -> str | None:
        """What is wrong with a file, in a few words; None if it is as recorded."""
        path = self.path / name
        if not path.is_file():  # a pipe, a folder: never opened
            return "is missing"
        try:
            return None if file_digest(path) == recorded else "is cut short or altered"
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"

    def _parse(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self._bytes(name).decode("utf8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise self.damaged(f"{name} is not JSON") from error
        if not isinstance(value, dict):
            raise self.damaged(f"{name} holds no JSON object")
        return value

    def _proved(self, name: str, value: dict[str, Any], needed: bool) -> dict[str, Any]:
        """The object without its checksum, which must be right, and there if it is needed."""
        content = {key: each for key, each in value.items() if key != _OWN_DIGEST}
        if (needed or _OWN_DIGEST in value) and value.get(_OWN_DIGEST) != json_digest(content):
            raise self.damaged(f"{name} was altered: it is not what its checksum says")
        return content

    def _bytes(self, name: str) -> bytes:
        path = self.path / name
        if not path.is_file():
            raise self.damaged(f"{name} is missing")
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise self.damaged(f"{name} is missing") from error
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error

    def read_tensors(self, name: str) -> Checkpoint:
        """A file of `write_tensors`; RunFolderError if it is missing or damaged."""
        while True:
            before = self._file_number(name)
            try:
                return self._read_tensors(name)
            except RunFolderError:
                # safetensors opens a file twice: where a training put another in its place, it has parts of both.
                if self._file_number(name) == before:
                    raise

    def _file_number(self, name: str) -> tuple[int, int] | None:
        try:
            found = (self.path / name).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _read_tensors(self, name: str) -> Checkpoint:
        path = self.path / name
        if not path.is_file():
            raise self.damaged(f"{name} is missing")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                # Copies: what is checked is what is used, and the file may change or go afterwards.
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(metadata["about"])
            recorded = metadata.get(_OWN_DIGEST)
            whole = recorded in (None, tensors_digest(tensors, metadata["about"]))
        except FileNotFoundError as error:
            raise self.damaged(f"{name} is missing") from error
        except (SafetensorError, ValueError, LookupError, OSError, RuntimeError, TypeError) as error:
            raise self.damaged(f"{name} is cut short or altered") from error
        if not whole or not isinstance(about, dict):
            raise self.damaged(f"{name} is cut short or altered")
        return Checkpoint(tensors, about)

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, which is for people; none if there is no such file, or it is none of ours."""
        if not self.has(METRICS):
            return []
        lines = [line.split(",") for line in self._bytes(METRICS).decode("utf8", "replace").splitlines()]
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]

    def check_weights(
        self, wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], name: str
    ) -> None:
        """RunFolderError if names, shapes or types are not those wanted."""
        for key in sorted(set(wanted) | set(found)):
            if key not in found or key not in wanted:
                which = "lacks" if key not in found else "has an unknown"
                raise self.damaged(f"{name} {which} weight {key!r:.100}")
            if wanted[key].shape != found[key].shape:
                raise self.damaged(
                    f"in {name} the weight {key!r:.100} has shape {tuple(found[key].shape)} instead of "
                    f"{tuple(wanted[key].shape)}"
                )
            if wanted[key].dtype != found[key].dtype:
                raise self.damaged(
                    f"in {name} the weight {key!r:.100} is {found[key].dtype} instead of {wanted[key].dtype}"
                )

    def load_weights(self, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
        """Put weights into a model; RunFolderError if names or shapes do not match.

        A model on the device "meta" takes the tensors themselves: it was never larger than the file."""
        self.check_weights(model.state_dict(), tensors, name)
        model.load_state_dict(dict(tensors), assign=any(value.is_meta for value in model.parameters()))

    # --- writing ------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes) -> None:
        """Replace a file as a whole. Under a lock the folder is not made here: a deleted run stays deleted.

        Raises RunFolderError if the folder has vanished or the disk is full; what was saved before stays."""
        if not self.writes:
            return
        path = self.path / name
        if self.lock is not None and not self.lock.is_held:
            raise self._vanished()
        try:
            if path.parent != self.path or self.lock is None:
                path.parent.mkdir(parents=self.lock is None, exist_ok=True)
            durable.replace(path, content)
        except OSError as error:
            if not self.path.is_dir():
                raise self._vanished() from error
            raise RunFolderError(
                f"{path} cannot be written: {error.strerror or error}; what was saved before is intact, and the same "
                "command resumes from there"
            ) from error

    def _vanished(self) -> RunFolderError:
        return RunFolderError(
            f"the run folder {self.path} was deleted, moved or replaced while a training wrote to it; put it back, or "
            "start again with a new one"
        )

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object that a person can read, and its checksum."""
        content = json.loads(json.dumps(dict(value)))  # as it will be read: tuples are lists, keys are text
        content[_OWN_DIGEST] = json_digest(content)
        self.write(name, (json.dumps(content, indent=2) + "\n").encode("utf8"))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file. Half of a surrogate pair, which no file can hold, is written as its number."""
        self.write(name, text.encode("utf8", "backslashreplace"))

    def write_metrics(self, rows: Iterable[Mapping[str, object]]) -> None:
        """metrics.csv from rows; what one of them lacks stays empty."""
        rows = list(rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        values = [[row.get(name) for name in names] for row in rows]
        lines = [names, *(["" if value is None else str(value) for value in row] for row in values)]
        self.write_text(METRICS, "".join(",".join(line) + "\n" for line in lines))

    def write_tensors(self, name: str, checkpoint: Checkpoint) -> None:
        """A safetensors file whose metadata holds `about`, and a checksum: all change together or not at all."""
        if not self.writes:
            return
        tensors = {
            key: value.detach().cpu().clone().contiguous() for key, value in checkpoint.tensors.items()
        }
        about = json.dumps(checkpoint.about)
        metadata = {"about": about, _OWN_DIGEST: tensors_digest(tensors, about)}
        self.write(name, save(tensors, metadata=metadata))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json with the checksums of every file of the run: from now on it is finished."""
        if not self.writes:
            return
        names = [name for name in (*CORE, REPORT, *TABLES) if (self.path / name).is_file()]
        for needed in (CONFIG, DATA, BEST):
            if needed not in names:
                raise self._vanished() if not self.path.is_dir() else self.damaged(f"{needed} is missing")
        names += self.plots()
        files = {name: file_digest(self.path / name) for name in names}
        self.write_json(SUMMARY, {**summary, "files": files})

    def plots(self) -> list[str]:
        """The names of the charts that are there, with their folder."""
        folder = self.path / PLOTS
        return [] if folder.is_symlink() else sorted(f"{PLOTS}/{plot.name}" for plot in folder.glob("*.svg"))

    def files(self) -> list[str]:
        """The names of all files of a run that are there."""
        return [name for name in (*CORE, *EXTRA, SUMMARY) if self.has(name)] + self.plots()

    def clear(self) -> None:
        """Delete the files of the run but config.json, and nothing else that may lie in the folder.

        The summary goes first and config.json stays until it is replaced, so that at no moment there is a folder that
        seems finished and is not, or that is no run folder any more."""
        self._remove([self.path / SUMMARY])
        following = RunFolder(self.path / NEXT)
        if following.path.is_dir() and not following.path.is_symlink():
            self._remove([following / SUMMARY, *(following / name for name in following.files())])
        own = [name for name in (*CORE, *EXTRA) if name != CONFIG]
        self._remove(self.path / name for name in (*own, *self.plots()))
        self.tidy()

    def tidy(self) -> None:
        """Delete what interrupted writes have left."""
        known = {*CORE, *EXTRA, SUMMARY}
        plots = [] if (self.path / PLOTS).is_symlink() else [*(self.path / PLOTS).glob("*.svg*.part")]
        self._remove(
            [*(entry for entry in self.path.iterdir() if durable.leftover_of(entry.name) in known), *plots]
        )

    def _remove(self, paths: Iterable[Path]) -> None:
        try:
            durable.remove(paths)
        except OSError as error:
            raise RunFolderError(
                f"{error.filename or self.path} cannot be deleted: {error.strerror or error}"
            ) from error

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing here but what a start that was interrupted can have left."""
        return all(
            entry.name == LOCK or durable.leftover_of(entry.name) == CONFIG for entry in self.path.iterdir()
        )
