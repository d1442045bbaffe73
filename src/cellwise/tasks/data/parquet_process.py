"""Run as a program of its own: reads the Parquet file that is named, writes it to stdout as Arrow.

A damaged file can make the reader ask for any amount of memory and end the whole process, so it is a process that
nothing is lost with. It imports nothing of cellwise, to start quickly."""

import os
import sys

REFUSED = 3  # the status if the last line of stderr says why
LEAST_MEMORY, PER_BYTE = 4 * 2**30, 200  # of data, for a file of so many bytes


def _limit_memory(path: str) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = LEAST_MEMORY + PER_BYTE * os.path.getsize(path)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def _main(path: str) -> None:
    import polars

    _limit_memory(path)
    announced = polars.scan_parquet(path, glob=False).select(polars.len()).collect().item()
    frame = polars.read_parquet(path, glob=False)
    if frame.height != announced:
        raise ValueError(f"it announces {announced:,} rows and holds {frame.height:,}")
    frame.write_ipc_stream(sys.stdout.buffer)


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except BaseException as error:  # noqa: BLE001 (a panic of polars is no Exception)
        lines = str(error).strip().splitlines()
        sys.stderr.write("\n" + (lines[0] if lines else type(error).__name__))
        sys.exit(REFUSED)
