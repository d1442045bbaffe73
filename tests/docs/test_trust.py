"""The trust page names a test behind each promise: it must be there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_and_trial_that_it_names_exists() -> None:
    page = (ROOT / "docs" / "trust.md").read_text()
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    tests = set(re.findall(r"`(test_\w+)`", page))
    named = {Path(name).name for name in re.findall(r"`((?:tests/)?[\w/]*(?:test|trial)_\w+\.py)", page)}
    defined = {name for text in files.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert len(tests) > 8 and len(named) > 12
    assert not tests - defined
    assert not named - files.keys()
