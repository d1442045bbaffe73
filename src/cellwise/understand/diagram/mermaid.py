"""A diagram of one step as text for Mermaid, which GitHub and many editors draw."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cellwise.graph.expr import StepGraph
from cellwise.understand.diagram.picture import Block, picture_of
from cellwise.understand.diagram.style import ROLE_COLOURS, ROLE_WORDS

__all__ = ["escaped", "mermaid", "role_classes"]

# What Mermaid would read as its own signs, or as a list in Markdown, by its code.
_CODES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "|": "#124;",
          "*": "#42;", "_": "#95;", "~": "#126;", "\\": "#92;"}  # fmt: skip


def mermaid(graph: StepGraph) -> str:
    """One step of a cell as a flowchart: gates coloured by role, states from left to right."""
    picture = picture_of(graph)
    through = {(edge.source, edge.target) for edge in picture.edges if edge.target.startswith("new")}
    title = f"{graph.name}, one step"
    rows = [
        "---",
        # Front matter is YAML, where a colon or a bracket in a name would mean something.
        f"title: {title if graph.name.isidentifier() else json.dumps(title, ensure_ascii=False)}",
        "---",
        "flowchart LR",
        f"  accTitle: {title}",
        f"  accDescr: {len(picture.blocks)} blocks and {len(picture.edges)} lines, from the input and the old "
        "states to the new states",
        *(f"  {block.id}{_shape(block)}" for block in picture.blocks),
    ]
    for edge in picture.edges:
        arrow = "==>" if (edge.source, edge.target) in through else "-->"
        label = f'|"{escaped(edge.label)}"|' if edge.label else ""
        rows.append(f"  {edge.source} {arrow}{label} {edge.target}")
    rows += role_classes({block.role for block in picture.blocks if block.role})
    return "\n".join(rows)


def escaped(label: str) -> str:
    """A label in which nothing is a sign of Mermaid's."""
    text = "".join(_CODES.get(sign, sign) for sign in label)
    # "+ 1" would begin a list, as would "− 1" and "1. ".
    return text.replace("+", "#43;").replace("-", "#45;")


def role_classes(roles: set[str]) -> Iterator[str]:
    """The colours of some roles; dark text, since the boxes are light on any page."""
    for role in ROLE_COLOURS:
        if role in roles:
            fill, border, *_ = ROLE_COLOURS[role]
            yield f"  classDef {role} fill:{fill},stroke:{border},color:#1d2329"


def _shape(block: Block) -> str:
    label = escaped(block.label)
    style = f":::{block.role}" if block.role else ""
    match block.kind:
        case "gate" if block.is_projection:
            return f'["{label}"]{style}'
        case "gate":
            return f'["{escaped(block.name)} · {ROLE_WORDS[block.role]}<br/>{label}"]{style}'
        case "operation":
            return f'(("{label}"))' if len(block.label) == 1 else f'(["{label}"]){style}'
        case "state":
            return f'["{label} (t−1)"]'
        case "output" | "new_state" | "input":
            return f'["{label} (t)"]'
    raise AssertionError(block.kind)
