"""Questions about recurrent cells, answered by what was measured and by nothing else.

Every sentence is made from the numbers of a study, so it also says the opposite of what is usually told, should they.
What was not measured is left out or said to be missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cellwise.experiments.memory import MemoryStudy
from cellwise.experiments.vanishing_gradients import Curve, GradientStudy

__all__ = ["Findings", "findings"]

LAG = 50  # what is left of a derivative is told at this lag, or at the last one there is


@dataclass(frozen=True)
class Findings:
    """A question and the measured figures that answer it, in sentences."""

    question: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.question, *(f"  - {sentence}" for sentence in self.sentences)])


def findings(
    gradients: GradientStudy | None = None, memory: MemoryStudy | None = None
) -> tuple[Findings, ...]:
    """What the studies, either or both, say about each question.

    >>> from cellwise import cells
    >>> from cellwise.experiments.vanishing_gradients import StudySettings, study_gradients
    >>> study = study_gradients([cells.get("rnn")], StudySettings(length=30, hidden_size=8, seeds=1, train=False))
    >>> print(findings(study)[2])
    What is the difference between LSTM and GRU?
      - lstm and gru were not measured in this run.
    """
    measured = {cell for study in (gradients, memory) if study is not None for cell in study.cells}
    answered = []
    for question, cells, from_gradients, from_memory in _QUESTIONS:
        sentences = [] if gradients is None else list(from_gradients(gradients))
        sentences += [] if memory is None else list(from_memory(memory))
        missing = [cell for cell in cells if cell not in measured]
        if missing:
            were = "was" if len(missing) == 1 else "were"
            sentences.append(f"{_and(missing)} {were} not measured in this run.")
        answered.append(Findings(question, tuple(sentences)))
    return tuple(answered)


def _and(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _small(value: float) -> str:
    return "nothing" if value == 0 else f"{value:.1e}" if value < 0.01 or value >= 1000 else f"{value:.2g}"


# --- gradients --------------------------------------------------------------------------------------------------
# In a sentence the first figures stand with the names of their cells; further ones follow in the same order.


def _curves(
    study: GradientStudy, start: str, cells: Sequence[str] = (), trained: bool = False
) -> list[Curve]:
    found = (study.find(cell, start, trained) for cell in cells or study.cells)
    return [curve for curve in found if curve is not None]


def _each(curves: Iterable[Curve], value: Callable[[Curve], str]) -> str:
    return _and(f"{value(curve)} ({curve.cell})" for curve in curves)


def _left(curve: Curve) -> str:
    return _small(curve.at(LAG))


def _lag(study: GradientStudy) -> int:
    return min(LAG, study.settings.length)


def _learned(curve: Curve) -> str:
    training = curve.training
    return "" if training is None else f"{training.solved} of {training.seeds}"


def _vanishing(study: GradientStudy) -> Iterator[str]:
    curves = _curves(study, "as drawn")
    if curves:
        rates = _each(curves, lambda curve: "0" if math.isnan(curve.rate) else f"{curve.rate:.3f}")
        yield (
            f"With the weights that torch draws, each step back multiplies the derivative of the last states by "
            f"{rates}: after {_lag(study)} steps {_and(map(_left, curves))} of it is left."
        )
    yield from _after_training(study, study.cells)


def _after_training(study: GradientStudy, cells: Sequence[str]) -> Iterator[str]:
    trained = _curves(study, "as drawn", cells, trained=True)
    if trained:
        learned = _and(f"{_learned(curve)} {curve.cell}" for curve in trained)
        updates = _and(f"{curve.training.updates:,.0f}" for curve in trained if curve.training is not None)
        yield (
            f"The adding problem was learned by {learned} networks, which trained for {updates} updates on average; "
            f"then {_and(map(_left, trained))} of the derivative is left after {_lag(study)} steps."
        )


def _gates(study: GradientStudy) -> Iterator[str]:
    gates = [f"{_and(study.gates[cell])} in {cell}" for cell in study.cells if study.gates[cell]]
    yield f"By the equations, {_and(gates)}." if gates else "No gate of these cells multiplies an old state."
    biased = _curves(study, "forget bias")
    plain = _curves(study, "as drawn", [curve.cell for curve in biased]) if biased else []
    if plain:
        yield (
            f"Moving the bias of that gate by {study.settings.bias:g} towards keeping leaves {_each(biased, _left)} of "
            f"the derivative after {_lag(study)} steps, instead of {_and(map(_left, plain))}."
        )
    for curve in _curves(study, "as drawn", trained=True):
        blocks = sorted(curve.blocks.items(), key=lambda block: -block[1][_lag(study)])
        parts = [f"of {pair} {_small(values[_lag(study)])}" for pair, values in blocks]
        if parts:
            yield f"In the trained {curve.cell} networks the derivative is, state by state, {_and(parts)}."


def _lstm_and_gru(study: GradientStudy) -> Iterator[str]:
    if not {"lstm", "gru"} <= set(study.cells):
        return
    a, b = study.parameters["lstm"], study.parameters["gru"]
    yield (
        f"With {study.settings.hidden_size} units a layer of lstm has {a:,} parameters and one of gru {b:,}, "
        f"{a / b:.2f} to 1."
    )
    yield from _after_training(study, ("lstm", "gru"))


def _clipping(study: GradientStudy) -> Iterator[str]:
    pairs = [
        (curve, free, curve.training.above_clip)
        for curve in _curves(study, "as drawn", trained=True)
        if (free := study.find(curve.cell, "as drawn", trained=True, clipped=False)) and curve.training
    ]
    if pairs:
        shares = _and(f"{share:.0%} ({curve.cell})" for curve, _, share in pairs)
        yield (
            f"The gradient was larger than {study.settings.clip:g} in {shares} of the updates. Clipped there, "
            f"{_and(_learned(curve) for curve, _, _ in pairs)} networks learned the adding problem; unclipped, "
            f"{_and(_learned(free) for _, free, _ in pairs)}."
        )


# --- memory -----------------------------------------------------------------------------------------------------


def _lags(*cells: str) -> Callable[[MemoryStudy], Iterator[str]]:
    """The longest lags of some cells, with and without a bias; of all if none are named."""

    def sentences(study: MemoryStudy) -> Iterator[str]:
        reached = []
        for task in study.settings.tasks:
            tried = [cell for cell in study.cells if study.find(task, cell)]
            chosen = [cell for cell in tried if not cells or cell.partition("+")[0] in cells]
            lags = {cell: _longest(study, task, cell) for cell in chosen}
            if len(lags) > 1 and len(set(lags.values())) == 1:
                reached.append(f"{task}: all {lags[chosen[0]]}")
            elif lags:
                reached.append(f"{task}: {', '.join(f'{cell} {lag}' for cell, lag in lags.items())}")
        if reached:
            settings = study.settings
            seeds = "the one seed" if settings.seeds == 1 else f"any of {settings.seeds} seeds"
            within = f"within {settings.updates:,} updates by {seeds}"
            yield f"Longest lags learned {within}, in {'; in '.join(reached)}."

    return sentences


def _longest(study: MemoryStudy, task: str, cell: str) -> str:
    longest = study.longest(task, cell)
    if longest is None:
        return f"none (the shortest was {study.settings.lags[0]})"
    trial = next(trial for trial in study.find(task, cell) if trial.lag == longest)
    beyond = " or more" if study.at_end_of_lags(task, cell) or study.cut_short(task, cell) else ""
    some = "" if all(trial.solved) else f" ({trial.solvers} of {len(trial.solved)})"
    return f"{longest}{beyond}{some}"


_FromGradients = Callable[[GradientStudy], Iterator[str]]
_FromMemory = Callable[[MemoryStudy], Iterator[str]]
# question, the cells it is about, what each study says
_QUESTIONS: tuple[tuple[str, tuple[str, ...], _FromGradients, _FromMemory], ...] = (
    ("What is the vanishing gradient problem?", ("rnn",), _vanishing, _lags()),
    ("How do the LSTM's gates help?", ("rnn", "lstm"), _gates, _lags("rnn", "lstm")),
    ("What is the difference between LSTM and GRU?", ("lstm", "gru"), _lstm_and_gru, _lags("lstm", "gru")),
    ("Does clipping help?", (), _clipping, lambda study: iter(())),
)
