"""`cellwise text score RUN FILE`: how surprising each line of a file is, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.output import JSON, print_json, print_table, say
from cellwise.tasks.registry import Task

__all__ = ["make", "score"]

LONGEST = 60  # characters of a line that the table shows


def score(
    run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
    source: Annotated[str, argument(help="Lines of text, - for standard input.", metavar="FILE")],
    most: Annotated[
        int,
        option(
            help="How many surprising characters of each line to name.",
            type=click.IntRange(0, 1000),
            metavar="N",
        ),
    ] = 3,
    html: Annotated[
        Path | None,
        option(help="Write a page on which each character is shaded by its bits.", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Say how many bits each line takes, and which of its characters surprise the model.

    Each line is read by itself. Bits per character compare lines of different lengths; lower is more usual."""
    from cellwise.tasks.data.text_file import read_text
    from cellwise.tasks.text.model import LanguageModel
    from cellwise.tasks.text.scoring import score_lines, write_score_page

    model = LanguageModel.load(run)
    lines = read_text(source).splitlines()
    if html is not None:
        write_score_page(html, model, lines)
        say(f"page: {html}")
    rows = score_lines(model, lines, most)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("bits", "per character", "line", "surprising"),
        [
            (
                f"{row['bits']:.1f}",
                f"{row['bits_per_character']:.2f}",
                _short(row["line"]),
                _named(row["surprising"]),
            )
            for row in rows
        ],
    )


def _short(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _named(surprising: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['text']!r} at {each['position']} ({each['bits']:.1f})" for each in surprising)


def make(task: Task) -> click.Command:
    """The command."""
    return command(score, "score", epilog=epilog("text score"))
