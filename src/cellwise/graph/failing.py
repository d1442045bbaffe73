"""What goes wrong in a step beside what stand-ins refuse: Python's own errors, as errors that show the user's line."""

from __future__ import annotations

import difflib
import re
from types import TracebackType
from typing import Any

from cellwise.errors import FrozenCellError, StepError
from cellwise.graph.expr import Source
from cellwise.graph.habits import FUNCTIONS, PARTS, RANDOM, nearest_function, takes_units, way_out
from cellwise.graph.ops import OPS
from cellwise.graph.tracer import Tracer, is_users

_READING = "It was raised as the equations were read, for which step is run with stand-ins for its values."
# What functions take: by name, or by the number of operands.
_ARGUMENTS = {"where": "condition, a, b", "clamp": "v, low, high", 1: "v", 2: "a, b"}


def step_error(tracer: Tracer, error: Exception) -> StepError:
    """The error to raise for one that Python, or the user's own code, raised inside the step."""
    kind = type(error).__name__
    said = f"{kind}: {error}" if str(error) else kind
    problem = f"{tracer.name}.step cannot be run: {said.rstrip('.')}."
    return StepError(
        problem=problem, where=_user_line(tracer, error.__traceback__), remedy=_remedy(tracer, error)
    )


def _user_line(tracer: Tracer, traceback: TracebackType | None) -> Source:
    """The innermost line of the user's that the error came through."""
    source = Source(tracer.code.co_filename, tracer.code.co_firstlineno)
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_users(code.co_filename):
            source = Source(code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return source


def _remedy(tracer: Tracer, error: Exception) -> str:
    match error:
        case FrozenCellError():
            return "What lasts from one step to the next is a state: name it in states, and return its new value."
        case UnboundLocalError():
            return "Give it a value on every way to this line, or another name."
        case NameError() if error.name:
            return _missing_name(error.name)
        case AttributeError() if error.obj is tracer.cell and error.name:
            return _missing_part(tracer.cell, error.name)
        case TypeError() if (called := re.match(r"(\w+)\(\) ", str(error))) and called[1] in FUNCTIONS:
            return f"Write {called[1]}({_ARGUMENTS.get(called[1]) or _ARGUMENTS[OPS[called[1]].operands]})."
    return _READING


def _missing_name(name: str) -> str:
    if name in (*FUNCTIONS, *PARTS, *RANDOM):
        return f"Import it: from cellwise import {name}."
    habit = way_out(name)
    if habit is not None:
        return f"{habit[0]}. {habit[1]}" if takes_units(name) else habit[1]
    near = nearest_function(name)
    return f"Did you mean {near}? It comes from cellwise." if near else "Define or import it first."


def _missing_part(cell: Any, name: str) -> str:
    own = (*cell.vectors, *cell.scalars, *cell.options)
    near = difflib.get_close_matches(name, own, n=1)
    if near:
        return f"Did you mean self.{near[0]}?"
    if name in cell.gates:
        return f"A gate is asked of the input or a state: x.{name}, {cell.states[0]}.{name}."
    if name in cell.states:
        return f"A state is an argument of step: {name}."
    return (
        f"If it is learned, write {name} = Vector() (one number a unit) or Scalar() in the class; "
        f"if it is fixed, make it an option: {name}: float = 1.0."
    )
