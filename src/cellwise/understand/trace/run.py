"""From a run folder, and what it is to read, to a page on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.registry import find_task
from cellwise.tasks.training.run_folder import RunFolder, write_atomically
from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.page import Page, render

__all__ = ["PAGE", "STEPS", "check_new", "page_of", "passage", "write_page"]

PAGE = "trace.html"
STEPS = 600  # characters that a page shows unless told otherwise

Say = Callable[[str], None]


def page_of(run: Path, source: str | None, series: str | None, steps: int | None, say: Say) -> Page:
    """Trace a run of any task that can be traced. `source` is the file to read, None for the run's own data.

    Raises:
        RunFolderError: there is no such run, or it is unfinished, damaged, or of another task.
        CellwiseError: the input cannot be read, or does not suit the run; an option does not suit it.
    """
    makers = {"forecast": _forecast_page, "text": _characters_page}
    task = str(RunFolder(run).config()["task"])
    known = find_task(task)
    if known is None or known.name not in makers:
        raise RunFolderError(f"{run} holds a run of the task {task!r}; traced are {', '.join(makers)}")
    return makers[known.name](run, source, series, steps, say)


def _forecast_page(run: Path, source: str | None, series: str | None, steps: int | None, say: Say) -> Page:
    from cellwise.tasks import Forecaster
    from cellwise.tasks.forecasting.datasets import bundled
    from cellwise.understand.trace.forecast import forecast_page

    if steps is not None:
        raise TraceError(
            "--steps is for a run on characters; a forecast shows the steps that its network looks at"
        )
    forecaster = Forecaster.load(run)
    if source is None:
        return forecast_page(forecaster, forecaster.table_, series)
    given = None if Path(source).exists() else bundled(source)
    table = forecaster.read(source if given is None else given)
    for note in table.notes:
        say(f"note: {note}")
    return forecast_page(forecaster, table, series)


def _characters_page(run: Path, source: str | None, series: str | None, steps: int | None, say: Say) -> Page:
    from cellwise.tasks import CharacterModel
    from cellwise.understand.trace.characters import MOST_STEPS, characters_page

    if series is not None:
        raise TraceError("--series is for a forecast; a run on characters reads one text")
    steps = STEPS if steps is None else steps
    if not 2 <= steps <= MOST_STEPS:
        raise TraceError(f"--steps must be from 2 to {MOST_STEPS:,}, not {steps:,}")
    model = CharacterModel.load(run)
    if source is None:
        return characters_page(model, passage(model.held_out_, steps), "text that training never saw")
    text = read_text(Path(source))
    if len(text) > steps:
        say(
            f"note: the first {steps:,} of {len(text):,} characters are traced; --steps takes up to {MOST_STEPS:,}"
        )
    shown = text[:steps]
    unknown: dict[str, Any] = model.unknown(shown)
    page = characters_page(model, shown, Path(source).name)
    if unknown:
        some = " ".join(ascii(each)[1:-1] if each.isspace() else each for each in list(unknown)[:12])
        say(
            f"note: {sum(unknown.values()):,} characters the model never saw are read as one unknown sign: {some}"
        )
    return page


def passage(text: str, steps: int) -> str:
    """So many characters of a text, from the beginning of its first whole paragraph if there is one early enough.

    >>> passage("the end.\\nA new beginning, which is longer.", 10)
    'A new begi'
    """
    begin = text.find("\n") + 1
    return text[begin : begin + steps] if begin and len(text) - begin >= steps else text[:steps]


def check_new(path: Path, overwrite: bool) -> None:
    """Raise TraceError where a page would replace something unasked."""
    if path.is_dir():
        raise TraceError(f"{path} is a folder; give --out the name of a file, such as {path / PAGE}")
    if path.exists() and not overwrite:
        raise TraceError(f"{path} exists; give --overwrite to replace it, or another --out")


def write_page(page: Page, path: Path) -> None:
    """Write the page, whole or not at all. Half of a surrogate pair is written as its number, as in JSON."""
    write_atomically(path, render(page).encode("utf8", "backslashreplace"))
