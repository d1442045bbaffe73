"""Compiled kernels on disk, so that a machine compiles a cell once.

A file is named after a hash of what it was made from, and begins with a hash of what it holds: a damaged or truncated
file is compiled again, never run. That keeps out accidents, not people: whoever can write a file can write its hash.
So only files are read that no other user can have written (`private`). Files are put in place whole, so processes that
race are safe; where nothing can be written, kernels live in memory only.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

from cellwise.backends.compiled.private import UntrustedError, private_folder
from cellwise.errors import CacheWarning
from cellwise.folders import kernel_folder

_MOST_BYTES = 2**28  # what a cell of thousands of equations comes to is a hundredth of this
_DIGEST = hashlib.sha256().digest_size


def cached(made_from: str, make: Callable[[], bytes], suffix: str = ".o") -> bytes:
    """What `make` compiles: from the cache, or made and put there.

    Args:
        made_from: all that the code depends on: the source, the target, the compiler's version.
    """
    path = kernel_folder()
    if path is None:
        return make()
    name = f"{hashlib.sha256(made_from.encode()).hexdigest()}{suffix}"
    code = _read(path, name)
    if code is None:
        code = make()
        _write(path, name, code)
    return code


def recall(named: str, suffix: str) -> bytes | None:
    """What `keep` put into the cache under this name, if it is there and whole."""
    path = kernel_folder()
    return None if path is None else _read(path, f"{hashlib.sha256(named.encode()).hexdigest()}{suffix}")


def keep(named: str, content: bytes, suffix: str) -> None:
    """Put something into the cache that is not compiled, under a name of its own."""
    path = kernel_folder()
    if path is not None:
        _write(path, f"{hashlib.sha256(named.encode()).hexdigest()}{suffix}", content)


def _read(path: Path, name: str) -> bytes | None:
    content = None
    try:
        with private_folder(path) as folder:
            content = folder.read(name, _MOST_BYTES)
    except UntrustedError as error:
        _report(path, error)
    except OSError:
        return None
    if content is not None and hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
        return content[_DIGEST:]
    return None


def _write(path: Path, name: str, code: bytes) -> None:
    # A full disk, a read-only folder, one that is not trusted: nothing is lost but the time to compile again.
    with contextlib.suppress(OSError, UntrustedError), private_folder(path) as folder:
        folder.write(name, hashlib.sha256(code).digest() + code)


_REPORTED: set[Path] = set()


def _report(path: Path, error: UntrustedError) -> None:
    """Say what is not trusted, once for a folder."""
    if path in _REPORTED:
        return
    _REPORTED.add(path)
    warnings.warn(
        f"A kernel is compiled, not read from the cache: {error}. The cache holds machine code, so it must be this "
        "user's alone. CELLWISE_CACHE names another folder; where it is empty, kernels stay in memory.",
        CacheWarning,
        stacklevel=2,
    )
