"""Backward passes in spans of a few steps each, by the way of all calls, since a chain of a small one has no spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from cellwise.backends.compiled import backward_pass
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.nn import plain


@contextmanager
def spans_of(rows: int | None) -> Iterator[None]:
    """While this lasts a span has so many valid steps; as many as ever for None."""
    if rows is None:
        yield
        return
    with (
        mock.patch.object(backward_pass, "span_rows", lambda *_: rows),
        mock.patch.object(LlvmCompiler, "small_pass", lambda *_: None),
        mock.patch.object(LlvmCompiler, "small_stack", lambda *_: None),
    ):
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    """Spans and routes are remembered by shape."""
    backward_pass.backward_pass.cache_clear()
    plain._ROUTES.clear()
    plain._RAGGED.clear()
