"""Random well-formed cells for Hypothesis, drawn as programs over the table of ops.

    from hypothesis import given
    from cellwise.testing.strategies import cells

    @given(cell=cells())
    def test_my_backend_agrees(cell):
        check_agreement(cell, "reference")

A cell is drawn as a program: lines that each apply an op to earlier values, then one sum per state of everything that
no line used. So every gate, parameter and line of a cell matters. Numbers stay tame: an operand that an op would
send to infinity (a divisor near zero, the logarithm of a negative number) is first brought to where the op is smooth,
and a new state lies between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from cellwise import Cell, Scalar, Vector
from cellwise.graph import functions as f
from cellwise.graph.ops import LEAVES, OPS, PROJECT

Operand = Any


def _positive(v: Operand) -> Operand:
    return 0.5 + v * v


# How each op of the table is applied. An op that is not here makes the strategy fail, so a new one is drawn too.
APPLY: dict[str, Callable[..., Operand]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / _positive(b),
    "neg": lambda a: -a,
    "exp": lambda a: f.exp(-_positive(a)),
    "log": lambda a: f.log(_positive(a)),
    "sqrt": lambda a: f.sqrt(_positive(a)),
    "sigmoid": f.sigmoid,
    "tanh": f.tanh,
    "relu": f.relu,
    "softplus": f.softplus,
    "sin": f.sin,
    "cos": f.cos,
    "abs": abs,
    "minimum": f.minimum,
    "maximum": f.maximum,
    # A comparison is a mask, which only `where` takes: the two are drawn together.
    "less": lambda a, b: f.where(a < b, a, -b),
    "less_equal": lambda a, b: f.where(a <= b, 0.5 * a, b),
    "where": lambda a, b, c: f.where(a > 0, b, c),
    "clamp": lambda a, b, c: f.clamp(a, -_positive(b), _positive(c)),
    "stop_gradient": f.stop_gradient,
}


@dataclass(frozen=True)
class Line:
    """One line of a program: an op, or a gate to project for, on earlier values, by number, counted round."""

    op: str
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A step as data; calling `run` inside a step builds its equations."""

    gates: tuple[str, ...]
    states: tuple[str, ...]
    vectors: tuple[str, ...]
    scalars: tuple[str, ...]
    lines: tuple[Line, ...]
    separate_output: bool

    def run(self, cell: Cell, x: Any, states: tuple[Any, ...]) -> Any:
        batch = [
            *(getattr(x, gate) for gate in self.gates),
            *states,
        ]  # of shape (B, H): these can be projected
        values = [*batch, *(getattr(cell, name) for name in (*self.vectors, *self.scalars)), 0.5]
        unused = dict.fromkeys(range(len(values) - 1))
        for line in self.lines:
            if line.op in self.gates:
                place = line.operands[0] % len(batch)
                values.append(getattr(batch[place], line.op))
                batch.append(values[-1])
                unused.pop(next(i for i, v in enumerate(values) if v is batch[place]), None)
            else:
                places = [each % len(values) for each in line.operands]
                operands = [values[place] for place in places]
                if isinstance(operands[0], float):  # Python itself would compute with constants alone
                    operands[0] = batch[0]
                values.append(APPLY[line.op](*operands))
                for place in places:
                    unused.pop(place, None)
            unused[len(values) - 1] = None
        left = [values[i] for i in unused]
        # Each result leans on its own gate or state, so that it has shape (B, H) whatever else is left.
        results = []
        count = len(self.states) + self.separate_output
        for i in range(count):
            total = batch[i % len(self.gates)]
            for each in left[i::count]:
                total = total + each
            results.append(f.tanh(total))
        return tuple(results) if count > 1 else results[0]


@st.composite
def programs(draw: st.DrawFn, gradient: bool = True, most_lines: int = 12) -> Program:
    """A random program. With `gradient=False` it may stop gradients, which finite differences cannot check."""
    gates = ("a", "b", "c")[: draw(st.integers(1, 3))]
    ops = [name for name in OPS if name not in LEAVES and OPS[name] is not PROJECT]
    if gradient:
        ops.remove("stop_gradient")
    place = st.integers(0, 30)
    ordinary = st.sampled_from(ops).flatmap(
        lambda name: st.tuples(*[place] * OPS[name].operands).map(lambda places: Line(name, places))
    )
    projection = st.builds(Line, st.sampled_from(gates), st.tuples(place))
    return Program(
        gates=gates,
        states=("h", "s")[: draw(st.integers(1, 2))],
        vectors=("u", "v")[: draw(st.integers(0, 2))],
        scalars=("q",)[: draw(st.integers(0, 1))],
        lines=tuple(
            draw(st.lists(st.one_of(ordinary, ordinary, projection), min_size=1, max_size=most_lines))
        ),
        separate_output=draw(st.booleans()),
    )


def cell_of(program: Program) -> Cell:
    """The cell whose step a program is."""

    def one_state(self: Cell, x: Any, h: Any) -> Any:
        return program.run(self, x, (h,))

    def two_states(self: Cell, x: Any, h: Any, s: Any) -> Any:
        return program.run(self, x, (h, s))

    body: dict[str, Any] = {
        "gates": program.gates,
        "states": program.states,
        "output": "y" if program.separate_output else None,
        "step": one_state if len(program.states) == 1 else two_states,
        **{name: Vector((-0.5, 0.5)) for name in program.vectors},
        **{name: Scalar(0.7) for name in program.scalars},
    }
    made: Cell = type("Drawn", (Cell,), body)()
    return made


@st.composite
def cells(draw: st.DrawFn, gradient: bool = True, most_lines: int = 12) -> Cell:
    """A random cell, with all that a cell can have; a failing example shows its equations.

    Args:
        gradient: leave out stop_gradient, so that the cell's derivative is that of its values.
        most_lines: the longest step.
    """
    cell = cell_of(draw(programs(gradient, most_lines)))
    note(f"{cell.equations}")
    return cell
