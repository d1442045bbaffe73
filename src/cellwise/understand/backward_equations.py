"""The backward equations of a step, in the notation of its forward equations.

δv is the derivative of the loss with respect to v, and Δ what arrives from outside the step: at its output from the
layer above, at a state from the next step. Each value that has a name in the equations gets its gradient by that
name: every forward equation is differentiated by itself, by the same rules that run (passes.differentiate), as a
step from named values to named values.

Longer than other files: taking the equations apart, differentiating each and putting them together share their terms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cellwise.graph.expr import RAW, Node, Shape, StepGraph, postorder
from cellwise.graph.ops import BESIDE, OPS, SCALAR, STATE, SUM, VECTOR, Kind, Op
from cellwise.graph.text import TEXT, Line, Notation, arriving_names, display_names, form_lines, write
from cellwise.graph.units import Units
from cellwise.graph.widths import widths_of
from cellwise.passes.differentiate import (
    GRADIENT,
    PULLBACK,
    ROW,
    ROW_GRADIENT,
    Derivative,
    derivative_of,
)
from cellwise.understand.latex import LATEX, aligned

__all__ = ["Backward", "backward", "gradient_latex", "gradient_text"]

# They bind as a sum does, so that a product with them is read in one way only: (Wᵀ a) ⊙ b.
TRANSPOSED = Op("transposed", Kind.MATMUL, 1, "W_h{a}ᵀ {0}", SUM)
TRANSPOSED_INPUT = Op("transposed_input", Kind.MATMUL, 1, "W_i{a}ᵀ {0}", SUM)
_LEAF_OF_SHAPE = {Shape.BATCH: STATE, Shape.ROWS: ROW, Shape.UNITS: VECTOR, Shape.NUMBER: SCALAR}
# An expression gets a line of its own if it is nested deeper than this; the first holds if it is used twice.
_DEEPEST_TWICE, _DEEPEST = 2, 24


@dataclass(frozen=True)
class _Signs:
    input: str
    delta: str
    arriving: str
    square: str
    transposed: str
    among: str


_SIGNS = {
    TEXT: _Signs("x", "δ", "Δ", "{0}²", "{0} {1}ᵀ", "{0}   ({1} = {2})"),
    LATEX: _Signs("x_t", r"\delta ", r"\Delta ", "{0}^2", r"{0} {1}^\top", r"{0} \qquad ({1} = {2})"),
}


@dataclass(frozen=True, eq=False)
class Backward:
    """The backward equations as data, in an order in which each uses only earlier ones and the forward equations.

    Attributes:
        lines: gradients of values, of what multiplies the gates' weights, and of what enters the step.
        weights: gradients of weights and parameters, one step's share; over a sequence they are summed.
    """

    lines: tuple[Line, ...]
    weights: tuple[Line, ...]


def gradient_text(graph: StepGraph) -> str:
    """The backward equations as lines of text, with a legend."""
    found = backward(graph)
    arrives = ", ".join(
        (
            *(f"Δ{name} at the output" for name in arriving_names(graph)),
            *(f"Δ{state} from the next step" for state in graph.states),
        )
    )
    k = _index(graph)
    legend = [
        "δv    derivative of the loss with respect to v, whose value is that of the equations",
        f"Δ     what arrives: {arrives}",
        f"δx_{k}  with respect to W_i{k} x + b_i{k}" if graph.input_gates else "",
        f"δh_{k}  with respect to the product of W_h{k}, plus b_h{k}" if graph.state_gates else "",
        "Gradients of weights and parameters are summed over the steps and the batch.",
    ]
    parts = (
        "\n".join(f"{line.name} = {line.text}" for line in found.lines),
        "\n".join(f"{line.name} = {line.text}" for line in found.weights),
        "\n".join(filter(None, legend)),
    )
    return "\n\n".join(filter(None, parts))


def gradient_latex(graph: StepGraph) -> str:
    r"""The backward equations as an `aligned` environment. \Delta is what arrives from outside the step."""
    found = backward(graph, LATEX)
    return aligned((*found.lines, *found.weights))


def backward(graph: StepGraph, notation: Notation = TEXT) -> Backward:
    """The backward equations of a step, in plain text or in LaTeX."""
    return _Writer(graph, notation).written()


def _index(graph: StepGraph) -> str:
    """A letter that stands for any gate."""
    return next(each for each in ("k", "j", "m", "q", "gate") if each not in graph.gates)


# --- one step from named values to named values -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Named:
    """A value with an equation of its own: what stands for it where it is used, its equation, its name."""

    leaf: Node
    equation: Node
    name: str

    @property
    def key(self) -> str:
        return str(self.leaf.attribute)


@dataclass(frozen=True, eq=False)
class _Cut:
    """The step with each named value replaced, where it is used, by a leaf. `ends`: outputs and new states; `units` of
    values that may have others than H.
    """

    named: tuple[_Named, ...]
    ends: tuple[Node, ...]
    units: Mapping[Node, Units]


def _cut(graph: StepGraph, notation: Notation) -> _Cut:
    names = display_names(graph, notation)
    new: dict[Node, Node] = {}
    named: list[_Named] = []
    for node in graph.nodes:
        new[node] = replace(node, inputs=tuple(new[i] for i in node.inputs)) if node.inputs else node
        if node in names and node.op is not STATE:
            # No state of the cell's own begins with a digit.
            leaf = Node(_LEAF_OF_SHAPE[node.shape], (), str(len(named)))
            named.append(_Named(leaf, new[node], names[node]))
            new[node] = leaf
    ends = (graph.output, *graph.others, *graph.new_states)
    units = widths_of(graph).values if graph.widths else {}
    return _Cut(
        tuple(named),
        tuple(new[node] for node in ends),
        {new[node]: each for node, each in units.items() if node in new},
    )


def _differentiated(graph: StepGraph, cut: _Cut) -> tuple[tuple[_Named, ...], Derivative]:
    """The named values that a gradient reaches, and the derivative of their equations."""
    nowhere = Node(STATE, (), "nowhere")
    reached = cut.named
    while True:
        step = StepGraph(
            name=graph.name,
            gates=graph.gates,
            states=tuple(each.key for each in reached),
            vectors=graph.vectors,
            scalars=graph.scalars,
            output=nowhere,
            new_states=tuple(each.equation for each in reached),
        )
        derivative = derivative_of(step, cut.units)
        with_gradient = {*derivative.states, *(str(node.attribute) for node in derivative.parameters)}
        still = tuple(each for each in reached if each.leaf in cut.ends or each.key in with_gradient)
        if len(still) == len(reached):
            return reached, derivative
        reached = still


# --- from the derivative to lines -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Target:
    """A gradient to be written: its names, what it is, and the leaf by which later lines speak of it."""

    names: tuple[str, ...]
    node: Node | None
    leaf: Node | None = None


class _Writer:
    """Writes the backward equations of one graph in one notation."""

    def __init__(self, graph: StepGraph, notation: Notation) -> None:
        self.graph = graph
        self.signs = _SIGNS[notation]
        self.notation = replace(notation, square=self.signs.square)
        self.cut = _cut(graph, notation)
        self.reached, self.derivative = _differentiated(graph, self.cut)
        self.names = {each.leaf: each.name for each in self.cut.named}
        self.names |= {each.equation: each.name for each in self.cut.named}
        # How the gradients of named values are spoken of, by key.
        self.leaves = {each.key: Node(each.leaf.op, (), f"d{each.key}") for each in self.reached}
        self.names |= {self.leaves[each.key]: self.signs.delta + each.name for each in self.reached}
        self.made: dict[tuple[object, ...], Node] = {}
        self.shown: dict[Node, Node] = {}
        self.lines: list[Line] = []
        self.defined: set[Node] = set()
        self.taken = {name for _, name in graph.names} | {*graph.states, *graph.vectors, *graph.scalars}
        self.taken |= {*graph.given}
        self.helpers = (name for i in range(1, 10_000) if (name := f"e{i}") not in self.taken)

    def written(self) -> Backward:
        factors = self._factors()
        todo = [*factors.values(), *self._values()]
        while todo:
            ready = next(target for target in todo if self._ready(target))
            todo.remove(ready)
            self._emit(ready)
        for target in self._entering():
            self._emit(target)
        lines, self.lines = tuple(self.lines), []
        for target in self._parameters():
            self._emit(target)
        made_of = form_lines(self.graph, self.notation, gradients=True)
        return Backward(lines, (*self._weights(), *made_of, *self.lines))

    # --- what is to be written ---

    def _values(self) -> list[_Target]:
        return [
            _Target((self.signs.delta + each.name,), self._total(each.leaf), self.leaves[each.key])
            for each in reversed(self.reached)
        ]

    def _total(self, leaf: Node) -> Node | None:
        """All that arrives at a value: from outside the step, and from the equations that use it."""
        outside = []
        ends = (*arriving_names(self.graph), *self.graph.states)
        for end, name in zip(self.cut.ends, ends, strict=True):
            if end is leaf:
                node = self._make(STATE, attribute=f"arriving {name}")
                self.names[node] = self.signs.arriving + self._arriving_name(name)
                outside.append(node)
        d = self.derivative
        found = d.states.get(str(leaf.attribute)) if leaf.op is not BESIDE else d.beside.get(leaf)
        found = found or d.parameters.get(leaf)
        parts = [*outside, *([self._show(found)] if found is not None else [])]
        if not parts:
            return None
        total = parts[0]
        for part in parts[1:]:
            total = self._make(OPS["add"], total, part)
        if leaf.shape is Shape.NUMBER and total.shape is not Shape.NUMBER:
            total = self._make(OPS["sum"], total)
        return total

    def _arriving_name(self, name: str) -> str:
        if self.notation.new(name) == f"{name}'":
            return name
        return self.notation.new(name)

    def _factors(self) -> dict[Node, _Target]:
        """The gradients at x.g and at the products, those that are the same as one; by what they are."""
        names: dict[Node, list[str]] = defaultdict(list)
        for node, gradient in self._in_order(self.derivative.inputs):
            names[self._show(gradient)].append(self._factor_name("x", str(node.attribute)))
        for (_, gradient), name in zip(
            self._in_order(self.derivative.products), self._product_names(), strict=True
        ):
            names[self._show(gradient)].append(name)
        return {node: _Target(tuple(each), node) for node, each in names.items()}

    def _in_order(self, gradients: dict[Node, Node]) -> list[tuple[Node, Node]]:
        return sorted(gradients.items(), key=lambda item: self.graph.gates.index(str(item[0].attribute)))

    def _product_names(self) -> list[str]:
        """δh_g, or δh_g1, δh_g2, ... where a gate multiplies several values."""
        gates = [str(node.attribute) for node, _ in self._in_order(self.derivative.products)]
        count, seen = Counter(gates), Counter[str]()
        found = []
        for gate in gates:
            seen[gate] += 1
            found.append(self._factor_name("h", gate + (str(seen[gate]) if count[gate] > 1 else "")))
        return found

    def _factor_name(self, of: str, gate: str) -> str:
        clash = f"{of}_{gate}" in self.taken
        return self.signs.delta + self.notation.value(f"{of.upper() if clash else of}_{gate}")

    def _entering(self) -> list[_Target]:
        """Gradients of what enters the step: the input and the states."""
        targets = []
        shares = [
            self._make(TRANSPOSED_INPUT, self._show(gradient), attribute=node.attribute)
            for node, gradient in self._in_order(self.derivative.inputs)
        ]
        for share in shares[1:]:
            shares[0] = self._make(OPS["add"], shares[0], share)
        # An input that is taken as it is, too, has one gradient.
        whole = [self._total(leaf) for leaf in self.graph.part_nodes if leaf.attribute == RAW]
        for share in filter(None, whole):
            shares[:1] = [self._make(OPS["add"], shares[0], share) if shares else share]
        if shares:
            targets.append(_Target((self.signs.delta + self.signs.input,), shares[0]))
        for state in self.graph.states:
            leaf = next((node for node in self.graph.of(STATE) if node.attribute == state), None)
            total = None if leaf is None else self._total(leaf)
            targets.append(_Target((self.signs.delta + self.notation.old(state),), total))
        for leaf in self.graph.of(BESIDE):
            if leaf in self.graph.part_nodes and leaf.attribute == RAW:
                continue
            targets.append(
                _Target((self.signs.delta + self.notation.value(str(leaf.attribute)),), self._total(leaf))
            )
        return targets

    def _parameters(self) -> list[_Target]:
        return [
            _Target((self.signs.delta + self.notation.parameter(str(node.attribute)),), self._total(node))
            for node in (*self.graph.of(VECTOR), *self.graph.of(SCALAR))
        ]

    def _weights(self) -> list[Line]:
        """Gradients of weights and biases; gates that multiply the same share a line."""
        found = []
        inputs = [str(node.attribute) for node, _ in self._in_order(self.derivative.inputs)]
        for chosen in self._by_bias(inputs, self.graph.input_biases):
            found += self._shared("i", "x", chosen, self.signs.input)
        ordered = self._in_order(self.derivative.products)
        operands: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for (node, _), name in zip(ordered, self._product_names(), strict=True):
            if not node.function:
                operands[str(node.attribute)].append((name, self._operand(node.inputs[0])))
        alike: dict[str, list[str]] = defaultdict(list)
        for gate, used in operands.items():
            if len(used) == 1:
                alike[used[0][1]].append(gate)
        for operand, gates in alike.items():
            for chosen in self._by_bias(gates, self.graph.state_biases):
                found += self._shared("h", "h", chosen, operand)
        for gate, used in operands.items():
            if len(used) > 1:
                shares = " + ".join(self.signs.transposed.format(*each) for each in used)
                found.append(Line(self._weight("W", "h", gate), shares))
                if gate in self.graph.state_biases:
                    found.append(Line(self._weight("b", "h", gate), " + ".join(name for name, _ in used)))
        return found

    @staticmethod
    def _by_bias(gates: list[str], biases: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """The gates that have a bias, and those that have none."""
        return [gate for gate in gates if gate in biases], [gate for gate in gates if gate not in biases]

    def _shared(self, side: str, of: str, gates: list[str], operand: str) -> list[Line]:
        """The lines of weights and bias for gates whose weights multiply the same."""
        if not gates:
            return []
        alone = len(gates) == 1 or any(f"{of}_{gate}" in self.taken for gate in gates)
        if alone and len(gates) > 1:
            return [line for gate in gates for line in self._shared(side, of, [gate], operand)]
        k = gates[0] if alone else _index(self.graph)
        factor = self._factor_name(of, k)
        weights, bias = self.signs.transposed.format(factor, operand), factor
        if not alone:
            listed = ", ".join(
                self.notation.gate(gate) if len(gate) == 1 else self.notation.parameter(gate)
                for gate in gates
            )
            weights, bias = (self.signs.among.format(text, k, listed) for text in (weights, bias))
        lines = [Line(self._weight("W", side, k), weights), Line(self._weight("b", side, k), bias)]
        biases = self.graph.input_biases if side == "i" else self.graph.state_biases
        return lines if gates[0] in biases else lines[:1]

    def _weight(self, letter: str, side: str, gate: str) -> str:
        name = f"{letter}_{side}{gate}"
        if self.signs.delta != "δ":
            name = f"{letter}_{{{side}{self.notation.gate(gate)}}}"
        return self.signs.delta + name

    def _operand(self, node: Node) -> str:
        text, binds = write(node, self.names, self.notation)
        return text if binds == OPS["tanh"].binds else self.notation.brackets(text)

    # --- writing ---

    def _ready(self, target: _Target) -> bool:
        missing = {*self.leaves.values()} - self.defined
        return target.node is None or not any(node in missing for node in postorder([target.node]))

    def _emit(self, target: _Target) -> None:
        text = "0"
        if target.node is not None:
            self._name_helpers(target.node)
            text = write(target.node, self.names, self.notation)[0]
        names = [name for name in target.names if name != text]
        if names:
            self.lines.append(Line(" = ".join(names), text, target.node))
        if target.leaf is not None:
            self.defined.add(target.leaf)
        if target.node is not None and target.node.inputs:
            self.names.setdefault(target.node, target.names[0])

    def _name_helpers(self, root: Node) -> None:
        """Lines for what would be written twice at length, or is nested too deep."""
        nodes = list(postorder([root], known=self.names))
        uses = Counter(i for node in nodes for i in node.inputs)
        depth: dict[Node, int] = {}
        for node in nodes:
            depth[node] = 1 + max((depth.get(i, 0) for i in node.inputs), default=-1)
            deep = depth[node] > (_DEEPEST_TWICE if uses[node] > 1 else _DEEPEST)
            if deep and node is not root:
                name = self.notation.value(next(self.helpers))
                self.lines.append(Line(name, write(node, self.names, self.notation)[0], node))
                self.names[node] = name
                depth[node] = 0

    # --- the derivative's nodes as they are shown ---

    def _show(self, root: Node) -> Node:
        for node in postorder([root], known=self.shown):
            inputs = tuple(self.shown[i] for i in node.inputs)
            if node.op in (GRADIENT, ROW_GRADIENT):
                self.shown[node] = self.leaves[str(node.attribute)]
            elif node.op is PULLBACK:
                self.shown[node] = self._pullback(inputs, str(node.attribute).split())
            elif inputs == node.inputs:
                self.shown[node] = node
            else:
                self.shown[node] = self._make(node.op, *inputs, attribute=node.attribute)
        return self.shown[root]

    def _pullback(self, gradients: Iterable[Node], gates: list[str]) -> Node:
        shares = [
            self._make(TRANSPOSED, gradient, attribute=gate)
            for gradient, gate in zip(gradients, gates, strict=True)
        ]
        for share in shares[1:]:
            shares[0] = self._make(OPS["add"], shares[0], share)
        return shares[0]

    def _make(self, op: Op, *inputs: Node, attribute: str | float | None = None) -> Node:
        """A node, equal ones once; minus signs move outward, since a + -b reads badly."""
        negated = [node.inputs[0] if node.op is OPS["neg"] else None for node in inputs]
        match op.name, negated:
            case "neg", [Node() as inner]:
                return inner
            case "add", [_, Node() as second]:
                return self._make(OPS["sub"], inputs[0], second)
            case "add", [Node() as first, None]:
                return self._make(OPS["sub"], inputs[1], first)
            case "add", _ if inputs[1].op is OPS["sub"]:
                first, second = inputs[1].inputs
                return self._make(OPS["sub"], self._make(OPS["add"], inputs[0], first), second)
            case "sub", [_, Node() as second]:
                return self._make(OPS["add"], inputs[0], second)
            case "mul" | "div", [Node() as first, None]:
                return self._make(OPS["neg"], self._make(op, first, inputs[1]))
        key = (op, inputs, str(attribute))
        if key not in self.made:
            self.made[key] = Node(op, inputs, attribute)
        return self.made[key]
