"""What scikit-learn asks of an estimator: its parameters by name, whether it is fitted, its tags."""

from __future__ import annotations

from typing import Any, Self

from cellwise.tasks.errors import TaskError
from cellwise.tasks.options import Option, options_of

__all__ = ["Parameters"]


class Parameters:
    """The constructor's arguments, which are declared as options, read and changed by name."""

    @property
    def is_fitted(self) -> bool:
        """Whether there is a trained network."""
        return hasattr(self, "network_")

    @classmethod
    def _options(cls) -> tuple[Option, ...]:
        declared: type = cls
        return options_of(declared)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (`deep` is there for scikit-learn; nothing is nested)."""
        return {each.name: getattr(self, each.name) for each in self._options()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; returns self. What was learned stays until the next fit."""
        names = [each.name for each in self._options()]
        for name, value in params.items():
            if name not in names:
                raise TaskError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(names)}")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return self.is_fitted

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator; nobody else does, so it is there when this is called."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True, allow_nan=True),
        )

    def __repr__(self) -> str:
        changed = (
            f"{each.name}={value!r}"
            for each in self._options()
            if (value := getattr(self, each.name)) is not each.default and value != each.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"
