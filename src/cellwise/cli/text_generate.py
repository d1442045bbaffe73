"""`cellwise text generate RUN`: write more of a text, printed as it is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.output import JSON, print_json
from cellwise.tasks.registry import Task

if TYPE_CHECKING:
    from cellwise.tasks.text.generating import Choice
    from cellwise.tasks.text.model import LanguageModel

__all__ = ["generate", "make"]

_SHARE = click.FloatRange(0, 1, min_open=True)


def generate(
    run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
    start: Annotated[
        str | None, option(help="Text to go on from.  [default: a new line]", metavar="TEXT")
    ] = None,
    length: Annotated[
        int,
        option(
            help="Characters (bytes, subwords) to write.",
            type=click.IntRange(min=0),
        ),
    ] = 500,
    temperature: Annotated[
        float,
        option(
            help="0 takes the most likely character, 1 samples from the predicted distribution.",
            type=click.FloatRange(0, 100),
        ),
    ] = 0.7,
    top_k: Annotated[
        int | None, option(help="Take only the K most likely characters.", type=click.IntRange(min=1))
    ] = None,
    top_p: Annotated[
        float | None,
        option(help="Take only the fewest characters that together have this probability.", type=_SHARE),
    ] = None,
    min_p: Annotated[
        float | None,
        option(
            help="Take only characters at least this share as likely as the most likely one.", type=_SHARE
        ),
    ] = None,
    seed: Annotated[
        int, option(help="Random seed; equal seeds give equal texts.", type=click.IntRange(0, 2**31 - 1))
    ] = 0,
    samples: Annotated[
        int, option(help="Texts to write, all at once.", type=click.IntRange(min=1, max=100_000))
    ] = 1,
    interactive: Annotated[
        bool, option("--interactive", help="Go on from each line that is typed, until the end of input.")
    ] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write more of a text.

    One text is printed as it is drawn. Several are drawn side by side, and printed when they are whole. With
    --interactive, an empty line writes another text from the line before, and Ctrl-C ends one early."""
    from cellwise.tasks.errors import OptionError
    from cellwise.tasks.text.generating import Choice
    from cellwise.tasks.text.model import LanguageModel
    from cellwise.tasks.training.loop import torch_threads

    if interactive and (start is not None or samples > 1 or as_json):
        raise OptionError(
            "--interactive takes each start from its input and shows one text; leave out --start, "
            "--samples and --json"
        )
    model = LanguageModel.load(run)
    choice, given = Choice(temperature, top_k, top_p, min_p), start or "\n"
    with torch_threads(1):
        if interactive:
            converse(model, length, choice, seed)
        elif samples == 1 and not as_json:
            show(model, length, given, choice, seed)
        else:
            steps = model.writes(length, given, choice, seed, samples)
            texts = ["".join(pieces) for pieces in zip(*steps, strict=True)] or [""] * samples
            if as_json:
                print_json([{"start": given, "text": text} for text in texts])
                return
            for number, text in enumerate(texts, 1):
                click.echo(f"--- {number}\n{text}")


def show(model: LanguageModel, length: int, start: str, choice: Choice, seed: int) -> None:
    """Print a text as it is drawn."""
    for (piece,) in model.writes(length, start, choice, seed):
        click.echo(piece, nl=False)
    click.echo()


def converse(model: LanguageModel, length: int, choice: Choice, seed: int) -> None:
    """Go on from each line of standard input. Each text has a seed of its own, so that the same line gives others."""
    start, is_terminal = "\n", sys.stdin.isatty()
    while True:
        if is_terminal:
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            break
        start = line.rstrip("\r\n") or start
        try:
            if not start.isspace():
                click.echo(start, nl=False)
            show(model, length, start, choice, seed)
        except KeyboardInterrupt:
            click.echo()
        seed += 1


def make(task: Task) -> click.Command:
    """The command."""
    return command(generate, "generate", epilog=epilog("text generate"))
