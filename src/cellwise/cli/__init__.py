"""The command `cellwise`: one command a file, listed here.

What takes long to load (torch, above all) is imported where a command needs it, so that help, mistakes and lists are
quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cellwise._version import __version__
from cellwise.cli.bench import bench
from cellwise.cli.cells import cells
from cellwise.cli.complexity import complexity
from cellwise.cli.demo import demo
from cellwise.cli.examples import epilog
from cellwise.cli.forecast import app as forecast
from cellwise.cli.gradients import gradients
from cellwise.cli.memory import memory
from cellwise.cli.output import set_quiet
from cellwise.cli.reproduce import reproduce
from cellwise.cli.show import show
from cellwise.cli.trace import trace
from cellwise.errors import CellwiseError

# In the order in which one meets them: look, try, use, look inside, measure. Each with a line for the list of commands.
_COMMANDS: dict[str, tuple[Callable[..., None] | None, str]] = {
    "cells": (cells, "List the cells that ship."),
    "show": (show, "Show a cell: equations, diagram, gradient, code."),
    "complexity": (complexity, "Count what cells cost, and measure it."),
    "demo": (demo, "Train a tiny network on the textbook sequence."),
    "forecast": (None, "Forecast series: fit, predict, backtest."),
    "trace": (trace, "Look inside a trained network."),
    "gradients": (gradients, "Measure how far gradients reach."),
    "memory": (memory, "Find how long each cell can remember."),
    "bench": (bench, "Time the kernels beside torch.nn."),
    "reproduce": (reproduce, "Run a published experiment again."),
}


class _Group(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in _COMMANDS if name in self.commands]


app = typer.Typer(
    name="cellwise",
    cls=_Group,
    help="Recurrent neural networks from one definition: see cells, and train them on your own sequences.",
    epilog="\b\nBegin with:\n  cellwise show gru\n  cellwise demo lstm\n  cellwise forecast demo",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _name, (_function, _short) in _COMMANDS.items():
    if _function is not None:
        app.command(_name, short_help=_short, epilog=epilog(_name))(_function)
app.add_typer(forecast, name="forecast", short_help=_COMMANDS["forecast"][1], epilog=epilog("forecast"))


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
    set_quiet(False)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that stands for another one
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # σ on a terminal that knows no Greek
    try:
        app()
    except CellwiseError as error:
        _leave(f"{error}")
    except OSError as error:
        _leave(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}")
    except KeyboardInterrupt as stop:
        _say_interrupted(stop)
        sys.exit(130)
    except SystemExit as left:
        _finish(left)


def _leave(message: str) -> None:
    print(f"cellwise: {message}", file=sys.stderr)
    sys.exit(2)


def _finish(left: SystemExit) -> None:
    """Leave with the status that a command left with, its output written out and a word on why it stopped."""
    # typer turns Ctrl-C into an exit of its own, whose cause it was.
    cause = left.__context__.__cause__ if left.__context__ is not None else None
    if left.code == 130 and isinstance(cause, KeyboardInterrupt):
        _say_interrupted(cause)
    try:
        if isinstance(left.__context__, BrokenPipeError):
            raise left.__context__
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    raise left


def _say_interrupted(stop: KeyboardInterrupt) -> None:
    # That of a training says what is saved, and how to go on.
    print(f"cellwise: {stop}" if str(stop) else "cellwise: interrupted", file=sys.stderr)
