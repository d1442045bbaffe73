"""One training at a time in a run folder, and a name for the one that is there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cellwise.tasks.errors import RunFolderError

__all__ = ["LOCK", "RunLock", "lock_run", "who_trains"]

LOCK = "run.lock"
_MOST = 4096  # bytes that are read of a lock file


def _locking() -> Callable[[int], None] | None:
    """What locks an open file until it is closed or its process ends, however it ends; OSError if another has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return lambda descriptor: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class RunLock:
    """The lock of a run folder, held by this process. `descriptor` is None where the system has no locks."""

    path: Path
    descriptor: int | None

    @property
    def is_held(self) -> bool:
        """Whether the folder is still the one that was locked: neither deleted, nor moved, nor made anew."""
        if self.descriptor is None:
            return True
        try:
            return os.path.samestat(os.stat(self.path / LOCK), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False


@contextmanager
def lock_run(path: Path) -> Iterator[RunLock]:
    """Keep other trainings out of an existing folder inside the block. The lock does not outlive the process.

    Where the system or the file system has no locks, nothing is kept out.
    Raises RunFolderError, with who it is, if another training is there."""
    locking = _locking()
    descriptor = None if locking is None else _open_locked(path, locking)
    try:
        yield RunLock(path, descriptor)
    finally:
        if descriptor is not None:
            # While it is still locked: nobody can have taken it over.
            if RunLock(path, descriptor).is_held:
                with suppress(OSError):
                    os.unlink(path / LOCK)
            os.close(descriptor)


def who_trains(path: Path) -> str | None:
    """The training that holds a folder, in words; None if there is none. Does not disturb it."""
    locking = _locking()
    if locking is None:
        return None
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        locking(descriptor)
    except BlockingIOError:
        return _words(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _open_locked(path: Path, locking: Callable[[int], None]) -> int | None:
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(path / LOCK, flags, 0o666)
        except OSError as error:
            raise RunFolderError(f"{path / LOCK} cannot be written: {error.strerror or error}") from error
        try:
            locking(descriptor)
        except BlockingIOError as error:
            words = _words(descriptor)
            os.close(descriptor)
            raise RunFolderError(
                f"another training is in {path}: {words}; wait until it ends, or choose another folder"
            ) from error
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        if RunLock(path, descriptor).is_held:
            break
        os.close(descriptor)  # its holder ended, and deleted the file, between our opening and locking it
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_about_this_process()).encode("utf8"))
    except OSError:
        pass  # a full disk: the lock holds, it is merely not said whose it is
    return descriptor


def _about_this_process() -> dict[str, Any]:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since}


def _words(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        about = json.loads(os.read(descriptor, _MOST))
        return f"process {int(about['process'])} on {about['host']!s:.80}, since {about['since']!s:.40}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "a process that its lock file does not name"
