"""`cellwise forecast check RUN`: is a run folder whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument
from cellwise.tasks.errors import RunFolderError

__all__ = ["check"]


def check(run: Annotated[Path, argument(help="Run folder to look through.", metavar="RUN")]) -> None:
    """Compare every file of a run with its checksum, and load the run.

    Says of each file whether it is whole; the exit status is 2 if one is not. An unfinished run is whole if its
    training can go on.
    """
    from cellwise.tasks.shown import shown
    from cellwise.tasks.training.run_check import check_run

    damaged = 0
    for finding in check_run(run):
        damaged += not finding.is_whole
        click.echo(f"{'ok ' if finding.is_whole else 'BAD'}  {shown(finding.name)}: {shown(finding.words)}")
    if damaged:
        raise RunFolderError(f"the run folder {run} is damaged, see above")
