"""A language model of a file larger than one wants in memory: how fast it is read, and how much memory it takes.

    python benchmarks/large_texts.py [--megabytes 1000] [--minutes 0.5] [--unit characters] [--folder DIR]

A file of random words (20,000, with frequencies as in Zipf's law) is written once, and then `cellwise text
fit FILE --minutes M` is run as a process of its own, once on all of it and once on five megabytes of the like. Printed
are the seconds of each beyond the limit, which are those of reading, measuring and the report, and its peak of memory,
but for pages of files, which the system takes back when it likes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SMALL = 5  # megabytes of the file that it is compared with


def write(path: Path, megabytes: int) -> None:
    """A file of random words, lines of about 60 characters."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(20_000)])
    weights = 1 / np.arange(1, len(words) + 1)
    chances = weights.cumsum() / weights.sum()
    with path.open("w") as file:
        while file.tell() < megabytes * 1_000_000:
            drawn = words[chances.searchsorted(rng.random((10_000, 10)))]
            file.write("".join(" ".join(line) + ".\n" for line in drawn))


def memory(process: int) -> int:
    """Bytes of a process's memory that are not those of files; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return 0
    found = {
        name: int(size) for name, size in re.findall(r"^(RssAnon|RssShmem):\s+(\d+) kB", text, re.MULTILINE)
    }
    return 1024 * sum(found.values())


def fit(path: Path, minutes: float, unit: str, out: Path) -> tuple[float, float, int]:
    """Wall and processor seconds, and the peak of memory in bytes."""
    command = [
        sys.executable,
        "-m",
        "cellwise",
        "text",
        "fit",
        str(path),
        "--minutes",
        str(minutes),
        "--unit",
        unit,
    ]
    command += ["--out", str(out), "--overwrite", "--hidden-size", "64", "--embedding-size", "16"]
    before, started, peak = os.times(), time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--unit", default="characters")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        for megabytes in (SMALL, options.megabytes):
            path = Path(made) / f"{megabytes}.txt"
            write(path, megabytes)
            wall, used, peak = fit(path, options.minutes, options.unit, Path(made) / "run")
            beyond = wall - 60 * options.minutes
            print(
                f"{megabytes:5} MB: {beyond:5.1f} s beyond the limit, {used:5.1f} s of processor time in all, "
                f"peak of memory {peak / 1e6:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
