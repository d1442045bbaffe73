"""Ctrl-C and SIGTERM during a training: heeded at once where that does no harm, else as soon as it does none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from cellwise.tasks.errors import TrainingInterrupted

__all__ = ["Signals"]

_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Signals:
    """Inside the block, the first Ctrl-C or SIGTERM raises TrainingInterrupted, but only in an `interruptible` block,
    where nothing is half changed; one that comes elsewhere waits for the next such block. The second ends the process
    at once: a KeyboardInterrupt for Ctrl-C, death by the signal for SIGTERM.

    Only in the main thread, as Python demands, and only where nobody else has set a handler. The handlers of before
    are back after the block."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._is_open = False
        self.is_ending = False  # a second signal came: nothing more is to be saved
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                if signal.getsignal(number) == default:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that may be left at any point. Raises TrainingInterrupted, now or inside the block."""
        self._is_open = True
        try:
            self.check()
            yield
        finally:
            self._is_open = False

    def check(self) -> None:
        """Raise TrainingInterrupted if a signal has come and was not heeded yet."""
        if self._received is not None:
            raise TrainingInterrupted("", self._received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._end(number)
        self._received = signal.Signals(number)
        if self._is_open:
            self.check()

    def _end(self, number: int) -> None:
        self.is_ending = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
