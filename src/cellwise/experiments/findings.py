"""Three questions about recurrent cells, answered by what was measured and by nothing else.

Every sentence is made from the numbers of a study; where they say the opposite of what is usually told, so does the
sentence, and where a cell was not measured, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cellwise.experiments.memory import MemoryStudy, Trial
from cellwise.experiments.vanishing_gradients import Curve, GradientStudy, Training

__all__ = ["Answer", "answers"]

# A rate as near to 1 as this is told as staying.
STAYS = 0.005


@dataclass(frozen=True)
class Answer:
    """A question and the measured facts that bear on it, a sentence each."""

    question: str
    facts: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.question, *(f"  - {fact}" for fact in self.facts)])


def answers(gradients: GradientStudy | None = None, memory: MemoryStudy | None = None) -> tuple[Answer, ...]:
    """What the studies, either or both, say about each of the three questions.

    >>> from cellwise import cells
    >>> from cellwise.experiments.vanishing_gradients import StudySettings, study_gradients
    >>> study = study_gradients([cells.get("rnn")], StudySettings(length=30, hidden_size=8, seeds=1, train=False))
    >>> print(answers(study)[2])
    What is the difference between LSTM and GRU?
      - lstm and gru were not measured in this run.
    """
    made = []
    for question, cells, from_gradients, from_memory in _QUESTIONS:
        facts: list[str] = []
        if gradients is not None:
            facts += from_gradients(gradients)
        if memory is not None:
            facts += from_memory(memory)
        have = set(() if gradients is None else gradients.cells) | set(() if memory is None else memory.cells)
        missing = [cell for cell in cells if cell not in have]
        if missing:
            were = "was" if len(missing) == 1 else "were"
            facts.append(f"{_and(missing)} {were} not measured in this run.")
        made.append(Answer(question, tuple(facts)))
    return tuple(made)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# --- sentences about one curve ----------------------------------------------------------------------------------


def _small(value: float) -> str:
    return "nothing" if value == 0 else f"{value:.1e}" if value < 0.01 or value >= 1000 else f"{value:.2g}"


def _rate(curve: Curve) -> str:
    if math.isnan(curve.rate):
        return "is zero within a few steps"
    if abs(curve.rate - 1) < STAYS:
        return f"stays about the same (a factor of {curve.rate:.3f} per step)"
    return f"{'falls' if curve.rate < 1 else 'grows'} to {curve.rate:.3f} of itself with each step"


def _left(curve: Curve, lags: tuple[int, ...] = (10, 50)) -> str:
    T = len(curve.middle) - 1
    shown = [lag for lag in lags if lag < T] + [T]
    return ", ".join(f"{_small(curve.at(lag))} after {lag}" for lag in shown) + " steps"


def _learned(training: Training) -> str:
    return f"{training.solved} of {training.seeds} seeds learned it"


def _reach(curve: Curve) -> str:
    lag = curve.reach(1e-3)
    T = len(curve.middle) - 1
    return (
        f"less than a thousandth is left from lag {lag} on"
        if lag
        else f"more than a thousandth is left at lag {T}"
    )


def _compare(mine: Curve, other: Curve, lag: int) -> str:
    """What is left of one derivative beside another, told apart only where their bands do not touch."""
    if mine.low[lag] > other.high[lag]:
        return f"more of {mine.cell}'s derivative is left than of {other.cell}'s"
    if mine.high[lag] < other.low[lag]:
        return f"less of {mine.cell}'s derivative is left than of {other.cell}'s"
    return (
        f"{mine.cell}'s derivative cannot be told from {other.cell}'s, since their 10 to 90 % bands overlap"
    )


# --- what is the vanishing gradient problem ---------------------------------------------------------------------


def _vanishing(study: GradientStudy) -> Iterator[str]:
    for cell in study.cells:
        curve = study.find(cell, "as drawn")
        if curve is not None:
            yield (
                f"{cell}, as torch draws its weights: the derivative of the last states by an earlier one "
                f"{_rate(curve)}; of it are left {_left(curve)}, and {_reach(curve)}."
            )
    for cell in study.cells:
        curve, plain = study.find(cell, "orthogonal"), study.find(cell, "as drawn")
        if curve is not None and plain is not None:
            yield f"{cell} with orthogonal recurrent rows: {curve.rate:.3f} per step instead of {plain.rate:.3f}."
    for cell in study.cells:
        clipped = study.find(cell, "as drawn", trained=True)
        if clipped is not None and clipped.training is not None:
            yield (
                f"{cell} after training on the adding problem ({_learned(clipped.training)}): {clipped.rate:.3f} per "
                f"step, {_left(clipped)}."
            )
    yield from _clipping(study)


def _clipping(study: GradientStudy) -> Iterator[str]:
    for cell in study.cells:
        clipped = study.find(cell, "as drawn", trained=True)
        free = study.find(cell, "as drawn", trained=True, clipped=False)
        if clipped is None or free is None or clipped.training is None or free.training is None:
            continue
        a, b = clipped.training, free.training
        yield (
            f"Clipping at {study.settings.clip:g}: {cell}'s gradient was larger in {a.above_clip:.0%} of the updates "
            f"(at most {a.largest_gradient:.2g}); with clipping {_learned(a)}, without it {b.solved} of {b.seeds}, "
            f"and the rates after training are {clipped.rate:.3f} and {free.rate:.3f} per step."
        )


def _lags_learned(study: MemoryStudy) -> Iterator[str]:
    for task in study.settings.tasks:
        parts = [f"{cell} {_longest(study, task, cell)}" for cell in study.cells if study.find(task, cell)]
        if parts:
            within = f"within {study.settings.updates} updates by any of {study.settings.seeds} seeds"
            yield f"Longest lag of {task} learned {within}: {', '.join(parts)}."


def _longest(study: MemoryStudy, task: str, cell: str) -> str:
    longest = study.longest(task, cell)
    if longest is None:
        return f"none (the shortest was {study.settings.lags[0]})"
    beyond = study.at_end_of_lags(task, cell) or study.cut_short(task, cell)
    trial = next(trial for trial in study.find(task, cell) if trial.lag == longest)
    some = "" if all(trial.solved) else f" ({trial.solvers} of {len(trial.solved)} seeds)"
    return f"{longest}{' or more' if beyond else ''}{some}"


# --- how do the LSTM's gates help -------------------------------------------------------------------------------


def _gates(study: GradientStudy) -> Iterator[str]:
    for cell in study.cells:
        if not study.gates[cell]:
            yield f"In {cell} no gate multiplies the old state."
            continue
        yield f"In {cell}, by its equations, {_and(list(study.gates[cell]))}."
        plain, biased = study.find(cell, "as drawn"), study.find(cell, "forget bias")
        if plain is not None and biased is not None:
            yield (
                f"{cell}: with the bias of that gate moved by {study.settings.bias:g} towards keeping, "
                f"{biased.rate:.3f} of the derivative passes each step instead of {plain.rate:.3f}; "
                f"after {len(plain.middle) - 1} steps "
                f"{_small(biased.middle[-1])} is left instead of {_small(plain.middle[-1])}."
            )
        yield from _blocks(study, cell)
    yield from _side_by_side(study, "lstm", "rnn")


def _blocks(study: GradientStudy, cell: str) -> Iterator[str]:
    curve = study.find(cell, "as drawn", trained=True) or study.find(cell, "as drawn")
    if curve is None or not curve.blocks:
        return
    middle = (len(curve.middle) - 1) // 2
    parts = [f"{name} {_small(values[middle])}" for name, values in curve.blocks.items()]
    when = " after training" if curve.training else ""
    yield f"{cell}{when}, state by state over {middle} steps: {', '.join(parts)}."


def _side_by_side(study: GradientStudy, mine: str, other: str) -> Iterator[str]:
    for trained, when in ((False, "As torch draws the weights"), (True, "After training")):
        a, b = (
            study.find(mine, "as drawn", trained=trained),
            study.find(other, "as drawn", trained=trained),
        )
        if a is not None and b is not None:
            lag = min(50, study.settings.length)
            yield (
                f"{when}, after {lag} steps {_compare(a, b, lag)}: {_small(a.at(lag))} and {_small(b.at(lag))}, at "
                f"{a.rate:.3f} and {b.rate:.3f} per step."
            )


def _gates_in_memory(study: MemoryStudy) -> Iterator[str]:
    yield from _duel(study, "lstm", "rnn")
    for cell in study.cells:
        plain, sign, _ = cell.rpartition("+")
        if sign and plain in study.cells:
            yield from _duel(study, cell, plain)


def _duel(study: MemoryStudy, mine: str, other: str) -> Iterator[str]:
    """Who learned longer lags on which task: only what both were tried on, and only as far as the search came."""
    if mine not in study.cells or other not in study.cells:
        return
    for task in study.settings.tasks:
        a, b = study.find(task, mine), study.find(task, other)
        if not a or not b:
            continue
        far, near = study.longest(task, mine) or 0, study.longest(task, other) or 0
        undecided = study.cut_short(task, mine) or study.cut_short(task, other)
        verdict = (
            f"{mine} learned longer lags than {other}"
            if far > near and not study.cut_short(task, other)
            else f"{other} learned longer lags than {mine}"
            if near > far and not study.cut_short(task, mine)
            else f"the time was over before {mine} and {other} were told apart"
            if undecided
            else f"{mine} and {other} learned the same lags"
        )
        reached = f"{mine} {_longest(study, task, mine)}, {other} {_longest(study, task, other)}"
        yield f"On {task}, {verdict}: {reached}{_cost(a, b)}."


def _cost(a: tuple[Trial, ...], b: tuple[Trial, ...]) -> str:
    """The updates that both took at the longest lag that both learned."""
    of_b = {trial.lag: trial for trial in b if trial.solvers}
    both = [(trial, of_b[trial.lag]) for trial in a if trial.solvers and trial.lag in of_b]
    if not both:
        return ""
    mine, other = both[-1]
    took = f"{mine.cell} took {mine.typical_updates} updates and {other.cell} {other.typical_updates}"
    return f"; at lag {mine.lag} {took}"


# --- LSTM and GRU -----------------------------------------------------------------------------------------------


def _lstm_and_gru(study: GradientStudy) -> Iterator[str]:
    if not {"lstm", "gru"} <= set(study.cells):
        return
    a, b = study.parameters["lstm"], study.parameters["gru"]
    H = study.settings.hidden_size
    yield f"With H = {H} a layer of lstm has {a:,} parameters and one of gru {b:,}, {a / b:.2f} to 1."
    for cell in ("lstm", "gru"):
        yield f"In {cell}, by its equations, {_and(list(study.gates[cell]))}."
    yield from _side_by_side(study, "lstm", "gru")
    trained = [study.find(cell, "as drawn", trained=True) for cell in ("lstm", "gru")]
    counts = [(c.cell, c.training) for c in trained if c is not None and c.training is not None]
    if len(counts) == 2:
        yield (
            "On the adding problem "
            + _and([f"{cell} took {t.updates:.0f} updates ({_learned(t)})" for cell, t in counts])
            + "."
        )


def _lstm_and_gru_in_memory(study: MemoryStudy) -> Iterator[str]:
    if {"lstm", "gru"} <= set(study.cells):
        sizes = ", ".join(
            f"{cell} {study.hidden_sizes[cell]} units and {study.parameters[cell]:,} parameters"
            for cell in ("lstm", "gru")
        )
        yield f"Compared with {sizes}."
        yield from _duel(study, "lstm", "gru")


_Facts = Callable[[GradientStudy], Iterator[str]]
_MemoryFacts = Callable[[MemoryStudy], Iterator[str]]
# question, the cells it is about, what each study says
_QUESTIONS: tuple[tuple[str, tuple[str, ...], _Facts, _MemoryFacts], ...] = (
    ("What is the vanishing gradient problem?", ("rnn",), _vanishing, _lags_learned),
    ("How do the LSTM's gates help?", ("rnn", "lstm"), _gates, _gates_in_memory),
    ("What is the difference between LSTM and GRU?", ("lstm", "gru"), _lstm_and_gru, _lstm_and_gru_in_memory),
)
