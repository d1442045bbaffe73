"""Code that runs when the site is built, with what it prints. Code that fails ends the build."""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import shlex
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any, ClassVar

import torch
from click.testing import CliRunner
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from book.parts import code_block, html
from cellwise.cli import app as command_line
from cellwise.errors import CellwiseError

__all__ = ["DIRECTIVES"]

# One folder for all pages of a build, gone with the process: what a page's commands write, they and its code can read.
_WORKPLACE = tempfile.TemporaryDirectory(prefix="cellwise-book-")
COLUMNS = 88


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    """In the folder of the build, on one thread, with the seed that a reader would set."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "TERMINAL_WIDTH")}
    os.environ |= dict.fromkeys(before, str(COLUMNS))
    try:
        with contextlib.chdir(_WORKPLACE.name), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _shown(output: str) -> list[nodes.Node]:
    text = output.rstrip().replace(_WORKPLACE.name + os.sep, "")
    return [code_block(text, "text", "result")] if text else []


class Run(SphinxDirective):
    """Python code, and under it what it prints. The code blocks of a page share their names.

    `:hide-code:` shows only the result; `:fails:` names the error that the code is to end with, whose message is shown.
    """

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "hide-code": directives.flag,
        "fails": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content) + "\n"
        names = self.env.temp_data.setdefault("book", {"__name__": f"page_{self.env.docname}"})
        # So that messages which show a line of the user's find it.
        where = f"{self.env.docname}-{self.lineno}.py"
        linecache.cache[where] = (len(text), None, text.splitlines(keepends=True), where)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), _at_work():
            self._execute(compile(text, where, "exec"), names, output)
        code = [] if "hide-code" in self.options else [code_block(text.rstrip(), "python", "ran")]
        return [*code, *_shown(output.getvalue())]

    def _execute(self, code: Any, names: dict[str, Any], output: io.StringIO) -> None:
        expected = self.options.get("fails")
        try:
            exec(code, names)
        except CellwiseError as error:
            if type(error).__name__ != expected:
                raise self._failed() from error
            output.write(f"{expected}: {error}")
        except Exception as error:
            raise self._failed() from error
        else:
            if expected:
                raise ExtensionError(f"{self.get_location()}: this code was to fail with {expected}")

    def _failed(self) -> ExtensionError:
        return ExtensionError(f"{self.get_location()}: this code failed\n{traceback.format_exc()}")


class Shell(SphinxDirective):
    """Commands as they are typed, each with what it prints. `:fails:` expects the exit status 2 of a mistake.

    `:from:` and `:lines:` cut what is shown of the output; what is left out is marked.
    """

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "fails": directives.flag,
        "lines": directives.positive_int,
    }

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for command in self.content:
            made += [code_block(f"$ {command}", "console", "ran"), *_shown(self._cut(self._output(command)))]
        return made

    def _output(self, command: str) -> str:
        program, *arguments = shlex.split(command, comments=True)
        if program != "cellwise":
            raise self.error(f"only cellwise is run here, not {program}")
        with _at_work():
            result = CliRunner().invoke(command_line, arguments)
        if isinstance(result.exception, CellwiseError) and "fails" in self.options:
            return f"cellwise: {result.exception}"
        if (result.exit_code != 0) != ("fails" in self.options):
            text = "".join(traceback.format_exception(result.exception)) if result.exception else ""
            raise ExtensionError(
                f"{self.get_location()}: {command} ended with {result.exit_code}\n{result.output}{text}"
            )
        return result.output

    def _cut(self, output: str) -> str:
        lines = output.rstrip().splitlines()
        limit = self.options.get("lines", len(lines))
        return "\n".join([*lines[:limit], *(["…"] if len(lines) > limit else [])])


class Page(SphinxDirective):
    """An HTML page that an earlier command wrote: in a frame, and by itself behind a link."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {
        "title": directives.unchanged_required,
        "height": directives.positive_int,
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        # With its folder: every run has a report.html.
        source, title = f"pages/{name}", self.options["title"]
        copy = Path(self.env.app.outdir) / source
        copy.parent.mkdir(parents=True, exist_ok=True)
        copyfile(Path(_WORKPLACE.name) / name, copy)
        frame = f'<iframe src="{source}" title="{title}" height="{self.options.get("height", 700)}"></iframe>'
        link = f'<p class="legend"><a href="{source}">{title}</a>, as a page of its own</p>'
        return [html(f'<div class="page">{frame}</div>{link}')]


DIRECTIVES = {"run": Run, "shell": Shell, "page": Page}
