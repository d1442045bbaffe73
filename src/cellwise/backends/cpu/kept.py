"""What the forward pass keeps for the backward pass, and the sizes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from cellwise.backends.cpu.engine import Engine


@dataclass(frozen=True)
class Sizes:
    """D, H, P (0 without projection), and the widths of rows of H and P numbers in memory."""

    input: int
    hidden: int
    projected: int
    padded: int
    padded_projected: int

    @staticmethod
    def of(engine: Engine, x: Tensor, weights: Mapping[str, Tensor], states: Sequence[Tensor]) -> Sizes:
        projection = weights.get("weight_hr")
        projected, hidden = (0, states[0].shape[1]) if projection is None else projection.shape
        return Sizes(x.shape[1], hidden, projected, engine.padded(hidden), engine.padded(projected))

    @property
    def lengths(self) -> tuple[int, int, int]:
        return self.input, self.hidden, self.projected

    @property
    def output(self) -> int:
        return self.projected or self.hidden

    @property
    def padded_output(self) -> int:
        return self.padded_projected if self.projected else self.padded

    def of_state(self, place: int) -> tuple[int, int]:
        """The size of a state, and the width of its rows."""
        return (self.output, self.padded_output) if place == 0 else (self.hidden, self.padded)


@dataclass(frozen=True)
class Kept:
    """What a forward pass keeps for the backward pass beside its output, by name: (columns, width) of its rows.

    The outputs are the first state's history where they are that state and nothing is zeroed in between; they are
    kept once more only where the caller's are not in whole vectors.
    """

    shapes: dict[str, tuple[int, int]]
    output_is_history: bool


def history_of(state: str) -> str:
    """What the history of a state is kept under; a state may itself be called tape, or output."""
    return f"{state} history"


def keeps(engine: Engine, sizes: Sizes, has_resets: bool, tape: bool = True) -> Kept:
    """What is kept for layers of these sizes; nothing without `tape`, and then the cell need not be differentiated."""
    graph = engine.graph
    is_history = graph.output is graph.new_states[0] and not has_resets
    if not tape:
        return Kept({}, is_history)
    plan = engine.plan
    shapes: dict[str, tuple[int, int]] = {}
    if plan.tape.columns:
        shapes["tape"] = (len(plan.tape.columns), sizes.padded)
    if sizes.padded_output != sizes.output and (is_history or plan.reads_output):
        shapes["output"] = (1, sizes.padded_output)
    for place, name in enumerate(graph.states):
        # Where states are set to zero between steps, the outputs are not what the next step began with.
        if name in plan.histories or not is_history:
            shapes[history_of(name)] = (1, sizes.of_state(place)[1])
    return Kept(shapes, is_history)
