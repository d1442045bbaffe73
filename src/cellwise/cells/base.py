"""What a cell is: gates, states, own parameters, options, and one `step` written as equations."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

from cellwise.cells.checks import LONGEST_NAME, OWN_WORDS, check_class, check_made, class_source
from cellwise.cells.parameters import Initial, Parameter, Scalar, Vector, own_parameters
from cellwise.cells.widths import said_widths
from cellwise.errors import CellDefinitionError, CellOptionError, FrozenCellError, a_or_an
from cellwise.graph import StepGraph, equations
from cellwise.graph.trace import trace_both
from cellwise.graph.tracer import current_tracer
from cellwise.graph.units import Units

__all__ = [
    "LONGEST_NAME",
    "Cell",
    "Initial",
    "Parameter",
    "Scalar",
    "Vector",
    "check_names",
    "class_source",
    "description_of",
    "own_parameters",
]


class Cell:
    """A recurrent cell: subclass it and write `step`.

    Class attributes:
        gates: names of the row blocks of `weight_ih` and `weight_hh`, in this order.
        states: names of what is carried through time; the first is the output.
        inputs: names of values beside x, one number a step for each row or unit; with numbers for calls without.
        output: the name of an output that is not a state; `step` then returns it first.
        outputs: the names of several; `step` returns those that are no states first, the layer all of them by name.
        widths: units of states that have not H: `{"s": 40}`, `{"s": "H / 4"}`, or the name of an option that says it.
        annotated attributes with a default are options, given by keyword to the constructor.
        `Vector()` and `Scalar()` attributes are learned parameters; `h0 = Initial()` is where the state h begins,
        which is zero without it.

    In `widths` an output or a gate may be named, too; other gates follow from what they meet. What an option decides is
    a property: of `gates`, `states`, `inputs`, `output`, `outputs` and `widths` each may be one. `step` takes states
    by their names, or together: `def step(self, x, *states)`, with inputs beside x behind that.

    In `step(self, x, *states, *inputs)`, `x.g` is W_ig x + b_ig, and `v.g` is W_hg v + b_hg for a state or an
    expression v. The recurrent rows belong to the gate: `h.g` and `(r * h).g` multiply by the same W_hg. `x` by itself
    is the input, unit by unit, of a layer whose input has the size of its state. `skew`, `symmetric_skew`,
    `low_rank` and `block_diagonal` say how the weight of a gate is made, `ready` that it has none. An input named "dt"
    is given as `layer(x, dt=dt)`; with `inputs = {"dt": 1.0}` it is 1 in a call that does not give it.

    >>> class Leaky(Cell):
    ...     '''Leaky integrator.'''
    ...     gates = ("n",)
    ...     rate: float = 0.1
    ...
    ...     def step(self, x, h):
    ...         return (1 - self.rate) * h + self.rate * tanh(x.n + h.n)
    >>> from cellwise import tanh
    >>> print(Leaky(rate=0.5).equations)
    h' = 0.5 · h + 0.5 · tanh(W_in x + b_in + W_hn h + b_hn)
    """

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    inputs: ClassVar[tuple[str, ...] | Mapping[str, float]] = ()
    output: ClassVar[str | None] = None
    outputs: ClassVar[tuple[str, ...]] = ()
    widths: ClassVar[Mapping[str, int | str]] = MappingProxyType({})
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()
        if cls.step is not Cell.step:
            check_names(cls)

    def __init__(self, **options: Any) -> None:
        if type(self).step is Cell.step:
            raise CellDefinitionError(
                problem=f"{type(self).__name__} has no equations.",
                where=class_source(type(self)),
                remedy="Subclass Cell and write: def step(self, x, h): return ...",
            )
        checked = _checked(type(self), {**_default_options(type(self)), **options})
        self.__dict__["options"] = MappingProxyType(checked)
        self.__dict__.update(self.options)
        check_made(self)

    options: Mapping[str, Any]

    def step(self, x: Any, *others: Any) -> Any:
        """One step of time, from x, the states and the inputs beside x: the new states (the output first, if it is not
        a state).
        """
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("graph", "training_graph", "equations"):  # cached below
            self.__dict__[name] = value
            return
        raise FrozenCellError(cell=type(self).__name__, name=name)

    def __delattr__(self, name: str) -> None:
        raise FrozenCellError(cell=type(self).__name__, name=name)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options == other.options

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.options.items())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), dict(self.options))

    @cached_property
    def graph(self) -> StepGraph:
        """The traced equations, those of evaluation. Raises CellError, with the user's own line, if they are wrong."""
        return _graphs_of(self)[0]

    @cached_property
    def training_graph(self) -> StepGraph:
        """The equations in training: the very same graph, unless they ask `self.training` or draw masks."""
        return _graphs_of(self)[1]

    @property
    def training(self) -> bool:
        """Inside `step`: whether the equations are read for training."""
        tracer = current_tracer()
        if tracer is None:
            raise AttributeError(
                f"{type(self).__name__}.training is known inside step alone: a cell has equations for both, and it is "
                "the layer that is in training or not."
            )
        tracer.asked_training = True
        return tracer.training

    @property
    def equations(self) -> str:
        """The equations as text, in the user's own names."""
        return equations(self.graph)

    @property
    def vectors(self) -> tuple[str, ...]:
        return tuple(p.name for p in own_parameters(type(self)) if isinstance(p, Vector))

    @property
    def scalars(self) -> tuple[str, ...]:
        return tuple(p.name for p in own_parameters(type(self)) if isinstance(p, Scalar))

    @property
    def _widths(self) -> tuple[tuple[str, Units], ...]:
        """The units of states, gates and outputs that have others than H, as the options say."""
        return said_widths(self)

    @property
    def learned_first(self) -> tuple[str, ...]:
        """The states whose value before the first step is learned."""
        found = {p.state for p in own_parameters(type(self)) if isinstance(p, Initial)}
        return tuple(state for state in self.states if state in found)


@lru_cache(maxsize=512)
def _graphs_of(cell: Cell) -> tuple[StepGraph, StepGraph]:
    return trace_both(cell)


# What a cell's parameters and options must not hide.
# (An option or a parameter of a cell's own may be called training or widths, as before there were these.)
_OF_CELL = ("options", *(name for name in vars(Cell) if name not in (*OWN_WORDS, "training", "widths")))


def _remake(kind: type[Cell], options: dict[str, Any]) -> Cell:
    return kind(**options)


def _default_options(cell: type[Cell]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for kind in reversed(cell.__mro__):
        if not issubclass(kind, Cell) or kind is Cell:
            continue
        for name in inspect.get_annotations(kind):
            value = vars(kind).get(name)
            is_widths = name == "widths" and isinstance(value, Mapping)
            if name not in OWN_WORDS and not is_widths and not isinstance(value, Parameter):
                if name not in vars(kind):
                    raise CellDefinitionError(
                        problem=f"The option '{name}' of {kind.__name__} has no default.",
                        where=class_source(kind),
                        remedy=f"Write {name}: ... = value; a learned parameter is {name} = Vector() or Scalar().",
                    )
                options[name] = vars(kind)[name]
    return options


def _checked(cell: type[Cell], options: dict[str, Any]) -> dict[str, Any]:
    defaults = _default_options(cell)
    for name, value in options.items():
        if name not in defaults:
            problem = f"'{name}' (its options: {', '.join(defaults) or 'none'})"
            raise CellOptionError(cell=cell.__name__, problem=problem)
        wanted = _not_fitting(value, defaults[name], _annotation(cell, name))
        if wanted is not None:
            raise CellOptionError(cell=cell.__name__, problem=f"{name}={value!r} ({wanted})")
    return options


def _not_fitting(value: Any, default: Any, annotation: Any) -> str | None:
    """What an option takes, if this value does not fit it."""
    literal: Any = typing.Literal
    if typing.get_origin(annotation) is literal:
        choices = typing.get_args(annotation)
        return None if value in choices else f"choose from {', '.join(map(str, choices))}"
    kinds = _kinds(annotation) or (type(default),)
    fits = isinstance(value, (*kinds, int) if float in kinds else kinds)
    if default is not None and (not fits or (isinstance(value, bool) and bool not in kinds)):
        return f"it takes {' or '.join(a_or_an(kind.__name__) for kind in kinds if kind is not type(None))}"
    try:
        hash(value)
    except TypeError:
        return "an option cannot change, as a list can; a tuple does"
    return None


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The types that an annotation names, int | str | None for one; none if it says more than that."""
    several = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return several if all(isinstance(each, type) for each in several) else ()


def _annotation(cell: type[Cell], name: str) -> Any:
    """The annotation of an option; None if only a type checker can read it."""
    kind = next(kind for kind in cell.__mro__ if name in inspect.get_annotations(kind))
    try:
        return inspect.get_annotations(kind, eval_str=True)[name]
    except NameError:
        return None


def description_of(cell: Cell) -> str:
    """What a cell's class says of itself; empty if it says nothing, since what Cell says is of no cell."""
    found = inspect.getdoc(type(cell)) or ""
    return "" if found == inspect.getdoc(Cell) else found


def check_names(cell: type[Cell]) -> None:
    """Raise CellDefinitionError if a class's names, options, parameters and step do not fit together."""
    check_class(cell, _default_options(cell), _OF_CELL, cell.step is not Cell.step)
