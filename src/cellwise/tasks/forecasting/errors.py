"""The mistakes that forecasting can name."""

from cellwise.errors import CellwiseError


class ForecastError(CellwiseError):
    """Base of all errors of forecasting."""


class DataError(ForecastError):
    """The data as given cannot be used: no such file, a missing column, two values for one time, ..."""


class FrequencyError(DataError):
    """The frequency is unknown, cannot be read off the times, or does not fit them."""


class SeriesTooShortError(DataError):
    """A series has fewer observations than what was asked of it needs."""


class OptionError(ForecastError):
    """A setting has a value that makes no sense."""


class NotFittedError(ForecastError):
    """A forecast was asked of a forecaster that has learned nothing yet."""
