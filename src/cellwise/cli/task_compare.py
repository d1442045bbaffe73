"""`cellwise TASK compare DATA`: cells, settings and seeds trained side by side, in one table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellwise.cli.cell_argument import cell_argument, complete
from cellwise.cli.command import option, parameter
from cellwise.cli.experiment import listed
from cellwise.cli.output import JSON, QUIET, check_file, is_quiet, print_json, print_table, say
from cellwise.cli.task_options import option_parameters, options_or_none, settings_of
from cellwise.cli.task_tune import fit_command
from cellwise.cli.tasks import read, stem, word
from cellwise.tasks.commands import TaskCommands, Words
from cellwise.tasks.errors import OptionError, TaskError
from cellwise.tasks.options import Option, options_of
from cellwise.tasks.registry import Task

if TYPE_CHECKING:
    from cellwise.tasks.comparing.result import Comparison, Row

__all__ = ["make", "parse_settings", "words_of"]

CELLS = "gru,lstm"
SEEDS = 3

_CELLS = option(
    help="Cells with commas between them: names, FILE.py:Class, or gru+lstm for members of both where the task has "
    f"members.  [default: {CELLS}; with --set the default cell]",
    metavar="CELL,CELL",
    shell_complete=complete,
)
_SEEDS = option(help="How many seeds, from --seed on.")
_SET = option(
    "--set",
    help="An option and the values to compare, such as hidden_size=64,128; several are combined.",
    metavar="NAME=VALUE,VALUE",
)
_TEST = "Data to measure on, which no training sees.  [default: what fit holds out]"
_OUT = option(help="File to write the table to: .csv or .parquet.  [default: stdout]", metavar="FILE")
_FOLDER = option(help="Folder for the runs and the page.  [default: runs/NAME.compare]", metavar="FOLDER")
_OVERWRITE = option("--overwrite", help="Begin anew, and replace the runs that are in the folder.")


def words_of(name: str, commands: TaskCommands) -> Words:
    """What the command says of itself."""
    first = commands.words["fit"].examples[0].replace(f" {name} fit ", f" {name} compare ")
    return Words(
        "Compare cells and settings.",
        "Train on DATA with each cell, value and seed, and measure all on the same held-out part.\n\n"
        "The table has the mean of each figure and its spread over seeds (the standard deviation), parameters, seconds "
        "of training and milliseconds of a prediction. A * marks the best; a ~ what the seeds do not tell from it. All "
        "are trained with one seed before the next, so that a machine that slows down slows all of them.\n\n"
        "Every training is a run of its own in the folder (runs/NAME.compare), which gets a page, report.html. The "
        "same command goes on with an interrupted comparison; with more cells, values or seeds it adds to one.",
        (
            first,
            f"{first} --cells gru,lstm,my_cells.py:MGU --seeds 5",
            f"{first} --set hidden_size=64,128 --minutes 2 --out table.csv",
        ),
    )


def make(task: Task, commands: TaskCommands) -> tuple[Any, list[click.Parameter]]:
    """The function of the command, and its parameters."""
    cell, *_ = (each for each in options_of(task.load_options()) if each.name == "cell")
    options = [each for each in options_of(task.load_options()) if each.name != "cell"]
    fit_options = options_or_none(task.load_fit_options())

    def compare(
        source: str,
        out: Path | None,
        folder: Path | None,
        as_json: bool,
        overwrite: bool,
        quiet: bool,
        **values: Any,
    ) -> None:
        from cellwise.tasks.comparing.plan import cell_label
        from cellwise.tasks.training.run_files import REPORT

        _check_out(out, as_json)
        varied = parse_settings(options, values["set"] or [])
        estimator_class = task.load_estimator()
        estimator = estimator_class(**settings_of(options, values))
        by_default = cell.default if varied else CELLS
        typed = listed(by_default if values["cells"] is None else values["cells"], "cells")
        cells = [cell_argument(each) for each in typed]
        how = settings_of(fit_options, values)
        data = read(commands, estimator, source, how)
        place = Path("runs") / f"{stem(source)}.compare" if folder is None else folder
        more = {
            name: commands.read(estimator, values[name]).data
            for name in ("valid", "test")
            if values.get(name)
        }

        def command_of(found: Comparison) -> str:
            """The `fit` of the best, with its cell as it was typed."""
            assert found.best is not None
            as_typed = dict(zip(map(cell_label, cells), typed, strict=True))
            given = values | dict(found.best.settings)
            given["cell"] = as_typed[given["cell"]]
            return fit_command(task.name, source, [cell, *options, *fit_options], given, values.get("valid"))

        def show(found: Comparison) -> None:
            if as_json:
                print_json(_value(found, command_of(found)) | {"folder": str(place)})
            elif out is None:
                print_table(*_table(found))
            else:
                _write(found, out)

        found = _compare(
            estimator, data.data, show, cells=cells, settings=varied, seeds=values["seeds"],
            folder=place, overwrite=overwrite, **how, **more,
        )  # fmt: skip
        show(found)
        _say_verdict(found)
        say(f"train the best: {command_of(found)}")
        if (place / REPORT).exists():
            say(f"page: {place / REPORT}")

    return compare, _parameters(commands, options, fit_options)


def _parameters(
    commands: TaskCommands, options: Sequence[Option], fit_options: Iterable[Option]
) -> list[click.Parameter]:
    files = [("valid", commands.valid), ("test", _TEST)] if commands.valid is not None else []
    return [
        parameter("source", str, word(commands.data)),
        parameter("cells", str | None, _CELLS, None),
        parameter("seeds", int, _SEEDS, SEEDS),
        parameter("set", list[str] | None, _SET, None),
        *(
            parameter(name, str | None, option(metavar=commands.data.metavar, help=told), None)
            for name, told in files
        ),
        parameter("out", Path | None, _OUT, None),
        parameter("folder", Path | None, _FOLDER, None),
        *option_parameters(_reworded(each) for each in options),
        *option_parameters(fit_options),
        parameter("overwrite", bool, _OVERWRITE, False),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]


def _reworded(declared: Option) -> Option:
    """An option whose help says what it is here."""
    helps = {
        "seed": "The first seed.",
        "minutes": "Time limit of each training in minutes, validation included.",
        "epochs": "Epochs of each training, at most; early stopping may end sooner.",
    }
    return replace(declared, help=helps.get(declared.name, declared.help))


def parse_settings(options: Iterable[Option], texts: Iterable[str]) -> dict[str, list[Any]]:
    """NAME=VALUE,VALUE as an option's name and values. A name may be written as the option's flag is.

    Raises OptionError, ListError."""
    known = {name: each for each in options for name in (each.name, *(f.lstrip("-") for f in each.flags))}
    made: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lstrip("-")
        if not equals:
            raise OptionError(f"--set takes NAME=VALUE,VALUE, such as hidden_size=64,128, not {text!r}")
        if name not in known:
            raise OptionError(
                f"--set {name}: there is no such option; there is {', '.join(sorted(_names(options)))}"
            )
        declared = known[name]
        if declared.is_list:
            raise OptionError(f"--set cannot vary {name}, which takes a list")
        if declared.name in made:
            raise OptionError(f"--set {name} is given twice; write all its values after one")
        parts = listed(values, f"values of {declared.name}")
        made[declared.name] = [_value_of(declared, part) for part in parts]
    return made


def _names(options: Iterable[Option]) -> list[str]:
    return [each.name for each in options if not each.is_list]


def _value_of(declared: Option, text: str) -> Any:
    """A value as it is typed. Raises OptionError."""
    if declared.none is not None and text.lower() == "none":
        return None
    switches = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if declared.kind is bool:
        if text.lower() not in switches:
            raise OptionError(f"{declared.name} must be true or false, not {text!r}")
        return switches[text.lower()]
    try:
        return declared.kind(text) if declared.kind in (int, float) else text
    except ValueError:
        kind = "a whole number" if declared.kind is int else "a number"
        raise OptionError(f"{declared.name} must be {kind}, not {text!r}") from None


def _check_out(out: Path | None, as_json: bool) -> None:
    from cellwise.tasks.data.files import check_writable

    if out is None:
        return
    if as_json:
        raise TaskError("--json prints the result, --out writes it to a file; give one of them")
    check_writable(out)
    check_file(out)


def _compare(estimator: Any, data: Any, show: Any, **how: Any) -> Comparison:
    """Compare, a line a training. An interrupted comparison shows what it has found."""
    from cellwise.tasks.comparing.compare import CompareInterrupted, compare
    from cellwise.tasks.comparing.progress import RunLines

    try:
        with warnings.catch_warnings(record=True) as noticed:
            found = compare(estimator, data, progress=False if is_quiet() else RunLines(), **how)
        for each in noticed:
            say(f"note: {each.message}")
        return found
    except CompareInterrupted as stop:
        if stop.comparison is not None:
            show(stop.comparison)
        raise


def _table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """A row for each candidate, the best first, then for each simple method."""
    from cellwise.tasks.comparing.page import figures_of, titles_of

    rows = [[f"{row.name}{_mark(row)}", *figures_of(found, row)] for row in (*found.rows, *found.simple)]
    return ["model", *titles_of(found)], rows


def _mark(row: Row) -> str:
    if row.is_best:
        return " *"
    return " ~" if row.runs and row.is_behind is False else ""


def _say_verdict(found: Comparison) -> None:
    from cellwise.tasks.comparing.page import measured_on

    say(measured_on(found))
    for sentence in found.verdict:
        say(sentence)
    for run in found.runs:
        if run.problem:
            say(f"note: {run.candidate}, seed {run.seed}, failed: {run.problem}")


def _write(found: Comparison, out: Path) -> None:
    from cellwise.tasks.data.files import round_floats, write_file

    frame = round_floats(found.frame)
    write_file(frame, out)
    say(f"wrote {frame.height:,} rows to {out}")


def _value(found: Comparison, command: str) -> dict[str, Any]:
    return {
        "metric": found.metric,
        "higher_is_better": found.higher_is_better,
        "measured_on": found.words,
        "held_out": "test" if found.is_test else "validation",
        "rows": found.frame.to_dicts(),
        "runs": [_run_value(each) for each in found.runs],
        "verdict": list(found.verdict),
        "command": command,
    }


def _run_value(run: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(run) | {"metrics": dict(run.metrics)}
