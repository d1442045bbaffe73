"""What a cell is: gates, states, own parameters, options, and one `step` written as equations."""

from __future__ import annotations

import inspect
import keyword
import math
import typing
from collections.abc import Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

from cellwise.cells.parameters import Initial, Parameter, Scalar, Vector
from cellwise.cells.widths import problem_of, said_widths
from cellwise.errors import CellDefinitionError, CellOptionError, FrozenCellError, a_or_an
from cellwise.graph import StepGraph, equations
from cellwise.graph.expr import Source, first_name
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
    "own_parameters",
]

# Names that a layer's own weights have, and that a cell's parameters must therefore leave alone.
_TAKEN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
LONGEST_NAME = 200  # characters
# What a layer's call takes by name, and a stream's, and so no input beside x.
_OF_CALL = ("state", "lengths", "resets", "out", "input", "hx")
_OWN_WORDS = ("gates", "states", "inputs", "output", "outputs", "name")


class Cell:
    """A recurrent cell: subclass it and write `step`.

    Class attributes:
        gates: names of the row blocks of `weight_ih` and `weight_hh`, in this order; a property if an option decides.
        states: names of what is carried through time; the first is the output.
        inputs: names of values beside x, one number a step for each row or unit; with numbers for calls without.
        output: the name of an output that is not a state; `step` then returns it first.
        outputs: the names of several; `step` returns those that are no states first, the layer all of them by name.
        widths: units of states that have not H: `{"s": 40}`, `{"s": "H / 4"}`, or the name of an option that says it.
        annotated attributes with a default are options, given by keyword to the constructor.
        `Vector()` and `Scalar()` attributes are learned parameters; `h0 = Initial()` is where the state h begins,
        which is zero without it.

    In `widths` an output or a gate may be named, too; other gates follow from what they meet.

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
            _check_definition(cls)

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
        if _is_property(type(self).gates):
            _check_names(type(self), "gates", self.gates)
            _check_widths(type(self), self.gates)

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
_OF_CELL = ("options", *(name for name in vars(Cell) if name not in (*_OWN_WORDS, "training", "widths")))


def _remake(kind: type[Cell], options: dict[str, Any]) -> Cell:
    return kind(**options)


def _is_property(value: object) -> bool:
    return isinstance(value, property)


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


def _default_options(cell: type[Cell]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for kind in reversed(cell.__mro__):
        if not issubclass(kind, Cell) or kind is Cell:
            continue
        for name in inspect.get_annotations(kind):
            value = vars(kind).get(name)
            is_widths = name == "widths" and isinstance(value, Mapping)
            if name not in _OWN_WORDS and not is_widths and not isinstance(value, Parameter):
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
    kind = annotation if isinstance(annotation, type) else type(default)
    fits = isinstance(value, (int, float) if kind is float else kind)
    if default is not None and (not fits or (isinstance(value, bool) and kind is not bool)):
        return f"it takes {a_or_an(kind.__name__)}"
    try:
        hash(value)
    except TypeError:
        return "an option cannot change, as a list can; a tuple does"
    return None


def _annotation(cell: type[Cell], name: str) -> Any:
    """The annotation of an option; None if only a type checker can read it."""
    kind = next(kind for kind in cell.__mro__ if name in inspect.get_annotations(kind))
    try:
        return inspect.get_annotations(kind, eval_str=True)[name]
    except NameError:
        return None


def _check_definition(cell: type[Cell]) -> None:
    """Everything about a cell that can be checked before its equations are read."""
    check_names(cell)
    _check_step(cell)


def check_names(cell: type[Cell]) -> None:
    """Raise CellDefinitionError if gates, states, output, options and parameters cannot be called what they are."""
    if (
        not isinstance(cell.name, str)
        or not cell.name.isprintable()
        or not 0 < len(cell.name) <= LONGEST_NAME
    ):
        _refuse(
            cell,
            f"has the name {cell.name!r:.80}",
            f'A name is a text of 1 to {LONGEST_NAME} characters that can be printed: name = "my-cell".',
        )
    if not _is_property(cell.gates):
        _check_names(cell, "gates", cell.gates)
    _check_names(cell, "states", cell.states)
    _check_names(cell, "inputs", tuple(cell.inputs) if isinstance(cell.inputs, Mapping) else cell.inputs)
    for name, value in cell.inputs.items() if isinstance(cell.inputs, Mapping) else ():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            _refuse(
                cell,
                f"has {value!r} as the input '{name}' where a call gives none",
                f'It is a number: inputs = {{"{name}": 1.0}}; or none is: inputs = ("{name}",).',
            )
    for name in cell.inputs:
        if name in (*cell.states, "x", "self", *_OF_CALL) or name.startswith(_TAKEN):
            _refuse(cell, f"calls an input beside x '{name}', which is taken", "Choose another name.")
    if not cell.states:
        _refuse(cell, "has no states", 'Name what is carried through time: states = ("h",)')
    if cell.output is not None and (not isinstance(cell.output, str) or cell.output in cell.states):
        _refuse(
            cell,
            f"has output = {cell.output!r}",
            'It names an output that is not a state: output = "y". Without it the first state is the output.',
        )
    _check_outputs(cell)
    if not _is_property(cell.gates):
        _check_widths(cell, cell.gates)
    for name in _default_options(cell):
        if name in _OF_CELL:
            _refuse(cell, f"calls an option '{name}', which is taken", "Choose another name.")
    for parameter in own_parameters(cell):
        taken = (*cell.states, *cell.inputs, *_OF_CELL, *_OWN_WORDS)
        if parameter.name.startswith(_TAKEN) or parameter.name in taken:
            _refuse(cell, f"calls a parameter '{parameter.name}', which is taken", "Choose another name.")
        firsts = {first_name(state): state for state in cell.states}
        if isinstance(parameter, Initial) and parameter.name not in firsts:
            _refuse(
                cell,
                f"calls an Initial() '{parameter.name}'",
                "It is called as its state, with 0 behind: "
                + " or ".join(f"{name} = Initial()" for name in firsts)
                + ".",
            )


def _check_outputs(cell: type[Cell]) -> None:
    _check_names(cell, "outputs", cell.outputs)
    if cell.outputs and cell.output is not None:
        _refuse(
            cell,
            f"has output = {cell.output!r} and outputs = {cell.outputs!r}",
            "outputs names all of them; leave out output.",
        )
    for name in cell.outputs:
        if name in (*cell.inputs, "x", "self") or hasattr(tuple, name):
            _refuse(cell, f"calls an output '{name}', which is taken", "Choose another name.")


def _check_widths(cell: type[Cell], gates: tuple[str, ...]) -> None:
    options, widths = _default_options(cell), cell.widths
    if "widths" in options or isinstance(widths, Parameter):
        return
    outputs = (*cell.outputs, *((cell.output,) if cell.output else ()))
    problem = problem_of(widths, (*cell.states, *gates, *outputs), options)
    if problem is not None:
        _refuse(cell, *problem)


def _check_step(cell: type[Cell]) -> None:
    arguments = list(inspect.signature(cell.step).parameters.values())
    names = tuple(p.name for p in arguments if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]
    if names != (*cell.states, *cell.inputs) or len(arguments) != len(names) + 2:
        wanted = ", ".join(("self", "x", *cell.states, *cell.inputs))
        beside = f" and the inputs {', '.join(cell.inputs)}" if cell.inputs else ""
        _refuse(
            cell,
            f"has the states {', '.join(cell.states)}{beside}, but its step takes "
            f"{', '.join(p.name for p in arguments)}",
            f"Write: def step({wanted}).",
            cell.step.__code__.co_firstlineno,
        )


def _check_names(cell: type[Cell], what: str, names: object) -> None:
    if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
        _refuse(
            cell,
            f"has {what} = {names!r}",
            f'{what} is a tuple of names: {what} = ("a", "b"), or ("a",) for one.',
        )
    else:
        for each in names:
            if not each.isidentifier() or keyword.iskeyword(each) or each.startswith("_"):
                _refuse(
                    cell,
                    f"has '{each}' among its {what}",
                    "A name is a plain Python name without a leading _.",
                )
        if len(set(names)) != len(names):
            _refuse(cell, f"names one of its {what} twice: {', '.join(names)}", "Each name may stand once.")


def _refuse(cell: type[Cell], problem: str, remedy: str, line: int | None = None) -> None:
    where = Source(cell.step.__code__.co_filename, line) if line else class_source(cell)
    raise CellDefinitionError(problem=f"{cell.__name__} {problem}.", where=where, remedy=remedy)


def class_source(cell: type) -> Source:
    """Where a class is written, as well as Python knows."""
    code = getattr(cell.__dict__.get("step"), "__code__", None)
    try:
        return Source(inspect.getfile(cell), inspect.getsourcelines(cell)[1])
    except (OSError, TypeError):  # no source file: the interactive prompt, exec
        return Source(code.co_filename if code else "<unknown>", code.co_firstlineno if code else 0)
