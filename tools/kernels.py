"""Did a change of the code change a kernel? Write down what is emitted before and after, and compare.

    python tools/kernels.py dump /tmp/before          # every conformance case and shipped cell
    git switch my-change
    python tools/kernels.py dump /tmp/after
    python tools/kernels.py diff /tmp/before /tmp/after

`dump` writes a file for each kernel, `CELL.PASS.ELEMENT.VECTOR.ll`: its LLVM code as it is emitted, before LLVM's own
passes, for each element type and for vectors of 16, 32 and 64 bytes. Beside them stands the listing of each Program.
PASS is one of `PASSES`, with `-projected` where the cell's output can be projected (proj_size). The routines that all
kernels share are written once: `shared.*`. No kernel depends on sizes: cases that differ in those alone share theirs.

`--drawn 50` adds fifty random cells; `--quick` writes float32 and vectors of 32 bytes alone. `diff` names the files
that differ, shows the first few, and exits with 1 if there are any.

The tree that is dumped is the one that Python imports, so this file can look at an older commit too:

    git worktree add /tmp/old HEAD~5
    PYTHONPATH=/tmp/old/src python tools/kernels.py dump /tmp/before
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cellwise import cells
from cellwise.graph import StepGraph
from cellwise.plan.backward import backward_plan, projects
from cellwise.plan.forward import forward_program
from cellwise.plan.listing import listing
from cellwise.plan.program import Program
from cellwise.testing import CASES

# --- the one place that reaches into the engine ---------------------------------------------------------------------

from cellwise.backends.cpu.kernel import emit, widths_of  # isort: skip
from cellwise.backends.cpu.pack import emit_pack  # isort: skip
from cellwise.backends.cpu.products import Products  # isort: skip
from cellwise.backends.cpu.target import WIDTHS, with_vectors_of  # isort: skip

ELEMENT_BYTES = {"float32": 4, "float64": 8}


def kernel_code(program: Program, element: str, width: int) -> str:
    return str(emit(program, ELEMENT_BYTES[element], with_vectors_of(width)))


def shared_code(programs: Iterable[Program], element: str, width: int) -> Iterator[tuple[str, str]]:
    """Name and code of what the kernels of these programs call or need, and that no cell has a part in."""
    size, target = ELEMENT_BYTES[element], with_vectors_of(width)
    yield "pack", str(emit_pack(size, target))
    for panel in sorted({panel for program in programs for panel in widths_of(program, target)}):
        yield f"products-{panel}", str(Products(panel, size, target).emit())


# --- what there is to dump ------------------------------------------------------------------------------------------

LINES = 60  # of the differences of a file
PASSES = ("inference", "training", "backward", "training-recompute", "backward-recompute")


def programs_of(graph: StepGraph) -> dict[str, Program]:
    """The programs of a graph by their pass."""
    found = {}
    for end, projected in {"": False, "-projected": True}.items() if projects(graph) else [("", False)]:
        for which in PASSES:
            plan = backward_plan(graph, projected, recompute=which.endswith("recompute"))
            tape = None if which == "inference" else plan.tape
            backward = which.startswith("backward")
            found[which + end] = plan.program if backward else forward_program(graph, tape, projected)
    return found


def graphs(chosen: str | None) -> dict[str, StepGraph]:
    """The graph of each cell with its options, those of the conformance cases, by name."""
    found: dict[str, StepGraph] = {}
    for cell in (case.cell for case in CASES):
        name = "-".join([cell.name, *map(str, cell.options.values())])
        if chosen in (None, cell.name, name):
            assert found.setdefault(name, cell.graph).fingerprint == cell.graph.fingerprint, name
    return found


def drawn(count: int) -> dict[str, StepGraph]:
    """The graphs of random cells: the same ones each time, until the strategy or Hypothesis changes."""
    from hypothesis import given, settings

    from cellwise.testing import strategies

    found: list[StepGraph] = []
    if not count:
        return {}

    @settings(max_examples=count, derandomize=True, database=None, deadline=None)
    @given(strategies.cells(widths=False))  # kernels see none
    def collect(cell: cells.Cell) -> None:
        found.append(cell.graph)

    collect()
    return {f"drawn{number:03}": graph for number, graph in enumerate(found)}


def dump(folder: Path, chosen: str | None, random: int, quick: bool) -> str:
    """Write all files into a new or empty folder; returns a sentence that says how many."""
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name another folder, or remove it first.")
    found = graphs(chosen) | drawn(random)
    if not found:
        raise SystemExit(f"No cell is called {chosen}; there are {', '.join(graphs(None))}.")
    programs = {
        f"{cell}.{which}": program
        for cell, graph in found.items()
        for which, program in programs_of(graph).items()
    }
    texts = {
        f"{name}.listing.txt": listing(program, program.graph) + "\n" for name, program in programs.items()
    }
    for element, width in [("float32", 32)] if quick else itertools.product(ELEMENT_BYTES, WIDTHS):
        end = f"{element}.{width}.ll"
        texts |= {f"{name}.{end}": kernel_code(each, element, width) for name, each in programs.items()}
        shared = shared_code(programs.values(), element, width)
        texts |= {f"shared.{name}.{end}": code for name, code in shared}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return f"{len(texts)} files of {len(found)} cells in {folder}"


# --- the comparison -------------------------------------------------------------------------------------------------


def diff(before: Path, after: Path, shown: int, suffix: str) -> list[str]:
    """The lines of a report, none if all files agree; `shown` of those that differ are shown line by line."""
    old, new = (
        {path.name: path.read_text() for path in sorted(folder.glob(f"*{suffix}"))}
        for folder in (before, after)
    )
    if not old or not new:
        raise SystemExit(
            f"There is nothing to compare: {before} has {len(old)} files, {after} has {len(new)}."
        )
    report = [f"only in {before}: {name}" for name in old if name not in new]
    report += [f"only in {after}: {name}" for name in new if name not in old]
    differing = [name for name in old if name in new and old[name] != new[name]]
    report += [f"differs: {name}" for name in differing]
    for name in differing[:shown]:
        pair = (old[name].splitlines(), new[name].splitlines())
        lines = list(difflib.unified_diff(*pair, str(before / name), str(after / name), lineterm=""))
        report += lines[:LINES] + [f"... {len(lines) - LINES} lines more"] * (len(lines) > LINES)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    dumping = commands.add_parser("dump", help="write the code of all kernels into a new folder")
    dumping.add_argument("folder", type=Path)
    dumping.add_argument("--cell", help="only this one: gru, rnn-relu, ...")
    dumping.add_argument("--drawn", type=int, default=0, help="so many random cells beside")
    dumping.add_argument("--quick", action="store_true", help="float32 and vectors of 32 bytes alone")
    comparing = commands.add_parser("diff", help="compare two such folders")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--shown", type=int, default=3, help="how many are shown line by line (3)")
    comparing.add_argument("--code", action="store_true", help="compare the code alone, not the listings")
    given = parser.parse_args()
    if given.command == "dump":
        print(dump(given.folder, given.cell, given.drawn, given.quick))
        return
    report = diff(given.before, given.after, given.shown, ".ll" if given.code else "")
    print("\n".join(report) or f"{given.before} and {given.after} agree.")
    sys.exit(1 if report else 0)


if __name__ == "__main__":
    main()
