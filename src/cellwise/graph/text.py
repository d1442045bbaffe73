"""How a graph is written down: its equations, as a person would write them, and its nodes, one a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cellwise.graph.expr import Node, StepGraph, first_name
from cellwise.graph.forms import FORMS, Form, FormKind
from cellwise.graph.ops import (
    ATOM,
    BESIDE,
    CONSTANT,
    DRAW,
    INPUT,
    OPS,
    PROJECT,
    SCALAR,
    SIGN,
    STATE,
    SUM,
    VECTOR,
    Op,
)
from cellwise.graph.units import HIDDEN, Units
from cellwise.graph.widths import widths_of

# An expression that is nested deeper than this is written as an equation of its own.
DEEPEST = 24
# Products with a matrix: what they multiply stands beside it, in brackets unless it is one sign.
_PRODUCTS = ("project", "transposed", "transposed_input")


@dataclass(frozen=True, eq=False)
class Notation:
    """How signs and names look on the page; this one is plain text. Another page is a subclass.

    `written` are templates by op; what is not there is written as in the table of ops. Operands are {0}, {1}, ...,
    the gate of a product is {a}.
    """

    written: Mapping[str, str] = field(
        default_factory=lambda: {
            "sigmoid": "σ({0})",
            "less_equal": "{0} ≤ {1}",
            "sub": "{0} − {1}",
            "neg": "−{0}",
        }
    )
    binds: Mapping[str, int] = field(default_factory=dict)
    times: str = "⊙"
    times_number: str = "·"
    # Written for a value times itself, e.g. "{0}²"; empty: as any other product.
    square: str = ""

    def old(self, state: str) -> str:
        """A state before the step."""
        return state

    def new(self, state: str) -> str:
        """A state after the step."""
        return f"{state}'"

    def value(self, name: str) -> str:
        """A value of this step."""
        return name

    def parameter(self, name: str) -> str:
        """A learned value of the cell's own, the same at every step."""
        return name

    def gate(self, name: str) -> str:
        """A gate's name beneath a weight."""
        return name

    def number(self, value: float) -> str:
        return f"{value:g}"

    # What is left out of the equation of a weight whose number is zero: W - W^T - 0 I.
    no_diagonal: tuple[str, str] = (" − {n} I", "")

    def form(self, kind: FormKind) -> tuple[tuple[str, str], ...]:
        """The equations of a weight that is made of others, and of the gradients at these."""
        return kind.written

    def function(self, name: str) -> str:
        """The template of a function of one value."""
        return f"{name}({{0}})"

    def given(self, rows: int, columns: int) -> str:
        """A matrix whose numbers are given."""
        return f"({rows} × {columns}, given)"

    def brackets(self, text: str) -> str:
        return f"({text})"

    def fill(self, template: str, operands: list[str], gate: str) -> str:
        return template.format(*operands, a=gate)


TEXT = Notation()


@dataclass(frozen=True)
class Line:
    """One equation: a name and what it is; `node` is None where a state is only passed on."""

    name: str
    text: str
    node: Node | None = None


def equations(graph: StepGraph, bias: bool = True) -> str:
    """The step as lines of `name = expression`, new states marked with a prime. Products of vectors are written ⊙.

    What weights are made of follows, random numbers with their distributions, the first values that are learned, and
    how many units has what has not H.
    """
    rest = [f"{line.name} = {line.text}" for line in form_lines(graph)]
    rest += [f"{draw.name} ~ {draw}" for draw in graph.asked_draws]
    rest += [f"outputs {', '.join(output_signs(graph))}"] if graph.outputs else []
    rest += [f"{state} = {first_name(state)} before the first step, learned" for state in graph.learned_first]
    rest += [f"{name} has {units} unit{'s' * (str(units) != '1')}" for name, units in width_signs(graph)]
    return "\n".join([*(f"{line.name} = {line.text}" for line in lines(graph, TEXT, bias)), *rest])


def form_lines(graph: StepGraph, notation: Notation = TEXT, gradients: bool = False) -> list[Line]:
    """The equations of weights that are made of others; or those of the gradients at what they are made of."""
    found = []
    for (kind, gate), form in graph.forms.items():
        made = FORMS[form.kind]
        first, *rest = notation.form(made)
        index, number, given = f"{kind[0]}{notation.gate(gate)}", "", notation.parameter(gate)
        shown = (rest or [first]) if gradients else [] if made.is_function else [first]
        if not isinstance(form.number, str):
            number = notation.number(form.number)
        for name, text in shown:
            text = text.replace(*notation.no_diagonal) if not form.number else text
            found.append(Line(name.format(w=index), text.format(w=index, n=number, g=given)))
        if made.size is not None:
            found.append(Line(given, notation.given(*made.size(form.number))))
    return found


def lines(graph: StepGraph, notation: Notation = TEXT, bias: bool = True) -> list[Line]:
    """The equations of a step in some notation, in an order in which each uses only earlier ones."""
    names = display_names(graph, notation)
    found = []
    for node in graph.nodes:
        if node in names and node.op is not STATE:
            found.append(Line(names[node], write(node, names, notation, bias, top=True)[0], node))
    # The same node may be two states, or a state passed on as it is.
    for state, node in zip(graph.states, graph.new_states, strict=True):
        if names.get(node) != notation.new(state):
            found.append(Line(notation.new(state), names.get(node) or write(node, names, notation, bias)[0]))
    # And the same node may be several outputs, or a variable of another name.
    for name, node in _outputs(graph):
        if name not in graph.states and names.get(node) != notation.value(name):
            found.append(Line(notation.value(name), names.get(node) or write(node, names, notation, bias)[0]))
    return found


def _outputs(graph: StepGraph) -> list[tuple[str, Node]]:
    """The outputs by name, where there are several."""
    return list(zip(graph.outputs, (graph.output, *graph.others), strict=True)) if graph.outputs else []


def arriving_names(graph: StepGraph) -> list[str]:
    """What the gradients that arrive at outputs are named after: each as no state is, and the only one y."""
    if not graph.outputs:
        return ["y" if "y" not in graph.states else "output"]
    return [f"y_{name}" if name in graph.states else name for name in graph.outputs]


def output_signs(graph: StepGraph, notation: Notation = TEXT) -> list[str]:
    """What several outputs are called in the equations of a step, none where there is one."""
    return [notation.new(n) if n in graph.states else notation.value(n) for n in graph.outputs]


def width_signs(graph: StepGraph, notation: Notation = TEXT) -> list[tuple[str, Units]]:
    """The states and outputs that have other units than H, as the equations of a step call them."""
    if not graph.widths:
        return []
    found = widths_of(graph)
    signs = [(notation.value(name), units) for name, units in found.states.items()]
    if graph.outputs:
        ends = zip(graph.outputs, found.outputs, strict=True)
        signs += [(notation.value(name), units) for name, units in ends if name not in graph.states]
    elif not graph.output_is_state:
        output = display_names(graph, notation).get(graph.output, notation.value("y"))
        signs.append((output, found.outputs[0]))
    return [(sign, units) for sign, units in signs if units != HIDDEN]


def display_names(graph: StepGraph, notation: Notation = TEXT) -> dict[Node, str]:
    """What each value that gets an equation of its own is called."""
    names = {node: notation.value(name) for node, name in graph.names if name not in graph.states}
    for state, node in zip(graph.states, graph.new_states, strict=True):
        if node.op is not STATE:
            names[node] = notation.new(state)
    if graph.outputs:
        for name, node in _outputs(graph):
            if node.op is not STATE and name not in graph.states:
                names.setdefault(node, notation.value(name))
    elif not graph.output_is_state:
        names.setdefault(graph.output, notation.value("y"))
    return names | _own_names(graph, names, notation)


def _own_names(graph: StepGraph, names: dict[Node, str], notation: Notation) -> dict[Node, str]:
    """Names v1, v2, ... for what the user gave none though it is used twice, or nested deep: it is written once."""
    uses = Counter(i for node in graph.nodes for i in node.inputs)
    taken = {*(name for _, name in graph.names), *graph.states, *graph.vectors, *graph.scalars, *graph.given}
    taken |= {*graph.outputs}
    free = (f"v{i}" for i in range(1, len(graph.nodes) + len(taken) + 1) if f"v{i}" not in taken)
    given: dict[Node, str] = {}
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = 1 + max((depth[i] for i in node.inputs), default=-1)
        if node in names:
            depth[node] = 0
        elif depth[node] > DEEPEST or (depth[node] > 1 and uses[node] > 1 and node.op is not PROJECT):
            given[node] = notation.value(next(free))
            depth[node] = 0
    return given


def write(
    node: Node, names: Mapping[Node, str], notation: Notation = TEXT, bias: bool = True, top: bool = False
) -> tuple[str, int]:
    """The text of a node and how tightly it binds; `top`: its expression, even if it has a name."""
    if node in names and not top:
        return names[node], ATOM
    op = node.op
    if op in _LEAVES:
        return _LEAVES[op](notation, node.attribute), ATOM
    operands = [write(child, names, notation, bias) for child in node.inputs]
    if notation.square and op is OPS["mul"] and node.inputs[0] is node.inputs[1]:
        text, binds = operands[0]
        return notation.square.format(text if binds == ATOM else notation.brackets(text)), ATOM
    template = notation.written.get(op.name, op.text)
    if op is OPS["mul"]:
        numbers = not all(i.shape.has_units for i in node.inputs)
        template = f"{{0}} {notation.times_number if numbers else notation.times} {{1}}"
    if op.name == "share" and node.attribute is not None:  # of a value that has not H units
        template = template.replace("H", str(node.attribute))
    binds = notation.binds.get(op.name, op.binds)
    if op in (INPUT, PROJECT) and (node.linear or not bias):
        template, binds = template.split(" + b_")[0], ATOM
    if node.is_given:
        template, binds = notation.parameter(str(node.attribute)) + " {0}", ATOM
    elif node.function:
        template, binds = notation.function(node.function), ATOM
    has_own = bool(node.function) and not node.is_given
    texts = [
        notation.brackets(text) if not has_own and _needs_brackets(op, position, inner) else text
        for position, (text, inner) in enumerate(operands)
    ]
    return notation.fill(template, texts, notation.gate(str(node.attribute))), binds


_LEAVES = {
    CONSTANT: lambda notation, value: notation.number(value),
    STATE: lambda notation, name: notation.old(name),
    VECTOR: lambda notation, name: notation.parameter(name),
    SCALAR: lambda notation, name: notation.parameter(name),
    BESIDE: lambda notation, name: notation.value(name),
    DRAW: lambda notation, name: notation.value(name),
}


def _needs_brackets(op: Op, position: int, binds: int) -> bool:
    if op.name in _PRODUCTS:
        return binds < ATOM
    if op.binds == ATOM:  # a function brings its own brackets
        return False
    not_associative = position == 1 and not op.commutes
    # -(a * b) needs none, -(a + b) does; a + -b reads badly without.
    return (
        binds < op.binds
        or (not_associative and binds == op.binds)
        or (op.binds >= SUM and binds == SIGN and position == 1)
    )


def short(node: Node, deepest: int = 6) -> str:
    """The expression of a node on one line; what is nested deeper than that is left out.

    >>> from cellwise import cells
    >>> short(cells.get("rnn").graph.output)
    'tanh(W_in x + b_in + W_hn h + b_hn)'
    >>> short(cells.get("rnn").graph.output, deepest=1)
    'tanh(W_in x + b_in + …)'
    """
    level = {node: ""}
    for _ in range(deepest + 1):
        level = {child: "…" for each in level for child in each.inputs if child.inputs}
    return write(node, level, top=True)[0]


def listing(graph: StepGraph) -> str:
    """The nodes in order, each with its operands, shape, the user's name for it and the user's line."""
    number = {node: f"%{i}" for i, node in enumerate(graph.nodes)}
    names = dict(graph.names)
    units = widths_of(graph).values if graph.widths else {}
    rows = []
    for node in graph.nodes:
        attribute = "" if node.attribute is None else f" {node.attribute}"
        attribute += f" ({_shown(node.form)})" if node.form else ""
        operands = " ".join(number[i] for i in node.inputs)
        mask = " mask" if node.is_mask else ""
        left = f"{number[node]:>4} = {node.op.name}{attribute} {operands}".rstrip()
        comment = "  ".join(filter(None, (names.get(node, ""), _line(node))))
        shape = str(node.shape).replace("H", str(units.get(node, HIDDEN)))
        rows.append((left, f"{shape}{mask}", comment))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    body = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    ends = [f"{state}' = {number[node]}" for state, node in zip(graph.states, graph.new_states, strict=True)]
    if graph.outputs:
        ends = [*(f"output {name} = {number[node]}" for name, node in _outputs(graph)), *ends]
    elif not graph.output_is_state:
        ends.insert(0, f"output = {number[graph.output]}")
    head = f"{graph.name}  gates {' '.join(graph.gates) or '-'}  states {' '.join(graph.states)}"
    head += f"  inputs {' '.join(graph.inputs)}" if graph.inputs else ""
    head += f"  learned {' '.join(map(first_name, graph.learned_first))}" if graph.learned_first else ""
    body = [*(f"{draw.name} ~ {draw}" for draw in graph.asked_draws), *body]
    return "\n".join((head, *body, "return " + ", ".join(ends)))


def _shown(form: Form) -> str:
    """A form in a list of values: of a given matrix its size, in place of all its numbers."""
    size = FORMS[form.kind].size
    return str(form) if size is None else "{}, {} × {}".format(form.kind, *size(form.number))


def _line(node: Node) -> str:
    return f"# line {node.source.line}: {node.source.text}" if node.inputs and node.source else ""
