"""What every backend is given and gives back, and the stacking of layers for those that run one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.backends.heads import in_parts
from cellwise.graph import StepGraph
from cellwise.torch_internals import TransformType


@dataclass(frozen=True)
class LayerSpec:
    """What a layer computes, apart from its numbers."""

    graph: StepGraph
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch of sequences in the one internal form: the valid steps alone, those of one time side by side.

    `data` has shape (N, D), N the sum of `batch_sizes`; `batch_sizes[t]` rows belong to time t and never grow with
    t, so longer sequences stand first. `batch` counts the rows, those without any step included; `steps` the times.
    `resets`, of shape (N,) and bool, marks steps before which the state of their row becomes zero.
    A dense batch of shape (T, B, D) is this form as it lies in memory, and has no `sizes`.

    While a program is traced by torch.compile no number may be read from a tensor, so N is not known: there `data`
    may be longer than the sum of `sizes`, and what lies beyond means nothing. Only a backend with `accepts_padding`
    is given that.
    """

    data: Tensor
    steps: int
    batch: int
    sizes: Tensor | None = None  # (T,), int64, on the CPU
    resets: Tensor | None = None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return (self.batch,) * self.steps if self.sizes is None else tuple(self.sizes.tolist())

    @property
    def is_dense(self) -> bool:
        return self.sizes is None or not self.steps or int(self.sizes[-1]) == self.batch


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters of one layer in one direction, by the stem of their names; absent ones are absent.

    After them, by its name, what the layer is given beside x: (N, H) or (N, 1) of an input; (N, H) of random numbers,
    or (B, H) of those that are drawn once a sequence.
    """

    by_stem: Mapping[str, Tensor]

    def get(self, stem: str) -> Tensor | None:
        return self.by_stem.get(stem)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer. `states` holds for each state of the cell a tensor (L * directions, B, size).

    `parts`: into how many layers of as many units each layer is cut, where its units fall into heads; its recurrent
    weight then comes in parts (`backends.heads`).
    """

    sequences: Sequences
    states: tuple[Tensor, ...]
    weights: tuple[Weights, ...]
    training: bool
    prepared: Any = None  # by the backend, see Backend.prepare
    parts: int = 1


class CallContext(NamedTuple):
    """What of a call decides who can run it, apart from the layer: no numbers, no shapes."""

    device: torch.device
    dtype: torch.dtype
    resets: bool = False
    transforms: tuple[TransformType, ...] = ()  # of torch.func, the outermost first
    forward_mode: bool = False
    autocast: torch.dtype | None = None  # what autocast wants on the device, if it is on
    traced: bool = False  # by torch.compile or torch.export
    recompute: bool = False  # the backward pass is to compute each step again rather than have it kept


class Workload(NamedTuple):
    """How much a call computes: what decides which of several backends is the faster one.

    `steps` T, `batch` B, `rows` the valid steps of all rows together. `recorded`: for a backward pass. `training`: the
    layer's mode; in evaluation a recorded call may well have no backward pass.
    """

    steps: int
    batch: int
    rows: int
    ragged: bool
    recorded: bool
    training: bool
    threads: int


# Output data (N, directions * size of the first state or H), in a dense batch (T, B, ...) if it lies so already, and
# the final states in the form of the initial ones. Several outputs lie side by side, each with all its directions.
Result = tuple[Tensor, tuple[Tensor, ...]]


class PlainBatch(NamedTuple):
    """The form of a plain batch: (T, B, D), or (B, T, D) if `batch_first`; or packed, with the rows of each step.

    beside: of each value beside x that the call gives, the width of its rows, 1 or H. resets: whether some steps begin
    anew. padded: whether the packed rows were in a padded batch, and some sequences may have no step.
    """

    dtype: torch.dtype
    steps: int
    batch: int
    batch_first: bool = False
    sizes: tuple[int, ...] | None = None
    beside: tuple[int, ...] = ()
    resets: bool = False
    padded: bool = False


class Shortcut(ABC):
    """Runs a stack on batches of one form, with all worked out that does not change from call to call.

    Calls are plain: nothing but autograd watches them, and shapes, dtypes and devices are what they were said to be.
    `reads_memory`: tensors must also have their numbers at their addresses, weights in one piece.
    """

    reads_memory = False

    @abstractmethod
    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
        resets: Tensor | None = None,
    ) -> Result:
        """The output in the form of x, and the final states (L * directions, B, H), which are nobody else's.

        Args:
            states: (L * directions, B, size) each; none for zeros.
            weights: of all layers and directions, each in the order of `parameter_layout`; behind them what is given
                beside x, as `Weights` has it, but for the parts of a layer's input.
            sizes: (T,) the rows of each step, of a packed batch.
            resets: (N,) uint8, nobody else's, of a batch with `resets`: marks the steps before which states are zero.
        """


class Follower(ABC):
    """A stepper of one row that reads what it wrote: each step's input is the row of a table that was chosen."""

    @abstractmethod
    def run(self, read: Tensor | None, noise: Tensor) -> list[int]:
        """The ids that are chosen in as many steps as `noise` (steps, V) has rows, no more than it was made for.

        The scores of a step are its noise and the product of the last output with the weight; the largest is chosen,
        and its row of the table is the next input. All is contiguous, and of the stepper's dtype.

        Args:
            read: (H,) the output that the first step goes on from; None for that of the last step.
        """


class Stepper(ABC):
    """A stack of layers that is fed one step at a time and keeps its states, which are zero at first.

    reads_all: whether every step looks at every number of the weights.
    is_recorded: whether a CUDA graph of the caller's knows its memory, which then is to live as long as the stream.
    """

    reads_all = False
    is_recorded = False

    @abstractmethod
    def step(self, x: Tensor, y: Tensor) -> bool | None:
        """From x (B, D) to y (B, outputs * H), both contiguous and apart.

        Returns:
            False if the weights it was made on are seen to hold other numbers by now: then the states are as they were,
            and y means nothing. All weights are seen in time. None if it makes no step of this x, or none now: nothing
            was done, and the layer is to be called instead.
        """

    def give(self, beside: Sequence[Any]) -> None:
        """Say what stands beside x from now on.

        Args:
            beside: for each of `StepGraph.asked_inputs` a number, or a tensor of B or B * H numbers of the stepper's
                dtype, without gradients.
        """
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether all weights hold what they held when it was made."""
        return False

    def follower(self, table: Tensor, weight: Tensor, most: int) -> Follower | None:
        """One that goes on from this stepper's states, for up to `most` steps at a time; None if there is none.

        Args:
            table: (V, D) of inputs.
            weight: (H, V) that makes scores of an output.
        """
        return None

    @property
    @abstractmethod
    def states(self) -> tuple[Tensor, ...]:
        """The states after the last step, (L, B, size) each; may be set."""

    @states.setter
    @abstractmethod
    def states(self, given: tuple[Tensor, ...]) -> None: ...


class Backend(ABC):
    """One way to run a plan."""

    name: str
    summary: str
    accepts_padding = False  # rows of data beyond the valid steps, see Sequences

    @abstractmethod
    def supports(self, stack: LayerSpec, context: CallContext) -> str | None:
        """None if this backend can run such calls, else the reason why not, as the end of a sentence."""

    def prepare(self, stack: LayerSpec, context: CallContext) -> Any:
        """What `run` wants to know beside the call, as plain data; worked out once and kept, never traced."""
        return None

    def parts(self, stack: LayerSpec, rows: int | None) -> int:
        """Into how many parts a layer whose units fall into heads is cut, in a call of so many valid steps of all rows;
        None where they are not known.
        """
        return 1

    def detail(self, stack: LayerSpec, context: CallContext, steps: int, batch: int) -> str | None:
        """How it would run a call of this T and B, as the end of a sentence, where it has several ways."""
        return None

    @abstractmethod
    def run(self, stack: LayerSpec, call: Call) -> Result:
        """Run the whole stack."""

    def shortcut(self, stack: LayerSpec, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        """The short way for plain batches of one form; None if there is none."""
        return None

    def stepper(
        self,
        stack: LayerSpec,
        prepared: Any,
        weights: tuple[Weights, ...],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        """A stepper on these weights as they are now, for a stack of one direction; None if there is no special one.

        Args:
            watched: what the weights are made of, and are again when that changes; mostly they themselves.
        """
        return None


def with_parts(weights: Weights, graph: StepGraph, data: Tensor) -> Weights:
    """The weights of a layer with the parts of its input data (N, D) that its equations take as they are, (N, H)."""
    if not graph.input_parts:
        return weights
    parts = dict(zip(graph.input_parts, data.chunk(len(graph.input_parts), dim=-1), strict=True))
    # In the order of `StepGraph.given`: behind what a call gives, before what was drawn.
    drawn = {draw.name: weights.by_stem[draw.name] for draw in graph.asked_draws}
    others = {stem: value for stem, value in weights.by_stem.items() if stem not in drawn}
    return Weights({**others, **parts, **drawn})


RunDirection = Callable[[StepGraph, Weights, Sequences, tuple[Tensor, ...], bool], Result]


def joined(outputs: list[Tensor], count: int, is_last: bool) -> Tensor:
    """What the directions of a layer give: of several outputs the first alone, but for the last layer."""
    if count == 1 or (len(outputs) == 1 and is_last):
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    pieces = [each.unflatten(-1, (count, -1)) for each in outputs]
    whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)
    return whole.flatten(-2) if is_last else whole.select(-2, 0).contiguous()


def _without_gradient(sequences: Sequences) -> Sequences:
    data = sequences.data.detach()
    return Sequences(data, sequences.steps, sequences.batch, sequences.sizes, sequences.resets)


# The same of both directions of a layer at once: their outputs side by side, and the final states of each. None where
# one is to run after the other.
RunBoth = Callable[
    [Sequence[Weights], Sequences, Sequence[tuple[Tensor, ...]]],
    tuple[Tensor, list[tuple[Tensor, ...]]] | None,
]


def run_stacked(
    stack: LayerSpec,
    call: Call,
    run_direction: RunDirection,
    fresh: bool = False,
    run_both: RunBoth | None = None,
) -> Result:
    """Run a stack layer by layer with a function for one layer in one direction; dropout stands between layers.

    `fresh` says that its final states are nobody else's. They then are no views, on which some of torch is forbidden.
    """
    sequences = call.sequences
    if call.parts > 1:
        run_direction = in_parts(run_direction, call.parts)
    finals: list[tuple[Tensor, ...]] = []
    # Parts of the input that equations take as they are. Without a product with all of it no gradient comes back to it
    # but through these, and zeros would be as large as it.
    takes_parts_alone = bool(stack.graph.input_parts) and not stack.graph.input_gates
    for layer in range(stack.num_layers):
        indices = range(layer * stack.directions, (layer + 1) * stack.directions)
        rows = _without_gradient(sequences) if takes_parts_alone else sequences
        initial = [tuple([state.select(0, index) for state in call.states]) for index in indices]
        weights = [with_parts(call.weights[index], stack.graph, sequences.data) for index in indices]
        both = None
        if run_both is not None and stack.directions == 2 and call.parts == 1:
            both = run_both(weights, rows, initial)
        if both is None:
            found = [
                run_direction(stack.graph, weights[direction], rows, initial[direction], direction == 1)
                for direction in range(stack.directions)
            ]
            finals += [final for _, final in found]
            outputs = [output for output, _ in found]
            data = joined(outputs, 1 + len(stack.graph.others), layer == stack.num_layers - 1)
        else:
            data, ends = both
            finals += ends
        if stack.dropout and call.training and layer < stack.num_layers - 1:
            data = F.dropout(data, stack.dropout)
        # Not `dataclasses.replace`: a compiled program would look at all that it reads before each run.
        sequences = Sequences(data, sequences.steps, sequences.batch, sequences.sizes, sequences.resets)
    if len(finals) == 1:
        return sequences.data, tuple([s.unsqueeze_(0) if fresh else s.unsqueeze(0) for s in finals[0]])
    return sequences.data, tuple([torch.stack(states) for states in zip(*finals, strict=True)])
