"""`cellwise trace RUN INPUT`: the inside of a trained network, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cellwise.cli.cell_argument import HELP, cell_argument, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import Quiet, is_quiet
from cellwise.cli.output import say as _say
from cellwise.tasks.errors import TaskError


def trace(
    run: Annotated[
        Path | None,
        argument(help="Run folder of a forecaster or a text model.", metavar="[RUN]"),
    ] = None,
    source: Annotated[
        str | None,
        argument(
            help="Series (CSV, Excel, Parquet) or text to read.  [default: the run's own data]",
            metavar="[INPUT]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option(help="HTML file to write; with --demo the run folder.  [default: RUN/trace.html]"),
    ] = None,
    series: Annotated[str | None, option(help="Series of a forecast to show.  [default: the first]")] = None,
    steps: Annotated[
        int | None, option(help="Characters of a text to show, at most 2,000.  [default: 600]")
    ] = None,
    demo: Annotated[
        bool,
        option("--demo", help="First train a small character model on the opening of Moby-Dick."),
    ] = False,
    cell: Annotated[str, option(help=f"For --demo. {HELP}", metavar="CELL", shell_complete=complete)] = "gru",
    epochs: Annotated[int | None, option(help="For --demo: epochs, at most.  [default: 12]")] = None,
    seed: Annotated[int, option(help="For --demo: random seed.")] = 0,
    overwrite: Annotated[bool, option("--overwrite", help="Replace existing output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Look inside a trained network: states and gates over time, and which inputs a prediction depends on.

    Writes one self-contained HTML page. RUN is a folder written by `cellwise forecast fit`, `cellwise text fit` or
    `--demo`."""
    from cellwise.understand.trace.run import PAGE, check_new, page_of, write_page

    if (run is None) != demo or (demo and source is not None):
        raise TaskError("give trace a run folder, or --demo alone, which trains a model first")
    if demo:
        run = out or Path("runs/characters")
        path = run / PAGE
        _train(run, cell, epochs, seed, overwrite)
    else:
        assert run is not None
        path = out or run / PAGE
        if run.is_dir() or out is not None:
            check_new(path, overwrite)
    write_page(page_of(run, source, series, steps, _say), path)
    _say(f"page: {path}")


def _train(folder: Path, cell: str, epochs: int | None, seed: int, overwrite: bool) -> None:
    from cellwise.tasks import CharacterModel
    from cellwise.tasks.text.corpus import bundled_text
    from cellwise.tasks.training.progress import choose_progress

    text = bundled_text()
    limit: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    model = CharacterModel(cell_argument(cell), seed=seed, **limit)
    model.check_options()
    _say(f"the opening of Moby-Dick (Melville 1851, public domain), {len(text):,} characters")
    progress = choose_progress(False if is_quiet() else None, log=True)
    model.fit(text, folder=folder, overwrite=overwrite, progress=progress)
    assert model.trained_ is not None
    epochs_done = len(model.trained_.epochs)
    _say(
        f"done after {epochs_done} epoch{'s' * (epochs_done != 1)}, {model.seconds_:.0f} s; "
        f"{model.evaluate():.2f} bits per character on text that training never saw; it writes:"
    )
    _say(" ".join(model.generate(160, "\n").split()))
