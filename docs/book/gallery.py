"""The gallery: every cell that ships on one page, made from its definition, and how far its gradient reaches."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from book.cells import drawn
from book.measured import provenance, saved
from book.parts import Formula, formula, html, power, slug, table
from cellwise import cells
from cellwise.understand.catalogue import PROPERTIES, Entry
from cellwise.understand.complexity import complexity
from cellwise.understand.views import view

__all__ = ["DIRECTIVES", "link_to_cells", "reach"]


def shipped() -> list[Entry]:
    """The cells of the package, not those that a page defined."""
    every = (Entry(cells.get(name)) for name in cells.names())
    return [entry for entry in every if type(entry.cell).__module__.startswith("cellwise.cells.")]


def reach(name: str) -> str:
    """How many steps back the derivative of the states is 0.01 or more, as measured."""
    found = saved("reach")["result"]
    steps = found["steps"][name]
    return f"> {steps - 1}" if steps == found["length"] else str(steps)


class GalleryIndex(SphinxDirective):
    """A line for each cell, the oldest first, with a link to what the page shows of it."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for entry in sorted(shipped(), key=lambda entry: (entry.year or 0, entry.name)):
            properties = [each for each in entry.properties if each != "scan"]
            rows.append(
                (
                    entry.name,
                    str(entry.year),
                    power(str(complexity(entry.name).parameters)),
                    reach(entry.name),
                    ", ".join(properties),
                )
            )
        made = table(("", "year", "parameters", "reach, steps", "properties"), rows)
        link_to_cells(made)
        meanings = "; ".join(
            f"{name}: {meaning}" for name, (meaning, _) in PROPERTIES.items() if name != "scan"
        )
        legend = f"h hidden size, d input size. {meanings}."
        return [made, nodes.paragraph("", legend, classes=["legend"]), provenance("reach")]


def link_to_cells(table: nodes.Node, page: str = "", but: Sequence[str] = ()) -> None:
    """Make links of the names in a table's first column, but for some: to the gallery, on another page where given."""
    for row in table.findall(nodes.row):
        paragraph = row[0][0]
        name = paragraph.astext()
        if name and name not in but:
            to = {"refuri": f"{page}#{_id(name)}"} if page else {"refid": _id(name)}
            paragraph.clear()
            paragraph += nodes.reference("", name, internal=True, **to)


def _id(name: str) -> str:
    return f"cell-{slug(name)}"


class Gallery(SphinxDirective):
    """All cells by name: what each is, equations, diagram, size, cost and reach; or those of `gallery_cells`."""

    def run(self) -> list[nodes.Node]:
        chosen = self.config.gallery_cells
        return [self._section(entry) for entry in shipped() if not chosen or entry.name in chosen]

    def _section(self, entry: Entry) -> nodes.section:
        made = nodes.section(ids=[_id(entry.name)], names=[entry.name])
        made += nodes.title(entry.name, entry.name)
        made += nodes.paragraph("", entry.about)
        if entry.notes:
            made += nodes.paragraph("", entry.notes, classes=["legend"])
        made += formula(view(entry.cell, "latex"))
        made += html("<details><summary>Diagram</summary>")
        made += drawn(self, entry.cell, "", least=0.65)
        made += html("</details>")
        made += nodes.field_list("", *(_field(*fact) for fact in _facts(entry)), classes=["facts"])
        return made


def _field(name: str, value: str) -> nodes.field:
    shown = nodes.math(value, value) if isinstance(value, Formula) else nodes.Text(value)
    body = nodes.field_body("", nodes.paragraph("", "", shown))
    return nodes.field("", nodes.field_name(name, name), body)


def _facts(entry: Entry) -> list[tuple[str, str]]:
    cell, cost = entry.cell, complexity(entry.cell)
    own = ", ".join((*cell.vectors, *cell.scalars))
    options = ", ".join(f"{name} = {value}" for name, value in cell.options.items())
    facts: list[tuple[str, str]] = [
        ("gates", ", ".join(cell.gates)),
        ("states", ", ".join(cell.states) + (f"; output {cell.output}" if cell.output else "")),
        ("own parameters", own),
        ("options", options),
        ("properties", ", ".join(entry.properties)),
        ("parameters", power(str(cost.parameters))),
        ("operations of products, forward", power(str(cost.forward.products))),
        ("depth, forward", power(str(cost.forward_depth))),
        ("gradient reaches, steps", reach(entry.name)),
    ]
    return [(name, value) for name, value in facts if value]


DIRECTIVES = {"gallery": Gallery, "gallery-index": GalleryIndex}
