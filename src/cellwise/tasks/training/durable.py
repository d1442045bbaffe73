"""Files that are there whole or not at all, whatever ends the process or the machine.

What a file system promises after a crash is little: a file that was not synced may be empty, and a rename that was not
synced may not have happened. So a file is written under another name, synced, renamed to its place, and then its
folder is synced.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["leftover_of", "remove", "sync_folder", "write_atomically"]

_SUFFIX = re.compile(r"(\.[0-9a-f]{8})?\.part$")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, and whoever comes after a crash, sees the old content or the new.

    The folder is made if it is missing. Raises OSError; the old file, if there was one, is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)


def replace(path: Path, content: bytes) -> None:
    """As `write_atomically`, but the folder must be there. Raises FileNotFoundError if it is not."""
    # A name of its own, so that two writers do not share a half-written file; O_EXCL, so that no link is followed.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(path.parent)


def remove(paths: Iterable[Path]) -> None:
    """Delete files, in this order; those that are not there are none to delete."""
    folders: dict[Path, None] = {}
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
            folders[path.parent] = None
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a crash of the machine. Does nothing where folders cannot be synced."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftover_of(name: str) -> str | None:
    """The file that an interrupted write was meant for; None if the name is not that of such a write.

    >>> leftover_of("config.json.0a1b2c3d.part"), leftover_of("config.json.part"), leftover_of("config.json")
    ('config.json', 'config.json', None)
    """
    found = _SUFFIX.search(name)
    return name[: found.start()] if found else None
