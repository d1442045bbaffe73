"""The mistakes that tracing can name."""

from cellwise.errors import CellwiseError


class TraceError(CellwiseError):
    """A run, an input or a setting cannot be traced."""
