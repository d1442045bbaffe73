"""What collects the nodes of a step while its equations run, and knows the user's line."""

from __future__ import annotations

import contextvars
import itertools
import math
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol

from cellwise.errors import CellError, ConcreteValueError, ShapeError, a_or_an
from cellwise.graph.expr import Draw, Node, Source
from cellwise.graph.forms import FORMS, Form
from cellwise.graph.ops import CONSTANT, DRAW, PROJECT, Kind, Op, Shape
from cellwise.graph.units import Units


def _folder_of(package: str) -> str:
    spec = find_spec(package)
    return str(Path(spec.origin).parent) if spec and spec.origin else package


_LIBRARY = sysconfig.get_path("stdlib")


@lru_cache(maxsize=1)
def _not_the_users() -> tuple[str, ...]:
    """Where code lies that is never "the user's line": our own, and those in which others call us back."""
    ours = Path(__file__).parent
    return (
        str(ours),
        str(ours.parent / "cells" / "base.py"),
        _folder_of("torch"),
        _folder_of("numpy"),
        "<frozen",
    )


@lru_cache(maxsize=1024)
def is_users(file: str) -> bool:
    """Whether code of this file may be the user's: not ours, torch's, numpy's or Python's own."""
    if file.startswith(_LIBRARY) and not {"site-packages", "dist-packages"} & set(Path(file).parts):
        return False
    return not file.startswith(_not_the_users())


_CURRENT: contextvars.ContextVar[Tracer | None] = contextvars.ContextVar("tracer", default=None)


class Definition(Protocol):
    """What the tracer needs to know of a cell."""

    @property
    def gates(self) -> tuple[str, ...]: ...
    @property
    def states(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> Iterable[str]: ...
    @property
    def output(self) -> str | None: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def vectors(self) -> tuple[str, ...]: ...
    @property
    def scalars(self) -> tuple[str, ...]: ...
    @property
    def learned_first(self) -> tuple[str, ...]: ...
    @property
    def _widths(self) -> tuple[tuple[str, Units], ...]: ...
    @property
    def step(self) -> Any: ...


class Tracer:
    """Collects the nodes of one step; equal nodes become one.

    `training`: whether the equations are those of training. `asked_training` says whether they depend on that.
    """

    def __init__(self, cell: Definition, training: bool = False) -> None:
        self.cell = cell
        self.training, self.asked_training = training, False
        self.draws: list[Draw] = []
        self.fixed_gates: dict[str, tuple[object, Form]] = {}  # by name what is alike, and its form
        self.name = type(cell).__name__
        self._nodes: dict[tuple[object, ...], Node] = {}
        self.code: CodeType = cell.step.__code__
        self.frame: FrameType | None = None

    def node(
        self,
        op: Op,
        *inputs: Node,
        attribute: str | float | None = None,
        linear: bool = False,
        form: Form | None = None,
    ) -> Node:
        key = _key(op, inputs, attribute, linear, form)
        if key not in self._nodes:
            self._nodes[key] = Node(op, inputs, attribute, self.source(), linear, form)
        return self._nodes[key]

    def draw(self, letter: str, probability: float | None, per_sequence: bool) -> Node:
        """A new random number, named by a letter and the first number that makes a name of its own."""
        cell = self.cell
        taken = {*cell.states, *cell.inputs, *cell.vectors, *cell.scalars, *self.code.co_varnames}
        taken |= {draw.name for draw in self.draws}
        name = next(name for i in itertools.count(1) if (name := f"{letter}{i}") not in taken)
        self.draws.append(Draw(name, probability, per_sequence))
        return self.node(DRAW, attribute=name)

    def fixed(self, node: Node, form: Form, wanted: str) -> Node:
        """The product of a value with a weight that is given by its form, as a gate that is called `wanted`, or by that
        and a number if another is.

        A given matrix is one gate, whatever it multiplies; what follows the size of its value is one for each value.
        """
        cell, alike = self.cell, form if FORMS[form.kind].size else (form, node)
        names = (f"{wanted}{count if count > 1 else ''}" for count in itertools.count(1))
        name = next(each for each in names if self.fixed_gates.get(each, (alike, form))[0] == alike)
        if name in (*cell.gates, *cell.states, *cell.vectors, *cell.scalars, *cell.inputs):
            self.fail(
                ShapeError,
                problem=f"{self.name} asks for {form.kind}(...), and calls something of its own {name}.",
                remedy="Give the gate, the state, the parameter or the input of this name another.",
            )
        self.fixed_gates[name] = alike, form
        return self.node(PROJECT, node, attribute=name, linear=True, form=form)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All that was recorded, in order, also what no state needs."""
        return tuple(self._nodes.values())

    def source(self) -> Source:
        """The line being run now in the user's code: the nearest frame outside this package."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back
        self._remember_step(frame)
        if frame is None or (frame.f_code is not self.code and self.frame is None):
            return Source(self.code.co_filename, self.code.co_firstlineno)
        return Source(frame.f_code.co_filename, frame.f_lineno)

    def _remember_step(self, frame: FrameType | None) -> None:
        while self.frame is None and frame is not None:
            if frame.f_code is self.code:
                self.frame = frame
            frame = frame.f_back

    def apply(self, op: Op, *operands: Any) -> Node:
        """The node of `op` on nodes and plain numbers; a mask goes only into the first place of where."""
        nodes = [self._operand(op, each) for each in operands]
        if op.name == "div" and nodes[1].op is CONSTANT and nodes[1].attribute == 0.0:
            self.fail(
                ShapeError,
                problem="A value is divided by the number 0.",
                remedy="Divide by another number, or by v + 1e-6 for a value v that may be 0.",
            )
        masks = [node.is_mask for node in nodes]
        takes_mask = op.takes_mask
        if any(masks[takes_mask:]):
            self.fail(
                ShapeError,
                problem=f"A comparison is a mask, and {op.name} was asked to compute with it.",
                remedy="Choose between two values with it: where(a < b, value_if_true, value_if_false).",
            )
        if takes_mask and not masks[0]:
            self.fail(
                ShapeError,
                problem="The first operand of where must be a comparison.",
                remedy="For example: where(x.n > 0, a, b).",
            )
        if op.kind is Kind.REDUCTION and nodes[0].shape is not Shape.BATCH:
            self.fail(
                ShapeError,
                problem=f"{op.name} takes the units of a row together, and was given a value of shape "
                f"{nodes[0].shape}, which has no rows of units.",
                remedy="Give it a gate, a state or an expression with one in it: "
                f"cellwise.{op.name}(x.{(*self.cell.gates, 'gate')[0]}).",
            )
        return self.node(op, *nodes)

    def _operand(self, op: Op, value: Any) -> Node:
        if isinstance(value, Node):
            if (
                self._nodes.get(_key(value.op, value.inputs, value.attribute, value.linear, value.form))
                is not value
            ):
                self.fail(
                    ConcreteValueError,
                    problem="A value of another trace is used here.",
                    remedy="Use only x, the states and the cell's own parameters inside step; keep none of them.",
                )
            return value
        # Numbers of numpy are Real, too.
        if not isinstance(value, bool) and isinstance(value, Real):
            number = float(value)
            if math.isnan(number):
                self.fail(
                    ShapeError,
                    problem=f"{op.name} was given the number nan, which makes nan of all that comes after it.",
                    remedy="Look where it comes from: an option, or inf - inf and inf * 0 in step.",
                )
            return self.node(CONSTANT, attribute=number)
        return self.fail(
            ShapeError,
            problem=f"{op.name} was given {describe(value)}, which is no value of a step.",
            remedy="Combine x.gate, states and plain numbers; a learned tensor is a Vector or a Scalar.",
        )

    def fail(self, error: type[CellError], **fields: Any) -> NoReturn:
        raise error(where=self.source(), **fields)


def _key(
    op: Op, inputs: tuple[Node, ...], attribute: str | float | None, linear: bool, form: Form | None
) -> tuple[object, ...]:
    # str() of a number keeps 0.0 and -0.0 apart, which are equal as keys.
    return op, inputs, type(attribute), str(attribute), linear, str(form)


@contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    token = _CURRENT.set(tracer)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_tracer() -> Tracer | None:
    """The tracer at work in this context, so that a cell's own parameters know what they stand for."""
    return _CURRENT.get()


def describe(value: Any) -> str:
    kind = type(value)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return a_or_an(name) if value is not None else "None"
