"""`cellwise TASK tune DATA`: other settings tried, one training after the other, and the best of them as a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellwise.cli.command import option, parameter
from cellwise.cli.output import JSON, QUIET, is_quiet, print_json, print_table, say
from cellwise.cli.task_options import option_parameters, options_or_none, settings_of
from cellwise.cli.tasks import fit_and_say, read, stem, train, word
from cellwise.tasks.commands import Reading, TaskCommands, Words
from cellwise.tasks.options import Option, Range, options_of
from cellwise.tasks.registry import Task

if TYPE_CHECKING:
    from cellwise.tasks.tuning.trial import Trial, Tuned

__all__ = ["beside_run", "fit_command", "make", "words_of"]

BEST = 5  # columns of the table, beside the settings as given

_TRIALS = option(help="How many trials.  [default: 20; with --minutes as many as fit]")
_MINUTES = option(
    help="Look no longer than this; the training for --out comes after it.  [default: no limit]"
)
_OUT = option(help="Fit the best settings into this run folder.  [default: they are printed only]")
_OVERWRITE = option("--overwrite", help="Begin anew, and replace the run that is in the folder.")


def words_of(name: str, commands: TaskCommands) -> Words:
    """What the command says of itself."""
    example = commands.words["fit"].examples[0].replace(f" {name} fit ", f" {name} tune ")
    return Words(
        "Search for better settings.",
        "Train on DATA again and again with other settings, and compare them on what is held out to decide when to "
        "stop. Needs Optuna: pip install optuna\n\n"
        "Trial 0 has the defaults. Options with a range below are searched; one that is given is fixed. A trial that "
        "is worse than half of the others were by then is given up. Equal seeds give equal results, unless --minutes "
        "decides.\n\n"
        "Trials are kept in a folder beside the run (runs/NAME-CELL.tune, or RUN.tune with --out RUN). The same "
        "command goes on with an interrupted search; with more --trials it adds to a finished one.",
        (example, f"{example} --trials 50 --out runs/tuned", f"{example} --minutes 10 --hidden-size 64"),
    )


def make(task: Task, commands: TaskCommands) -> tuple[Any, list[click.Parameter]]:
    """The function of the command, and its parameters."""
    options = [each for each in options_of(task.load_options()) if each.name != "minutes"]
    fit_options = options_or_none(task.load_fit_options())

    def tune(
        source: str, out: Path | None, overwrite: bool, as_json: bool, quiet: bool, **values: Any
    ) -> None:
        from cellwise.tasks.data.optional import require
        from cellwise.tasks.training.run_folder import check_place

        require("optuna", ("optuna",))  # before the data are read
        if out is not None:
            check_place(out, overwrite)
        searched = [each.name for each in options if each.search is not None and values[each.name] is None]
        settings = settings_of([each for each in options if each.name not in searched], values)
        how = settings_of(fit_options, values)
        estimator = task.load_estimator()(**settings)
        data = read(commands, estimator, source, how)
        if values.get("valid") is not None:
            how["valid"] = commands.read(estimator, values["valid"]).data
        run = out or Path("runs") / f"{stem(source)}-{estimator.model_name.lower()}"

        def show(tuned: Tuned, more: Mapping[str, Any] | None = None) -> None:
            given = values | tuned.best
            command = fit_command(task.name, source, [*options, *fit_options], given, values.get("valid"))
            if as_json:
                print_json(_value(tuned, command) | dict(more or {}))
            else:
                _show(tuned, options, command)

        limits = {"trials": values["trials"], "minutes": values["minutes"]}
        where = {"folder": beside_run(run), "overwrite": overwrite}
        tuned = _search(estimator, data, show, search=searched, **limits, **where, **how)
        if out is None or not as_json:
            show(tuned)
        if out is None:
            return
        best = task.load_estimator()(**{**settings, **tuned.best})
        if as_json:
            fit_and_say(best, data, how, out, overwrite)
            show(tuned, {"run": str(out), "learned": commands.learned(best).value})
        else:
            train(commands, best, data, how, out, overwrite)
            say(f"predict with: cellwise {task.name} predict {out}")

    return tune, _parameters(commands, options, fit_options)


def _search(estimator: Any, data: Reading, show: Callable[[Tuned], None], **how: Any) -> Tuned:
    """Search, a line a trial. An interrupted search shows what it has found."""
    from cellwise.tasks.tuning.progress import TrialLines
    from cellwise.tasks.tuning.search import TuneInterrupted, tune

    try:
        return tune(estimator, data.data, progress=False if is_quiet() else TrialLines(), **how)
    except TuneInterrupted as stop:
        if stop.tuned is not None:
            show(stop.tuned)
        raise


def _parameters(
    commands: TaskCommands, options: Iterable[Option], fit_options: Iterable[Option]
) -> list[click.Parameter]:
    valid = option(metavar=commands.data.metavar, help=commands.valid)
    return [
        parameter("source", str, word(commands.data)),
        parameter("trials", int | None, _TRIALS, None),
        parameter("minutes", float | None, _MINUTES, None),
        parameter("out", Path | None, _OUT, None),
        *option_parameters(_with_range(each) for each in options),
        *([] if commands.valid is None else [parameter("valid", str | None, valid, None)]),
        *option_parameters(fit_options),
        parameter("overwrite", bool, _OVERWRITE, False),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]


def beside_run(run: Path) -> Path:
    """The folder of a search, beside that of the run: within it, `fit` would take it for somebody else's."""
    home = run if run.name not in ("", "..") else run.resolve()
    return home.parent / f"{home.name}.tune"


def _with_range(declared: Option) -> Option:
    """An option whose help shows where is searched, rather than a default."""
    space = declared.search
    if declared.name == "epochs":  # --minutes is another one here
        return replace(declared, help="At most so many epochs a trial; early stopping may end sooner.")
    if space is None:
        return declared
    if isinstance(space, Range):
        where = f"{space.low:g} to {space.high:g}"
    else:
        where = ", ".join(map(str, space))
    return replace(
        declared,
        default=None,
        none=None,
        help=f"{declared.help}  [searched: {where}; first {declared.default}]",
    )


def _show(tuned: Tuned, options: Sequence[Option], command: str) -> None:
    """Print what was found."""
    print_table(*_table(tuned, options))
    first, best = tuned.trials[0], tuned.ranked[0]
    if best.number == 0:
        say("no trial was better than the defaults")
    elif first.value:
        gain = abs(1 - tuned.value / first.value)
        say(
            f"trial {best.number} is {gain:.1%} better than the defaults, on the figure that it was chosen by"
        )
    say(f"the best settings: {command}")


def _table(tuned: Tuned, options: Sequence[Option]) -> tuple[list[str], list[list[str]]]:
    """A column a trial: the defaults, then the best of the others."""
    shown: list[Trial] = [tuned.trials[0], *(each for each in tuned.ranked if each.number)][: BEST + 1]
    figures = ["-" if each.value is None else f"{each.value:.4g}" for each in shown]
    rows = [[tuned.metric.replace("_", " "), *figures]]
    for each in options:
        if each.name in shown[0].settings:
            name = each.flags[0].removeprefix("--").replace("-", " ")
            rows.append([name, *(f"{trial.settings[each.name]}" for trial in shown)])
    rows.append(["epochs", *(f"{len(trial.epochs)}" for trial in shown)])
    rows.append(["seconds", *(f"{trial.seconds:.1f}" for trial in shown)])
    return ["trial", "default", *(f"{each.number}" for each in shown[1:])], rows


def _value(tuned: Tuned, command: str) -> dict[str, Any]:
    return {
        "metric": tuned.metric,
        "higher_is_better": tuned.higher_is_better,
        "value": tuned.value,
        "default": tuned.trials[0].value,
        "best": tuned.best,
        "trials": [each.record for each in tuned.trials],
        "command": command,
    }


def fit_command(
    task: str, source: str, options: Iterable[Option], values: Mapping[str, Any], valid: str | None
) -> str:
    """The `fit` of these values, as it is typed."""
    words = ["cellwise", task, "fit", source]
    for each in options:
        value = values[each.name]
        if value is None or (value == each.default and not each.is_required):
            continue
        flag = max(each.flags, key=len)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            words += [part for one in (value if each.is_list else [value]) for part in (flag, str(one))]
    return shlex.join([*words, *([] if valid is None else ["--valid", valid])])
