"""The command `cellwise`: one command a file, listed here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cellwise._version import __version__
from cellwise.cli.bench import bench
from cellwise.cli.cells import cells
from cellwise.cli.complexity import complexity
from cellwise.cli.demo import demo
from cellwise.cli.forecast import app as forecast
from cellwise.cli.gradients import gradients
from cellwise.cli.memory import memory
from cellwise.cli.reproduce import reproduce
from cellwise.cli.show import show
from cellwise.cli.trace import trace
from cellwise.errors import CellwiseError

app = typer.Typer(
    name="cellwise",
    help="Recurrent neural networks from one definition: see cells, and train them on your own sequences.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (cells, show, demo):
    app.command()(command)
app.add_typer(forecast, name="forecast")
app.command()(gradients)
app.command()(memory)
app.command()(trace)
app.command()(reproduce)
app.command()(bench)
app.command()(complexity)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"cellwise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a mistake of the user's is one message and exit status 2."""
    try:
        app()
    except CellwiseError as error:
        print(f"cellwise: {error}", file=sys.stderr)
        sys.exit(2)
