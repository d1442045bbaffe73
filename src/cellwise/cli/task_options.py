"""The options that a task declares, as click has them, and their values as an estimator takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from cellwise.cli.cell_argument import cell_argument, complete
from cellwise.cli.command import Declared, parameter
from cellwise.cli.experiment import listed
from cellwise.tasks.common_options import NETWORK, TRAINING
from cellwise.tasks.options import Option, check_values, options_of

__all__ = ["option_parameters", "options_or_none", "settings_of"]

# The order of the headings in help; a task's own stand in between.
_GROUPS = {"": 0, NETWORK: 2, TRAINING: 3}


def option_parameters(
    options: Iterable[Option], defaults: Mapping[str, Any] | None = None
) -> list[click.Parameter]:
    """The options as click has them, those in no group first. `defaults`: others than the declared."""
    changed = defaults or {}
    ordered = sorted(options, key=lambda each: (_GROUPS.get(each.group, 1), not each.is_required))
    return [_parameter(each, changed.get(each.name, each.default)) for each in ordered]


def _parameter(declared: Option, default: Any) -> click.Parameter:
    kind: Any = str if declared.kind is object else declared.kind
    attributes: dict[str, Any] = {"help": declared.help, "group": declared.group}
    if declared.metavar is not None:
        attributes["metavar"] = declared.metavar
    if declared.choices:
        attributes |= {"type": click.Choice(declared.choices), "metavar": "|".join(declared.choices)}
    if declared.name == "cell":
        attributes["shell_complete"] = complete
    if default is None and declared.none is not None:
        attributes["help"] += f"  [default: {declared.none}]"
    if declared.is_list and default:
        attributes["help"] += f"  [default: {', '.join(map(str, default))}]"
    flags = declared.flags
    if kind is bool and (default or declared.none is not None):  # what is on, or may be, can be switched off
        flags = tuple(f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags)
    told = Declared(flags, attributes)
    if declared.is_list:
        return parameter(declared.name, list[kind] | None, told, None)
    return (
        parameter(declared.name, kind, told)
        if declared.is_required
        else parameter(declared.name, kind, told, default)
    )


def settings_of(
    options: Iterable[Option], values: Mapping[str, Any], cls: type | None = None
) -> dict[str, Any]:
    """The options' values as an estimator takes them; lists that were not given are left to it.

    With their class they are checked here. Raises OptionError, ListError, and what a wrong cell raises."""
    settings = {}
    for each in options:
        value = values[each.name]
        if each.is_list:
            if value is None:
                continue
            what = f"values of {each.flags[0]}"
            value = [part for text in value for part in listed(text, what)] if each.kind is str else value
        settings[each.name] = cell_argument(value) if each.name == "cell" else value
    if cls is not None:
        check_values(cls, settings)
    return settings


def options_or_none(cls: type | None) -> tuple[Option, ...]:
    return () if cls is None else options_of(cls)
