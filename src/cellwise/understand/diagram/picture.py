"""What a diagram of a step shows: blocks and the lines between them, before anything has a place.

A gate is one block: the sum of what it reads, through its weights, and the function that is taken of it. What else
happens to values is one block an operation; numbers, learned vectors and values beside x are written into the operation
that uses them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from cellwise.graph.expr import Node, Shape, StepGraph, postorder
from cellwise.graph.ops import ATOM, INPUT, OPS, PROJECT, STATE, Kind
from cellwise.graph.text import display_names, write
from cellwise.understand.diagram.rows import hidden, meets_rows, units_of
from cellwise.understand.gate_roles import is_gate, role_of

__all__ = ["INPUT_ID", "Block", "Edge", "Picture", "picture_of"]

INPUT_ID = "x"
_SIGNS = {
    "add": "+",
    "mul": "×",
    "sub": "−",
    "div": "÷",
    "neg": "−1 ×",
    "minimum": "min",
    "maximum": "max",
    "less": "<",
    "less_equal": "≤",
    "where": "if",
    "abs": "| |",
    "sqrt": "√",
    "sigmoid": "σ",
    "stop_gradient": "stop ∇",
    "sum": "Σ units",
    "mean": "mean of units",
    "amax": "max of units",
    "cumsum": "Σ units up to each",
}
# What the lines into an operation are, where it matters which is which.
_ENDS = {
    "sub": ("", "−"),
    "div": ("", "÷"),
    "less": ("left", "right"),
    "less_equal": ("left", "right"),
    "where": ("if", "then", "else"),
    "clamp": ("", "low", "high"),
}
_LONGEST = 26
# A gate's block has room for so many lines besides those of its weights; a longer sum is drawn as operations.
_MOST_EXTRA = 3


@dataclass(frozen=True)
class Block:
    """One thing that is drawn.

    Attributes:
        kind: input, state (before the step), new_state, output, gate or operation.
        label: what is written in it: the function or the sign; of a terminal, its name.
        name: of a gate, the name of its value, else empty.
        role: of a gate, one of roles.ROLES, else empty.
        text: the equation, for those who cannot see the picture.
    """

    id: str
    kind: str
    label: str
    name: str = ""
    role: str = ""
    text: str = ""

    @property
    def is_projection(self) -> bool:
        """Whether it is a gate's product with a state and nothing else."""
        return self.kind == "gate" and self.label.startswith("W_h")


@dataclass(frozen=True)
class Edge:
    """A line from one block to another. `label` says which operand it is, where that matters."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """Blocks, each after those that it reads, and the lines between them. `title`: the cell's name."""

    title: str
    states: tuple[str, ...]
    blocks: tuple[Block, ...]
    edges: tuple[Edge, ...]
    output: str

    def block(self, id: str) -> Block:
        return next(each for each in self.blocks if each.id == id)

    def inputs(self, id: str) -> tuple[Edge, ...]:
        return tuple(edge for edge in self.edges if edge.target == id)

    def outputs(self, id: str) -> tuple[Edge, ...]:
        return tuple(edge for edge in self.edges if edge.source == id)


def picture_of(graph: StepGraph) -> Picture:
    """The blocks and lines of a step."""
    return _Builder(graph).picture()


class _Builder:
    def __init__(self, graph: StepGraph) -> None:
        self.graph = graph
        self.names = display_names(graph)
        # What comes of the input and the states is drawn; what does not, such as a factor of a value beside x, is
        # written into the operation that uses it.
        self.flowing = {*graph.new_states, graph.output, *graph.others}
        for node in graph.nodes:
            if (
                node.op in (INPUT, STATE)
                or node in graph.part_nodes
                or any(each in self.flowing for each in node.inputs)
            ):
                self.flowing.add(node)
        self.written_names = {node: name for node, name in self.names.items() if node in self.flowing}
        self.uses = Counter(i for node in graph.nodes for i in node.inputs)
        self.uses.update({graph.output, *graph.others, *graph.new_states})
        self.users: dict[Node, list[Node]] = {}
        for node in graph.nodes:
            for each in node.inputs:
                self.users.setdefault(each, []).append(node)
        self.blocks: list[Block] = []
        self.edges: dict[Edge, None] = {}
        self.ids: dict[Node, str] = {}
        self.normalized: set[Node] = set()
        self.rows: dict[Node, set[Node]] = {}  # by number of a row that has a block, the units that it is of

    def picture(self) -> Picture:
        graph = self.graph
        absorbed = self._gates()
        ends = {*self.roots, *absorbed, graph.output, *graph.others, *graph.new_states}
        self.hidden, self.implied = hidden(graph.nodes, self.users, ends, self.normalized)
        absorbed |= self.implied
        if graph.reads_input:
            self.ids |= dict.fromkeys(graph.part_nodes, INPUT_ID)
            self.blocks.append(Block(INPUT_ID, "input", "x"))
        for i, state in enumerate(graph.states):
            for node in graph.of(STATE):
                if node.attribute == state and (self.uses[node]):
                    self.ids[node] = f"old{i}"
                    self.blocks.append(Block(f"old{i}", "state", state))
        for node in graph.nodes:
            if node in self.roots:
                self._gate(node)
            elif (
                node not in absorbed
                and node not in self.hidden
                and node.op is not STATE
                and node not in graph.part_nodes
                and node in self.flowing
            ):
                self._operation(node)
        return Picture(graph.name, graph.states, *self._ends())

    def _ends(self) -> tuple[tuple[Block, ...], tuple[Edge, ...], str]:
        output = ""
        for i, (state, node) in enumerate(zip(self.graph.states, self.graph.new_states, strict=True)):
            self.blocks.append(Block(f"new{i}", "new_state", state))
            self.edges[Edge(self.ids[node], f"new{i}")] = None
            if self.graph.output_is_state and i == 0:
                output = f"new{i}"
        if not output:
            output = "output"
            self.blocks.append(Block("output", "output", (*self.graph.outputs, "y")[0]))
            self.edges[Edge(self.ids[self.graph.output], "output")] = None
        for i, (name, node) in enumerate(zip(self.graph.outputs[1:], self.graph.others, strict=True)):
            if name not in self.graph.states:
                self.blocks.append(Block(f"output{i}", "output", name))
                self.edges[Edge(self.ids[node], f"output{i}")] = None
        return tuple(self.blocks), tuple(self.edges), output

    # --- gates ---

    def _gates(self) -> set[Node]:
        """Find the gates: `roots` is their last node with the terms of its sum; return what they swallow."""
        self.roots: dict[Node, list[Node]] = {}
        absorbed: set[Node] = set()
        for node in reversed(self.graph.nodes):
            if node in absorbed:
                continue
            inner = [node]
            if node.op.activation and self.uses[node.inputs[0]] == 1:
                inner.append(node.inputs[0])
            terms, sums = self._terms(inner[-1])
            others = [t for t in terms if t in self.flowing and not self._is_affine(t)]
            if len(others) > _MOST_EXTRA and not _is_product(node):
                continue
            # What was normalized on its way to a gate is a sum of the gate's as its projection is.
            several = node.op.activation and sum(term.shape is Shape.BATCH for term in terms) > 1
            normalized = {term for term in terms if self._is_normalized(term)} if several else set()
            if normalized or any(map(self._is_affine, terms)) or _is_product(node):
                self.roots[node] = terms
                affine = {term for term in terms if self._is_affine(term)}
                absorbed |= {*inner[1:], *sums, *affine, *normalized} - {node}
                self.normalized |= normalized
        return absorbed

    def _terms(self, root: Node) -> tuple[list[Node], set[Node]]:
        """The summands of a sum, and the sums inside it."""
        if root.op is not OPS["add"]:
            return [root], set()
        terms: list[Node] = []
        sums = {root}
        for each in root.inputs:
            if each.op is OPS["add"] and self.uses[each] == 1:
                more, inside = self._terms(each)
                terms += more
                sums |= inside
            else:
                terms.append(each)
        # A sum of many things that are no gate's is an operation of its own.
        return terms, sums

    def _is_affine(self, term: Node) -> bool:
        return _is_product(term) and self.uses[term] == 1

    def _is_normalized(self, term: Node) -> bool:
        return meets_rows(term) and self.uses[term] == 1

    def _gate(self, node: Node) -> None:
        terms = self.roots[node]
        id = self._new_id(node)
        affine = [term for term in terms if _is_product(term) and (term is node or self.uses[term] == 1)]
        gates = dict.fromkeys(str(term.attribute) for term in affine)
        own_name = self.names.get(node, "")
        name = own_name if own_name and not own_name.endswith("'") else ", ".join(gates)
        label = _SIGNS.get(node.op.name, node.op.name) if node.op.activation else ""
        if not label:
            sides = {term.op for term in affine}
            side = "" if len(sides) == 2 else "i" if INPUT in sides else "h"
            label = f"W_{side}{', '.join(gates)}" if len(gates) == 1 else "linear"
        constants = [self._written(term) for term in terms if term not in self.flowing]
        if constants:
            label += " (+ " + " + ".join(constants) + ")"
        if self.normalized & {*terms}:
            label += " of normalized"
        self.blocks.append(Block(id, "gate", label, name, role_of(self.graph, node), self._equation(node)))
        for term in terms:
            if term in affine:
                source = INPUT_ID if term.op is INPUT else self.ids[term.inputs[0]]
                self.edges[Edge(source, id)] = None
            elif term in self.flowing:
                self._edges(term, id)

    # --- operations ---

    def _operation(self, node: Node) -> None:
        if node.shape is Shape.ROWS and self._joins(node):
            return
        id = self._new_id(node)
        values = [each for each in node.inputs if each in self.flowing]
        role = role_of(self.graph, node) if is_gate(self.graph, node) else ""
        name = self.names.get(node, "") if role else ""
        self.blocks.append(Block(id, "operation", self._label(node), name, role, self._equation(node)))
        ends = _ENDS.get(node.op.name, ())
        labelled = bool(ends) and len(dict.fromkeys(values)) > 1
        for place, each in enumerate(node.inputs):
            if each in self.flowing:
                label = ends[place] if labelled else ""
                self._edges(each, id, label)

    def _edges(self, node: Node, target: str, label: str = "") -> None:
        """Lines from a value, or from what it is made of if it has no block."""
        for each in self._blocks_of(node):
            self.edges[Edge(self.ids[each], target, label if each is node else "")] = None

    def _blocks_of(self, node: Node) -> list[Node]:
        found, todo = dict[Node, None](), [node]
        while todo:
            each = todo.pop()
            if each in self.ids:
                found[each] = None
            elif each not in self.implied:
                todo += [i for i in reversed(each.inputs) if i in self.flowing]
        return list(found)

    def _joins(self, node: Node) -> bool:
        """Draw a number of a row with an earlier one of the same units, if there is one: a mean, and what follows."""
        sources = {each for i in node.inputs if i in self.flowing for each in self._blocks_of(i)}
        units = {each for each in sources if each.shape is not Shape.ROWS}
        for other, sources_of_other in self.rows.items():
            if units == sources_of_other:
                place = next(i for i, block in enumerate(self.blocks) if block.id == self.ids[other])
                self.ids[node] = self.ids[other]
                both = [each for each, id in self.ids.items() if id == self.ids[other]]
                names = ", ".join(self.names[each] for each in both if each in self.names)
                sign = self._row_label(node).rpartition(": ")[2]
                label = f"{names}: {sign}" if names else sign
                text = f"{self.blocks[place].text}; {self._equation(node)}"
                self.blocks[place] = replace(self.blocks[place], label=label, text=text)
                return True
        self.rows[node] = units
        return False

    def _row_label(self, node: Node) -> str:
        """What is written in the block of a number of a row, or in one of values that met such."""
        if node.shape is Shape.ROWS:
            reductions = [each for each in postorder([node]) if each.op.kind is Kind.REDUCTION]
            sign = _SIGNS[reductions[-1].op.name]
            return f"{self.names[node]}: {sign}" if node in self.names else sign
        start = node
        while units_of(start) and (start is node or start in self.hidden):
            (start,) = units_of(start)
        numbers = {each: "…" for each in postorder([node]) if each.shape is Shape.ROWS}
        text = write(node, numbers | self.names | {start: "·"}, top=True)[0]
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def _label(self, node: Node) -> str:
        """The sign of an operation, with those operands in it that are numbers or parameters."""
        if node.shape is Shape.ROWS or any(each in self.hidden for each in units_of(node)):
            return self._row_label(node)
        operands = [None if each in self.flowing else self._written(each) for each in node.inputs]
        if node.is_given:
            return f"{node.attribute} ·"
        name = node.function or node.op.name
        sign = _SIGNS.get(name, name)
        if len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]:
            return {"mul": "( )²", "add": "2 ×"}.get(name, sign)
        if name == "where" and any(each is not None for each in operands):
            _, yes, no = ("·" if each is None else each for each in operands)
            return f"{yes} if · else {no}"
        match operands:
            case [str() as first, None]:
                return f"{sign} {first}" if node.op.commutes else f"{first} {sign}"
            case [None, str() as second]:
                return f"{sign} {second}"
            case [None, *rest] if any(rest):
                inside = ", ".join("·" if each is None else each for each in operands)
                return f"{sign}({inside})"
        return sign

    def _written(self, node: Node) -> str:
        text, binds = write(node, self.written_names)
        text = text if binds == ATOM else f"({text})"
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def _equation(self, node: Node) -> str:
        text = write(node, self.names, top=True)[0]
        return f"{self.names[node]} = {text}" if node in self.names else text

    def _new_id(self, node: Node) -> str:
        self.ids[node] = f"n{len(self.ids)}"
        return self.ids[node]


def _is_product(node: Node) -> bool:
    """Whether it is a product with a learned weight."""
    return node.op in (INPUT, PROJECT) and not node.function
