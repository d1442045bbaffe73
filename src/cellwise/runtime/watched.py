"""Parameters that something was made of, and whether they are still what they were."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any


class Watched:
    """Parameters of a module, and whether they are still what they were, as far as torch keeps count of it.

    What torch does not count the stepper sees, by reading. One that `reads_all` of them at every step sees all that is
    written to them; then it is left to ask whether they are the same tensors, in the same place.
    """

    def __init__(
        self, parameters: Mapping[str, Any], names: tuple[str, ...], reads_all: bool = False
    ) -> None:
        self._parameters = parameters
        tensors = [parameters[name] for name in names]
        # Bound methods, since every step asks them.
        self._seen = [
            (name, each, each._version, each.data_ptr, each.data_ptr(), each.numel, each.numel())
            for name, each in zip(names, tensors, strict=True)
        ]
        self._places = [
            (name, each, at, was, count, many) for name, each, _, at, was, count, many in self._seen
        ]
        self._optimizers = _optimizers()
        self._steps = self._optimizers.steps
        self.changed = self._have_moved if reads_all else self._have_changed

    def _have_moved(self) -> bool:
        """Whether one was replaced, or given other data."""
        parameters = self._parameters
        for name, tensor, address, was_there, count, were_so_many in self._places:
            if parameters[name] is not tensor or address() != was_there or count() != were_so_many:
                return True
        return False

    def _have_changed(self) -> bool:
        """Whether one was replaced, given other data or written to in place, or any optimizer made a step."""
        parameters = self._parameters
        for name, tensor, version, address, was_there, count, were_so_many in self._seen:
            if (
                parameters[name] is not tensor
                or tensor._version != version
                or address() != was_there  # .data was set, or the module moved
                or count() != were_so_many
            ):
                return True
        return self._optimizers.steps != self._steps


class _Optimizers:
    """Counts the steps of all optimizers: a fused one changes weights, of which torch keeps no count."""

    steps = 0

    def __call__(self, *_: Any) -> None:
        self.steps += 1


@cache
def _optimizers() -> _Optimizers:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    count = _Optimizers()
    register_optimizer_step_post_hook(count)
    return count
