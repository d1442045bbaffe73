"""`cellwise translate lines RUN`: translate what is typed or piped in, each line as soon as it comes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.tasks.registry import Task

__all__ = ["lines", "make"]


def lines(
    run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
    beam: Annotated[
        int,
        option(
            help="Translations that are followed side by side; 1 is the quickest.",
            type=click.IntRange(1, 1000),
        ),
    ] = 5,
) -> None:
    """Translate standard input line by line.

    Each translation is printed before the next line is read, so that other programs can talk with it."""
    from cellwise.tasks.translate.translator import Translator

    translator = Translator.load(run)
    for line in sys.stdin:
        (text,) = translator.predict([line.strip()], beam=beam)
        click.echo(text)
        sys.stdout.flush()


def make(task: Task) -> click.Command:
    """The command."""
    return command(lines, "lines", epilog=epilog("translate lines"))
