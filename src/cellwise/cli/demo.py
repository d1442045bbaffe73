"""`cellwise demo CELL`: the textbook exercise, four steps learnt by gradient descent through time."""

from __future__ import annotations

from typing import Annotated

import click

from cellwise.cli.cell_argument import HELP, cell_of, complete
from cellwise.cli.command import argument, option
from cellwise.experiments.textbook_settings import Settings

_DEFAULT = Settings()


def demo(
    name: Annotated[str, argument(metavar="CELL", help=HELP, shell_complete=complete)],
    input_size: Annotated[int, option(help="Input size, in bits.")] = _DEFAULT.input_size,
    hidden_size: Annotated[int, option(help="Hidden size.")] = _DEFAULT.hidden_size,
    output_size: Annotated[int, option(help="Output size.")] = _DEFAULT.output_size,
    learning_rate: Annotated[float, option(help="Learning rate of Adam.")] = _DEFAULT.learning_rate,
    epochs: Annotated[int, option(help="Passes over the sequence.")] = _DEFAULT.epochs,
    seed: Annotated[int, option(help="Seed of the initial weights.")] = _DEFAULT.seed,
) -> None:
    """Train a tiny network on the textbook sequence of four steps."""
    settings = Settings(cell_of(name), input_size, hidden_size, output_size, learning_rate, epochs, seed)
    from cellwise.experiments import textbook

    def report(epoch: int, loss: float) -> None:
        if epoch % 100 == 0:
            click.echo(f"Epoch {epoch}, Loss: {loss:.3g}")

    result = textbook.run(settings, report)
    for x, target, output in zip(result.inputs, result.targets, result.outputs, strict=True):
        click.echo(
            f"Input: {x.tolist()}, Target: {_plain(target.tolist())}, Output: {_number(output.tolist())}"
        )


def _plain(values: list[float]) -> str:
    return str(values[0] if len(values) == 1 else values)


def _number(values: list[float]) -> str:
    """One number bare, several in brackets."""
    return f"{values[0]:.4f}" if len(values) == 1 else str([round(value, 4) for value in values])
