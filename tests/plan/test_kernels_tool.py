"""tools/kernels.py: what it writes is the same in every process, and a change of a kernel is seen."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "kernels.py"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    """The tool's functions by name."""
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What two processes write of one cell."""
    folders = tuple(tmp_path_factory.mktemp("kernels") / name for name in ("before", "after"))
    for seed, folder in enumerate(folders):
        # The order of a set of strings, and so of much that could go wrong, depends on this seed.
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, str(TOOL), "dump", str(folder), "--cell", "mingru", "--quick"]
        subprocess.run(command, env=environment, check=True, timeout=300)
    return folders


def test_two_processes_write_the_same(tool: dict[str, Any], dumped: tuple[Path, Path]) -> None:
    before, after = dumped
    assert tool["diff"](before, after, 3, "") == []
    names = {path.name for path in before.iterdir()}
    assert {
        "mingru.backward.float32.32.ll",
        "mingru.inference.listing.txt",
        "shared.pack.float32.32.ll",
    } <= names
    assert "fmul" in (before / "mingru.backward.float32.32.ll").read_text()


def test_changes_are_shown(tool: dict[str, Any], dumped: tuple[Path, Path], tmp_path: Path) -> None:
    before = dumped[0]
    after = tmp_path / "after"
    shutil.copytree(before, after)
    changed = after / "mingru.backward.float32.32.ll"
    changed.write_text(changed.read_text().replace("fmul", "fadd", 1))
    (after / "mingru.inference.float32.32.ll").unlink()
    report = tool["diff"](before, after, 3, "")
    assert f"differs: {changed.name}" in report
    assert f"only in {before}: mingru.inference.float32.32.ll" in report
    assert sum(line.startswith("-") and "fmul" in line for line in report) == 1
    assert sum(line.startswith("+") and "fadd" in line for line in report) == 1


def test_the_exit_status_says_whether_anything_differs(
    tool: dict[str, Any], dumped: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(dumped[0], other)
    for status in (0, 1):
        monkeypatch.setattr(sys, "argv", ["kernels.py", "diff", str(dumped[0]), str(other)])
        with pytest.raises(SystemExit) as left:
            tool["main"]()
        assert left.value.code == status
        (other / "mingru.training.listing.txt").write_text("another")


def test_mistakes_are_told(tool: dict[str, Any], dumped: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not empty"):
        tool["dump"](dumped[0], "mingru", 0, True)
    with pytest.raises(SystemExit, match="No cell is called gruu; there are rnn"):
        tool["dump"](tmp_path / "new", "gruu", 0, True)
    with pytest.raises(SystemExit, match="nothing to compare"):
        tool["diff"](tmp_path, tmp_path, 3, "")
