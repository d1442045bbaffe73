"""What a benchmark is asked for: shapes, modes, repeats. Checked before anything is measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError, did_you_mean


class BenchError(CellwiseError, ValueError):
    """A benchmark was asked for that cannot be."""


@dataclass(frozen=True, order=True)
class Shape:
    """A batch and a layer: T steps, B rows, D inputs, H hidden units.

    >>> Shape.parse("100,16,64,128")
    Shape(T=100, B=16, D=64, H=128)
    >>> str(Shape(1, 2, 3, 4))
    '1,2,3,4'
    """

    T: int
    B: int
    D: int
    H: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read "T,B,D,H".

        Raises:
            BenchError: these are not four whole numbers of at least 1.
        """
        if not re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*){3}", text, re.ASCII):
            raise BenchError(
                f"A shape is four whole numbers T,B,D,H (steps, rows, inputs, hidden units), as 100,16,64,128; "
                f"got '{text}'."
            )
        shape = cls(*map(int, text.split(",")))
        if min(shape.T, shape.B, shape.D, shape.H) < 1:
            raise BenchError(f"Each of the four numbers of a shape is at least 1; got '{text}'.")
        return shape

    def __str__(self) -> str:
        return f"{self.T},{self.B},{self.D},{self.H}"


SHAPES = tuple(
    map(
        Shape.parse,
        (
            "100,16,64,128",
            "100,64,128,128",
            "100,64,256,256",
            "100,64,512,512",
            "35,20,650,650",
            "784,64,1,128",
            "50,256,32,32",
            "100,1,64,128",
        ),
    )
)
# On a GPU, where shorter and smaller calls are those of the host: D = H.
CUDA_SHAPES = tuple(
    map(
        Shape.parse,
        (
            "1024,16,768,768",
            "1024,16,64,64",
            "512,64,256,256",
            "256,64,512,512",
            "784,128,128,128",
            "128,128,1024,1024",
        ),
    )
)
# What a step is timed on where no shapes are asked for.
STEP_SHAPES = (Shape(1, 1, 64, 64), Shape(1, 1, 64, 128))
# Calls as reinforcement learning makes them: few steps of few rows.
SMALL_SHAPES = tuple(map(Shape.parse, ("1,1,64,128", "1,16,64,128", "4,8,64,128", "8,16,64,64")))

# mode -> what is timed
MODES = {
    "forward": "outputs and final states, without gradients",
    "train": "forward, and backward to the gradients of the input, the initial states and all parameters",
    "step": "one step of one row, the state kept: `layer.stream()`",
    "step-out": "step, the result put where the caller wants it: `stream(x, out=y)`",
    "small-forward": "forward on calls of few steps and few rows",
    "small-train": "train on calls of few steps and few rows",
    "recompute": "train, beside the same kernels with `layer.recompute`: no tape, each step computed again",
    "ragged": "train with lengths spread evenly from 1 to T, beside the padded batch and torch's packed one",
    "ragged-forward": "forward with lengths spread evenly from 1 to T",
}
# Of weights, inputs and states, by the type of device; tf32 is float32 whose products may be in TF32.
DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16", "float16")}
# torch.set_float32_matmul_precision for all sides. "medium" would compare what libraries round in different ways.
PRECISIONS = ("highest", "high")
DEVICES = tuple(DTYPES)
DEFAULT_MODES = ("forward", "train", "step", "ragged")
# One word for several modes.
GROUPS = {"small": ("small-forward", "small-train", "step", "step-out")}
STEPS, _SMALL = ("step", "step-out"), ("small-forward", "small-train")


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        cells: name -> cell.
        shapes: of the batches; steps are timed at T = B = 1 with their D and H.
        modes: some of `MODES`.
        repeats: runs of each side at most.
        seconds: after which no further run begins, per shape and mode; three runs are made in any case.
        load: measure all again while other processes keep all cores busy.
        dtype: of all sides, one of `DTYPES` for the device.
        device: "cpu" or "cuda", the GPU that torch works on.
        precision: of float32 products on a CPU, one of `PRECISIONS`; on a GPU the dtype "tf32" says it.
    """

    cells: dict[str, Cell]
    shapes: tuple[Shape, ...] | None = None
    modes: tuple[str, ...] = DEFAULT_MODES
    repeats: int = 25
    seconds: float = 2.0
    load: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    precision: str = PRECISIONS[0]

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise BenchError(
                f"There is no benchmark on '{self.device}'; the devices are: {', '.join(DEVICES)}."
            )
        known = DTYPES[self.device]
        if self.dtype not in known:
            raise BenchError(
                f"There is no benchmark in '{self.dtype}' on {self.device}; the dtypes are: {', '.join(known)}."
            )
        if self.precision not in PRECISIONS:
            raise BenchError(
                f"There is no benchmark in precision '{self.precision}'; there is: {', '.join(PRECISIONS)}."
            )
        if self.precision != PRECISIONS[0] and (self.device, self.dtype) != ("cpu", "float32"):
            raise BenchError(
                f"--precision is of float32 products on a CPU; got {self.dtype} on {self.device}. On a GPU it is "
                "--dtype tf32."
            )
        if self.load and self.device != "cpu":
            raise BenchError("--load keeps the cores of this machine busy; it goes with --device cpu alone.")
        for mode in self.modes:
            if mode not in MODES:
                known = (*MODES, *GROUPS)
                hint = did_you_mean(mode, known)
                raise BenchError(f"There is no mode '{mode}'; {hint}the modes are: {', '.join(known)}.")
        if self.repeats < 3:
            raise BenchError(f"A spread needs at least 3 repeats; got {self.repeats}.")
        if not self.seconds > 0:
            raise BenchError(f"The seconds for a shape and mode must be more than 0; got {self.seconds:g}.")

    def shapes_of(self, mode: str) -> tuple[Shape, ...]:
        """The shapes that a mode is timed on."""
        if mode not in STEPS:
            batches = SHAPES if self.device == "cpu" else CUDA_SHAPES
            return self.shapes or (SMALL_SHAPES if mode in _SMALL else batches)
        if self.shapes is None:
            return STEP_SHAPES
        return _unique(Shape(1, 1, shape.D, shape.H) for shape in self.shapes)

    def jobs(self) -> tuple[tuple[str, Shape, tuple[str, ...]], ...]:
        """(cell, shape, modes) in the order in which they are measured."""
        shapes = _unique(shape for mode in self.modes for shape in self.shapes_of(mode))
        return tuple(
            (name, shape, tuple(mode for mode in self.modes if shape in self.shapes_of(mode)))
            for name in self.cells
            for shape in shapes
        )


def _unique(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    return tuple(dict.fromkeys(shapes))


def parse_modes(text: str) -> tuple[str, ...]:
    """Read "forward,train"; "small" is all modes of small calls, "none" is no mode, for those who want memory alone.

    >>> parse_modes("forward, train"), parse_modes("none")
    (('forward', 'train'), ())
    >>> parse_modes("small")
    ('small-forward', 'small-train', 'step', 'step-out')
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return ()
    return tuple(dict.fromkeys(mode for word in words for mode in GROUPS.get(word, (word,))))
