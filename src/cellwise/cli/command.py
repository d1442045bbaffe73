"""How a command is declared: a function whose annotated arguments are its options. Here it becomes one of click.

    def show(name: Annotated[str, argument(metavar="CELL", help="A cell's name.")],
             steps: Annotated[int, option(help="Steps to show.")] = 4) -> None:
        '''Show a cell.'''

The option is called as the argument is (`--steps`), has its type and its default; what else stands in `option(...)` is
given to click. A function stays a function: tests call it. Options that are data, as those of a task, become
parameters of click by the same `parameter`.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

__all__ = ["Command", "Declared", "Group", "argument", "command", "examples", "option", "parameter"]

# How a value of a type is called in help; `type` in a declaration may narrow it.
_TYPES: dict[Any, tuple[click.ParamType, str]] = {
    bool: (click.BOOL, ""),
    int: (click.INT, "INT"),
    float: (click.FLOAT, "FLOAT"),
    str: (click.STRING, "TEXT"),
    Path: (click.Path(path_type=Path), "PATH"),
}


@dataclass(frozen=True)
class Declared:
    """What stands beside the type of a command's argument: its words on the command line, and what click is given."""

    names: tuple[str, ...]
    attributes: Mapping[str, Any]
    positional: bool = False


def option(*names: str, **attributes: Any) -> Declared:
    """An option; without names it is called as the function's argument. `attributes`: as `click.Option` takes them."""
    return Declared(names, attributes)


def argument(**attributes: Any) -> Declared:
    """A word without a name before it. `attributes`: as `click.Argument` takes them, and `help`."""
    return Declared((), attributes, positional=True)


class Argument(click.Argument):
    """A positional argument with a line of help, which click itself has only since 8.5."""

    def __init__(self, declarations: list[str], about: str, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.about = about


class Option(click.Option):
    """An option that help may list under a heading of its own."""

    def __init__(self, declarations: list[str], group: str = "", **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.group = group


class Command(click.Command):
    """A command whose help lists its arguments, then its options, then those of each group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists."""
        lists: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            if isinstance(each, Argument):
                about = f"{each.about}{'  [required]' * each.required}"
                lists["Arguments"].append((each.make_metavar(ctx), about))
            elif (row := each.get_help_record(ctx)) is not None:
                group = each.group if isinstance(each, Option) else ""
                lists.setdefault(group.capitalize() or "Options", []).append(row)
        for title, rows in lists.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(click.Group):
    """Commands by name, each with a line for the list and made when it is asked for.

    Args:
        summaries: a line for each command, in the order of the list.
        load: makes the command of a name.
    """

    def __init__(
        self, name: str, summaries: Mapping[str, str], load: Callable[[str], click.Command], **attributes: Any
    ) -> None:
        super().__init__(name, no_args_is_help=True, **attributes)
        self._summaries, self._load = summaries, load

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they were given."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, made the first time that it is asked for."""
        if cmd_name in self._summaries and cmd_name not in self.commands:
            self.commands[cmd_name] = self._load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with all names to choose a hint from, not only those of commands made so far."""
        name = args[0]
        if name not in self._summaries and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{name}'.{self._hint(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _hint(self, ctx: click.Context, name: str) -> str:
        """Where a command of this name is, or what else may have been meant; empty where neither is known."""
        groups = [
            each for each in map(partial(self.get_command, ctx), self._summaries) if isinstance(each, Group)
        ]
        within = [f"'{each.name} {name}'" for each in groups if name in each.list_commands(ctx)]
        if within:
            return f" There is {', '.join(within)}."
        near = difflib.get_close_matches(name, self._summaries, n=1)
        return f" Did you mean '{near[0]}'?" if near else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, without making a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """The names and options that a word may become, without making a command."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=line)
            for name, line in self._summaries.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def examples(lines: Sequence[str]) -> str | None:
    """The end of a command's help: what one may type."""
    # The sign keeps the lines as they are.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines) if lines else None


def command(function: Callable[..., Any], name: str, **attributes: Any) -> Command:
    """The command that a function is. Its docstring is the help; `attributes`: as `click.Command` takes them."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = [
        _parameter_of(name, hints[name], given.default)
        for name, given in inspect.signature(function).parameters.items()
    ]
    return Command(name, callback=function, params=parameters, help=function.__doc__, **attributes)


def _parameter_of(name: str, hint: Any, default: Any) -> click.Parameter:
    kind, declared = typing.get_args(hint)
    return parameter(name, kind, declared, default)


def parameter(
    name: str, kind: Any, declared: Declared, default: Any = inspect.Parameter.empty
) -> click.Parameter:
    """A parameter of click for a value of type `kind`, which may be `T`, `T | None`, `list[T]` or `list[T] | None`."""
    kind, several = _taken_apart(kind)
    converter, metavar = _TYPES[kind]
    required = default is inspect.Parameter.empty
    attributes: dict[str, Any] = {"type": converter, "required": required, **declared.attributes}
    if not required and not several:
        attributes["default"] = default
    if several:
        attributes["callback"] = _list_or_none
    if declared.positional:
        about = attributes.pop("help")
        return Argument([name], about, **attributes, **({"nargs": -1} if several else {}))
    words = declared.names or (f"--{name.replace('_', '-')}",)
    if kind is bool:
        return Option([name, *words], is_flag=True, **attributes)
    attributes.setdefault("metavar", metavar)
    return Option([name, *words], multiple=several, **attributes)


def _taken_apart(kind: Any) -> tuple[Any, bool]:
    """The type of one value, and whether several may be given.

    >>> _taken_apart(int | None), _taken_apart(list[str] | None)
    ((<class 'int'>, False), (<class 'str'>, True))
    """
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not types.NoneType)
    if typing.get_origin(kind) is list:
        return typing.get_args(kind)[0], True
    return kind, False


def _list_or_none(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> list[Any] | None:
    """Whether something was given at all is for the command to see."""
    return list(values) or None
