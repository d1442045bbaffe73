"""A folder of files that nobody but this user can have written: what is read from it is run as code.

The folder is opened once, and what was opened is looked at; files are opened in it, never by a path that somebody could
turn elsewhere in between. Links are not followed, and pipes and devices are not read. On Windows, where files have
no owner in this sense and a profile's folders are private, only the kind of a file is looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

_OWNERS_ARE_KNOWN = hasattr(os, "geteuid")
# Not for O_NONBLOCK the opening of a pipe would wait for somebody to write into it.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NO_LINKS
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS
_NO_PLAIN_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EACCES, errno.EPERM, errno.EISDIR)
_BY_FOLDER = os.open in os.supports_dir_fd


class UntrustedError(Exception):
    """Somebody else could have written this; the text says who, and the way out."""


class PrivateFolder:
    """An open folder that only this user can write to. Made by `private_folder`."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self.path, self._handle = path, handle

    def read(self, name: str, most: int) -> bytes | None:
        """What a file holds; None if there is none.

        Raises:
            UntrustedError: it is no plain file of this user's own, of at most `most` bytes.
        """
        try:
            file = self._open(name, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _NO_PLAIN_FILE:
                raise
            raise UntrustedError(
                f"{self.path / name} cannot be opened as a plain file ({error.strerror})"
            ) from None
        try:
            _check(os.fstat(file), self.path / name, stat.S_ISREG, "plain file")
            content = _read(file, most + 1)
        finally:
            os.close(file)
        if len(content) > most:
            raise UntrustedError(f"{self.path / name} has more than {most} bytes, which no kernel has")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        temporary = f"{name}.{token_hex(8)}"
        with open(self._open(temporary, _CREATE), "wb") as file:
            try:
                file.write(content)
                file.close()
                os.replace(
                    self._at(temporary), self._at(name), src_dir_fd=self._handle, dst_dir_fd=self._handle
                )
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(self._at(temporary), dir_fd=self._handle)
                raise

    def _open(self, name: str, flags: int) -> int:
        path = self._at(name)
        if not _NO_LINKS & getattr(os, "O_NOFOLLOW", 0) and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a link")
        return os.open(path, flags, 0o600, dir_fd=self._handle)

    def _at(self, name: str) -> str:
        return name if self._handle is not None else str(self.path / name)


@contextlib.contextmanager
def private_folder(path: Path) -> Iterator[PrivateFolder]:
    """Open a folder, made if there is none, for this user alone.

    Raises:
        UntrustedError: another user owns it or may write to it.
        OSError: it cannot be made or opened.
    """
    _make(path)
    if not _BY_FOLDER:
        _check(os.lstat(path), path, stat.S_ISDIR, "folder")
        yield PrivateFolder(path, None)
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
    except NotADirectoryError:
        raise UntrustedError(f"{path} is no folder, or a link to one") from None
    except OSError as error:
        if path.is_symlink():
            raise UntrustedError(f"{path} is a link; name the folder itself") from None
        raise error
    try:
        _check(os.fstat(handle), path, stat.S_ISDIR, "folder")
        yield PrivateFolder(path, handle)
    finally:
        os.close(handle)


def _make(path: Path) -> None:
    """Make a folder and those above it, which nobody else may enter."""
    if not path.is_dir():
        if path.parent != path:
            _make(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def _read(file: int, most: int) -> bytes:
    """The first bytes of an open file."""
    parts, left = [], most
    while left and (part := os.read(file, min(left, 2**20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _check(found: os.stat_result, path: Path, is_kind: Callable[[int], bool], kind: str) -> None:
    """Raise UntrustedError unless this is a folder or file of the kind, and of this user or the system's own."""
    if not is_kind(found.st_mode):
        raise UntrustedError(f"{path} is no {kind}")
    if not _OWNERS_ARE_KNOWN:
        return
    # The system's administrator can do all that this user can; an image may have been filled by root.
    if found.st_uid not in (os.geteuid(), 0):
        raise UntrustedError(f"{path} belongs to another user (number {found.st_uid})")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(
            f"{path} may be written by others (its mode is {stat.S_IMODE(found.st_mode):o}); chmod go-w it"
        )
