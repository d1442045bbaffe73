"""One call: choose a backend, and run it."""

from __future__ import annotations

from cellwise.backends.base import Call, Result, Stack
from cellwise.backends.registry import Explanation, check_name, choose, explain

__all__ = ["Explanation", "check_name", "explain", "run"]


def run(backend: str, stack: Stack, call: Call) -> Result:
    """Run a call on the backend of this name, or on the best that can for "auto".

    Raises:
        BackendError: a backend asked for by name cannot run the call.
    """
    return choose(backend, stack, call).run(stack, call)
