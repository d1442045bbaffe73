"""Backward passes in spans of a few steps each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from cellwise.backends.compiled import backward_pass


@contextmanager
def spans_of(rows: int | None) -> Iterator[None]:
    """While this lasts a span has so many valid steps; as many as ever for None."""
    wanted = backward_pass.span_rows if rows is None else lambda *_: rows
    with mock.patch.object(backward_pass, "span_rows", wanted):
        backward_pass.backward_pass.cache_clear()  # which remembers the spans of each shape
        try:
            yield
        finally:
            backward_pass.backward_pass.cache_clear()
