"""A finished run replaced by another one, so that whatever ends the process leaves the old run or the new one.

The new run is made in a folder of its own inside the old one, `next`. From the moment it is finished, with its
summary, it is the run: whoever opens the folder reads it from there (`current_run`). What follows only moves it to its
place, and can be done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training import durable
from cellwise.tasks.training.rank import is_first
from cellwise.tasks.training.run_files import NEXT, PLOTS, SUMMARY, RunFolder
from cellwise.tasks.training.run_lock import lock_run

__all__ = ["current_run", "replaced_run"]


def current_run(path: Path) -> RunFolder:
    """The run in a folder: the one that replaces it, once that is finished."""
    following = RunFolder(path / NEXT)
    return following if following.is_finished and not following.path.is_symlink() else RunFolder(path)


@contextmanager
def replaced_run(path: Path) -> Iterator[Path]:
    """Where to make the run that replaces the finished one in a folder; it takes its place after the block.

    An unfinished one, of a block that raised or was killed, may be there already. Raises RunFolderError, with who it
    is, if somebody else trains in the folder."""
    if not is_first():
        yield path / NEXT
        return
    with lock_run(path):
        _take_its_place(path)
        yield path / NEXT
        _take_its_place(path)


def _take_its_place(path: Path) -> None:
    following, run = current_run(path), RunFolder(path)
    if following == run:
        return
    try:
        names, former = following.files(), run.files()
        for name in names:
            durable.write_atomically(path / name, (following / name).read_bytes())
        durable.remove(path / name for name in former if name not in names)
        # Last: until now the new run was read from its own folder, from now on it is here.
        durable.remove([following / SUMMARY])
        durable.remove(following / name for name in names)
        for folder in (following / PLOTS, following.path):
            with suppress(OSError):  # not empty, for there is something of somebody else's
                folder.rmdir()
    except OSError as error:
        raise RunFolderError(
            f"the new run in {following.path} could not take the place of the former one: {error.strerror or error}; "
            "it is whole, is read from there, and the next update moves it"
        ) from error
