"""The sizes at which the formulas of complexity become numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cellwise.errors import CellwiseError

__all__ = ["ComplexityError", "Sizes"]


class ComplexityError(CellwiseError, ValueError):
    """A size that no layer can have, or one that is too small for what is asked."""


@dataclass(frozen=True)
class Sizes:
    """The sizes at which formulas become numbers.

    Raises:
        ComplexityError: a size below 1.
    """

    input_size: int = 128
    hidden_size: int = 256
    layers: int = 1
    batch: int = 32
    length: int = 128

    def __post_init__(self) -> None:
        for name, size in asdict(self).items():
            if size < 1:
                raise ComplexityError(f"{name.replace('_', ' ')} must be at least 1; got {size}.")

    @property
    def letters(self) -> dict[str, int]:
        """The sizes by the letters of the formulas."""
        return {"b": self.batch, "t": self.length, "h": self.hidden_size, "d": self.input_size}
