"""Every mistake that cellwise can name has one class here or in the package that can make it; all are CellwiseError."""


class CellwiseError(Exception):
    """Base of all errors that cellwise raises on purpose. Its text is one sentence that a person can act on."""


class CellwiseWarning(UserWarning):
    """Base of all warnings that cellwise gives on purpose."""
