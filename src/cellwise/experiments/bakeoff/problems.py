"""The five problems that cells are compared on. Of every measure the lower value is the better.

What is measured is no part of what is learned, and it is the same for every cell and seed.
"""

from __future__ import annotations

from cellwise.errors import did_you_mean
from cellwise.experiments.bakeoff.bundled import CharactersProblem, DigitsProblem, ForecastProblem
from cellwise.experiments.bakeoff.drawn import AddingProblem, RecallProblem
from cellwise.experiments.bakeoff.problem import BakeoffError, Problem

__all__ = ["PROBLEMS", "BakeoffError", "Problem", "problem_of"]

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        RecallProblem(),
        AddingProblem(),
        DigitsProblem(),
        CharactersProblem(),
        ForecastProblem(),
    )
}


def problem_of(name: str) -> Problem:
    """The problem of this name. Raises BakeoffError if there is none."""
    if name not in PROBLEMS:
        hint = did_you_mean(name, PROBLEMS)
        raise BakeoffError(f"There is no problem called '{name}'; {hint}there are: {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]
