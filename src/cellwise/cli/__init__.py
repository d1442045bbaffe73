"""The command `cellwise`: one command a file, listed here.

A command's file is imported when the command is asked for, and what takes long to load (torch, above all) where it
needs it, so that help, mistakes and lists are quick.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from importlib import import_module
from pathlib import Path

import click

from cellwise._version import __version__
from cellwise.cli.command import Group, command
from cellwise.cli.completion import answer_shell, install_completion, show_completion
from cellwise.cli.examples import epilog
from cellwise.cli.output import set_quiet
from cellwise.errors import CellwiseError
from cellwise.tasks.registry import tasks as all_tasks
from cellwise.tasks.training.rank import is_first

# In the order in which one meets them: look, try, use, look inside, measure. Each with a line for the list of commands.
# The command `show` is the function `show` in show.py, `compare-cells` is `compare_cells` in compare_cells.py.
_FIRST = {
    "cells": "List the cells that ship.",
    "show": "Show a cell: equations, diagram, gradient, code.",
    "complexity": "Count what cells cost, and measure it.",
    "demo": "Train a tiny network on the textbook sequence.",
}
_TASKS = {name: task.summary for name, task in all_tasks().items()}
_LAST = {
    "trace": "Look inside a trained network.",
    "gradients": "Measure how far gradients reach.",
    "memory": "Find how long each cell can remember.",
    "compare-cells": "Train cells against cells on five problems.",
    "bench": "Time the kernels against torch.nn.",
    "reproduce": "Reproduce a published experiment.",
}
_COMMANDS = {**_FIRST, **_TASKS, **_LAST}


def _load(name: str) -> click.Command:
    if name in _TASKS:
        from cellwise.cli.tasks import group_of

        return group_of(name)
    module = name.replace("-", "_")
    function = getattr(import_module(f"cellwise.cli.{module}"), module)
    return command(function, name, short_help=_COMMANDS[name], epilog=epilog(name))


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"cellwise {__version__}")
        ctx.exit()


app = Group(
    "cellwise",
    _COMMANDS,
    _load,
    help="Recurrent neural networks from one definition: see cells, and train them on your own sequences.",
    epilog="\b\nBegin with:\n  cellwise show gru\n  cellwise demo lstm\n  cellwise forecast demo",
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    params=[
        click.Option(
            ["--version"],
            is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version and exit.",
        ),
        install_completion,
        show_completion,
    ],
)  # fmt: skip


def main() -> None:
    """Run the command line; a mistake of the user's is one message and exit status 2."""
    set_quiet(False)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that stands for another one
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # σ on a terminal that knows no Greek
    answer_shell(app)
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        status = _run()
        sys.stdout.flush()
    except click.ClickException as mistake:
        status = mistake.exit_code
        if _may_speak():
            mistake.show()
    except CellwiseError as error:
        status = _say(2, f"{error}")
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        what = f"{error.filename} cannot be used" if error.filename else "reading or writing failed"
        status = _say(2, f"{what}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not _asks_for_too_much(error):
            raise
        status = _say(2, _too_much(error))
    except KeyboardInterrupt as stop:  # that of a training says what is saved, and how to go on
        status = _say(getattr(stop, "status", 130), f"{stop}" or "interrupted")
    sys.exit(status)


def _open_closed_streams() -> None:
    """Let the null device stand for each standard stream that was closed, as by `<&-` in a shell.

    Python has None for it, and the next file that is opened would be given its number, and a stray print with it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _run() -> int:
    """Run the command that was typed, and return its exit status."""
    # Not by click's own `main`, which says "Aborted!" of Ctrl-C.
    name = "python -m cellwise" if Path(sys.argv[0]).name == "__main__.py" else "cellwise"
    try:
        with app.make_context(name, sys.argv[1:]) as context:
            app.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    return 0


def _asks_for_too_much(error: Exception) -> bool:
    """Whether there was no memory for a tensor or an array; torch has a class of its own for a GPU's alone."""
    known = ("allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(each in f"{error}" for each in known)


def _too_much(error: Exception) -> str:
    """That, in a sentence.

    >>> _too_much(MemoryError())
    'what was asked for takes more memory than there is; take smaller sizes or shorter sequences.'
    """
    asked = re.search(r"allocate (\d+) bytes", f"{error}")
    size = (
        f"{int(asked[1]) / 2**30:,.1f} GiB at once, and there is not so much"
        if asked
        else "more memory than there is"
    )
    return f"what was asked for takes {size}; take smaller sizes or shorter sequences."


def _say(status: int, message: str) -> int:
    if _may_speak():
        print(f"cellwise: {message}", file=sys.stderr)
    return status


def _may_speak() -> bool:
    """Whether this process says what went wrong: of several that torchrun has started, the first does."""
    if is_first():
        return True
    time.sleep(2)  # torchrun ends the others as soon as one has left, and the first is to speak before
    return False
