"""What is piped into a command, for readers that need a file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellwise.tasks.errors import DataError

__all__ = ["STDIN", "file_of"]

STDIN = "-"  # stands for standard input where a file is asked for
_ENDINGS = {
    b"PAR1": ".parquet",
    b"PK\x03\x04": ".xlsx",
    b"\x1f\x8b\x08\x00": ".csv.gz",
    b"\x1f\x8b\x08\x08": ".csv.gz",
}


@contextmanager
def file_of(source: str) -> Iterator[Path]:
    """The path that was named, or for `-` a file with all of standard input, which lasts as long as the block.

    Its ending says what it holds, by its first bytes. A DataError about it speaks of standard input."""
    if source != STDIN:
        yield Path(source)
        return
    content = sys.stdin.buffer.read()
    with tempfile.TemporaryDirectory(prefix="cellwise-") as folder:
        path = Path(folder) / f"stdin{_ENDINGS.get(content[:4], '.csv')}"
        path.write_bytes(content)
        try:
            yield path
        except DataError as error:
            raise type(error)(str(error).replace(str(path), "standard input")) from error
