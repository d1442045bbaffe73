"""Compiled kernels on disk, so that a machine compiles a cell once.

A file is named after a hash of what it was made from, and begins with a hash of what it holds: a damaged or truncated
file is compiled again, never run. Files are put in place whole, so processes that race are safe; where nothing can be
written, kernels live in memory only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import llvmlite

from cellwise.backends.cpu.target import Target
from cellwise.folders import cache_folder


def folder() -> Path:
    """Where kernels are kept."""
    return cache_folder() / "kernels"


def kept(source: str, target: Target, make: Callable[[], bytes]) -> bytes:
    """The object code of `source`: from the cache, or made and put there."""
    made_from = "\n".join((llvmlite.__version__, repr(target), source))
    path = folder() / f"{hashlib.sha256(made_from.encode()).hexdigest()}.o"
    code = _read(path)
    if code is None:
        code = make()
        # A full disk, a read-only or foreign folder: nothing is lost but the time to compile again.
        with contextlib.suppress(OSError):
            _write(path, code)
    return code


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
