"""`cellwise TASK fit|predict|evaluate|demo|check|tune|compare|report`, made for every task of what it declares.

A task's options are in its `options.py`, its words and the look of its answers in its `commands.py`
(`cellwise.tasks.commands`): nothing here knows a task.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from cellwise.cli.command import Command, Declared, Group, argument, examples, option, parameter
from cellwise.cli.output import JSON, QUIET, check_file, is_quiet, print_json, print_table, say
from cellwise.cli.task_options import option_parameters, options_or_none, settings_of
from cellwise.tasks.commands import Answer, Reading, TaskCommands, Words
from cellwise.tasks.errors import ReportWarning, TaskError, WorseThanSimpleWarning
from cellwise.tasks.options import Option, options_of
from cellwise.tasks.registry import Task, find_task
from cellwise.tasks.training.rank import is_first

__all__ = [
    "TABLE_OUT",
    "answer",
    "check_out",
    "fit_and_say",
    "group_of",
    "hand_over",
    "load_with_data",
    "read",
    "stem",
]
__all__ += ["train", "word"]

_RUN = argument(metavar="RUN", help="Run folder written by fit.")
_OVERWRITE = option("--overwrite", help="Replace a run that is already there.")
TABLE_OUT = option(help="Table to write: .csv, .xlsx, .parquet or .jsonl.  [default: stdout]", metavar="FILE")

# Commands of one task alone: a line for the list, and the file here whose `make` makes it.
_OWN = {
    "forecast": {
        "backtest": ("Measure forecasts of the past.", "forecast_backtest"),
        "explain": ("Show what forecasts look at, or change a covariate.", "forecast_explain"),
        "update": ("Go on with newer data.", "forecast_update"),
        "export": ("Write all tables of a run to one workbook.", "forecast_export"),
    },
    "text": {
        "generate": ("Write more of a text.", "text_generate"),
        "score": ("Say how surprising lines are.", "text_score"),
    },
    "translate": {
        "lines": ("Translate standard input line by line.", "translate_lines"),
    },
}


def group_of(name: str) -> Group:
    """The commands of a task."""
    task = find_task(name)
    assert task is not None
    from cellwise.cli.task_compare import words_of as compare_words
    from cellwise.cli.task_tune import words_of as tune_words

    commands, own = task.load_commands(), _OWN.get(name, {})
    words = {
        **commands.words,
        "check": _check_words(name),
        "tune": tune_words(name, commands),
        "compare": compare_words(name, commands),
        "report": _report_words(name),
    }
    lines = {each: words[each].line for each in _MAKERS} | {each: line for each, (line, _) in own.items()}

    def load(command: str) -> click.Command:
        if command in own:
            made: click.Command = import_module(f"cellwise.cli.{own[command][1]}").make(task)
            return made
        callback, parameters = _MAKERS[command](task, commands)
        told = words[command]
        return Command(
            command,
            callback=callback,
            params=parameters,
            help=told.help,
            short_help=told.line,
            epilog=examples(told.examples),
        )

    about = commands.words[""]
    return Group(name, lines, load, help=about.help, epilog=examples(about.examples))


Made = tuple[Callable[..., None], list[click.Parameter]]


def _fit(task: Task, commands: TaskCommands) -> Made:
    options, fit_options = options_of(task.load_options()), options_or_none(task.load_fit_options())
    valid = option(metavar=commands.data.metavar, help=commands.valid)

    def fit(source: str, out: Path | None, overwrite: bool, quiet: bool, **values: Any) -> None:
        how = settings_of(fit_options, values)
        estimator = task.load_estimator()(**settings_of(options, values))
        data = read(commands, estimator, source, how)
        if values.get("valid") is not None:
            how["valid"] = commands.read(estimator, values["valid"]).data
        folder = out or Path("runs") / f"{stem(source)}-{estimator.model_name.lower()}"
        train(commands, estimator, data, how, folder, overwrite)
        say(f"predict with: cellwise {task.name} predict {folder}")

    return fit, [
        parameter("source", str, word(commands.data)),
        *option_parameters(options),
        *([] if commands.valid is None else [parameter("valid", str | None, valid, None)]),
        parameter("out", Path | None, option(help="Run folder to write.  [default: runs/NAME-CELL]"), None),
        *option_parameters(fit_options),
        parameter("overwrite", bool, _OVERWRITE, False),
        parameter("quiet", bool, QUIET, False),
    ]


def _predict(task: Task, commands: TaskCommands) -> Made:
    own = options_or_none(commands.predict_options)
    reading = _reading_options(task, commands)

    def predict(
        run: Path, source: str | None, out: Path | None, as_json: bool, quiet: bool, **values: Any
    ) -> None:
        check_out(out, as_json, commands.check_out)
        estimator, data = load_with_data(task, commands, run, source, settings_of(reading, values))
        made = commands.predict(estimator, data, **settings_of(own, values, commands.predict_options))
        hand_over(made, out, as_json)

    return predict, [
        parameter("run", Path, _RUN),
        parameter("source", str | None, word(commands.start), None),
        *option_parameters(own),
        parameter("out", Path | None, option(help="File to write.  [default: stdout]", metavar="FILE"), None),
        *option_parameters(reading),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]


def _evaluate(task: Task, commands: TaskCommands) -> Made:
    own = options_or_none(commands.evaluate_options)
    reading = _reading_options(task, commands)

    def evaluate(run: Path, source: str, out: Path | None, as_json: bool, quiet: bool, **values: Any) -> None:
        check_out(out, as_json)
        estimator, data = load_with_data(task, commands, run, source, settings_of(reading, values))
        made = commands.evaluate(estimator, data, **settings_of(own, values, commands.evaluate_options))
        hand_over(made, out, as_json)

    return evaluate, [
        parameter("run", Path, _RUN),
        parameter("source", str, word(commands.data)),
        *option_parameters(own),
        parameter("out", Path | None, TABLE_OUT, None),
        *option_parameters(reading),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]


def _demo(task: Task, commands: TaskCommands) -> Made:
    shown = commands.demo
    options = [each for each in options_of(task.load_options()) if each.name in shown.options]

    def demo(out: Path, overwrite: bool, quiet: bool, **values: Any) -> None:
        settings = {**shown.settings, **settings_of(options, values)}
        estimator = task.load_estimator()(**settings)
        how = {each.name: each.default for each in options_or_none(task.load_fit_options())} | dict(
            shown.fit_settings
        )
        say(shown.about)
        train(commands, estimator, read(commands, estimator, shown.source, how), how, out, overwrite)

    return demo, [
        parameter("out", Path, option(help="Run folder to write."), Path(shown.out)),
        *option_parameters(options, shown.settings),
        parameter("overwrite", bool, _OVERWRITE, False),
        parameter("quiet", bool, QUIET, False),
    ]


def _check_words(name: str) -> Words:
    return Words(
        "Check a run folder for damage.",
        "Verify the checksum of every file in a run folder, and load the run.\n\n"
        "Reports on each file; the exit status is 2 if one is damaged. An unfinished run is whole if its training can "
        "be resumed.",
        (f"cellwise {name} check runs/mine",),
    )


def _check(task: Task, commands: TaskCommands) -> Made:
    from cellwise.cli.check_run import check

    return check, [parameter("run", Path, argument(metavar="RUN", help="Run folder to check."))]


def _report_words(name: str) -> Words:
    return Words(
        "Make the report of a run again.",
        "Make report.html, its plots, and the tables of a finished run again.",
        (f"cellwise {name} report runs/mine",),
    )


def _report(task: Task, commands: TaskCommands) -> Made:
    def report(run: Path) -> None:
        click.echo(f"report: {task.load_estimator().remake_report(run)}", err=True)

    return report, [parameter("run", Path, _RUN)]


def _tune(task: Task, commands: TaskCommands) -> Made:
    from cellwise.cli.task_tune import make

    return make(task, commands)


def _compare(task: Task, commands: TaskCommands) -> Made:
    from cellwise.cli.task_compare import make

    return make(task, commands)


_MAKERS: dict[str, Callable[[Task, TaskCommands], Made]] = {
    "fit": _fit,
    "predict": _predict,
    "evaluate": _evaluate,
    "demo": _demo,
    "check": _check,
    "tune": _tune,
    "compare": _compare,
    "report": _report,
}


# --- what the commands share ------------------------------------------------------------------------------------


def read(commands: TaskCommands, estimator: Any, source: str, how: Mapping[str, Any]) -> Reading:
    """What is to be learned from; what it is and what was noticed in it is said. Wrong options are found first."""
    estimator.check_options(**how)
    data = commands.read(estimator, source)
    say(data.about)
    for note in data.notes:
        say(f"note: {note}")
    return data


def train(
    commands: TaskCommands,
    estimator: Any,
    data: Reading,
    how: Mapping[str, Any],
    folder: Path | None,
    overwrite: bool,
    as_json: bool = False,
) -> None:
    """Fit an estimator, say how it went, and print what it is worth."""
    from cellwise.tasks.training.run_files import REPORT

    fit_and_say(estimator, data, how, folder, overwrite)
    if not is_first():  # the first process measures and speaks
        return
    answer(commands.learned(estimator), as_json)
    if folder is not None and (folder / REPORT).exists():
        say(f"report: {folder / REPORT}")


def fit_and_say(
    estimator: Any,
    data: Reading,
    how: Mapping[str, Any],
    folder: Path | None,
    overwrite: bool,
) -> None:
    """Fit an estimator, and say how it went."""
    from cellwise.tasks.training.progress import choose_progress

    progress = choose_progress(False if is_quiet() else None, log=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReportWarning)  # it is said below, as a note
        warnings.simplefilter("ignore", WorseThanSimpleWarning)  # and this as a remark
        estimator.fit(data.data, folder=folder, overwrite=overwrite, progress=progress, **how)
    if not is_first():
        return
    for note in estimator.notes_:
        if note not in data.notes:
            say(f"note: {note}")
    trained = estimator.trained_
    early = "stopped early" if trained.stopped_early else "done"
    resumed = f", resumed after {trained.resumed_after}" if trained.resumed_after else ""
    epochs = f"{len(trained.epochs)} epoch{'s' * (len(trained.epochs) != 1)}"
    kept = f", kept the weights of epoch {trained.best.epoch}" if trained.watch.keeps_best else ""
    say(f"{early} after {epochs}{resumed}{kept}; {estimator.seconds_:.0f} s")


def answer(made: Answer, as_json: bool) -> None:
    """Print an answer on stdout, as it was asked for, and the remarks on it on stderr."""
    if as_json:
        print_json(made.value)
    elif made.table is not None:
        print_table(*made.table)
    else:
        click.echo(made.text, nl=False)
    for remark in made.remarks:
        say(remark)


def check_out(out: Path | None, as_json: bool, check: Callable[[Path], None] | None = None) -> None:
    """Refuse a file of `--out` that cannot be written, before any work. check: of its name; None: a table's."""
    if out is None:
        return
    if as_json:
        raise TaskError("--json prints the result, --out writes it to a file; give one of them")
    if check is not None:
        check(out)
    else:
        from cellwise.tasks.data.files import check_writable

        check_writable(out)
    check_file(out)


def hand_over(made: Answer, out: Path | None, as_json: bool) -> None:
    """Write an answer to the file of `--out`, as a table where the task does not say how, or print it."""
    from cellwise.tasks.data.files import write_rows

    if out is None:
        answer(made, as_json)
        return
    rows = made.value if isinstance(made.value, list) else [made.value]
    said = write_rows(rows, out) if made.write is None else made.write(out)
    say(f"wrote {said} to {out}")
    for remark in made.remarks:
        say(remark)


def load_with_data(
    task: Task, commands: TaskCommands, run: Path, source: str | None, settings: Mapping[str, Any]
) -> tuple[Any, Any]:
    """A trained estimator, and the data that a person named."""
    estimator = task.load_estimator().load(run)
    estimator.set_params(**{name: value for name, value in settings.items() if value is not None})
    if source is None:
        return estimator, None
    data = commands.read(estimator, source)
    for note in data.notes:
        say(f"note: {note}")
    return estimator, data.data


def stem(source: str) -> str:
    """The name of a run on this data."""
    return "stdin" if source == "-" else Path(source).name.partition(".")[0]


def _reading_options(task: Task, commands: TaskCommands) -> list[Option]:
    """How a file is read, if it is read another way than the training data."""
    declared = options_of(task.load_options())
    return [
        replace(each, default=None, none="as in training")
        for each in declared
        if each.name in commands.read_options
    ]


def word(word: Any) -> Declared:
    return argument(metavar=word.metavar, help=word.help)
