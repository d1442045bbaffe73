"""The quick set touches every layer, and names only what is there."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "tests" / "quick.txt").read_text(encoding="utf8").splitlines()
QUICK = [line for line in LINES if not line.startswith("#")]
SLOW = {"trials"}  # run by hand, and no tests


def test_every_folder_of_tests_is_touched() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert folders - SLOW == {line.split("/")[1] for line in QUICK if line.count("/") >= 1} & folders


def test_what_is_named_is_there() -> None:
    for line in QUICK:
        path, _, name = line.partition("::")
        assert (ROOT / path).exists(), line
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf8"), line
