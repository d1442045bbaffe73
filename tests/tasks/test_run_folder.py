"""Run folders: what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training import run_files
from cellwise.tasks.training.run_folder import Checkpoint, RunFolder, open_run, write_atomically

SETTINGS = {"seed": 1, "sizes": (3, 4)}


def start(path: Path) -> RunFolder:
    return open_run(path, "forecast", SETTINGS, "abc")


def test_the_same_settings_and_data_resume(tmp_path: Path) -> None:
    start(tmp_path / "run")
    assert start(tmp_path / "run").config()["settings"] == {"seed": 1, "sizes": [3, 4]}


def test_other_settings_are_named(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(
        RunFolderError, match=r"was started with seed = 1, not 2; resume it with the same settings"
    ):
        open_run(tmp_path / "run", "forecast", SETTINGS | {"seed": 2}, "abc")


def test_other_data_is_named(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(RunFolderError, match="was started with other data"):
        open_run(tmp_path / "run", "forecast", SETTINGS, "xyz")


def test_a_finished_run_is_kept_unless_told(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    folder.write_json("summary.json", {})
    with pytest.raises(RunFolderError, match="holds a finished run; give --overwrite"):
        start(tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    assert not open_run(tmp_path / "run", "forecast", SETTINGS, "abc", overwrite=True).is_finished
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep me"


def test_a_folder_of_someone_elses_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match="is not empty and not a run folder"):
            open_run(tmp_path, "forecast", SETTINGS, "abc", overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("config", ['{"model_type": "gpt"}', "[1, 2]", "{}"])
def test_a_folder_of_another_program_with_a_config_is_never_cleared(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "metrics.csv").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"its config\.json is another program's"):
        open_run(tmp_path, "forecast", SETTINGS, "abc", overwrite=True)
    assert (tmp_path / "metrics.csv").read_text() == "years of work"


def test_a_damaged_run_can_be_overwritten(tmp_path: Path) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"task": "fore')
    with pytest.raises(RunFolderError, match="is not JSON"):
        start(tmp_path / "run")
    open_run(tmp_path / "run", "forecast", SETTINGS, "abc", overwrite=True)
    start(tmp_path / "run")


@pytest.mark.parametrize("left", ["config.json.part", "config.json.0a1b2c3d.part", "run.lock"])
def test_a_start_that_was_killed_starts_again(left: str, tmp_path: Path) -> None:
    (tmp_path / left).write_bytes(b'{"task"')
    start(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", "run.lock"}


def test_what_only_looks_like_a_leftover_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "thesis.part").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not empty and not a run folder"):
        start(tmp_path)
    start(tmp_path / "run")
    (tmp_path / "run" / "thesis.part").write_text("years of work")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.svg").write_text("mine")
    (tmp_path / "run" / "plots").symlink_to(tmp_path / "elsewhere")
    open_run(tmp_path / "run", "forecast", SETTINGS, "abc", overwrite=True)
    assert (tmp_path / "run" / "thesis.part").exists() and (tmp_path / "elsewhere" / "mine.svg").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="is a file; a run needs a folder"):
        start(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "config.json is not JSON"),
        ("[1]", "holds no JSON object"),
        ("{}", "lacks its task or settings"),
        (json.dumps({"task": "speech", "settings": {}}), "holds a run of the task 'speech', not 'forecast'"),
    ],
)
def test_damaged_configuration(tmp_path: Path, content: str, sentence: str) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=sentence):
        RunFolder(tmp_path / "run").config("forecast")


def test_no_such_folder_and_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run folder"):
        RunFolder(tmp_path / "nowhere").config()
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no config\.json"):
        RunFolder(tmp_path).config()


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(7)}
    folder.write_tensors("best.safetensors", Checkpoint(tensors, {"epoch": 4}))
    read = folder.read_tensors("best.safetensors")
    assert read.about == {"epoch": 4}
    assert all(torch.equal(read.tensors[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    folder = start(tmp_path / "run")
    folder.write_tensors("best.safetensors", Checkpoint({"a": torch.randn(30)}, {}))
    content = (folder / "best.safetensors").read_bytes()
    (folder / "best.safetensors").write_bytes(content[:keep])
    with pytest.raises(RunFolderError, match=r"damaged: best\.safetensors is cut short or altered"):
        folder.read_tensors("best.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"damaged: best\.safetensors is missing"):
        start(tmp_path / "run").read_tensors("best.safetensors")


def test_wrong_shapes_and_names_are_named(tmp_path: Path) -> None:
    folder, model = start(tmp_path / "run"), torch.nn.Linear(2, 3)
    with pytest.raises(RunFolderError, match=r"'weight' has shape \(9, 2\) instead of \(3, 2\)"):
        folder.load_weights(model, {"weight": torch.zeros(9, 2), "bias": torch.zeros(3)}, "best.safetensors")
    with pytest.raises(RunFolderError, match="lacks weight 'weight'"):
        folder.load_weights(model, {"bias": torch.zeros(3)}, "best.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader meets beside a training: the beginning of one file and the rest of the next."""
    run = start(tmp_path / "run")
    run.write_tensors("last.safetensors", Checkpoint({"w": torch.zeros(3)}, {"epoch": 1}))
    reads, digest = [], run_files.tensors_digest

    def replaced_meanwhile(tensors: dict[str, torch.Tensor], about: str) -> str:
        reads.append(about)
        if len(reads) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(run_files, "tensors_digest", digest)
                run.write_tensors("last.safetensors", Checkpoint({"w": torch.ones(3)}, {"epoch": 2}))
            return "of neither"
        return digest(tensors, about)

    monkeypatch.setattr(run_files, "tensors_digest", replaced_meanwhile)
    assert run.read_tensors("last.safetensors").about == {"epoch": 2}
    assert len(reads) == 2
