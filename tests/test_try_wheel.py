"""tools/try_wheel.py: what it takes from the README, and what it finds missing in a wheel. (CI runs it whole.)"""

from __future__ import annotations

import runpy
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import cellwise

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "try_wheel.py"))


def test_it_runs_the_readmes_commands(tool: dict[str, Any]) -> None:
    commands = tool["commands"]((ROOT / "README.md").read_text(encoding="utf8"))
    assert ["show", "my_cells.py:MGU"] in commands
    assert ["forecast", "predict", "runs/sales-gru"] in commands
    assert len(commands) > 8
    assert not {words[0] for words in commands} & set(tool["SKIPPED"])


def test_the_readmes_cell_is_a_file_that_runs(tool: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "my_cells.py"
    path.write_text(tool["own_cells"]((ROOT / "README.md").read_text(encoding="utf8")), encoding="utf8")
    assert cellwise.Recurrent(runpy.run_path(str(path))["MGU"], 3, 4).cell.gates == ("f", "n")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the files of a wheel are those that git tracks")
def test_a_wheel_that_lacks_a_file_is_found_out(tool: dict[str, Any], tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/cellwise"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name[len("src/") :] for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    names += [
        f"x.dist-info/{name}" for name in ("METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE")
    ]

    def wheel(members: list[str]) -> Path:
        with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
            for member in members:
                archive.writestr(member, "")
        return tmp_path / "x.whl"

    tool["check_content"](wheel(names))
    for lost in (
        "cellwise/py.typed",
        "cellwise/tasks/report/templates/page.html",
        "x.dist-info/licenses/LICENSE",
    ):
        with pytest.raises(AssertionError):
            tool["check_content"](wheel([name for name in names if name != lost]))
    with pytest.raises(AssertionError, match=r"too many: .*secret"):
        tool["check_content"](wheel([*names, "cellwise/secret.txt"]))
