"""Errors that only forecasting raises."""

from cellwise.tasks.errors import DataError

__all__ = ["FrequencyError", "SeriesTooShortError"]


class FrequencyError(DataError):
    """The frequency is unknown, cannot be inferred from the times, or does not fit them."""


class SeriesTooShortError(DataError):
    """A series has too few observations for what was asked."""
