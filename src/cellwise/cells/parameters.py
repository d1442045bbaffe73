"""What a cell may learn of its own: values of its units, numbers, and where its states begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, overload

from cellwise.errors import CellDefinitionError
from cellwise.graph.ops import SCALAR, VECTOR, Op
from cellwise.graph.tracer import current_tracer
from cellwise.graph.values import Value

if TYPE_CHECKING:
    from cellwise.cells.base import Cell


class Parameter:
    """A learned value of a cell's own; `Vector`, `Scalar` or `Initial`."""

    op: ClassVar[Op]

    def __init__(self, initial: float | tuple[float, float] | None = None) -> None:
        self.initial = initial
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, cell: None, owner: type) -> Parameter: ...
    @overload
    def __get__(self, cell: Cell, owner: type) -> Any: ...
    def __get__(self, cell: Cell | None, owner: type) -> Any:
        tracer = current_tracer()
        if cell is None or tracer is None:
            return self
        return Value(tracer, tracer.node(self.op, attribute=self.name))


class Vector(Parameter):
    """One learned number per hidden unit, shape (H,): a peephole, IndRNN's recurrent weight.

    Args:
        initial: the number that all start from; or (low, high), drawn uniformly between; or None, drawn as
            torch.nn draws recurrent weights, uniformly within 1 / sqrt(H) of zero.
    """

    op = VECTOR


class Scalar(Parameter):
    """One learned number per layer and direction, shape (). Takes `initial` as `Vector` does."""

    op = SCALAR


class Initial(Parameter):
    """Where a state begins, learned: one number per hidden unit, shape (H,), of each layer and direction.

    `h0 = Initial()` is the value of the state `h` before the first step of a sequence, in a call that gives no states,
    and before each step that `resets` mark. (With `layer.stream()` it is where the stream begins.)

    Args:
        initial: the number that all start training from; or (low, high), drawn uniformly between; or None, drawn
            uniformly within 1 / sqrt(H) of zero.
    """

    def __init__(self, initial: float | tuple[float, float] | None = 0.0) -> None:
        super().__init__(initial)

    @property
    def state(self) -> str:
        """The state that begins so."""
        return self.name[:-1]

    def __get__(self, cell: Cell | None, owner: type) -> Any:
        tracer = current_tracer()
        if cell is not None and tracer is not None:
            tracer.fail(
                CellDefinitionError,
                problem=f"{self.name} is where {self.state} begins, and no value of a step.",
                remedy=f"At the first step it is found in {self.state}. What every step reads is a Vector().",
            )
        return self


def own_parameters(cell: type[Cell]) -> tuple[Parameter, ...]:
    """The `Vector`s, `Scalar`s and `Initial`s of a cell, base classes first, in the order they are written."""
    found: dict[str, Parameter] = {}
    for kind in reversed(cell.__mro__):
        for name, value in vars(kind).items():
            if isinstance(value, Parameter):
                found[name] = value
            else:
                found.pop(name, None)
    return tuple(found.values())
