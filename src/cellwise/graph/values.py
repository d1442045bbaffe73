"""The stand-ins that a cell's `step` is called with.

They look like numbers to the user's equations, and record them. Whatever cannot be recorded (a Python `if`,
`math.tanh`, an unknown gate) stops at once, with the user's own line and the way out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from cellwise.errors import ConcreteValueError, ShapeError, UnknownGateError
from cellwise.graph.expr import Node, Shape
from cellwise.graph.ops import INPUT, OPS, PROJECT
from cellwise.graph.tracer import Tracer, current_tracer

# Ops that are written with Python's own signs; every other op has a function of its name.
_SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "neg": "-",
    "abs": "abs()",
    "less": "<",
    "less_equal": "<=",
}


class _StandIn:
    """What a stand-in cannot do, as a table: the special method, what was tried, and the way out."""

    _tracer: Tracer

    def __bool__(self) -> bool:
        return self._refuse(
            "Python's if, and, or, not, min and max", "where(condition, a, b), minimum or maximum"
        )

    def __float__(self) -> float:
        return self._refuse("a function of math, or float()", "cellwise's own functions")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self._refuse("a numpy function", "cellwise's own functions")

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return self._refuse("a numpy function", "cellwise's own functions")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The stand-in may lie deep inside the arguments, so it is the trace at work that is asked.
        tracer = current_tracer()
        if tracer is None:
            return NotImplemented
        return _refuse(tracer, "a torch function or tensor", "cellwise's own functions, Vector and Scalar")

    def __int__(self) -> int:
        return self._refuse("int()", "the value as it is")

    def __index__(self) -> int:
        return self._refuse("an index or range()", "a Python number from an option of the cell")

    def __iter__(self) -> Iterator[Any]:
        return self._refuse("iteration", "names: x.gate; several states are arguments of step")

    def __len__(self) -> int:
        return self._refuse("len()", "the value as it is")

    def __getitem__(self, _: Any) -> Any:
        return self._refuse("indexing", "names: x.gate")

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
        return self._refuse("//, % and divmod", "/, or a function with a derivative")

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
        return self._refuse("round()", "the value as it is; a rounded value has no derivative")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._refuse("an assignment to a part of it", "a variable of its own: name = ...")
        object.__setattr__(self, name, value)

    def _refuse(self, tried: str, instead: str) -> NoReturn:
        _refuse(self._tracer, tried, instead)


def _refuse(tracer: Tracer, tried: str, instead: str) -> NoReturn:
    source = tracer.source()
    foreign = re.search(r"\b(math|np|numpy|torch|F)\.(\w+)", source.text)
    if foreign and foreign[2] in OPS:
        instead = f"{_SIGNS.get(foreign[2]) or f'cellwise.{foreign[2]}'} instead of {foreign[0]}"
    raise ConcreteValueError(
        problem=f"Inside step a value has no number yet, so {tried} cannot use it.",
        where=source,
        remedy=f"Use {instead}.",
    )


class Input(_StandIn):
    """The input x of a step. It has the size D of the input, so it is used only through gates: x.gate."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __getattr__(self, gate: str) -> Value:
        _check_gate(self._tracer, gate)
        return Value(self._tracer, self._tracer.node(INPUT, attribute=gate))

    def _refuse_alone(self, *_: Any) -> NoReturn:
        gates = self._tracer.cell.gates
        self._tracer.fail(
            ShapeError,
            problem="x by itself has the size of the input, not of the state, so it cannot stand in an equation.",
            remedy=f"Ask it for a gate, its projection to the hidden size: x.{gates[0] if gates else 'gate'}.",
        )


class Value(_StandIn):
    """A state or an expression inside a step: arithmetic, comparisons, and `value.gate` for its projection."""

    def __init__(self, tracer: Tracer, node: Node) -> None:
        self._tracer = tracer
        self._node = node

    def __getattr__(self, gate: str) -> Value:
        _check_gate(self._tracer, gate)
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
        if not isinstance(power, _StandIn) and power in (2, 3):
            square = self._of("mul", self, self)
            return square if power == 2 else self._of("mul", square, self)
        return self._refuse("** with this power", "** 2, ** 3, sqrt, or exp(p * log(v))")

    def __rpow__(self, base: Any) -> Value:
        return self._refuse("** with a number below it", "exp(v * math.log(number))")


def node_of(value: Any) -> Any:
    """What a stand-in stands for, as an operand; anything else is left for the tracer to judge."""
    if isinstance(value, Input):
        value._refuse_alone()
    return value._node if isinstance(value, Value) else value


def _check_gate(tracer: Tracer, gate: str) -> None:
    if gate.startswith("_"):  # Python's own protocols ask for these; gates never start so
        raise AttributeError(gate)
    if gate not in tracer.cell.gates:
        gates = ", ".join(tracer.cell.gates) or "none"
        tracer.fail(
            UnknownGateError,
            cell=tracer.name,
            gate=gate,
            gates=gates,
            remedy=f'Add "{gate}" to gates, or ask for one of: {gates}.',
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
    setattr(Input, f"__{_symbol}__", Input._refuse_alone)
    setattr(Input, f"__r{_symbol}__", Input._refuse_alone)
for _symbol, _op, _swapped in (
    ("lt", "less", False),
    ("le", "less_equal", False),
    ("gt", "less", True),
    ("ge", "less_equal", True),
):
    setattr(Value, f"__{_symbol}__", _binary(_op, _swapped))
    setattr(Input, f"__{_symbol}__", Input._refuse_alone)
for _symbol in ("neg", "pos", "abs", "pow", "rpow"):
    setattr(Input, f"__{_symbol}__", Input._refuse_alone)
