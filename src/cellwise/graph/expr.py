"""The whole language of a cell, on one page.

    node    = leaf | project gate node | linear project gate node | op node ...
    leaf    = input gate | linear input gate | state name | vector name | scalar name | constant number
            | beside name | draw name
    A beside names a value that a call gives, or a part of the input: x itself, or x_gate, what is ready for a gate.
    graph   = nodes, one of them the output, one per state its new value

A node never changes. The tracer makes equal nodes one node, so a graph is a DAG and `is` compares.
"""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce

from cellwise.graph.forms import FORMS, Form
from cellwise.graph.ops import BESIDE, CONSTANT, DRAW, INPUT, PROJECT, SCALAR, STATE, VECTOR, Kind, Op
from cellwise.graph.ops import Shape as Shape
from cellwise.graph.units import HIDDEN, Units

RAW = "x"  # the part of the input that is all of it
ONLY_OUTPUT = ("",)  # what the output is called where there is one


def ready_part(gate: str) -> str:
    """The name of the part of the input that is ready for a gate."""
    return f"{RAW}_{gate}"


@dataclass(frozen=True)
class Source:
    """The user's line that an equation was written in."""

    file: str
    line: int

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"  {self.file}:{self.line}:  {self.text}"


@dataclass(frozen=True, eq=False)
class Node:
    """One value of a step. Compared by identity: the tracer makes equal nodes one."""

    op: Op
    inputs: tuple[Node, ...]
    attribute: str | float | None = None  # the gate, the name or the number that the op carries
    source: Source | None = field(default=None, repr=False)
    linear: bool = False  # of an input or a projection: without the gate's bias
    form: Form | None = (
        None  # of an input or a projection: how the gate's weight is made, if not learned as it is
    )

    def __post_init__(self) -> None:
        _ = self.shape  # kept from now on: asked of a deep graph later, it would recurse through all of it

    @cached_property
    def shape(self) -> Shape:
        if self.op.shape is not None:
            return self.op.shape
        return reduce(Shape.with_, (i.shape for i in self.inputs), Shape.NUMBER)

    @property
    def is_mask(self) -> bool:
        return self.op.makes_mask

    @property
    def function(self) -> str:
        """What a product is called as a function of what it multiplies, if its weight is not learned; else ""."""
        return self.form.kind if self.form is not None and FORMS[self.form.kind].is_function else ""

    @property
    def is_given(self) -> bool:
        """Whether it is a product with a matrix whose numbers are given."""
        return self.form is not None and FORMS[self.form.kind].size is not None


@dataclass(frozen=True)
class Draw:
    """A random number of each row and unit: 1 with a probability, else 0; or, without one, uniform in [0, 1).

    `per_sequence`: drawn once for all steps of a sequence, and not at each step anew.
    """

    name: str
    probability: float | None = None
    per_sequence: bool = False

    def __str__(self) -> str:
        law = "U(0, 1)" if self.probability is None else f"Bernoulli({self.probability:g})"
        return f"{law}, for each row and unit{', once a sequence' if self.per_sequence else ''}"


@dataclass(frozen=True, eq=False)
class StepGraph:
    """The equations of one step of a cell, traced.

    `names` are the user's own variables, for printing; nothing else depends on them. `inputs` are the values beside x,
    `draws` the random numbers that the layer draws for the step. `learned_first` are the states whose value before the
    first step is learned; no step depends on it. Where there are several outputs, `outputs` are the names of all, and
    `others` those behind the first. `widths` says of some states, gates and outputs how many units they have, where
    that is not H (`cellwise.graph.widths` has those of all values).
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    vectors: tuple[str, ...]
    scalars: tuple[str, ...]
    output: Node
    new_states: tuple[Node, ...]
    names: tuple[tuple[Node, str], ...] = ()
    inputs: tuple[str, ...] = ()
    draws: tuple[Draw, ...] = ()
    learned_first: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    others: tuple[Node, ...] = ()
    widths: tuple[tuple[str, Units], ...] = ()

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that matters once, inputs before users, otherwise in the order of the user's variables."""
        roots = (*self.new_states, self.output, *self.others)
        live = postorder(roots)
        named = (node for node, name in self.names if node in live and name not in self.states)
        return tuple(postorder((*named, *roots)))

    def of(self, op: Op) -> tuple[Node, ...]:
        """The nodes of one op, in order."""
        return tuple(node for node in self.nodes if node.op is op)

    @cached_property
    def input_gates(self) -> tuple[str, ...]:
        """The gates asked of the input: the row blocks of `weight_ih`."""
        asked = {node.attribute for node in self.of(INPUT)}
        return tuple(gate for gate in self.gates if gate in asked)

    @cached_property
    def state_gates(self) -> tuple[str, ...]:
        """The gates asked of states or expressions: the row blocks of `weight_hh`. Empty: no product in time."""
        asked = {node.attribute for node in self.of(PROJECT)}
        return tuple(gate for gate in self.gates if gate in asked)

    @cached_property
    def asked_inputs(self) -> tuple[str, ...]:
        """The values beside x that equations ask for, and after them the parts of x that they take as they are."""
        asked = {node.attribute for node in self.of(BESIDE)}
        return (*(name for name in self.inputs if name in asked), *self.input_parts)

    @cached_property
    def input_parts(self) -> tuple[str, ...]:
        """The parts of the input that equations take unit by unit, H numbers each, in the order in which they lie."""
        asked = {node.attribute for node in self.of(BESIDE)} - {*self.inputs}
        return tuple(part for part in (RAW, *map(ready_part, self.gates)) if part in asked)

    @cached_property
    def part_nodes(self) -> frozenset[Node]:
        """Those parts as nodes."""
        return frozenset(node for node in self.of(BESIDE) if node.attribute in self.input_parts)

    @property
    def reads_input(self) -> bool:
        """Whether any equation asks for x."""
        return bool(self.input_gates or self.input_parts)

    @cached_property
    def asked_draws(self) -> tuple[Draw, ...]:
        """The random numbers that equations ask for."""
        asked = {node.attribute for node in self.of(DRAW)}
        return tuple(draw for draw in self.draws if draw.name in asked)

    @cached_property
    def given(self) -> tuple[str, ...]:
        """What a layer is given beside x, states and parameters, by name: values, then random numbers."""
        return (*self.asked_inputs, *(draw.name for draw in self.asked_draws))

    @cached_property
    def step(self) -> StepGraph:
        """The same equations, wherever states begin: what a kernel runs."""
        return replace(self, learned_first=()) if self.learned_first else self

    @cached_property
    def input_biases(self) -> tuple[str, ...]:
        """The gates of the input that have a bias: the row blocks of `bias_ih`."""
        linear = {node.attribute for node in self.of(INPUT) if node.linear}
        return tuple(gate for gate in self.input_gates if gate not in linear)

    @cached_property
    def state_biases(self) -> tuple[str, ...]:
        """The gates of states and expressions that have a bias: the row blocks of `bias_hh`."""
        linear = {node.attribute for node in self.of(PROJECT) if node.linear}
        return tuple(gate for gate in self.state_gates if gate not in linear)

    @cached_property
    def forms(self) -> dict[tuple[str, str], Form]:
        """How weights that are made of others are made: by "ih" or "hh" and the gate."""
        kinds = (("ih", INPUT, self.input_gates), ("hh", PROJECT, self.state_gates))
        made = {(node.op, node.attribute): node.form for node in (*self.of(INPUT), *self.of(PROJECT))}
        found = {(kind, gate): made[op, gate] for kind, op, gates in kinds for gate in gates}
        return {place: form for place, form in found.items() if form is not None}

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The last of `state_gates`, whose weights nothing is learned of."""
        return tuple(dict.fromkeys(str(node.attribute) for node in self.of(PROJECT) if node.function))

    def row_gates(self, kind: str) -> tuple[str, ...]:
        """The gates whose weights are learned as they are: row blocks of the parameter `weight_ih` or `weight_hh`."""
        gates = self.input_gates if kind == "ih" else self.state_gates
        return tuple(
            gate for gate in gates if (kind, gate) not in self.forms and gate not in self.apart(kind)
        )

    def apart(self, kind: str) -> tuple[str, ...]:
        """The gates whose weight is a parameter of its own, since it has other columns than the others: H for "hh"."""
        return self._apart if kind == "hh" else ()

    @cached_property
    def _apart(self) -> tuple[str, ...]:
        if not self.widths:
            return ()
        from cellwise.graph.widths import widths_of  # which reads graphs

        columns = widths_of(self).columns
        return tuple(
            gate for gate in self.state_gates if columns[gate] != HIDDEN and ("hh", gate) not in self.forms
        )

    @cached_property
    def before_loop(self) -> tuple[Node, ...]:
        """The nodes that see neither a state nor a product: they can be computed for all steps at once."""
        waits = set[Node]()
        for node in self.nodes:
            if node.op in (STATE, PROJECT) or any(i in waits for i in node.inputs):
                waits.add(node)
        return tuple(node for node in self.nodes if node not in waits)

    @cached_property
    def in_loop(self) -> tuple[Node, ...]:
        """The nodes that must wait for the step before, without the states themselves."""
        before = set(self.before_loop)
        return tuple(node for node in self.nodes if node not in before and node.op is not STATE)

    @cached_property
    def into_loop(self) -> tuple[Node, ...]:
        """The nodes of `before_loop` that a step reads."""
        read = {i for node in self.in_loop for i in node.inputs}
        read |= {self.output, *self.others, *self.new_states}
        return tuple(node for node in self.before_loop if node in read)

    @cached_property
    def products(self) -> dict[Node, tuple[Node, ...]]:
        """The matrix products of a step: for each operand its projections, in the order of the gates."""
        found: dict[Node, list[Node]] = {}
        for node in sorted(self.of(PROJECT), key=lambda node: self.gates.index(str(node.attribute))):
            found.setdefault(node.inputs[0], []).append(node)
        return {operand: tuple(nodes) for operand, nodes in found.items()}

    @cached_property
    def reductions(self) -> tuple[Node, ...]:
        """What takes all units of a row together."""
        return tuple(node for node in self.nodes if node.op.kind is Kind.REDUCTION)

    @cached_property
    def output_is_state(self) -> bool:
        return self.output is self.new_states[0]

    @cached_property
    def output_is_history(self) -> bool:
        """Whether the outputs of all steps are what the first state was after them, as they lie in memory."""
        return self.output_is_state and not self.others

    @cached_property
    def fingerprint(self) -> str:
        """Equal for graphs of the same equations, whatever the cell, its gates, states and variables are called."""
        indices = {
            kind: {name: str(i) for i, name in enumerate(names)}
            for kind, names in (
                (INPUT, self.gates),
                (PROJECT, self.gates),
                (STATE, self.states),
                (VECTOR, self.vectors),
                (SCALAR, self.scalars),
                (BESIDE, self.inputs),
            )
        }
        parts = {RAW: RAW} | {ready_part(gate): f"{RAW}{number}" for number, gate in enumerate(self.gates)}
        indices[BESIDE] = parts | indices[BESIDE]
        indices[DRAW] = {
            draw.name: f"{i}/{draw.probability}/{draw.per_sequence}" for i, draw in enumerate(self.draws)
        }
        # A digest per node, since the text of a node that is used twice would double at each level.
        digests: dict[Node, str] = {}
        for node in self.nodes:
            if node.op is CONSTANT:
                head = repr(node.attribute)
            else:
                head = node.op.name + indices.get(node.op, {}).get(str(node.attribute), "")
                head += " linear" if node.linear else ""
                head += f" {node.form}" if node.form else ""
            operands = [digests[i] for i in node.inputs]
            if node.op.commutes:
                operands.sort()
            digests[node] = _digest(f"{head}({','.join(operands)})")
        sizes = f"{len(self.gates)}/{len(self.states)}{self._widths_text}"
        ends = [digests[node] for node in (self.output, *self.new_states)]
        return _digest(";".join((sizes, *ends, *(f"output {digests[node]}" for node in self.others))))

    @property
    def _widths_text(self) -> str:
        """What its fingerprint says of widths: the units of all gates, states and outputs, in their order."""
        if not self.widths:
            return ""
        from cellwise.graph.widths import widths_of

        found = widths_of(self)
        each = (*found.gates.values(), *found.columns.values(), *found.states.values(), *found.outputs)
        return f" units {','.join(map(str, each))}"


def first_name(state: str) -> str:
    """What the learned first value of a state is called."""
    return f"{state}0"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def postorder(roots: Iterable[Node], known: Iterable[Node] = ()) -> dict[Node, None]:
    """The nodes that `roots` need and that are not known, each once, inputs before users."""
    # Iterative, since a cell that unrolls a Python loop can be deeper than the recursion limit.
    outside = set(known)
    done: dict[Node, None] = {}
    for root in roots:
        stack = [(root, iter(root.inputs))] if root not in done and root not in outside else []
        while stack:
            node, rest = stack[-1]
            child = next((each for each in rest if each not in done and each not in outside), None)
            if child is None:
                done[node] = None
                stack.pop()
            else:
                stack.append((child, iter(child.inputs)))
    return done
