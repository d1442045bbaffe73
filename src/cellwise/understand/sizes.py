"""The sizes at which the formulas of complexity become numbers."""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.errors import CellwiseError

__all__ = ["ComplexityError", "Sizes"]


class ComplexityError(CellwiseError, ValueError):
    """A size that no layer can have, or one that is too small for what is asked."""


@dataclass(frozen=True)
class Sizes:
    """The sizes at which formulas become numbers.

    Raises:
        ComplexityError: a size below 1; batch and length may be 0.
    """

    input_size: int = 128
    hidden_size: int = 256
    layers: int = 1
    batch: int = 32
    length: int = 128

    def __post_init__(self) -> None:
        for name, least in (
            ("input_size", 1),
            ("hidden_size", 1),
            ("layers", 1),
            ("batch", 0),
            ("length", 0),
        ):
            if getattr(self, name) < least:
                raise ComplexityError(
                    f"{name.replace('_', ' ')} must be at least {least}; got {getattr(self, name)}."
                )

    @property
    def letters(self) -> dict[str, int]:
        """The sizes by the letters of the formulas."""
        return {"b": self.batch, "t": self.length, "h": self.hidden_size, "d": self.input_size}
