"""What all estimators share: scikit-learn's habits."""

from __future__ import annotations

import inspect
from typing import Any, Self

from cellwise.tasks.errors import TaskError

__all__ = ["Estimator"]


class Estimator:
    """Constructor arguments are stored unchanged under their own names; what is learned ends in an
    underscore."""

    @classmethod
    def _parameter_names(cls) -> tuple[str, ...]:
        return tuple(name for name in inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (`deep` is there for scikit-learn; nothing is nested)."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; returns self. What was learned stays until the next fit."""
        for name, value in params.items():
            if name not in self._parameter_names():
                raise TaskError(
                    f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(self._parameter_names())}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        changed = (
            f"{k}={v!r}" for k, v in self.get_params().items() if v is not defaults[k] and v != defaults[k]
        )
        return f"{type(self).__name__}({', '.join(changed)})"
