"""Each failure written to a file as it comes, so that a run which is cut off loses the name of none.

pytest tells of failures when it ends. A device that is lent for a quarter of an hour ends it first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


class FailureLog:
    """What failed, with what pytest has to say of it; at the end also which tests were running, as after Ctrl-C."""

    def __init__(self, file: Path) -> None:
        self._file, self._running = file, dict[str, None]()
        file.write_text("")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write(f"FAILED {report.nodeid}", report.longreprtext)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(f"ERROR {report.nodeid}", report.longreprtext)

    def pytest_sessionfinish(self) -> None:
        for nodeid in self._running:
            self._write(f"CUT OFF {nodeid}", "")

    def _write(self, line: str, text: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{line}\n{text}\n\n" if text else f"{line}\n")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--failures",
        metavar="FILE",
        type=Path,
        help="write each failure to this file as it comes, and the tests that a run which is cut off leaves",
    )


def begin(config: Any) -> None:
    file = config.getoption("--failures")
    if file is not None and not hasattr(config, "workerinput"):  # the process that hears of all tests
        config.pluginmanager.register(FailureLog(file))
