"""`cellwise reproduce NAME`: one published experiment, from its data to its table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import click

from cellwise._version import __version__
from cellwise.cli.cell_argument import HELP, cell_argument, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import check_file, print_table
from cellwise.errors import CellwiseError, did_you_mean
from cellwise.tasks.published import experiments

__all__ = ["reproduce"]


class UnknownExperimentError(CellwiseError):
    """No experiment has this name."""


def reproduce(
    name: Annotated[
        str,
        argument(
            metavar="NAME",
            help=f"The experiment: {', '.join(experiments())}.",
            shell_complete=lambda ctx, parameter, start: [n for n in experiments() if n.startswith(start)],
        ),
    ],
    seeds: Annotated[
        int,
        option(
            type=click.IntRange(min=1),
            help="Number of trainings, with seeds 0, 1, ...; their mean is reported.",
        ),
    ] = 3,
    out: Annotated[Path | None, option(help="JSON file to write.  [default: runs/NAME.json]")] = None,
    data: Annotated[
        Path | None,
        option(help="The data, where it is not bundled or fetched, or another copy of it; see above."),
    ] = None,
    cell: Annotated[str, option(help=HELP, metavar="CELL", shell_complete=complete)] = "gru",
    epochs: Annotated[
        int | None, option(type=click.IntRange(min=1), help="Epochs, if not the default of the task.")
    ] = None,
) -> None:
    """Run a published experiment from end to end and print our results beside the published ones.

    What is fetched goes into a cache folder, which the environment variable CELLWISE_CACHE sets.
    """
    known = experiments()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UnknownExperimentError(f"There is no experiment {name!r}; {hint}there is {', '.join(known)}.")
    if out is not None:
        check_file(out)
    options = {"cell": cell_argument(cell)} | ({} if epochs is None else {"epochs": epochs})
    experiment = known[name]
    rows = experiment.load_run()(data, seeds, options, click.echo)
    _print(rows, experiment.columns)
    path = Path("runs") / f"{name}.json" if out is None else out
    _save(path, name, options, rows)
    click.echo(f"results: {path}")


# Where each gets its data, as its task says it.
reproduce.__doc__ = "\n\n".join(
    (
        (reproduce.__doc__ or "").rstrip(),
        *(f"    {name}. {each.data}" for name, each in experiments().items()),
    )
)


def _print(rows: list[Any], columns: tuple[tuple[str, str, int], ...]) -> None:
    table = []
    for row in rows:
        figures = [(getattr(row, name), digits) for _, name, digits in columns]
        table.append([row.method, *(("" if x is None else f"{x:.{n}f}") for x, n in figures), row.source])
    print_table(("method", *(title for title, _, _ in columns), "source"), table)


def _save(path: Path, name: str, options: dict[str, Any], rows: list[Any]) -> None:
    import torch

    from cellwise.tasks.training.run_folder import write_atomically

    result = {
        "experiment": name,
        "cellwise": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "options": {key: getattr(value, "name", value) for key, value in options.items()},
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode("utf8"))
