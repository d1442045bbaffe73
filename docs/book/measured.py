"""Pictures and sentences from the numbers in `docs/measured`, which take minutes to measure; see `docs/measure.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from book.parts import html, table
from cellwise.experiments.findings import findings
from cellwise.experiments.memory import MemoryStudy
from cellwise.experiments.memory_plot import draw_memory
from cellwise.experiments.vanishing_gradients import GradientStudy
from cellwise.experiments.vanishing_gradients_plot import draw_gradients
from cellwise.understand.figures import rebuild, save
from cellwise.understand.scaling import Scaling
from cellwise.understand.scaling_plot import draw_scaling

__all__ = ["DIRECTIVES", "picture", "saved", "study"]

FOLDER = Path(__file__).parents[1] / "measured"


# name of a file -> what its result is, and what draws it
_KINDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "gradients": (GradientStudy, draw_gradients),
    "memory": (MemoryStudy, draw_memory),
    "scaling": (Scaling, draw_scaling),
}


@cache
def saved(name: str) -> dict[str, Any]:
    """A file of measurements: command, machine, result."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf8")))


@cache
def study(name: str) -> Any:
    """The numbers of a file, as the package's own kind of study."""
    return rebuild(_KINDS[name][0], saved(name)["result"])


def provenance(*names: str) -> nodes.paragraph:
    """Where the numbers come from."""
    made = nodes.paragraph("", "Measured by ", classes=["legend"])
    machines = []
    for place, name in enumerate(names):
        made += [nodes.Text(" and ")] * (place > 0) + [nodes.literal("", saved(name)["command"])]
        machines.append(machine(saved(name)["measured_on"]))
    made += nodes.Text(f" on {' and '.join(dict.fromkeys(machines))}.")
    return made


def machine(about: dict[str, Any]) -> str:
    """A machine and its versions, in a line."""
    versions = about["versions"]
    return (
        f"{about['processor']} ({about['llvm_cpu']}), {about['threads']} of {about['cores']} cores; "
        f"cellwise {versions['cellwise']}, torch {versions['torch']}"
    )


def written(text: str) -> str:
    """A sentence with its small numbers as people write them.

    >>> written("3.3e-07 is left")
    '3.3\xa0×\xa010⁻⁷ is left'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(
        r"(?<=\d)e([+-])0*(\d+)\b",
        lambda found: f"\xa0×\xa010{(found[1].strip('+') + found[2]).translate(raised)}",
        text,
    )


class Chart(SphinxDirective):
    """A picture of one file of measurements."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        self.env.note_dependency(str(FOLDER / f"{name}.json"))
        return [picture(self, _KINDS[name][1](study(name)), name, self.options["alt"]), provenance(name)]


def picture(page: SphinxDirective, figure: Any, name: str, alt: str) -> nodes.raw:
    """A figure of matplotlib on a page, and by itself behind a link."""
    save(figure, Path(page.env.app.outdir) / "pictures" / f"{name}.svg")
    image = f'<img src="pictures/{name}.svg" alt="{alt}">'
    link = f'<a href="pictures/{name}.svg" title="the picture by itself">{image}</a>'
    return html(f'<figure class="chart" tabindex="0">{link}</figure>')


class FindingsOn(SphinxDirective):
    """What was measured on one of the questions, by a word that only its title has."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        word = self.arguments[0]
        every = findings(gradients=study("gradients"), memory=study("memory"))
        found = [each for each in every if word.lower() in each.question.lower()]
        if len(found) != 1:
            raise self.error(f"{len(found)} questions have the word {word}")
        text = written(" ".join(found[0].sentences))
        return [nodes.paragraph("", text, classes=["findings"]), provenance("gradients", "memory")]


class ScalingTable(SphinxDirective):
    """The fitted exponents of measured times, and whether time is linear in each size."""

    def run(self) -> list[nodes.Node]:
        scaling = study("scaling")
        rows = [
            (
                curve.cell,
                curve.work,
                curve.letter,
                f"{curve.sizes[0]} to {curve.sizes[-1]}",
                f"{curve.predicted_exponent:.2f}",
                str(curve.exponent),
                str(curve.exponent_of_growth),
            )
            for curve in scaling.curves
        ]
        titles = ("cell", "pass", "in", "sizes", "slope counted", "slope measured", "growth measured")
        return [table(titles, rows), provenance("scaling")]


DIRECTIVES = {"chart": Chart, "findings": FindingsOn, "scaling-table": ScalingTable}
