"""Other processes that keep all cores busy, for as long as a block lasts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# It ends by itself when its parent is gone, however that happened.
_BUSY = """
import os
parent = os.getppid()
print("busy", flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def all_cores_busy(processes: int | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run one endless loop a core in processes of their own; they have ended when the block is left, however."""
    count = processes or os.cpu_count() or 1
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            # In a session of their own Ctrl-C does not reach them; they are ended below.
            running.append(
                subprocess.Popen(
                    [sys.executable, "-S", "-c", _BUSY], stdout=subprocess.PIPE, start_new_session=True
                )
            )
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # it runs now
        yield running
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
