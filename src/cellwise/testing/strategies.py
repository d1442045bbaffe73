"""Random well-formed cells for Hypothesis, drawn as programs over the table of ops.

    from hypothesis import given
    from cellwise.testing.strategies import cells

    @given(cell=cells())
    def test_my_backend_agrees(cell):
        check_agreement(cell, "reference")

A cell is drawn as a program: lines that each apply an op to earlier values, then one result for the output and each
state. What no line and no result used is added to the results, so every gate, parameter and line of a cell matters.
Results take every form that a derivative can meet (`RESULTS`): most are a tanh, others a gate or a state as it is, a
leaky sum, a gate of another result. Numbers stay tame: an operand that an op would send to infinity (a divisor near
zero, the logarithm of a negative number) is first brought to where the op is smooth, and no state can grow by more than
a gate's row sums from step to step.

Longer than other files: what can be drawn and how it is put into a step name each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from cellwise import Cell, Initial, Scalar, Vector, cumsum, fixed, low_rank, ready, skew, symmetric_skew
from cellwise.graph import functions as f
from cellwise.graph.forms import CUMSUM, FIXED
from cellwise.graph.ops import BESIDE, OPS, POINTWISE, REDUCTIONS, Shape

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
    "erf": f.erf,
    "gelu": f.gelu,
    "silu": f.silu,
    "elu": f.elu,
    "hard_sigmoid": f.hard_sigmoid,
    "hard_tanh": f.hard_tanh,
    "pow": lambda a, b: _positive(a) ** f.tanh(b),
    # They jump at zero, where states begin.
    "floor": lambda a: f.floor(a + 0.3),
    "sign": lambda a: f.sign(a + 0.3),
    "abs": abs,
    "minimum": f.minimum,
    "maximum": f.maximum,
    # A comparison is a mask, which only `where` takes: the two are drawn together.
    "less": lambda a, b: f.where(a < b, a, -b),
    "less_equal": lambda a, b: f.where(a <= b, 0.5 * a, b),
    "where": lambda a, b, c: f.where(a > 0, b, c),
    "clamp": lambda a, b, c: f.clamp(a, -_positive(b), _positive(c)),
    "stop_gradient": f.stop_gradient,
    # Of what has rows of units.
    "sum": f.sum,
    "mean": f.mean,
    "amax": f.amax,
}
# What is a gate in the graph and no op of the table.
_FUNCTIONS: dict[str, Callable[..., Operand]] = {CUMSUM: cumsum}
# What takes together the units of a row, and so a value that has some.
_OF_UNITS = {*REDUCTIONS, CUMSUM}


_WITHOUT_GRADIENT = ("stop_gradient", "floor", "sign")


@dataclass(frozen=True)
class Line:
    """One line of a program: an op, or a gate to project for, on earlier values, by number, counted round."""

    op: str
    operands: tuple[int, ...]


# How a new state or an output comes of two values `a` and `b` and of its own state before, `own`, all of shape (B, H).
# A bare gate or state has the arriving gradient itself as its gradient.
RESULTS: dict[str, Callable[[Operand, Operand, Operand], Operand]] = {
    "tanh": lambda a, b, own: f.tanh(a),
    "bare": lambda a, b, own: a,
    "skip": lambda a, b, own: own,
    "leaky": lambda a, b, own: 0.9 * own + a,
    "sum": lambda a, b, own: a + b,
    "difference": lambda a, b, own: a - b,
    "product": lambda a, b, own: f.sigmoid(a) * b,
    "stopped": lambda a, b, own: 0.5 * own + f.stop_gradient(f.tanh(a)),
}
# The operands that a form uses.
_TAKEN = {
    "tanh": "a",
    "bare": "a",
    "skip": "o",
    "leaky": "ao",
    "sum": "ab",
    "difference": "ab",
    "product": "ab",
}
_TAKEN |= {"stopped": "ao"}
# Ops whose values are bounded, so that a state which is one of them cannot grow.
_BOUNDED = {name for name, op in OPS.items() if op.range and max(map(abs, op.range)) < math.inf}
_BOUNDED |= {"exp"}  # as it is applied above


@dataclass(frozen=True)
class Result:
    """How a result comes of earlier values, by number, counted round; `gate` projects it once more."""

    form: str
    operands: tuple[int, int]
    gate: str | None = None


@dataclass(frozen=True)
class Program:
    """A step as data; calling `run` inside a step builds its equations.

    `results` are those of the states, `output` that of an output that is no state, `others` those behind it.
    States that nothing reads are left so if `spare_states`; those of `learned_first` begin at what is learned.
    `takes` says what x is asked for: its gates; these and x itself; or gates that arrive ready. `input_forms` and
    `state_forms` are how gates' weights are made, in the order of the gates. `width` is that of the second state, if it
    is not H; then `leads` says of each gate the state whose units it has and that whose units it is asked of, and
    `output_of` the state whose units the outputs have.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    vectors: tuple[str, ...]
    scalars: tuple[str, ...]
    inputs: tuple[str, ...]
    lines: tuple[Line, ...]
    results: tuple[Result, ...]
    output: Result | None
    spare_states: bool
    learned_first: tuple[str, ...] = ()
    others: tuple[Result, ...] = ()
    takes: str = "gates"
    input_forms: tuple[str, ...] = ()
    state_forms: tuple[str, ...] = ()
    width: int | str | None = None
    leads: tuple[tuple[int, int], ...] = ()
    output_of: int = 0

    def run(self, cell: Cell, x: Any, states: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        own = [*(getattr(cell, name) for name in (*self.vectors, *self.scalars)), *inputs]
        forms = dict(zip(self.gates, self.input_forms, strict=False))
        forms = dict.fromkeys(self.gates, "ready") if self.takes == "ready" else forms
        of_x = [FORMS_OF_GATES[forms.get(gate, "whole")](getattr(x, gate)) for gate in self.gates]
        of_x += [x] if self.takes == "itself" else []
        forms = dict(zip(self.gates, self.state_forms, strict=False))
        leads = dict(zip(self.gates, self.leads, strict=False)) if self.width is not None else None
        values = _Values(of_x, states, own, forms, leads)
        for line in self.lines:
            if line.op != FIXED:
                values.add(line, projects=line.op in self.gates)
            elif isinstance(self.width, int):
                values.multiply(line, self.width)
        found = [values.result(each, state) for each, state in zip(self.results, states, strict=True)]
        if self.output is not None:
            # An output may be a gate of the new state, as an Elman network reads it out.
            values.tame.append(found[0])
            found.insert(0, values.result(self.output, states[self.output_of]))
        first = len(found) - len(states)
        found[first:first] = [values.result(each, states[self.output_of]) for each in self.others]
        left = values.unused([] if self.spare_states else states)
        for index, each in enumerate(left):
            place = index % len(found)
            made = found[place] + f.tanh(values.led(each, found[place]))
            values.note(made, [found[place]])
            found[place] = made
        return tuple(found) if len(found) > 1 else found[0]


# How a gate's weight is made, that there is one of whatever the sizes are; or that there is none.
FORMS_OF_GATES: dict[str, Callable[[Operand], Operand]] = {
    "whole": lambda gate: gate,
    "skew": lambda gate: skew(gate, 0.1),
    "symmetric_skew": lambda gate: symmetric_skew(gate, 0.7),
    "low_rank": lambda gate: low_rank(gate, 2),
    "ready": ready,
}


class _Values:
    """The values of a step so far.

    Those of `batch` have shape (B, H) and can be projected; those of `tame` cannot grow from step to step by more than
    the sums of a weight's rows.
    """

    def __init__(
        self,
        gates: list[Operand],
        states: tuple[Operand, ...],
        own: list[Operand],
        forms: Mapping[str, str],
        leads: Mapping[str, tuple[int, int]] | None,
    ) -> None:
        self._forms, self._leads, self._states = forms, leads, states
        # The state whose units a value has, by its node: where states have several widths.
        self._units: dict[Any, int] = {state._node: number for number, state in enumerate(states)}
        self._units |= {
            gate._node: units for gate, (units, _) in zip(gates, (leads or {}).values(), strict=False)
        }
        vectors = [each for each in own if each._node.shape is Shape.UNITS]
        self._units |= {each._node: number % len(states) for number, each in enumerate(vectors)}
        self.tame = [*gates, *states]
        self.batch = list(self.tame)
        self.values = [*self.tame, *own, 0.5]
        self._wanted = [*gates, *own]  # the definition of a cell refuses those that are of no use
        self._used: list[Operand] = []

    def add(self, line: Line, projects: bool) -> None:
        """Compute a line."""
        if projects:
            asked = [each for each in self.batch if self._is_asked(each, line.op)]
            operands = [_pick(asked, line.operands[0])]
            made = self._projected(operands[0], line.op)
        else:
            from_ = self.batch if line.op in _OF_UNITS else self.values
            operands = [_pick(from_, each) for each in line.operands]
            if isinstance(operands[0], float):  # Python itself would compute with constants alone
                operands[0] = self.batch[0]
            made = (APPLY | _FUNCTIONS)[line.op](*self._alike(operands))
            self.note(made, operands)
        self._used += operands
        self._wanted.append(made)
        self.values.append(made)
        if line.op not in REDUCTIONS and (projects or any(_is_in(each, self.batch) for each in operands)):
            self.batch.append(made)
            if line.op in _BOUNDED or (projects and _is_in(operands[0], self.tame)):
                self.tame.append(made)

    def multiply(self, line: Line, units: int) -> None:
        """A product with a given matrix, of a value of the second state's units; its rows add up to less than one."""
        asked = [each for each in self.batch if self._units.get(each._node) == 1]
        if not asked:
            return
        operand = _pick(asked, line.operands[0])
        numbers = [[math.cos(1 + row * column) / units for column in range(units)] for row in range(units)]
        made = fixed(numbers, operand)
        self._units[made._node] = 1
        self._used.append(operand)
        self._wanted.append(made)
        self.values.append(made)
        self.batch.append(made)
        if _is_in(operand, self.tame):
            self.tame.append(made)

    def result(self, result: Result, own: Operand) -> Operand:
        """A result, for which `own` is the state before."""
        first, second = result.operands
        a, b = (
            _pick(self.batch if result.form in ("tanh", "stopped") else self.tame, first),
            _pick(self.tame, second),
        )
        operands = {"a": a, "b": b, "o": own}
        self._used += [operands[each] for each in _TAKEN[result.form]]
        a, b = (each if self._fits(each, own) else self.led(each, own) + 0 * own for each in (a, b))
        made = RESULTS[result.form](a, b, own)
        self.note(made, [own])
        leads = self._leads and result.gate and self._leads[result.gate]
        can = not leads or leads == (self._units[own._node],) * 2
        return made if result.gate is None or not can else self._projected(made, result.gate)

    def _projected(self, operand: Operand, gate: str) -> Operand:
        # What is a part of x has no weights of a state: times one it is a value of the step's own.
        operand = 1.0 * operand if operand._node.op is BESIDE else operand
        form = self._forms.get(gate, "whole")
        if self._leads is not None and form in ("skew", "symmetric_skew") and len({*self._leads[gate]}) > 1:
            form = "whole"  # it is no square
        made = FORMS_OF_GATES[form](getattr(operand, gate))
        if self._leads is not None:
            self._units[made._node] = self._leads[gate][0]
        return made

    def _is_asked(self, value: Operand, gate: str) -> bool:
        """Whether a value has the units that a gate is asked of."""
        return self._leads is None or self._units.get(value._node) == self._leads[gate][1]

    def note(self, made: Operand, operands: Sequence[Operand]) -> None:
        """What is made has the units of what it is made of."""
        units = [
            self._units[each._node]
            for each in operands
            if not isinstance(each, float) and each._node in self._units
        ]
        if units and made._node.shape.has_units:
            self._units.setdefault(made._node, units[0])

    def _fits(self, value: Operand, own: Operand) -> bool:
        """Whether two values can meet unit by unit."""
        if self._leads is None or isinstance(value, float):
            return True
        units = self._units.get(value._node)
        return units is None or self._units.get(own._node) in (None, units)

    def _alike(self, operands: list[Operand]) -> list[Operand]:
        """Operands that can meet: those of other units than the first as one number of a row."""
        with_units = [each for each in operands if not isinstance(each, float) and each._node in self._units]
        return [each if not with_units else self.led(each, with_units[0]) for each in operands]

    def led(self, value: Operand, own: Operand) -> Operand:
        """A value, or where it cannot meet another one the mean of its units."""
        if self._fits(value, own):
            return value
        is_row = value._node.shape is Shape.UNITS
        return f.mean(value * self._states[self._units[value._node]] if is_row else value)

    def unused(self, also: Sequence[Operand]) -> list[Operand]:
        """The values that nothing was computed from, among those that should be of use."""
        return [each for each in (*self._wanted, *also) if not _is_in(each, self._used)]


def _pick(values: Sequence[Operand], index: int) -> Operand:
    return values[index % len(values)]


def _is_in(value: Operand, values: Sequence[Operand]) -> bool:
    # Comparing two values of a step would make a node.
    return any(value is each for each in values)


def _results(gates: tuple[str, ...], gradient: bool) -> st.SearchStrategy[Result]:
    forms = ["tanh"] * 4 + [form for form in RESULTS if form != "stopped" or not gradient]
    index = st.integers(0, 30)
    gate = st.sampled_from([None, None, None, *gates])
    return st.builds(Result, st.sampled_from(forms), st.tuples(index, index), gate)


_INPUT_FORM = st.sampled_from(["whole", "whole", "whole", "low_rank"])
_STATE_FORM = st.sampled_from(["whole", "whole", "whole", "low_rank", "skew", "symmetric_skew"])


@st.composite
def programs(draw: st.DrawFn, gradient: bool = True, most_lines: int = 12, widths: bool = True) -> Program:
    """A random program. With `gradient=False` it may stop gradients, which finite differences cannot check."""
    gates = ("a", "b", "c")[: draw(st.sampled_from([1, 2, 3, 1, 2, 3, 0]))]
    ops = [*POINTWISE, *REDUCTIONS]
    if gradient:
        ops = [name for name in ops if name not in _WITHOUT_GRADIENT]
    index = st.integers(0, 30)
    ordinary = st.sampled_from(ops).flatmap(
        lambda name: st.tuples(*[index] * OPS[name].operands).map(lambda indices: Line(name, indices))
    )
    lines = [
        ordinary,
        ordinary,
        ordinary,
        st.builds(Line, st.sampled_from([CUMSUM, FIXED]), st.tuples(index)),
    ]
    if gates:
        lines += [st.builds(Line, st.sampled_from(gates), st.tuples(index))] * 2
    states = ("h", "s")[: draw(st.integers(1, 2))]
    result = _results(gates, gradient)
    takes = draw(st.sampled_from(["gates", "gates", "gates", "itself", "ready"]))
    # A part of the input as it is has H numbers.
    is_wide = widths and takes == "gates" and len(states) > 1
    width = draw(st.sampled_from([None, None, 1, 2, 5, "2 * H"])) if is_wide else None
    state = st.integers(0, len(states) - 1)
    return Program(
        gates=gates,
        states=states,
        # A cell whose gates have no weights learns its own parameters alone.
        vectors=("u", "v")[: draw(st.integers(0 if gates and takes != "ready" else 1, 2))],
        scalars=("q",)[: draw(st.integers(0, 1))],
        inputs=("d",)[: draw(st.integers(0, 1))],
        lines=tuple(draw(st.lists(st.one_of(lines), max_size=most_lines))),
        results=tuple(draw(result) for _ in states),
        output=draw(st.none() | result),
        spare_states=draw(st.booleans()),
        learned_first=states[: draw(st.sampled_from([0, 0, 1, 2]))],
        others=tuple(draw(st.lists(result, max_size=draw(st.sampled_from([0, 0, 1, 2]))))),
        takes=takes,
        input_forms=draw(st.tuples(*[_INPUT_FORM] * len(gates))),
        state_forms=draw(st.tuples(*[_STATE_FORM] * len(gates))),
        width=width,
        leads=draw(st.tuples(*[st.tuples(state, state)] * len(gates))) if width is not None else (),
        output_of=draw(state) if width is not None else 0,
    )


def cell_of(program: Program) -> Cell:
    """The cell whose step a program is."""

    def one_state(self: Cell, x: Any, h: Any) -> Any:
        return program.run(self, x, (h,), ())

    def two_states(self: Cell, x: Any, h: Any, s: Any) -> Any:
        return program.run(self, x, (h, s), ())

    def one_state_beside(self: Cell, x: Any, h: Any, d: Any) -> Any:
        return program.run(self, x, (h,), (d,))

    def two_states_beside(self: Cell, x: Any, h: Any, s: Any, d: Any) -> Any:
        return program.run(self, x, (h, s), (d,))

    plain, beside = (one_state, two_states), (one_state_beside, two_states_beside)
    body: dict[str, Any] = {
        "gates": program.gates,
        "states": program.states,
        **_outputs(program),
        "inputs": dict.fromkeys(program.inputs, 0.5),
        "widths": {} if program.width is None else {program.states[1]: program.width},
        "step": (beside if program.inputs else plain)[len(program.states) - 1],
        **{name: Vector((-0.5, 0.5)) for name in program.vectors},
        **{name: Scalar(0.7) for name in program.scalars},
        **{f"{state}0": Initial((-0.5, 0.5)) for state in program.learned_first},
    }
    made: Cell = type("Drawn", (Cell,), body)()
    return made


def _outputs(program: Program) -> dict[str, Any]:
    first = program.states[0] if program.output is None else "y"
    if program.others:
        return {"outputs": (first, *(f"e{number}" for number in range(len(program.others))))}
    return {"output": None if program.output is None else "y"}


@st.composite
def cells(draw: st.DrawFn, gradient: bool = True, most_lines: int = 12, widths: bool = True) -> Cell:
    """A random cell, with all that a cell can have; a failing example shows its equations.

    Args:
        gradient: leave out what no gradient passes, so that the cell's derivative is that of its values.
        most_lines: the longest step.
        widths: whether a state may have another width than H.
    """
    cell = cell_of(draw(programs(gradient, most_lines, widths)))
    note(f"{cell.equations}")
    return cell
