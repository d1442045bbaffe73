"""Faults at every single step with which a run folder is written, as SQLite is tested.

`Disk` counts the calls that change a folder (open, write, fsync, rename, unlink, mkdir) and makes one of them fail:

    kill    the process ends before the call, without a word (as kill -9)
    short   half of a write is done, then the process ends
    full    the disk is full from this call on
    error   this one call fails with an input/output error

`Crash` remembers the calls of a whole run, and builds the folder that a machine without power may show after each of
them: what was not synced is lost, or only the names of it are there.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAULTS = ("kill", "short", "full", "error")
KILLED, REFUSED, BROKEN = 77, 3, 4
_CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")


@dataclass
class Disk:
    """What happens to the calls that change a folder."""

    folder: Path
    fault: str = ""
    at: int = -1
    count: int = 0
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    _open: dict[int, Path] = field(default_factory=dict)

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.folder)

    def __call__(self, real: Callable[..., Any], call: str, *args: Any, **kwargs: Any) -> Any:
        path = self._open.get(args[0]) if call in ("write", "fsync") else args[0]
        if call == "open":
            return self._opened(real, *args, **kwargs)
        if path is None or not self._inside(path):
            return real(*args, **kwargs)
        self._step(call, real, args)
        made = real(*args, **kwargs)
        data = bytes(args[1])[:made] if call == "write" else None
        self.calls.append(
            (call, Path(path), data if call == "write" else Path(args[1]) if call == "replace" else None)
        )
        return made

    def _opened(self, real: Callable[..., Any], path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        inside = self._inside(path)
        if inside and flags & os.O_CREAT:
            self._step("open", real, ())
        descriptor: int = real(path, flags, *args, **kwargs)
        if inside:
            self._open[descriptor] = Path(path)
            if flags & os.O_CREAT:
                self.calls.append(("open", Path(path), None))
        else:
            self._open.pop(descriptor, None)
        return descriptor

    def _step(self, call: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
        here, self.count = self.count == self.at, self.count + 1
        past = 0 <= self.at < self.count
        if here and self.fault == "kill":
            os._exit(KILLED)
        if here and self.fault == "short":
            if call == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            os._exit(KILLED)
        if past and self.fault == "full" and call in ("open", "write", "mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if here and self.fault == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def watched(disk: Disk) -> Iterator[Disk]:
    """The calls of `os` go through a `Disk` inside the block."""
    real = {call: getattr(os, call) for call in _CALLS}

    def through(call: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: disk(real[call], call, *args, **kwargs)

    for call in _CALLS:
        setattr(os, call, through(call))
    try:
        yield disk
    finally:
        for call in _CALLS:
            setattr(os, call, real[call])


def in_a_fork(work: Callable[[], Any], refusals: tuple[type[BaseException], ...]) -> int:
    """Do the work in a process of its own: 0 if it ended well, REFUSED if it ended with one of these errors."""
    process = os.fork()
    if process == 0:
        status = BROKEN
        try:
            work()
            status = 0
        except refusals:
            status = REFUSED
        except BaseException:  # noqa: BLE001 (a process of its own, whose status says it)
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def calls_of(folder: Path, work: Callable[[], Any]) -> list[tuple[Any, ...]]:
    """The calls with which some work changes a folder."""
    with watched(Disk(folder)) as disk:
        work()
    return disk.calls


class Crash:
    """What a folder may hold after a loss of power."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[Path, int] = {}  # as processes see them
        self.synced_names: dict[Path, int] = {}
        self.data: list[bytes] = []
        self.synced: list[bytes] = []
        self.parts: dict[Path, int] = {}  # open files by the name they were opened with

    def do(self, call: str, path: Path, more: Any) -> None:
        """One call of `calls_of`."""
        if call == "open" and path not in self.names:
            self.names[path] = self.parts[path] = len(self.data)
            self.data.append(b"")
            self.synced.append(b"")
        elif call == "write":
            self.data[self.parts[path]] += more
        elif call == "fsync" and path in self.parts:
            self.synced[self.parts[path]] = self.data[self.parts[path]]
        elif call == "fsync":
            self.synced_names = {n: i for n, i in self.synced_names.items() if n.parent != path}
            self.synced_names |= {name: i for name, i in self.names.items() if name.parent == path}
        elif call == "replace":
            self.names[more] = self.names.pop(path)
        elif call == "unlink":
            self.names.pop(path)

    def build(self, place: Path, names_are_lost: bool) -> None:
        """Write the folder elsewhere. The data of a file is what was synced; its name is what was synced, or newer."""
        place.mkdir()
        names = self.synced_names if names_are_lost else self.names
        for name, number in names.items():
            target = place / name.relative_to(self.folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(self.synced[number])
