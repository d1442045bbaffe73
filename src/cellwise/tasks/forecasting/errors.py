"""The mistakes that only forecasting can name."""

from cellwise.tasks.errors import DataError

__all__ = ["FrequencyError", "SeriesTooShortError"]


class FrequencyError(DataError):
    """The frequency is unknown, cannot be read off the times, or does not fit them."""


class SeriesTooShortError(DataError):
    """A series has fewer observations than what was asked of it needs."""
