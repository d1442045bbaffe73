"""How a graph is written down: its equations, as a person would write them, and its nodes, one a line."""

from __future__ import annotations

from collections import Counter

from cellwise.graph.expr import Node, Shape, StepGraph
from cellwise.graph.ops import ATOM, CONSTANT, INPUT, OPS, PROJECT, STATE, SUM, Op

# Signs of the printed page; what stands in neither table is printed as in the table of ops.
_WRITTEN = {"sigmoid": "σ({0})", "less_equal": "{0} ≤ {1}", "sub": "{0} − {1}", "neg": "−{0}"}
# An expression that is nested deeper than this is written as an equation of its own.
_DEEPEST = 24


def equations(graph: StepGraph, bias: bool = True) -> str:
    """The step as lines of `name = expression`, new states marked with a prime. Products of vectors are written ⊙."""
    names = _display_names(graph)
    lines = []
    for node in graph.nodes:
        if node in names and node.op is not STATE:
            lines.append(f"{names[node]} = {_write(node, names, bias, top=True)[0]}")
    # The same node may be two states, or a state passed on as it is.
    for state, node in zip(graph.states, graph.new_states, strict=True):
        if names.get(node) != f"{state}'":
            lines.append(f"{state}' = {names.get(node) or _write(node, names, bias)[0]}")
    return "\n".join(lines)


def _display_names(graph: StepGraph) -> dict[Node, str]:
    names = {node: name for node, name in graph.names if name not in graph.states}
    for state, node in zip(graph.states, graph.new_states, strict=True):
        if node.op is not STATE:
            names[node] = f"{state}'"
    if not graph.output_is_state:
        names.setdefault(graph.output, "y")
    return names | _own_names(graph, names)


def _own_names(graph: StepGraph, names: dict[Node, str]) -> dict[Node, str]:
    """Names v1, v2, ... for what the user gave none though it is used twice, or nested deep: it is written once."""
    uses = Counter(i for node in graph.nodes for i in node.inputs)
    taken = {*names.values(), *graph.states, *graph.vectors, *graph.scalars}
    free = (f"v{i}" for i in range(1, len(graph.nodes) + len(taken) + 1) if f"v{i}" not in taken)
    given: dict[Node, str] = {}
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = 1 + max((depth[i] for i in node.inputs), default=-1)
        if node in names:
            depth[node] = 0
        elif depth[node] > _DEEPEST or (depth[node] > 1 and uses[node] > 1 and node.op is not PROJECT):
            given[node] = next(free)
            depth[node] = 0
    return given


def _write(node: Node, names: dict[Node, str], bias: bool, top: bool = False) -> tuple[str, int]:
    """The text of a node and how tightly it binds."""
    if node in names and not top:
        return names[node], ATOM
    op = node.op
    if op is CONSTANT:
        return f"{node.attribute:g}", ATOM
    text = _WRITTEN.get(op.name, op.text)
    if op is OPS["mul"]:
        shapes = {i.shape for i in node.inputs}
        text = "{0} · {1}" if Shape.NUMBER in shapes else "{0} ⊙ {1}"
    binds = op.binds
    if op in (INPUT, PROJECT) and not bias:
        text, binds = text.split(" + b_")[0], ATOM
    return text.format(*_operands(node, names, bias), a=node.attribute), binds


def _operands(node: Node, names: dict[Node, str], bias: bool) -> list[str]:
    written = []
    for place, child in enumerate(node.inputs):
        text, binds = _write(child, names, bias)
        written.append(f"({text})" if _needs_brackets(node.op, place, binds) else text)
    return written


def _needs_brackets(op: Op, place: int, binds: int) -> bool:
    if op is PROJECT:
        return binds < ATOM
    if op.binds == ATOM:  # a function brings its own brackets
        return False
    not_associative = place == 1 and op.name in ("sub", "div", "less", "less_equal")
    # -(a * b) needs none, -(a + b) does; a + -b reads badly without.
    return (
        binds < op.binds
        or (not_associative and binds == op.binds)
        or (op.binds >= SUM and binds == 3 and place == 1)
    )


def listing(graph: StepGraph) -> str:
    """The nodes in order, each with its operands, shape, the user's name for it and the user's line."""
    number = {node: f"%{i}" for i, node in enumerate(graph.nodes)}
    names = dict(graph.names)
    rows = []
    for node in graph.nodes:
        attribute = "" if node.attribute is None else f" {node.attribute}"
        operands = " ".join(number[i] for i in node.inputs)
        mask = " mask" if node.is_mask else ""
        left = f"{number[node]:>4} = {node.op.name}{attribute} {operands}".rstrip()
        comment = "  ".join(filter(None, (names.get(node, ""), _line(node))))
        rows.append((left, f"{node.shape}{mask}", comment))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    body = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    ends = [f"{state}' = {number[node]}" for state, node in zip(graph.states, graph.new_states, strict=True)]
    if not graph.output_is_state:
        ends.insert(0, f"output = {number[graph.output]}")
    head = f"{graph.name}  gates {' '.join(graph.gates) or '-'}  states {' '.join(graph.states)}"
    return "\n".join((head, *body, "return " + ", ".join(ends)))


def _line(node: Node) -> str:
    return f"# line {node.source.line}: {node.source.text}" if node.inputs and node.source else ""
