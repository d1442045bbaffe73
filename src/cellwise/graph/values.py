"""The stand-ins that a cell's `step` is called with.

They look like numbers to the user's equations, and record them. Whatever cannot be recorded (a Python `if`,
`math.tanh`, an unknown gate) stops at once, with the user's own line and the way out.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, NoReturn

from cellwise.errors import ConcreteValueError, ShapeError, UnknownGateError
from cellwise.graph.expr import RAW, Node, Shape
from cellwise.graph.habits import FUNCTIONS, instead_of, takes_units, way_out
from cellwise.graph.ops import BESIDE, DRAW, INPUT, OPS, PROJECT
from cellwise.graph.text import short
from cellwise.graph.tracer import Tracer, current_tracer

_OWN = f"cellwise's own functions ({', '.join(FUNCTIONS)})"
# numpy's functions for Python's signs: `np.float64(2) * h` calls them.
_NUMPY_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}


class _StandIn:
    """What a stand-in cannot do, as a table: the special method, what was tried, and the way out."""

    _tracer: Tracer

    def __bool__(self) -> bool:
        return self._refuse(
            "Python's if, while, and, or, not, min, max and a < b < c",
            "where(condition, a, b), minimum or maximum",
        )

    def __float__(self) -> float:
        # As in `from math import tanh`.
        called = re.findall(r"(?<![\w.])(\w+)\(", self._tracer.source().text)
        name = next((each for each in called if each in FUNCTIONS or each == "float"), "")
        return self._refuse("a function of math, or float()", _OWN, name)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self._refuse("a numpy function", _OWN)

    def __array_ufunc__(self, function: Any, method: str, *operands: Any, **__: Any) -> Any:
        sign = _NUMPY_SIGNS.get(function.__name__)
        if sign and method == "__call__" and all(isinstance(each, (_StandIn, Real)) for each in operands):
            first, second = (each if isinstance(each, _StandIn) else float(each) for each in operands)
            return sign(first, second)
        if sign:
            return self._refuse("a numpy array", "plain numbers, and Vector or Scalar for what is learned")
        return self._refuse("a numpy function", _OWN, function.__name__)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The stand-in may lie deep inside the arguments, so it is the trace at work that is asked.
        tracer = current_tracer()
        if tracer is None:
            return NotImplemented
        name = getattr(func, "__name__", "")
        return _refuse(tracer, "a torch function or tensor", f"{_OWN}, Vector and Scalar", name)

    def __int__(self) -> int:
        return self._refuse("int()", "the value as it is")

    def __complex__(self) -> complex:
        return self._refuse("complex()", "real values alone")

    def __format__(self, form: str) -> str:
        return (
            format(repr(self), form)
            if not form
            else self._refuse("a number's format", "the value without a format")
        )

    def __index__(self) -> int:
        return self._refuse("an index or range()", "a Python number from an option of the cell")

    def __iter__(self) -> Iterator[Any]:
        instead = (
            "names: x.gate; several states are arguments of step; all units of a row together are cellwise.sum(v), "
            "mean(v) or amax(v)"
        )
        return self._refuse("iteration, as of sum() or a loop,", instead)

    def __len__(self) -> int:
        return self._refuse("len()", "the value as it is")

    def __getitem__(self, _: Any) -> Any:
        return self._refuse("indexing", "names: x.gate")

    def __setitem__(self, _: Any, __: Any) -> None:
        self._refuse("an assignment to a part of it", "where(condition, a, b)")

    def __contains__(self, _: Any) -> bool:
        return self._refuse("in", "where(a < b, ...)")

    # A value never changes, so it is its own copy.
    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: Any) -> Any:
        return self

    def __eq__(self, _: object) -> bool:
        return self._refuse("==", "where(a < b, ...) with an order that you mean")

    def __ne__(self, _: object) -> bool:
        return self._refuse("!=", "where(a < b, ...) with an order that you mean")

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._refuse(
            "a call", "the gate without brackets, since x.gate and h.gate are projected already"
        )

    def __matmul__(self, _: Any) -> Any:
        return self._refuse("@", "a gate for a matrix product: x.gate, h.gate or (r * h).gate")

    __rmatmul__ = __matmul__

    def __floordiv__(self, _: Any) -> Any:
        return self._refuse("//, % and divmod", "/, or floor: floor(a / b), a - b * floor(a / b)")

    __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = __floordiv__

    def __and__(self, _: Any) -> Any:
        return self._refuse(
            "&, |, ^, ~, << and >>", "where(a < b, where(c < d, v, w), w) for both conditions"
        )

    __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __and__
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __and__

    def __invert__(self) -> Any:
        return self._refuse("~", "where with its last two values exchanged")

    def __round__(self, *_: Any) -> Any:
        return self._refuse("round()", "floor(v + 0.5), whose gradient is zero")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._refuse("an assignment to a part of it", "a variable of its own: name = ...")
        object.__setattr__(self, name, value)

    def _refuse(self, tried: str, instead: str, name: str = "") -> NoReturn:
        _refuse(self._tracer, tried, instead, name)


def _refuse(tracer: Tracer, tried: str, instead: str, name: str = "") -> NoReturn:
    """`name`: the function that was tried, where it is known."""
    source = tracer.source()
    pattern = rf"[\w.]*\b{re.escape(name)}\b" if name else r"\b(math|np|numpy|torch|F)\.\w+"
    written = re.search(pattern, source.text)
    name = name or (written[0].rpartition(".")[2] if written else "")
    problem = f"Inside step a value has no number yet, so {tried} cannot use it."
    remedy = f"Use {instead}."
    habit = way_out(name)
    if instead_of(name) is not None:
        remedy = f"Use {instead_of(name)} instead of {written[0] if written else name}."
    elif habit is not None and takes_units(name):
        problem, remedy = f"{habit[0]}.", habit[1]
    raise ConcreteValueError(problem=problem, where=source, remedy=remedy)


class Value(_StandIn):
    """A state or an expression inside a step: arithmetic, comparisons, and `value.gate` for its projection."""

    def __init__(self, tracer: Tracer, node: Node) -> None:
        self._tracer = tracer
        self._node = node

    def __repr__(self) -> str:
        shape = f"{self._node.shape} mask" if self._node.is_mask else self._node.shape
        return f"<{short(self._node)}, of shape {shape}>"

    def __getattr__(self, gate: str) -> Value:
        _check_gate(self._tracer, gate)
        if self._node.op in (BESIDE, DRAW):
            self._tracer.fail(
                ShapeError,
                problem=f"The gate '{gate}' is asked of {self._node.attribute}, which stands beside x unweighted.",
                remedy="What a gate is to learn from belongs into x; beside it stands what multiplies or is added.",
            )
        if self._node.shape is not Shape.BATCH or self._node.is_mask:
            kind = "a comparison" if self._node.is_mask else f"a value of shape {self._node.shape}"
            self._tracer.fail(
                ShapeError,
                problem=f"The gate '{gate}' is asked of {kind}, which has no projection.",
                remedy=f"Ask it of x, of a state or of an expression with a state in it, such as (r * h).{gate}.",
            )
        return Value(self._tracer, self._tracer.node(PROJECT, self._node, attribute=gate))

    def _of(self, op: str, *operands: Any) -> Value:
        return Value(self._tracer, self._tracer.apply(OPS[op], *(node_of(each) for each in operands)))

    def __neg__(self) -> Value:
        return self._of("neg", self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return self._of("abs", self)

    def __pow__(self, power: Any) -> Value:
        # What is cheaper and more exact than the power of a general exponent.
        if not isinstance(power, _StandIn) and power in (2, 3):
            square = self._of("mul", self, self)
            return square if power == 2 else self._of("mul", square, self)
        if not isinstance(power, _StandIn) and power == 0.5:
            return self._of("sqrt", self)
        return self._of("pow", self, power)

    def __rpow__(self, base: Any) -> Value:
        return self._of("pow", base, self)


class Input(Value):
    """The input x of a step: a gate by its name, x.gate; by itself its numbers, unit by unit, which then are H."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @property
    def _node(self) -> Node:  # type: ignore[override]  # made where an equation asks for it
        return part_of_input(self._tracer, RAW)

    def __repr__(self) -> str:
        return f"<x, the input; its gates: {', '.join(self._tracer.cell.gates) or 'none'}>"

    def __getattr__(self, gate: str) -> Value:
        _check_gate(self._tracer, gate)
        return Value(self._tracer, self._tracer.node(INPUT, attribute=gate))


def part_of_input(tracer: Tracer, name: str) -> Node:
    """The node of a part of the input that equations take as it is."""
    cell = tracer.cell
    if name in (*cell.states, *cell.inputs, *cell.vectors, *cell.scalars):
        tracer.fail(
            ShapeError,
            problem=f"A part of the input is called {name}, and so is something else of {tracer.name}.",
            remedy=f"Call the state, the parameter or the value beside x that is named {name} otherwise.",
        )
    return tracer.node(BESIDE, attribute=name)


def node_of(value: Any) -> Any:
    """What a stand-in stands for, as an operand; anything else is left for the tracer to judge."""
    return value._node if isinstance(value, Value) else value


def _check_gate(tracer: Tracer, gate: str) -> None:
    if gate.startswith("_"):  # Python's own protocols ask for these; gates never start so
        raise AttributeError(gate)
    if gate in tracer.cell.gates:
        return
    habit = way_out(gate)
    if habit is not None:
        tracer.fail(ConcreteValueError, problem=f"{habit[0]}.", remedy=habit[1])
    gates = ", ".join(tracer.cell.gates) or "none"
    near = difflib.get_close_matches(gate, tracer.cell.gates, n=1)
    meant = f"Did you mean {near[0]}? Else add" if near else "Add"
    tracer.fail(
        UnknownGateError,
        cell=tracer.name,
        gate=gate,
        gates=gates,
        remedy=f'{meant} "{gate}" to gates, or ask for one of: {gates}.',
    )


def _binary(op: str, swapped: bool = False) -> Callable[[Any, Any], Value]:
    def method(self: Any, other: Any) -> Value:
        pair = (other, self) if swapped else (self, other)
        return self._of(op, *pair)

    return method


# The operators of Python are a table like the ops: each once plain, once with the number on the left.
for _symbol, _op in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div")):
    setattr(Value, f"__{_symbol}__", _binary(_op))
    setattr(Value, f"__r{_symbol}__", _binary(_op, swapped=True))
for _symbol, _op, _swapped in (
    ("lt", "less", False),
    ("le", "less_equal", False),
    ("gt", "less", True),
    ("ge", "less_equal", True),
):
    setattr(Value, f"__{_symbol}__", _binary(_op, _swapped))
