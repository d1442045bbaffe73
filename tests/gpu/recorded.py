"""A graph of a device's, on a machine without one: what was asked for while it was recorded, asked for again.

While it is recorded nothing is done to memory that was there before; what is made meanwhile holds nothing but NaN until
the graph has made it. It knows tensors by where they lie: so whatever a step looks up anew in Python is not seen again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from emulated import EmulatedLauncher, EmulatedMachine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SHAPES = ("resize_", "unsqueeze_")  # which touch no memory
EMPTY = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")


class Graph(TorchDispatchMode):
    """What is asked for within it, and its replay."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[Callable[[], None]] = []
        self.launches = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        assert name not in ("_local_scalar_dense", "item"), "the host waits for a number"
        if name in SHAPES:
            return function(*args, **kwargs)
        written = [kwargs["out"]] if "out" in kwargs else [args[0]] if name.endswith("_") else []
        # With the shapes of now, which what holds them may change.
        given, named = tree_map_only(Tensor, Tensor.detach, (tuple(args), kwargs))
        if written:
            self.work.append(lambda: function(*given, **named))
            return written[0]
        found = function(*args, **kwargs)
        known = {each.untyped_storage().data_ptr() for each in _tensors([args, kwargs])}
        made = [each for each in _tensors(found) if each.untyped_storage().data_ptr() not in known]
        for each in made:
            if each.is_floating_point():
                each.fill_(float("nan"))
        if made and name not in EMPTY:
            places = [each.detach() for each in _tensors(found)]

            def again() -> None:
                for old, new in zip(places, _tensors(function(*given, **named)), strict=True):
                    old.copy_(new)

            self.work.append(again)
        return found

    def replay(self) -> None:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
        ):  # of now: what is recorded has gone past both
            for each in self.work:
                each()


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


class Recorder:
    """Makes an emulated machine record such graphs. `queue`: which of its queues work goes to; None in a graph."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.queue: int | None = 0
        self.graphs: list[Graph] = []
        self.replays = 0
        launch = EmulatedLauncher.launch

        def launched(launcher: EmulatedLauncher, *given: Any) -> None:
            now = self._now
            if now is None:
                launch(launcher, *given)
            else:
                now.launches += 1
                now.work.append(lambda: launch(launcher, *given))

        self._now: Graph | None = None
        patch.setattr(EmulatedLauncher, "launch", launched)
        patch.setattr(EmulatedMachine, "stream", lambda _: self.queue)
        patch.setattr(EmulatedMachine, "record", lambda _, work: self.record(work))

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        graph, before = Graph(), self.queue
        self._now, self.queue = graph, None
        try:
            with graph:
                work()
        finally:
            self._now, self.queue = None, before
        self.graphs.append(graph)

        def replay() -> None:
            self.replays += 1
            graph.replay()

        return replay
