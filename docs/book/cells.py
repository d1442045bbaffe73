"""What a page shows of a cell, from its definition: equations, diagram, source, cost."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from book.parts import Formula, code_block, formula, html, power, table
from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.understand.complexity import DEFINITION, QUANTITIES, Sizes, complexity
from cellwise.understand.views import view

__all__ = ["DIRECTIVES", "drawn"]


class CellDirective(SphinxDirective):
    """A directive whose argument is a cell: a name, or a class that an earlier code block of the page defined."""

    required_arguments = 1

    @property
    def cell(self) -> Cell:
        name = self.arguments[0]
        return cells.get(self.env.temp_data.get("book", {}).get(name, name))


class Equations(CellDirective):
    """The equations of a cell, or with `:backward:` those of its gradient."""

    option_spec: ClassVar[dict[str, Any]] = {"backward": directives.flag}

    def run(self) -> list[nodes.Node]:
        name = "gradient-latex" if "backward" in self.options else "latex"
        return [formula(view(self.cell, name))]


class Definition(CellDirective):
    """The class that defines a cell."""

    def run(self) -> list[nodes.Node]:
        return [code_block(view(self.cell, "source"), "python", "definition")]


class Diagram(CellDirective):
    """A cell as a picture, one step of it, or with `:unrolled:` several."""

    option_spec: ClassVar[dict[str, Any]] = {
        "unrolled": directives.positive_int,
        "caption": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        return drawn(self, self.cell, self.options.get("caption", ""), self.options.get("unrolled"))


def drawn(
    directive: SphinxDirective, cell: Cell, caption: str, unrolled: int | None = None, least: float = 0.0
) -> list[nodes.Node]:
    """A cell's diagram for a page of the book; where there is no room it shrinks to `least` of its size at most."""
    svg = view(cell, "svg", unrolled=unrolled)
    svg = re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL)  # the page's own, see `theme`
    # The picture's ids must differ from those of others on the page.
    mark = f"picture{directive.env.new_serialno('picture')}"
    svg = re.sub(r'\b(id|aria-labelledby)="([^"]*)"', lambda found: _marked(found, mark), svg)
    if least:
        svg = re.sub(
            r'<svg [^>]*?\bwidth="([\d.]+)"',
            lambda found: f'{found[0]} style="min-width: {least * float(found[1]):.0f}px"',
            svg,
            count=1,
        )
    begin = html(f'<figure class="diagram" tabindex="0">{svg}')
    return [begin, html(f"<figcaption>{caption}</figcaption></figure>")]


def _marked(found: re.Match[str], mark: str) -> str:
    return f'{found[1]}="{" ".join(f"{mark}-{each}" for each in found[2].split())}"'


class CostOf(CellDirective):
    """What one cell costs: formulas, and their values at some sizes."""

    def run(self) -> list[nodes.Node]:
        cost, sizes = complexity(self.cell), Sizes()
        rows = []
        for quantity in QUANTITIES:
            polynomial = quantity.of(cost)
            count = polynomial.at(**sizes.letters)
            shown = bytes_text(4 * count) if quantity.bytes else f"{count:,}"
            rows.append((quantity.name, power(str(polynomial)), shown))
        for way, depth in (("forward", cost.forward_depth), ("backward", cost.backward_depth)):
            rows.append((f"depth, {way}", power(str(depth)), f"{depth.at(sizes.length):,}"))
        return [table(("", "formula", at_text(sizes)), rows), legend()]


class Costs(SphinxDirective):
    """One quantity after the other, for all cells named, or the familiar ones.

    `:numbers:` shows values instead of formulas, `:bare:` leaves out what the words mean.
    """

    optional_arguments = 20
    option_spec: ClassVar[dict[str, Any]] = {"numbers": directives.flag, "bare": directives.flag}

    def run(self) -> list[nodes.Node]:
        names = self.arguments or list(cells.FAMILIAR)
        costs, sizes = [complexity(name) for name in names], Sizes()
        numbers = "numbers" in self.options
        rows: list[tuple[str, ...]] = []
        for quantity in QUANTITIES:
            found = [quantity.of(cost) for cost in costs]
            if numbers:
                counts = [each.at(**sizes.letters) for each in found]
                shown = [bytes_text(4 * n) if quantity.bytes else f"{n:,}" for n in counts]
            else:
                shown = [power(str(each)) for each in found]
            rows.append((quantity.name, *shown))
        for way in ("forward", "backward"):
            depths = [getattr(cost, f"{way}_depth") for cost in costs]
            shown = [f"{d.at(sizes.length):,}" if numbers else power(str(d)) for d in depths]
            rows.append((f"depth, {way}", *shown))
        caption = f"At {at_text(sizes)}; float32" if numbers else ""
        made = table(("", *names), rows, caption)
        return [made] if "bare" in self.options else [made, legend()]


class Ratios(SphinxDirective):
    """Weights of the cells named, beside those of the first."""

    optional_arguments = 20

    def run(self) -> list[nodes.Node]:
        costs = {name: complexity(name) for name in self.arguments}
        letters = Sizes().letters
        base = costs[self.arguments[0]]
        rows = [
            (
                name,
                power(str(cost.recurrent_weights)),
                f"{cost.recurrent_weights.at(**letters) / base.recurrent_weights.at(**letters):.3g}",
                power(str(cost.parameters)),
                f"{cost.parameters.at(**letters) / base.parameters.at(**letters):.3g}",
            )
            for name, cost in costs.items()
        ]
        titles = ("", "recurrent weights", "beside the first", "all parameters", "beside the first")
        return [table(titles, rows)]


def legend() -> nodes.paragraph:
    text = f"b batch, t length, h hidden size, d input size; bytes and memory count numbers. {DEFINITION}"
    return nodes.paragraph("", text, classes=["legend"])


def at_text(sizes: Sizes) -> str:
    letters = sizes.letters
    return ", ".join(f"{letter} = {letters[letter]}" for letter in "dhbt")


def bytes_text(count: int) -> str:
    """A number of bytes with three digits.

    >>> bytes_text(4096)
    '4 KiB'
    """
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"


class CellList(SphinxDirective):
    """The familiar cells: name, what the first line of the docstring says, parameters."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for name in cells.FAMILIAR:
            about = (type(cells.get(name)).__doc__ or "").strip().splitlines()[0]
            parameters: Formula = power(str(complexity(name).parameters))
            rows.append((name, about, parameters))
        return [table(("", "what it is", "parameters"), rows)]


DIRECTIVES = {
    "equations": Equations,
    "definition": Definition,
    "diagram": Diagram,
    "cost": CostOf,
    "costs": Costs,
    "ratios": Ratios,
    "cell-list": CellList,
}
