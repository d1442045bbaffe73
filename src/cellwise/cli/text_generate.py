"""`cellwise text generate RUN`: write more of a text, printed as it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.output import JSON, print_json
from cellwise.tasks.registry import Task

__all__ = ["generate", "make"]

_SHARE = click.FloatRange(0, 1, min_open=True)


def generate(
    run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
    start: Annotated[
        str | None, option(help="Text to go on from.  [default: a new line]", metavar="TEXT")
    ] = None,
    length: Annotated[
        int, option(help="Characters to write (bytes, if the model reads bytes).", type=click.IntRange(min=0))
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
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write more of a text.

    One text is printed as it is drawn. Several are drawn side by side, and printed when they are whole."""
    from cellwise.tasks.text.generating import Choice
    from cellwise.tasks.text.model import LanguageModel
    from cellwise.tasks.training.loop import torch_threads

    model = LanguageModel.load(run)
    given = start or "\n"
    texts = [""] * samples
    shows = samples == 1 and not as_json
    with torch_threads(1):
        for pieces in model.writes(length, given, Choice(temperature, top_k, top_p, min_p), seed, samples):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)] if not shows else texts
            if shows:
                click.echo(pieces[0], nl=False)
    if as_json:
        print_json([{"start": given, "text": text} for text in texts])
    elif shows:
        click.echo()
    else:
        for number, text in enumerate(texts, 1):
            click.echo(f"--- {number}\n{text}")


def make(task: Task) -> click.Command:
    """The command."""
    return command(generate, "generate", epilog=epilog("text generate"))
