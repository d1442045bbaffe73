"""What a compiler of kernels is to do: all that `compiled` asks of a processor, or of a device.

    KernelCompiler --compile(program, dtype)--> CompiledKernel --open(shape)--> KernelRun --bind, launch, sums

A kernel is good for any sizes. A run is a kernel for one shape of call: whatever depends on sizes and steps alone is
worked out when it is opened, and a call then binds its tensors and launches. A compiler that wants other code for other
sizes makes that in `open`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellwise.backends.base import LayerSpec, Stepper
from cellwise.backends.compiled.schema import register_device
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.plan.program import Buffer, Program, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.compiled.cell_kernels import CellKernels
    from cellwise.backends.compiled.gradients import BlockSlice, RowBlocks
    from cellwise.backends.compiled.stack import SmallStack


class Sizes(NamedTuple):
    """D, H, P (0 without projection), and the widths of rows of H and P numbers in memory.

    `outputs` of a step lie side by side, each as wide as `output`, or `padded_output`.
    """

    input: int
    hidden: int
    projected: int
    padded: int
    padded_projected: int
    outputs: int = 1

    @property
    def output(self) -> int:
        return self.projected or self.hidden

    @property
    def padded_output(self) -> int:
        return self.padded_projected if self.projected else self.padded

    def of_state(self, place: int) -> tuple[int, int]:
        """The size of a state, and the width of its rows."""
        return (self.output, self.padded_output) if place == 0 else (self.hidden, self.padded)


class Carried(enum.Enum):
    """How the rows of a state are found from step to step."""

    PAIR = "in two buffers of B rows each, which change places: only the last states matter"
    HISTORY = "in the rows of all steps, in the order of this run"
    OPPOSITE = "in the rows of all steps, left there by a run the other way round"


class RunShape(NamedTuple):
    """What of a call is no number.

    stems: the names of the weights, in the order in which they are given. carried: for each buffer of the program that
    is carried into a step, in their order. resets: whether some steps begin with states of zero.
    """

    sizes: Sizes
    schedule: TimeSchedule
    stems: tuple[str, ...]
    carried: tuple[Carried, ...]
    resets: bool
    device: torch.device


class KernelRun(ABC):
    """A kernel for one shape of call. One call uses it at a time.

    at_once: how many runs, this one among them, `KernelCompiler.launch` is to be given together; set before `bind`.
    """

    at_once: int = 1

    @abstractmethod
    def bind(
        self,
        buffers: Sequence[Tensor],
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
    ) -> None:
        """Take the tensors of a call, all contiguous, of the kernel's dtype and device. They live until it is over.

        Args:
            buffers: for each of `given_buffers(program)` its rows, (N or the rows of a span, columns * width). One
                beside x that has a number for all units holds it in rows of the width for one number, as often as fits.
            firsts: for each buffer that is carried into a step the states before a row's first step, (B, width).
            histories: for each of these the states after the steps: (N, width), or two buffers (2 B, width),
                of which a dense run of a single step has the first alone.
            weights: in the order of `RunShape.stems`, as the layer has them.
            resets: (N,) uint8. Before a step that is marked, in a run backwards after it, the states become zero.
        """

    @abstractmethod
    def launch(self, first: int, end: int) -> None:
        """Run the steps from `first` up to `end`, in the order of the schedule."""

    @abstractmethod
    def sums(self) -> dict[str, Tensor]:
        """What all steps so far have added up to, (columns * width,) in float64, by the name of the buffer."""

    def release(self) -> None:
        """The call is over: let go of its tensors. The run may be kept for other calls."""
        return


class CompiledKernel(ABC):
    """A program for one element type."""

    program: Program

    @abstractmethod
    def open(self, shape: RunShape) -> KernelRun:
        """The kernel for such calls."""


class GradientProducts(ABC):
    """Makes the gradients of weights and of the input from those at gates, of a span of steps at a time.

    What is asked for is there after `run`; until then nothing that was given may change.
    """

    @abstractmethod
    def at_weight(
        self, gates: Tensor, runs: Sequence[BlockSlice], operand: RowBlocks, out: Tensor, add: bool
    ) -> None:
        """What `gradients.at_weight` computes."""

    @abstractmethod
    def at_operand(self, gates: Tensor, runs: Sequence[BlockSlice], weight: Tensor, out: Tensor) -> None:
        """What `gradients.at_operand` computes."""

    @abstractmethod
    def run(self) -> None:
        """Make all that was asked for."""


class SmallCall(NamedTuple):
    """The shape of a call that may be small.

    lengths: D, H and P. given: the shape of an output that is handed to the caller, with final states (1, B, H); None
    of one that goes to the next layer, (N, H), with final states (B, H). has_states: whether the states are the
    caller's, who wants gradients at them. device: of its tensors. has_resets: whether it is given `resets`. beside: the
    width of each value beside x, 1 or H, in the order of `StepGraph.asked_inputs`. is_ragged: whether its rows are
    given by lengths, which are others in the next call.
    """

    kernels: CellKernels
    bias: bool
    lengths: tuple[int, int, int]
    schedule: TimeSchedule
    given: tuple[int, ...] | None
    has_states: bool
    device: torch.device
    has_resets: bool = False
    beside: tuple[int, ...] = ()
    is_ragged: bool = False


class SmallPass(ABC):
    """A layer pass on one shape of call, in less time than by way of `CompiledKernel.open`: on a CPU of small ones, in
    one thread; on a GPU of any dense ones.

    x (rows, D) in any shape that lies so in memory, states (B, H) and weights are contiguous; what stands beside x need
    not be. A plan with resets is given these too, (rows,) uint8, behind all else. What is kept is what `ForwardPass`
    keeps: a backward pass may go either way.

    infers, records, differentiates: whether a forward pass without gradients, one with them, and a backward pass are to
    go this one.
    """

    infers = records = differentiates = True
    # Whether a caller, who may write to it, is given the output that is kept, if these are one (`handed_out.py`).
    shares_output = False

    @abstractmethod
    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        """The output, the same, the final states, and an empty list."""

    @abstractmethod
    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        """The output, what is kept of it, the final states, and what else is kept."""

    @abstractmethod
    def differentiate(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        output: Tensor,
        saved: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
        *resets: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """The gradients at x, at the states if the layer was given any, and at the weights.

        Args:
            output: what was kept of it.
            gradients: at the output and the final states; None for zero.
        """


class KernelCompiler(ABC):
    """Makes kernels for a type of device, and memory for them.

    layout: one word for how rows lie in memory. It is part of what torch knows a cell by: programs that were compiled
    for rows of one width must not be found where they have another.
    """

    device_type: str
    dtypes: tuple[torch.dtype, ...]
    layout: str
    # Gradients at gates are held for a span of steps, then they become gradients of weights and input. It has so many
    # rows that threads seldom wait for each other at the end of one, in so many bytes at least and at most; fewer with
    # recomputation, where memory is what was asked for.
    span_rows: int = 2**13
    span_bytes: tuple[int, int] = (16 * 2**20, 32 * 2**20)
    recomputing_span_bytes: int = 8 * 2**20
    # Whether `small_pass` is for calls of any size, and gives the bits that the general way gives for weights too.
    plans_every_call = False

    @abstractmethod
    def row_width(self, size: int, dtype: torch.dtype) -> int:
        """How many numbers apart rows of so many numbers are."""

    @abstractmethod
    def compile(self, program: Program, dtype: torch.dtype) -> CompiledKernel:
        """The kernel of a program."""

    @abstractmethod
    def empty(self, rows: int, width: int, like: Tensor, scratch: bool) -> Tensor:
        """Uninitialised memory for rows of numbers of the dtype and on the device of `like`.

        Args:
            scratch: it is needed until the present call is over, and no longer.
        """

    def zeros(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros that are kept from call to call and only read."""
        with torch.inference_mode(False):
            return torch.zeros(tuple(shape), dtype=dtype, device=device)

    def constant(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """Whole numbers, int64, that are kept from call to call and only read."""
        with torch.inference_mode(False):
            return torch.tensor(numbers, dtype=torch.int64, device=device)

    def settings(self) -> Hashable:
        """What `small_pass` decides by that may be other at the next call: settings of torch's."""
        return None

    def begin(self) -> None:
        """A call begins: the scratch memory that this thread was given before is free."""
        return

    def gradient_products(self, dtype: torch.dtype) -> GradientProducts | None:
        """For one call: makes gradients of weights sooner than torch's products do, if there is a way."""
        return None

    def small_pass(self, call: SmallCall) -> SmallPass | None:
        """A way for calls of this shape that begins sooner, if they are small and there is one."""
        return None

    def small_stack(self, calls: Sequence[SmallCall], records: bool, is_masked: bool) -> SmallStack | None:
        """A way for all layers of a stack of one direction at once, if its calls are small and there is one.

        Args:
            calls: of each layer; `given` is the shape of the last one's output, and None of the others.
            records: whether a backward pass follows.
            is_masked: whether what a layer gives to the next is multiplied by a mask.
        """
        return None

    def fork(
        self, passes: Sequence[SmallPass], records: bool, tensors: Sequence[Tensor]
    ) -> AbstractContextManager[None] | None:
        """A context for the second of two passes that want nothing of each other, to run beside the first.

        What runs in it begins after all that was asked for before it was made; what follows it waits for both.

        Args:
            records: whether they keep a tape.
            tensors: what they read.

        Returns:
            None if they are to run one after the other.
        """
        return None

    def runs_at_once(
        self, kernels: CellKernels, lengths: tuple[int, int, int], schedule: TimeSchedule, records: bool
    ) -> bool:
        """Whether the two directions of a layer on such calls are to be launched together; `lengths` are D, H and P,
        `records` says whether a backward pass follows.
        """
        return False

    def launch(self, runs: Sequence[tuple[KernelRun, int, int]]) -> None:
        """Run steps of several runs that want nothing of each other: of each from the first up to the end."""
        for run, first, end in runs:
            run.launch(first, end)

    def stepper(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Sequence[Tensor]],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        """A stepper on these weights, those of each layer, if there is a way for single steps that is faster;
        `watched` as in `Backend.stepper`.
        """
        return None


# What a call gives rows of, one by one.
GIVEN = (
    StorageClass.PER_STEP,
    StorageClass.PER_CHUNK,
    StorageClass.BESIDE,
    StorageClass.PER_SEQUENCE,
)


def given_buffers(program: Program) -> tuple[Buffer, ...]:
    """The buffers whose rows a call gives one by one; those of states apart, and those that a run makes itself."""
    return tuple(buffer for buffer in program.buffers if buffer.storage in GIVEN)


def carried_buffers(program: Program) -> tuple[Buffer, ...]:
    """The buffers that are carried into a step, of the program's own states and of those it reads."""
    return tuple(buffer for buffer in program.buffers if buffer.storage is StorageClass.CARRY_IN)


# --- which there are ------------------------------------------------------------------------------------------------

Load = Callable[[], KernelCompiler]
_LOADERS: dict[str, Load] = {}
_OF_DEVICE: dict[str, str] = {}


def register(name: str, device_type: str, load: Load) -> None:
    """Make a compiler known under the name of its backend. The first for a type of device is the one that runs
    programs which name none, those that were exported for another device among them.

    Args:
        load: imports what it needs, LLVM for one, when it is first called.
    """
    _LOADERS[name] = load
    _OF_DEVICE.setdefault(device_type, name)
    register_device(device_type)


def is_default(name: str) -> bool:
    """Whether a compiler is the one for all programs on its type of device."""
    return name in _OF_DEVICE.values()


def is_known(name: str) -> bool:
    """Whether a compiler has this name."""
    return name in _LOADERS


def load(name: str) -> KernelCompiler:
    """The compiler of this name."""
    return _LOADERS[name]()


def name_for(device_type: str) -> str | None:
    """The compiler for tensors on this type of device. Those on "meta" have only shapes: the first one knows these."""
    return _OF_DEVICE.get(next(iter(_OF_DEVICE), "") if device_type == "meta" else device_type)


def has_kernels(device: torch.device) -> bool:
    """Whether there are kernels for tensors on a device."""
    return device.type in _OF_DEVICE
