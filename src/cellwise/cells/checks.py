"""What of a cell can be checked before its equations are read: its names, and that its step takes what it has.

A name that an option decides, a property, is checked when a cell is made; all others when its class is.
"""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from cellwise.cells.parameters import Initial, Parameter, own_parameters
from cellwise.cells.widths import problem_of
from cellwise.errors import CellDefinitionError
from cellwise.graph.expr import Source, first_name

if TYPE_CHECKING:
    from cellwise.cells.base import Cell

LONGEST_NAME = 200  # characters
# What a cell says in words of the library's own, and which of these a property may say.
OWN_WORDS = ("gates", "states", "inputs", "output", "outputs", "name")
_BY_OPTION = ("gates", "states", "inputs", "output", "outputs", "widths")
# Names that a layer's own weights have, and that a cell's parameters must therefore leave alone.
_TAKEN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
# What a layer's call takes by name, and a stream's, and so no input beside x.
_OF_CALL = ("state", "lengths", "resets", "out", "input", "hx")


@dataclass(frozen=True)
class _Said:
    """What a class, or a cell that was made, says of its names; `open` are those that options of a class decide."""

    gates: Any
    states: Any
    inputs: Any
    output: Any
    outputs: Any
    widths: Any
    open: frozenset[str]
    cell: type[Cell]
    name: str

    def refuse(self, problem: str, remedy: str, line: int | None = None) -> NoReturn:
        code = self.cell.step.__code__
        where = Source(code.co_filename, line) if line else class_source(self.cell)
        raise CellDefinitionError(problem=f"{self.name} {problem}.", where=where, remedy=remedy)


def decided_by_options(cell: type[Cell]) -> frozenset[str]:
    """The words that a class says by a property."""
    return frozenset(word for word in _BY_OPTION if _is_by_option(cell, word))


def _is_by_option(cell: type[Cell], word: str) -> bool:
    return isinstance(getattr(cell, word), property)


def check_class(cell: type[Cell], options: Mapping[str, Any], own: tuple[str, ...], has_step: bool) -> None:
    """Raise CellDefinitionError if a class cannot be a cell, whatever its options are.

    Args:
        options: with their defaults.
        own: what `Cell` itself has, which options and parameters must leave alone.
        has_step: whether it has equations written down; a stored cell has not.
    """
    unsaid = decided_by_options(cell)
    words = {word: () if word in unsaid else getattr(cell, word) for word in _BY_OPTION}
    words |= {"output": None} if "output" in unsaid else {}
    said = _Said(**words, open=unsaid, cell=cell, name=cell.__name__)
    _check_own_name(said)
    for name in options:
        if name in own:
            said.refuse(f"calls an option '{name}', which is taken", "Choose another name.")
    for parameter in own_parameters(cell):
        if parameter.name in (*own, *OWN_WORDS) or parameter.name.startswith(_TAKEN):
            said.refuse(f"calls a parameter '{parameter.name}', which is taken", "Choose another name.")
    _check_names(said, options)
    if has_step:
        _check_step(said)


def check_made(cell: Cell) -> None:
    """Raise CellDefinitionError if what a cell's options decide cannot be."""
    kind = type(cell)
    if decided_by_options(kind):
        words = {word: getattr(cell, word) for word in _BY_OPTION}
        said = _Said(**words, open=frozenset(), cell=kind, name=repr(cell))
        _check_names(said, cell.options)
        _check_step(said)


def _check_own_name(said: _Said) -> None:
    name: Any = said.cell.name
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        said.refuse(
            f"has the name {name!r:.80}",
            f'A name is a text of 1 to {LONGEST_NAME} characters that can be printed: name = "my-cell".',
        )


def _check_names(said: _Said, options: Mapping[str, Any]) -> None:
    """Raise CellDefinitionError if gates, states, inputs, outputs and parameters cannot be called what they are."""
    _check_plain(said, "gates", said.gates)
    _check_plain(said, "states", said.states)
    _check_inputs(said)
    if not said.states and "states" not in said.open:
        said.refuse("has no states", 'Name what is carried through time: states = ("h",)')
    _check_outputs(said)
    _check_widths(said, options)
    _check_parameters(said)


def _check_inputs(said: _Said) -> None:
    _check_plain(said, "inputs", tuple(said.inputs) if isinstance(said.inputs, Mapping) else said.inputs)
    for name, value in said.inputs.items() if isinstance(said.inputs, Mapping) else ():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            said.refuse(
                f"has {value!r} as the input '{name}' where a call gives none",
                f'It is a number: inputs = {{"{name}": 1.0}}; or none is: inputs = ("{name}",).',
            )
    for name in said.inputs:
        if name in (*said.states, "x", "self", *_OF_CALL) or name.startswith(_TAKEN):
            said.refuse(f"calls an input beside x '{name}', which is taken", "Choose another name.")


def _check_outputs(said: _Said) -> None:
    if said.output is not None and (not isinstance(said.output, str) or said.output in said.states):
        said.refuse(
            f"has output = {said.output!r}",
            'It names an output that is not a state: output = "y". Without it the first state is the output.',
        )
    _check_plain(said, "outputs", said.outputs)
    if said.outputs and said.output is not None:
        said.refuse(
            f"has output = {said.output!r} and outputs = {said.outputs!r}",
            "outputs names all of them; leave out output.",
        )
    for name in said.outputs:
        if name in (*said.inputs, "x", "self") or hasattr(tuple, name):
            said.refuse(f"calls an output '{name}', which is taken", "Choose another name.")


def _check_widths(said: _Said, options: Mapping[str, Any]) -> None:
    # An option or a parameter of a cell's own may be called widths.
    if "widths" in options or isinstance(said.widths, Parameter):
        return
    if said.open & {"gates", "states", "output", "outputs", "widths"}:
        return
    outputs = (*said.outputs, *((said.output,) if said.output else ()))
    problem = problem_of(said.widths, (*said.states, *said.gates, *outputs), options)
    if problem is not None:
        said.refuse(*problem)


def _check_parameters(said: _Said) -> None:
    firsts = {first_name(state): state for state in said.states}
    for parameter in own_parameters(said.cell):
        if parameter.name in (*said.states, *said.inputs):
            said.refuse(f"calls a parameter '{parameter.name}', which is taken", "Choose another name.")
        if isinstance(parameter, Initial) and parameter.name not in firsts and "states" not in said.open:
            said.refuse(
                f"calls an Initial() '{parameter.name}'",
                "It is called as its state, with 0 behind: "
                + " or ".join(f"{name} = Initial()" for name in firsts)
                + ".",
            )


def _check_step(said: _Said) -> None:
    """A step takes x, the states and the inputs beside x by their names; states together as `*states` too, and inputs
    then behind that.
    """
    if {"states", "inputs"} & said.open:
        return
    arguments = list(inspect.signature(said.cell.step).parameters.values())
    plain = tuple(p.name for p in arguments if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]
    together = any(p.kind is p.VAR_POSITIONAL for p in arguments)
    behind = {p.name: p for p in arguments if p.kind is p.KEYWORD_ONLY}
    states, inputs = said.states, tuple(said.inputs)
    known = len(plain) + len(behind) + together + 2 == len(arguments)
    fits = plain == states[: len(plain)] if together else plain in (states, (*states, *inputs))
    left = set(inputs if together or plain == states else ())
    # An input that an option takes away has a default.
    needed = {
        name for name, p in behind.items() if p.default is p.empty or not _is_by_option(said.cell, "inputs")
    }
    if known and fits and needed <= left <= behind.keys():
        return
    named = ("*states",) if _is_by_option(said.cell, "states") else states
    wanted = ", ".join(("self", "x", *named, *inputs))
    beside = f" and the inputs {', '.join(inputs)}" if inputs else ""
    said.refuse(
        f"has the states {', '.join(states)}{beside}, but its step takes {', '.join(map(_written, arguments))}",
        f"Write: def step({wanted}).",
        said.cell.step.__code__.co_firstlineno,
    )


def _written(argument: inspect.Parameter) -> str:
    stars = (argument.kind is argument.VAR_POSITIONAL) + 2 * (argument.kind is argument.VAR_KEYWORD)
    return "*" * stars + argument.name


def _check_plain(said: _Said, what: str, names: object) -> None:
    if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
        said.refuse(
            f"has {what} = {names!r:.200}",
            f'{what} is a tuple of names: {what} = ("a", "b"), or ("a",) for one.',
        )
    for each in names:
        if not each.isidentifier() or keyword.iskeyword(each) or each.startswith("_"):
            said.refuse(
                f"has '{each}' among its {what}",
                "A name is a plain Python name without a leading _.",
            )
    if len(set(names)) != len(names):
        said.refuse(f"names one of its {what} twice: {', '.join(names)}", "Each name may stand once.")


def class_source(cell: type) -> Source:
    """Where a class is written, as well as Python knows."""
    code = getattr(cell.__dict__.get("step"), "__code__", None)
    try:
        return Source(inspect.getfile(cell), inspect.getsourcelines(cell)[1])
    except (OSError, TypeError):  # no source file: the interactive prompt, exec
        return Source(code.co_filename if code else "<unknown>", code.co_firstlineno if code else 0)
