"""`cellwise TASK check RUN`: check a run folder for damage."""

from __future__ import annotations

from pathlib import Path

import click

from cellwise.tasks.errors import RunFolderError

__all__ = ["check"]


def check(run: Path) -> None:
    """Compare every file of a run with its checksum, load the run, and print what was found.

    Raises:
        RunFolderError: a file is damaged; or there is no run.
    """
    from cellwise.tasks.shown import shown
    from cellwise.tasks.training.run_check import check_run

    damaged = 0
    for finding in check_run(run):
        damaged += not finding.is_whole
        click.echo(f"{'ok ' if finding.is_whole else 'BAD'}  {shown(finding.name)}: {shown(finding.words)}")
    if damaged:
        raise RunFolderError(f"the run folder {run} is damaged, see above")
