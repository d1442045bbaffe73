"""The one list of conformance cases: cells x shapes x options. Whatever runs a cell walks it.

>>> case = CASES[0]
>>> layer, arguments = case.layer(), case.arguments()
>>> output, state = layer(arguments.x, arguments.state)

A test over all of them: `@pytest.mark.parametrize("case", CASES, ids=str)`. For a cell of one's own: `cases_of(cell)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.cells.rnn import RNN
from cellwise.graph.forms import BLOCKS
from cellwise.graph.widths import widths_of
from cellwise.nn.layers import LSTM
from cellwise.nn.recurrent import Recurrent, RecurrentLayer
from cellwise.plan import state_sizes, width_problem


@dataclass(frozen=True, eq=False)
class Arguments:
    """What a layer is called with. `x` is padded also where the call packs it; `state` as the layer takes it.

    `beside` are the inputs beside x, in the form of x.
    """

    x: Tensor
    state: Any = None
    lengths: Tensor | None = None
    resets: Tensor | None = None
    packed: bool = False
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The initial states, none if they are left to be zero."""
        if self.state is None:
            return ()
        return self.state if isinstance(self.state, tuple) else (self.state,)


@dataclass(frozen=True)
class Case:
    """One layer and one call of it. Its numbers depend on nothing but its fields, and fit float32 exactly.

    The input of a cell that takes parts of it as they are has the width that this asks for, whatever `input_size` is.
    """

    cell: Cell
    steps: int = 7
    batch: int = 2
    input_size: int = 5
    hidden_size: int = 3
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    bidirectional: bool = False
    proj_size: int = 0
    unbatched: bool = False
    lengths: tuple[int, ...] | None = None
    packed: bool = False
    resets: bool = False
    initial: bool = False
    recompute: bool = False
    learned: bool = False
    situation: str = "plain"

    def __str__(self) -> str:
        options = "-".join(str(value) for value in self.cell.options.values())
        return "-".join(filter(None, (self.cell.name, options, self.situation)))

    @property
    def width(self) -> int:
        """D."""
        return len(self.cell.graph.input_parts) * self.hidden_size or self.input_size

    @property
    def fitting(self) -> Case:
        """The same with D and H that the heads of the cell's weights divide, and H its parts that have units."""
        forms = [
            form for graph in (self.cell.graph, self.cell.training_graph) for form in graph.forms.values()
        ]
        heads = math.lcm(*(int(form.number) for form in forms if form.kind == BLOCKS))
        parts = heads * math.lcm(*(units.per or 1 for _, units in self.cell.graph.widths))
        wide, hidden = (
            -(-size // of) * of for size, of in ((self.input_size, heads), (self.hidden_size, parts))
        )
        return replace(self, input_size=wide, hidden_size=hidden)

    @property
    def is_possible(self) -> bool:
        """Whether the cell can have so many layers and directions: deeper layers have the width of those below."""
        sizes = (self.width, self.hidden_size, self.num_layers, 2 if self.bidirectional else 1)
        return width_problem(self.cell.graph, *sizes) is None

    def layer(self, backend: str = "auto", dtype: torch.dtype = torch.float64) -> RecurrentLayer:
        """A new layer; the same weights each time, in whatever dtype. One that draws masks is in evaluation."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            made: RecurrentLayer
            shared: dict[str, Any] = {
                "num_layers": self.num_layers,
                "bias": self.bias,
                "batch_first": self.batch_first,
                "bidirectional": self.bidirectional,
                "backend": backend,
                "dtype": torch.float32,
            }
            if self.proj_size:
                made = LSTM(self.width, self.hidden_size, proj_size=self.proj_size, **shared)
            else:
                made = Recurrent(
                    self.cell, self.width, self.hidden_size, learned_initial=self.learned, **shared
                )
            for state in made.learned_first:
                for name, value in made.named_parameters():
                    if name.startswith(f"{state}0_l"):
                        torch.nn.init.uniform_(value, -1, 1)
        made.recompute = self.recompute
        made.train(self.cell.training_graph is self.cell.graph)
        return made.to(dtype)

    def arguments(self, dtype: torch.dtype = torch.float64) -> Arguments:
        """New arguments for the layer; the same numbers each time, in whatever dtype."""
        generator = torch.Generator().manual_seed(2)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)

        leading = [self.batch, self.steps] if self.batch_first else [self.steps, self.batch]
        if self.unbatched:
            leading = [self.steps]
        x = draw(*leading, self.width)
        rows = self.num_layers * (2 if self.bidirectional else 1)
        inner = [rows] if self.unbatched else [rows, self.batch]
        sizes = state_sizes(self.cell.graph, self.hidden_size, self.proj_size)
        states = tuple(draw(*inner, size) for size in sizes)
        lengths = None if self.lengths is None else torch.tensor(self.lengths)
        resets = torch.rand(leading, generator=generator) < 0.4 if self.resets else None
        # One number a row, or where there are initial states one a unit, so that cases have both.
        units = widths_of(self.cell.graph).inputs

        def beside(name: str) -> Tensor:
            of = units[name]
            shape = (*leading, of.at(self.hidden_size)) if self.initial and of is not None else leading
            return torch.rand(shape, generator=generator).to(dtype)

        return Arguments(
            x,
            (states if len(states) > 1 else states[0]) if self.initial else None,
            lengths[0] if lengths is not None and self.unbatched else lengths,
            resets,
            self.packed,
            {name: beside(name) for name in self.cell.inputs},
        )


_PLAIN = Case(RNN())


def _situation(name: str, **fields: Any) -> Case:
    return replace(_PLAIN, situation=name, **fields)


# Sizes are odd on purpose: 1 and 3 fill no vector register, 17 overflows one of 16; a batch of 5 divides evenly into
# nothing. Each row says in its name what it is there for.
SITUATIONS: tuple[Case, ...] = (
    _situation("plain"),
    _situation("all-ones", steps=1, batch=1, input_size=1, hidden_size=1),
    _situation("one-unit", hidden_size=1, initial=True),
    _situation("one-step", steps=1, batch=5, initial=True),
    _situation("two-steps", steps=2, batch=1),
    _situation("one-row", batch=1, hidden_size=17, initial=True),
    _situation("one-input", input_size=1, batch=5),
    _situation("seventeen-units", hidden_size=17, batch=5, initial=True),
    _situation("no-rows", batch=0, initial=True),
    _situation("no-bias", bias=False, initial=True),
    _situation("batch-first", batch_first=True, batch=5, initial=True),
    _situation("unbatched", unbatched=True, initial=True),
    _situation("unbatched-batch-first-both-ways", unbatched=True, batch_first=True, bidirectional=True),
    _situation("both-ways", bidirectional=True, initial=True),
    _situation("two-layers", num_layers=2, batch=5, initial=True),
    _situation("three-layers-both-ways", num_layers=3, bidirectional=True, initial=True, steps=2),
    _situation("two-layers-no-bias-both-ways", num_layers=2, bidirectional=True, bias=False, steps=2),
    _situation("ragged", batch=5, lengths=(3, 7, 1, 5, 5), initial=True),
    _situation("ragged-with-empty-rows", batch=5, lengths=(0, 7, 1, 0, 2), initial=True),
    _situation("ragged-none-full", batch=5, lengths=(4, 2, 1, 0, 4), initial=True),
    _situation("ragged-all-empty", batch=2, lengths=(0, 0), initial=True),
    _situation("ragged-full", batch=2, lengths=(7, 7)),
    _situation("ragged-one-step", steps=1, batch=2, lengths=(0, 1), initial=True),
    _situation("ragged-both-ways", batch=5, lengths=(3, 7, 1, 5, 0), bidirectional=True, initial=True),
    _situation(
        "ragged-batch-first-two-layers-both-ways",
        batch=5,
        lengths=(3, 1, 7, 0, 5),
        num_layers=2,
        bidirectional=True,
        batch_first=True,
        initial=True,
    ),
    _situation("ragged-unbatched", unbatched=True, batch=1, lengths=(4,), initial=True),
    _situation("packed", batch=5, lengths=(3, 7, 1, 5, 5), packed=True, initial=True),
    _situation(
        "packed-batch-first-both-ways",
        batch=5,
        lengths=(7, 7, 2, 5, 1),
        packed=True,
        batch_first=True,
        bidirectional=True,
        num_layers=2,
    ),
    _situation("resets", resets=True, batch=5, initial=True),
    _situation("resets-both-ways", resets=True, bidirectional=True, batch=5, initial=True),
    _situation("resets-batch-first-two-layers", resets=True, num_layers=2, batch_first=True, initial=True),
    _situation("resets-ragged", resets=True, batch=5, lengths=(3, 7, 0, 5, 1), initial=True),
    _situation(
        "resets-ragged-both-ways",
        resets=True,
        batch=5,
        lengths=(3, 7, 0, 5, 6),
        bidirectional=True,
        batch_first=True,
        initial=True,
    ),
    _situation("resets-packed", resets=True, batch=5, lengths=(3, 7, 2, 5, 1), packed=True),
    _situation("resets-unbatched", resets=True, unbatched=True, initial=True),
    _situation(
        "learned-ragged-two-layers-both-ways",
        learned=True,
        batch=5,
        lengths=(3, 7, 0, 5, 6),
        num_layers=2,
        bidirectional=True,
    ),
    _situation(
        "learned-resets-ragged-both-ways",
        learned=True,
        resets=True,
        batch=5,
        lengths=(3, 7, 0, 5, 6),
        bidirectional=True,
        batch_first=True,
        initial=True,
    ),
)

# For the LSTM alone: its output may have another size than its memory cell.
PROJECTED: tuple[Case, ...] = (
    _situation("projected", proj_size=2, initial=True),
    _situation("projected-to-one", proj_size=1, bias=False),
    _situation(
        "projected-two-layers-both-ways", proj_size=2, num_layers=2, bidirectional=True, initial=True, batch=5
    ),
    _situation("projected-ragged", proj_size=2, batch=5, lengths=(3, 0, 7, 5, 5), initial=True),
    _situation("projected-packed", proj_size=2, batch=5, lengths=(3, 1, 7, 5, 5), packed=True, initial=True),
    _situation("projected-resets", proj_size=2, resets=True, initial=True),
)


def cases_of(cell: str | type[Cell] | Cell) -> tuple[Case, ...]:
    """The cases of one cell, shipped or your own.

    >>> len(cases_of("gru")) == len(SITUATIONS)
    True
    """
    made = cells.get(cell)
    situations = SITUATIONS + (PROJECTED if made == cells.get("lstm") else ())
    found = (replace(situation, cell=made).fitting for situation in situations)
    return tuple(case for case in found if case.is_possible)


# Sums over the units of a row, and what is given beside x.
_MORE = ("layernorm-gru", "time-aware-lstm")
SHIPPED: tuple[Cell, ...] = (
    *(cells.get(name) for name in (*cells.FAMILIAR, *_MORE)),
    RNN(nonlinearity="relu"),
)
# Where states begin is decided before kernels run, and at resets by equations: these have all kinds of those.
_LEARNED = ("lstm", "mingru", *_MORE)
CASES: tuple[Case, ...] = tuple(
    case for cell in SHIPPED for case in cases_of(cell) if not case.learned or cell.name in _LEARNED
)
