"""The ids of a training text: in memory, or of a large one in a file, of which no more is read than a batch needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.errors import DataError
from cellwise.tasks.text.corpus import Passage, whole_lines
from cellwise.tasks.text.units import Units

__all__ = ["IN_MEMORY", "IdFile", "encoded", "taken"]

IN_MEMORY = 50_000_000  # characters; the ids of more go into a file


class IdFile:
    """Ids in a temporary file, which is gone with this object, however the process ends.

    It lies in the folder of TMPDIR, or in /var/tmp, which is on disk where /tmp may be in memory."""

    def __init__(self, parts: Iterator[np.ndarray], size: int) -> None:
        self._type = np.dtype(np.uint8 if size <= 2**8 else np.uint16 if size <= 2**16 else np.int32)
        self._file: Any = tempfile.TemporaryFile(  # noqa: SIM115  (it lives as long as this object)
            dir=_folder(), prefix="cellwise-", buffering=0
        )
        self._count = 0
        try:
            for part in parts:
                self._file.write(part.astype(self._type).tobytes())
                self._count += len(part)
        except OSError as error:
            raise DataError(
                f"the text's ids do not fit into {_folder()} ({error.strerror}); set TMPDIR to a folder with more room"
            ) from error

    def __len__(self) -> int:
        return self._count

    def taken(self, starts: Tensor, length: int) -> Tensor:
        """As the function of this name."""
        rows = [self._read(int(start) % self._count, length) for start in starts]
        return torch.from_numpy(np.stack(rows, 1))

    def _read(self, start: int, length: int) -> np.ndarray:
        size = self._type.itemsize
        raw = os.pread(self._file.fileno(), length * size, start * size)
        ids = np.frombuffer(raw, self._type).astype(np.int64)
        return ids if len(ids) == length else np.concatenate([ids, self._read(0, length - len(ids))])


def taken(ids: Tensor | IdFile, starts: Tensor, length: int) -> Tensor:
    """So many ids from each start on, int64 (length, B). Behind the last comes the first."""
    if isinstance(ids, IdFile):
        return ids.taken(starts, length)
    return ids[(starts + torch.arange(length)[:, None]) % len(ids)].long()


def encoded(units: Units, passage: Passage, in_memory: int = IN_MEMORY) -> Tensor | IdFile:
    """The ids of a passage."""
    parts = (units.encode_small(block) for block in whole_lines(passage.blocks()))
    if len(passage) <= in_memory:
        return torch.cat(list(parts))
    return IdFile((part.numpy() for part in parts), len(units))


def _folder() -> str:
    on_disk = Path("/var/tmp")
    if "TMPDIR" not in os.environ and on_disk.is_dir() and os.access(on_disk, os.W_OK):
        return str(on_disk)
    return tempfile.gettempdir()
