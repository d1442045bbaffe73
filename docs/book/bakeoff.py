"""What `cellwise compare-cells` found of all cells that ship, from the runs in `docs/measured/bakeoff`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from book.gallery import link_to_cells
from book.measured import picture
from book.parts import table
from cellwise.experiments.bakeoff.plot import MARKED, draw_bakeoff
from cellwise.experiments.bakeoff.problems import PROBLEMS
from cellwise.experiments.bakeoff.ranking import Standing, Table, table_of
from cellwise.experiments.bakeoff.record import RUNS, Run, read_runs

__all__ = ["DIRECTIVES", "measured_runs", "sentences"]

FOLDER = Path(__file__).parents[1] / "measured" / "bakeoff"
COMMAND = "cellwise compare-cells all --seeds 3 --out docs/measured/bakeoff"


@cache
def measured_runs() -> tuple[Run, ...]:
    """The runs of all problems that every cell was trained on: the others are not over yet."""
    runs = read_runs(FOLDER / RUNS)
    cells = {run.cell for run in runs}
    whole = {name for name in PROBLEMS if {run.cell for run in runs if run.problem == name} == cells}
    return tuple(run for run in runs if run.problem in whole)


class BakeoffProblems(SphinxDirective):
    """What is asked, and what is measured."""

    def run(self) -> list[nodes.Node]:
        every = nodes.bullet_list()
        for name, each in PROBLEMS.items():
            said = nodes.paragraph("", "", nodes.strong("", name))
            said += nodes.Text(f": {each.about}. Measured: {each.measure}. Beside: {each.simple}.")
            every += nodes.list_item("", said)
        return [every]


class BakeoffPicture(SphinxDirective):
    """Every cell in a row, every problem in a panel."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FOLDER / RUNS))
        drawn = draw_bakeoff(table_of(measured_runs()))
        return [
            picture(self, drawn, "bakeoff", "cells from the best mean rank down, by problem"),
            _provenance(),
        ]


class BakeoffTable(SphinxDirective):
    """Mean rank, means and spreads, time of an update; cells link to the gallery."""

    def run(self) -> list[nodes.Node]:
        found = table_of(measured_runs())
        titles = ("", "mean rank", *found.problems, "ms an update", "seeds")
        simple = (
            "a simple method",
            "",
            *(f"{PROBLEMS[name].simple_score():.3g}" for name in found.problems),
            "",
            "",
        )
        made = table(titles, [*(_row(found, each) for each in found.standings), simple])
        link_to_cells(made, page="gallery.html", but=("a simple method",))
        return [made, _provenance()]


def _row(found: Table, standing: Standing) -> tuple[str, ...]:
    figures = (standing.results[name].text for name in found.problems)
    return (
        standing.cell,
        f"{standing.mean_rank:.1f}",
        *figures,
        f"{standing.milliseconds:.1f}",
        standing.seeds,
    )


class BakeoffFindings(SphinxDirective):
    """Sentences on the best cells, the familiar ones, and trainings that diverged."""

    def run(self) -> list[nodes.Node]:
        every = sentences(table_of(measured_runs()))
        return [nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph("", each)) for each in every))]


def sentences(found: Table) -> list[str]:
    """What the table says, in words made from its numbers."""
    made = [
        f"On {name}, the best are {_listed(found, name)}; {_simple(found, name)}." for name in found.problems
    ]
    order = [each.cell for each in found.standings]
    familiar = ", ".join(f"{cell} is number {order.index(cell) + 1}" for cell in MARKED if cell in order)
    made.append(f"By mean rank, {', '.join(order[:5])} come first of {len(order)} cells; {familiar}.")
    diverged = [each.cell for each in found.standings if any(run.score is None for run in each.runs)]
    if diverged:
        made.append(f"Trainings diverged of {', '.join(diverged)}.")
    missing = [name for name in PROBLEMS if name not in found.problems]
    if missing:
        made.append(f"Not measured yet for every cell: {', '.join(missing)}.")
    return made


def _listed(found: Table, name: str) -> str:
    ranked = sorted(found.standings, key=lambda each: each.results[name].rank)
    return ", ".join(f"{each.cell} ({each.results[name].text})" for each in ranked[:3])


def _simple(found: Table, name: str) -> str:
    problem = PROBLEMS[name]
    simple = problem.simple_score()
    samples = [each.results[name].sample for each in found.standings]
    better = sum(each is not None and each.mean < simple for each in samples)
    return f"{better} of {len(samples)} cells are better than “{problem.simple}” ({simple:.3g})"


def _provenance() -> nodes.paragraph:
    """Where the numbers come from."""
    runs = measured_runs()
    made = nodes.paragraph("", "Measured by ", classes=["legend"])
    made += nodes.literal("", COMMAND)
    processors, versions = ({getattr(run, each) for run in runs} for each in ("processor", "cellwise"))
    hours = sum(run.seconds for run in runs) / 3600
    made += nodes.Text(
        f" on {', '.join(sorted(processors))}, one core, with cellwise {', '.join(sorted(versions))}: {len(runs):,} "
        f"trainings of about {runs[0].parameter_budget:,} parameters and {runs[0].update_budget:,} updates each, "
        f"{60 * hours:.0f} minutes of processor time."
    )
    return made


DIRECTIVES = {
    "bakeoff-findings": BakeoffFindings,
    "bakeoff-picture": BakeoffPicture,
    "bakeoff-problems": BakeoffProblems,
    "bakeoff-table": BakeoffTable,
}
