"""A run that is cut off names what failed before, and what was running (`failures.py`)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import failures
pytest_addoption, pytest_configure = failures.add_option, failures.begin
"""
TESTS = """
import time

def test_passes():
    pass

def test_fails():
    assert 1 == 2, "one is not two"

def test_hangs():
    open("begun", "w").close()
    time.sleep(60)
"""


def test_failures_are_in_the_file_when_a_run_is_ended(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_broken.py").write_text("def test_(: pass")
    found = tmp_path / "failures.txt"
    words = ["-n", "1", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--failures", str(found)]
    command = [sys.executable, "-m", "pytest", *words, str(tmp_path)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert "one is not two" in found.read_text(), "while it runs"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    lines = [
        line for line in found.read_text().splitlines() if line.startswith(("FAILED", "ERROR", "CUT OFF"))
    ]
    assert sorted(set(lines)) == [
        "CUT OFF test_some.py::test_hangs",
        "ERROR test_broken.py",
        "FAILED test_some.py::test_fails",
    ]
