"""Reads a file in a process of its own, `reader_process`, which a damaged file may end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cellwise.tasks.data import reader_process
from cellwise.tasks.data.origin import shortened
from cellwise.tasks.errors import DataError

__all__ = ["read_in_child"]

READER = Path(reader_process.__file__)
SECONDS, BYTES_PER_SECOND = 60.0, 10**6  # that a file may take to be read


def read_in_child(kind: str, path: Path, *more: str) -> bytes:
    """What `reader_process` writes for a file. DataError if it refuses, dies, or takes too long."""
    command = [sys.executable, "-P", str(READER), kind, str(path), *more]
    try:
        made = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS + path.stat().st_size / BYTES_PER_SECOND,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{path} cannot be read: it takes longer than {error.timeout:.0f} s") from error
    if made.returncode != 0:
        lines = made.stderr.decode("utf-8", errors="backslashreplace").strip().splitlines()
        panic = f"the reader ended with status {made.returncode}; the file is damaged, or unpacks to too much"
        reason = lines[-1] if lines and made.returncode == reader_process.REFUSED else panic
        raise DataError(f"{path} cannot be read: {shortened(reason)}")
    return made.stdout
