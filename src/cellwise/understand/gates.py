"""Which gate lets a cell keep its state: read off the equations, not off the names.

A new state is multiplied out into a sum of products. What multiplies the old state itself is the carry: `f` in
`f * c + i * g`, `1 - z` in `(1 - z) * h + z * n`, also in `h + z * (n - h)`. A sigmoid in the carry is a gate that
forgets, and its sign says whether a larger bias keeps more or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, STATE

# A sum of products: for each bag of factors, in a fixed order, the number before it.
Polynomial = dict[tuple[Node, ...], float]
# A product of sums has as many terms as the product of their lengths; beyond this a node is left as it is.
_MOST_TERMS = 256


@dataclass(frozen=True)
class CarryGate:
    """A gate that decides how much of a state stays.

    `sign` is +1 where a larger bias of the gate keeps more of the state, -1 where it keeps less.
    """

    state: str
    gate: str
    sign: int

    def __str__(self) -> str:
        return f"{self.gate} {'keeps' if self.sign > 0 else 'replaces'} {self.state}"


def carry_gates(graph: StepGraph) -> tuple[CarryGate, ...]:
    """The gates that decide how much of each state stays; none for a cell that multiplies its state by no gate.

    >>> from cellwise import cells
    >>> [str(gate) for name in ("rnn", "lstm", "gru", "mingru") for gate in carry_gates(cells.get(name).graph)]
    ['f keeps c', 'z keeps h', 'z replaces h']
    """
    found: dict[tuple[str, str], CarryGate] = {}
    for state, node in zip(graph.states, graph.new_states, strict=True):
        carry = _coefficient(expand(node), state)
        for atom in {atom for term in carry for atom in term if atom.op is OPS["sigmoid"]}:
            for gate, sign in _biases(atom).items():
                total = sign * _slope(carry, atom)
                if total:
                    found[state, gate] = CarryGate(state, gate, 1 if total > 0 else -1)
    return tuple(found[key] for key in sorted(found))


def expand(node: Node) -> Polynomial:
    """A node as a sum of products of nodes that are no sums or products themselves."""
    done: dict[Node, Polynomial] = {}
    stack = [node]
    while stack:  # no recursion: a cell may be deeper than Python's limit
        top = stack[-1]
        waiting = [i for i in top.inputs if i not in done] if top.op.name in _ARITHMETIC else []
        if waiting:
            stack.extend(waiting)
            continue
        done[stack.pop()] = _expanded(top, [done[i] for i in top.inputs if i in done])
    return done[node]


_ARITHMETIC = ("add", "sub", "neg", "mul")


def _expanded(node: Node, parts: list[Polynomial]) -> Polynomial:
    match node.op.name:
        case "add":
            result = _sum(parts[0], parts[1])
        case "sub":
            result = _sum(parts[0], _scaled(parts[1], -1.0))
        case "neg":
            result = _scaled(parts[0], -1.0)
        case "mul":
            result = _product(parts[0], parts[1])
        case "constant":
            assert node.op is CONSTANT
            result = {(): float(node.attribute or 0.0)}
        case _:
            result = {(node,): 1.0}
    return result if len(result) <= _MOST_TERMS else {(node,): 1.0}


def _scaled(a: Polynomial, by: float) -> Polynomial:
    return {term: by * number for term, number in a.items()}


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    terms = {term: a.get(term, 0.0) + b.get(term, 0.0) for term in {**a, **b}}
    return {term: number for term, number in terms.items() if number}


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for left, x in a.items():
        for right, y in b.items():
            term = tuple(sorted((*left, *right), key=id))
            result[term] = result.get(term, 0.0) + x * y
    return {term: number for term, number in result.items() if number}


def _coefficient(polynomial: Polynomial, state: str) -> Polynomial:
    """What multiplies the state where it stands to the first power."""
    result: Polynomial = {}
    for term, number in polynomial.items():
        rest = tuple(atom for atom in term if not (atom.op is STATE and atom.attribute == state))
        if len(rest) == len(term) - 1:
            result[rest] = number
    return result


def _slope(polynomial: Polynomial, atom: Node) -> float:
    """The derivative with respect to one sigmoid where all of them stand at one half, as they do near zero."""
    slope = 0.0
    for term, number in polynomial.items():
        power = term.count(atom)
        if power and all(each.op is OPS["sigmoid"] for each in term):
            slope += number * power * reduce(lambda x, _: x * 0.5, range(len(term) - 1), 1.0)
    return slope


def _biases(sigmoid: Node) -> dict[str, int]:
    """The gates whose bias is added inside a sigmoid, and with which sign."""
    signs: dict[str, int] = {}
    for term, number in expand(sigmoid.inputs[0]).items():
        if len(term) == 1 and term[0].op in (INPUT, PROJECT) and not term[0].linear:
            signs[str(term[0].attribute)] = 1 if number > 0 else -1
    return signs
