"""What every test stands on: uninitialised memory reads as NaN, one thread, a fixed seed, lines of any length.

The only file of this name: with --doctest-modules pytest imports each as the module `conftest` and stops at a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import failures
import pytest
import torch
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from cellwise.testing import poisoned_memory

# The same examples every time: a red run is red for everybody. To search for more:
# pytest tests/backends --hypothesis-profile=search
settings.register_profile("suite", max_examples=20, derandomize=True, deadline=None, database=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("suite")

# Hypothesis also draws numbers that it finds in the modules that a process has imported: other examples in each worker
# and on each machine, and so a suite that was green here and red there.
providers._get_local_constants = lambda: providers._local_constants

# For the processes that tests start. Two threads that meet at every step wait for each other where another worker of
# the tests has one of the cores: test_growth.py's LSTM took 256 s of processor time so, and takes 8 with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")


pytest_addoption, pytest_configure = failures.add_option, failures.begin


class Finished(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `cellwise WORDS...` in this process, which is faster than a new one for each test."""
    from cellwise.cli import main

    def call(*words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["cellwise", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Finished(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(params=[16, 32, 64])
def vector_bytes(request: pytest.FixtureRequest) -> Iterator[int]:
    """The test runs on kernels made as for machines with vectors of 16, 32 and 64 bytes, one after the other."""
    from cellwise.backends.compiled.cell_kernels import kernels_of, key_of
    from cellwise.backends.cpu.target import VARIABLE, host
    from cellwise.nn import plain
    from cellwise.runtime import dispatch

    def forget() -> None:
        plain._ROUTES.clear()
        for remembered in (host, kernels_of, key_of, dispatch._dispatch_id):
            remembered.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(request.param))
        forget()
        yield request.param
    forget()  # once the variable is again what the whole run was given


@pytest.fixture(autouse=True, scope="module")
def _sketches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Charts of reports are drawn, but not laid out and written as SVG, which takes most of a small training's time. A
    module whose tests look at them says so: `pytestmark = pytest.mark.draws`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name in ("tasks", "cli") and request.node.get_closest_marker("draws") is None:
            patch.setattr(
                "cellwise.tasks.report.charts._svg", lambda figure, salt: f"<svg><!-- {salt} --></svg>"
            )
        yield


@pytest.fixture(autouse=True)
def _ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("COLUMNS", raising=False)  # which tests that run side by side are given
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # in a shell's background job, and in all that it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with poisoned_memory():
        yield
    torch.set_num_threads(threads)
