"""The stepwise layout at work: its memory on a device, the launches of a step, graphs of many steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cellwise.backends.compiled.compiler import RunShape
from cellwise.backends.cuda.frame import Key
from cellwise.backends.cuda.machine import Machine
from cellwise.backends.cuda.products import PROJECTION, Product, pack
from cellwise.backends.cuda.stepwise import (
    ADVANCE,
    FINISH,
    NOTHING,
    SETUP,
    Stepwise,
    operand_name,
)
from cellwise.backends.cuda.text import c_name
from cellwise.plan.program import Width

if TYPE_CHECKING:
    from cellwise.backends.cuda.launch import Built

# Steps of the graphs that are recorded; of a number of steps as many of the first as go into it, and so on. Fewer are
# launched one by one.
RECORDED = (64, 32, 16, 8)
_MOST_ROWS = 2**15  # of a launch at once; more are a loop
_ROWS = 16  # of which batches are multiples in this memory, so that most batches of one layer share it


def run_steps(
    built: Built,
    machine: Machine,
    shape: RunShape,
    weights: Mapping[str, Tensor],
    values: Mapping[Key, Tensor | int],
    steps: int,
    memory: Memory | None = None,
) -> None:
    """Run so many steps of a call.

    Args:
        weights: those of the layer. values: the arguments of the kernel, those of its own memory apart.
        memory: what only these calls use.
    """
    stream = machine.stream()
    # A graph of the caller's has memory of its own, since it may run beside anything.
    is_shared = memory is None and stream is not None
    if memory is None:
        memory = (
            own_memory(built, machine, shape)
            if stream is None
            else _memory(built, machine, _rows(shape), shape.device, stream)
        )
    with memory.lock:
        memory.run(values, weights, steps, recorded=is_shared)


@lru_cache(maxsize=8)
def _memory(built: Built, machine: Machine, batch: int, device: torch.device, stream: int) -> Memory:
    """That of a kernel for calls on one stream, which follow each other: layers of one shape share it."""
    made = machine.lasting(partial(Memory, built, machine, batch, device, copies=True))
    machine.lend([*made.tensors, *made.weights])
    return made


def own_memory(built: Built, machine: Machine, shape: RunShape) -> Memory:
    """That of calls which share it with nobody, always those of one layer."""
    return Memory(built, machine, _rows(shape), shape.device, copies=False)


def _rows(shape: RunShape) -> int:
    return -(-shape.schedule.batch // _ROWS) * _ROWS


class Memory:
    """What lies at addresses that never change, and the graphs that know them. One call uses it at a time.

    copies: whether weights are copied to it, since graphs know no others. Else products read those of the layer where
    they lie, if they lie as products want them.
    """

    def __init__(
        self, built: Built, machine: Machine, batch: int, device: torch.device, copies: bool
    ) -> None:
        assert isinstance(built.frame, Stepwise)
        self.lock, self._copies = Lock(), copies
        self.frame, self._launcher, self._machine = built.frame, built.launcher, machine
        frame, dtype = self.frame, self.frame.number.dtype
        self._rooms = {
            name: torch.zeros(
                batch,
                room.columns * room.width,
                dtype=torch.float32 if room.wide else dtype,
                device=device,
            )
            for name, room in frame.rooms.items()
        }
        self._table = torch.zeros(len(frame.arguments) + 1, dtype=torch.int64, device=device)
        self._weights = {
            (s, k): torch.empty(self._shape(s, product) if copies else 0, dtype=dtype, device=device)
            for s, products in enumerate(frame.products)
            for k, product in enumerate(products)
        }
        self._graphs: dict[int, Callable[[], None]] = {}
        threads = built.layout.threads
        self._grid = frame.across, max(1, min(batch, _MOST_ROWS))
        self._threads = threads

    @property
    def tensors(self) -> list[Tensor]:
        """What it consists of, weights apart."""
        return [*self._rooms.values(), self._table]

    @property
    def weights(self) -> list[Tensor]:
        """The copies that products read, or those that the last call packed."""
        return list(self._weights.values())

    def _sides(self, s: int, product: Product) -> tuple[Width, Width]:
        """The rows that a product makes, and those that it multiplies."""
        return self.frame.program.stages[s].width, product.buffer.width

    def _shape(self, s: int, product: Product) -> tuple[int, int]:
        made, given = (self.frame.size_of(side)[1] for side in self._sides(s, product))
        return len(product.accumulators) * made, len(product.columns) * given

    def run(
        self,
        values: Mapping[Key, Tensor | int],
        weights: Mapping[str, Tensor],
        steps: int,
        recorded: bool,
    ) -> None:
        self._take(weights)
        given = [values[key] for key in self.frame.arguments]
        self._launch(SETUP, given=given)
        left = steps
        for size in RECORDED if recorded else ():
            while left >= size:
                if size not in self._graphs:
                    self._graphs[size] = self._machine.record(partial(self._steps, size))
                self._graphs[size]()
                left -= size
                self._launch(ADVANCE, size)
        self._steps(left)
        self._launch(FINISH)

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        """The weights of a layer, as products want them."""
        graph = self.frame.program.graph
        for (s, k), packed in self._weights.items():
            product = self.frame.products[s][k]
            rows, columns = self._sides(s, product)
            if product.weights[0][0][1]:  # they are transposed
                rows, columns = columns, rows
            gates = ("",) if product.stem == PROJECTION else graph.state_gates
            sizes = (self.frame.size_of(rows)[0], self.frame.size_of(rows)[1], self.frame.size_of(columns)[1])
            found = pack(product, gates, weights[product.stem], *sizes)
            if self._copies:
                packed.copy_(found.view_as(packed))
            else:
                self._weights[s, k] = found.view(self._shape(s, product))

    def _steps(self, count: int) -> None:
        """The next steps. A launch goes on with the first of the next step where nothing is multiplied in between."""
        actions = self.frame.actions
        goes_on = actions[0].launch is not None and len(actions) > 1
        for step in range(count):
            for place, action in enumerate(actions):
                if action.product is not None:
                    self._multiply(*action.product)
                elif place or not step or not goes_on:
                    is_last = place == len(actions) - 1 and step + 1 < count and goes_on
                    self._launch(action.launch or 0, step, actions[0].launch or 0 if is_last else NOTHING)

    def _multiply(self, s: int, k: int) -> None:
        operand = self._rooms[f"own_{c_name(operand_name(self.frame.products[s][k]))}"]
        found = self._rooms[f"own_{c_name(f'product{s}_{k}')}"]
        self._machine.multiply(operand, self._weights[s, k].t(), found)

    def _launch(
        self, what: int, step: int = 0, then: int = NOTHING, given: Sequence[Tensor | int] | None = None
    ) -> None:
        """given: the arguments of a call; only the first launch looks at them."""
        values = list(given or [0] * len(self.frame.arguments))
        values += [*self._rooms.values(), self._table, what, step, then]
        self._launcher.launch(self._grid, self._threads, values, False)
