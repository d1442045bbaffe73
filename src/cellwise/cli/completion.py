"""Completion of words by the shell: `--install-completion`, `--show-completion`, and what the shell then asks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from cellwise.errors import CellwiseError

__all__ = ["answer_shell", "install_completion", "show_completion"]

_PROGRAM = "cellwise"
_ASKED = "_CELLWISE_COMPLETE"  # set by the shell's script, to what it wants to know


class ShellError(CellwiseError):
    """The shell is none that words can be completed in."""


def _bash(home: Path) -> tuple[Path, Path, str]:
    script = home / ".bash_completions" / f"{_PROGRAM}.sh"
    return script, home / ".bashrc", f"source '{script}'"


def _zsh(home: Path) -> tuple[Path, Path, str]:
    line = "fpath+=~/.zfunc; autoload -Uz compinit; compinit"
    return home / ".zfunc" / f"_{_PROGRAM}", home / ".zshrc", line


def _fish(home: Path) -> tuple[Path, None, str]:
    return home / ".config/fish/completions" / f"{_PROGRAM}.fish", None, ""


# For each shell: where its script lies, the file that the shell reads when it starts, and the line there that finds it.
_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def answer_shell(app: click.Command) -> None:
    """Print the words that a shell asks for and leave, where one asks."""
    if os.environ.get(_ASKED):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(app, {}, _PROGRAM, _ASKED, os.environ[_ASKED]))


def _script(app: click.Command) -> tuple[str, str]:
    """The name of the current shell, and the script that makes it ask."""
    from click.shell_completion import get_completion_class

    shell = Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(shell) if shell in _SHELLS else None
    if kind is None:
        raise ShellError(
            f"The shell is {shell or 'unknown'}, and words can be completed in {', '.join(_SHELLS)}; "
            "the variable SHELL says which it is."
        )
    return shell, kind(app, {}, _PROGRAM, _ASKED).source()


def _show(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(_script(ctx.command)[1])
        ctx.exit()


def _install(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        _write(*_script(ctx.command))
        ctx.exit()


def _write(shell: str, script: str) -> None:
    path, start, line = _SHELLS[shell](Path.home())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    if start is not None:
        text = start.read_text() if start.exists() else ""
        if line not in text:
            start.write_text(f"{text.rstrip()}\n{line}\n".lstrip())
    click.echo(f"{shell} completes words of {_PROGRAM} in a new shell: {path}")


show_completion = click.Option(
    ["--show-completion"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show,
    help="Show completion for the current shell, to copy it or customize the installation.",
)
install_completion = click.Option(
    ["--install-completion"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_install,
    help="Install completion for the current shell.",
)
