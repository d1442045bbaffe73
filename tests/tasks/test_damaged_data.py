"""A damaged file is read right or refused in one sentence: a few of `tests/trials/trial_damaged_data.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TRIAL = Path(__file__).parents[1] / "trials" / "trial_damaged_data.py"


@pytest.fixture(scope="module")
def trials() -> ModuleType:
    spec = importlib.util.spec_from_file_location("damaged_data", TRIAL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("end", "count"), [("sv", 300), (".gz", 60), (".txt", 60), (".parquet", 8)])
def test_some_damages(trials: ModuleType, capfd: pytest.CaptureFixture[str], end: str, count: int) -> None:
    tally = trials.trial(range(count), end)
    assert tally.wrong == []
    assert sum(tally.ended.values()) == count
    assert capfd.readouterr().err == ""


def test_a_failure_would_be_seen(trials: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_bytes(trials.files()["plain.csv"])
    assert trials.ending(tmp_path / "plain.csv", (), 0) == ("changed, and said", "")
    assert trials.ending(tmp_path, (), 0) == ("refused", "")
    read_table, trials.read_table = trials.read_table, lambda path, columns: 1 // 0
    assert trials.ending(tmp_path, (), 0)[0] == "failed"
    trials.read_table = read_table


def test_a_reader_that_dies_is_a_sentence(trials: ModuleType, tmp_path: Path) -> None:
    """One bit of this file makes the reader of Parquet ask for all memory there is, and abort."""
    seed = 7905
    chance = trials.random.Random(seed)
    made = trials.files()
    name = chance.choice(sorted(made))
    assert name == "zstd.parquet"
    (tmp_path / name).write_bytes(trials.damage(made[name], chance)[1])
    assert trials.ending(tmp_path / name, (), 0) == ("refused", "")
