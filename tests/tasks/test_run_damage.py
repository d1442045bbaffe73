"""Damage to a run folder is one sentence, and never another forecast."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import WRONG, flip_bit, forge_checksums, places_of, rewrite_json, some_bits
from safetensors.torch import load_file, save_file
from test_forecaster import TINY, wave

from cellwise.errors import CellwiseError
from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.run_check import check_run
from cellwise.tasks.training.run_files import (
    BEST,
    CONFIG,
    CORE,
    DATA,
    FINAL,
    LAST,
    METRICS,
    REFIT,
    SUMMARY,
    WINDOWS,
)

FILES = (*CORE, SUMMARY)
TEXT = "the quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture(scope="module")
def forecast_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "forecast"
    Forecaster(horizon=3, **{**TINY, "epochs": 1, "hidden_size": 4}).fit(
        wave(60), folder=folder, progress=False
    )
    return folder


@pytest.fixture(scope="module")
def character_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "characters"
    CharacterModel(embedding_size=2, hidden_size=4, epochs=1, length=64).fit(
        TEXT, folder=folder, progress=False
    )
    return folder


@pytest.fixture
def forecast_copy(forecast_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(forecast_run, tmp_path / "forecast"))


@pytest.fixture
def character_copy(character_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(character_run, tmp_path / "characters"))


def forecast(run: Path) -> list[float]:
    return Forecaster.load(run).predict()["GRU"].to_list()


def read(run: Path) -> list[float]:
    return CharacterModel.load(run).logits("the fox").flatten().tolist()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("task", ["forecast", "characters"])
def test_a_bit_that_turns_is_one_sentence_or_nothing(
    task: str, name: str, forecast_copy: Path, character_copy: Path
) -> None:
    run, answer = (forecast_copy, forecast) if task == "forecast" else (character_copy, read)
    if not (run / name).exists():
        assert task == "characters" and name in (REFIT, FINAL, WINDOWS)
        return
    whole, content = answer(run), (run / name).read_bytes()
    for bit in some_bits(run / name, 12):
        flip_bit(run / name, bit)
        try:
            now = answer(run)
            assert (
                name == SUMMARY and now == whole
            )  # in JSON, a bit of white space can turn without a meaning
        except RunFolderError as error:
            assert name in str(error) or "format" in str(error) or "task" in str(error)
            assert "\n" not in str(error)
        assert name == SUMMARY or not all(each.is_whole for each in check_run(run))
        (run / name).write_bytes(content)
    assert answer(run) == whole


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer", "folder", "pipe"])
def test_a_file_that_is_no_more_what_it_was(name: str, damage: str, forecast_copy: Path) -> None:
    path = forecast_copy / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "longer": content + b"x"}[damage]
        )
    with pytest.raises(RunFolderError, match=r"damaged|is not a run folder|is not finished"):
        forecast(forecast_copy)


def test_a_file_of_another_run_is_not_taken(forecast_copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Forecaster(horizon=3, **{**TINY, "epochs": 1, "hidden_size": 4}).fit(
        wave(61), folder=other, progress=False
    )
    for name in (BEST, DATA, CONFIG):
        content = (forecast_copy / name).read_bytes()
        shutil.copy(other / name, forecast_copy / name)
        with pytest.raises(RunFolderError, match="cut short or altered"):
            forecast(forecast_copy)
        (forecast_copy / name).write_bytes(content)
    shutil.copy(other / DATA, forecast_copy / DATA)
    forge_checksums(forecast_copy)
    with pytest.raises(RunFolderError, match=r"holds other data than config\.json says"):
        forecast(forecast_copy)


def test_an_unfinished_run_is_proved_before_it_goes_on(character_copy: Path) -> None:
    (character_copy / SUMMARY).unlink()
    model = CharacterModel(embedding_size=2, hidden_size=4, epochs=1, length=64)
    for name in (CONFIG, LAST):
        content = (character_copy / name).read_bytes()
        flip_bit(character_copy / name, 8 * len(content) - 60)
        with pytest.raises(RunFolderError, match=name):
            model.fit(TEXT, folder=character_copy, progress=False)
        (character_copy / name).write_bytes(content)
    for name in (BEST, METRICS, DATA):  # they follow from the others, and are written again
        (character_copy / name).write_bytes(b"nonsense")
    model.fit(TEXT, folder=character_copy, progress=False)
    assert CharacterModel.load(character_copy).logits("abc").isfinite().all()


def allocates_little(work: Callable[[], object]) -> None:
    """Raise MemoryError where the work asks for two gigabytes more than there are in use."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2 * 2**30, limits[1]))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def wrong_settings_are_damage(run: Path, answer: Callable[[Path], object], wrong: tuple[object, ...]) -> int:
    """Every value of config.json in turn made wrong, with checksums that are right: refused, or the same answer."""
    whole, content = answer(run), (run / CONFIG).read_bytes()
    refused = 0
    for place in places_of(json.loads(content)):
        for value in wrong:
            if place == ("sha256",):
                continue
            rewrite_json(run / CONFIG, {place: value})
            forge_checksums(run)
            try:
                answer(run)
            except RunFolderError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 1000
            (run / CONFIG).write_bytes(content)
    forge_checksums(run)
    assert answer(run) == whole
    return refused


def test_settings_of_wrong_kinds_are_one_sentence(forecast_copy: Path, character_copy: Path) -> None:
    some = (None, 10**9, "x", [], {"a": 1}, float("nan"))
    assert wrong_settings_are_damage(forecast_copy, forecast, some) > 150
    assert wrong_settings_are_damage(character_copy, read, WRONG) > 150


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            ("settings", "hidden_size"),
            10**9,
            "hidden_size must be a whole number from 1 to 65536",
        ),
        (("settings", "hidden_size"), 65_536, "not that of its settings"),
        (("settings", "levels"), 5, "levels must be different whole percentages"),
        (("settings", "known"), "abc", "known must be a list"),
        (("settings", "time_column"), 3, "time_column must be the name of a column"),
        (("settings", "unheard_of"), 3, "unexpected keyword argument 'unheard_of'"),
        (("settings", "cutoffs"), "x", "cutoffs must be a whole number"),
        (("network", "season_length"), 10**6, "do not begin with that of 1000000 steps"),
        (("network", "typical_step"), float("nan"), "is no number"),
        (("calendar",), ["day of doom sin 1"], "the features of its calendar are unknown"),
        (("cell", "graph"), "{}", "the stored cell cannot be read"),
        (("cell", "name"), "lstm", "names one cell and holds the equations of another"),
        (("format",), 3, "later version of cellwise, in format 3"),
    ],
)
def test_settings_are_checked_as_options_are(
    place: tuple[str, ...], value: object, said: str, forecast_copy: Path
) -> None:
    rewrite_json(forecast_copy / CONFIG, {place: value})
    forge_checksums(forecast_copy)
    with pytest.raises(RunFolderError, match=said):
        forecast(forecast_copy)


def test_sizes_in_settings_cost_no_memory(forecast_copy: Path, character_copy: Path) -> None:
    sizes = {"hidden_size": 65_536, "num_layers": 64}
    change = {(group, name): size for name, size in sizes.items() for group in ("settings", "network")}
    rewrite_json(forecast_copy / CONFIG, change)
    forge_checksums(forecast_copy)
    rewrite_json(
        character_copy / CONFIG, {("settings", "hidden_size"): 65_536, ("settings", "embedding_size"): 65_536}
    )
    forge_checksums(character_copy)

    def load() -> None:
        with pytest.raises(RunFolderError, match="too few for 64 layers"):
            Forecaster.load(forecast_copy)
        with pytest.raises(RunFolderError, match="has shape"):
            CharacterModel.load(character_copy)

    allocates_little(load)


def test_weights_of_another_kind_are_named(forecast_copy: Path) -> None:
    weights = load_file(forecast_copy / BEST)
    first = next(name for name in weights if "weight_hh" in name)
    for changed, said in (
        ({first: torch.zeros(3, 3)}, "has shape"),
        ({first: weights[first].double()}, r"is torch\.float64 instead of torch\.float32"),
        ({"stranger": torch.zeros(1)}, "has an unknown weight 'stranger'"),
    ):
        save_file(weights | changed, forecast_copy / BEST, metadata={"about": "{}"})
        forge_checksums(forecast_copy)
        with pytest.raises(RunFolderError, match=said):
            forecast(forecast_copy)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("times", lambda t: t.flip(0)),
        ("times", lambda t: t + 10**18),
        ("length", lambda n: n + 1),
        ("length", lambda n: -n),
        ("y", lambda y: y.float()),
        ("reach", lambda n: n * 0),
        ("past", lambda p: p[1:]),
        ("split/train", lambda t: t + 100),
        ("split/test", lambda t: t[1:]),
    ],
)
def test_series_that_are_none(name: str, change: Callable, forecast_copy: Path) -> None:
    from safetensors import safe_open

    with safe_open(forecast_copy / DATA, "pt") as file:
        about = file.metadata()["about"]
    tensors = load_file(forecast_copy / DATA)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, forecast_copy / DATA, metadata={"about": about})
    forge_checksums(forecast_copy)
    with pytest.raises(
        RunFolderError,
        match=r"data\.safetensors (does not hold (whole series|the parts of its series)|holds other data)",
    ):
        forecast(forecast_copy)


def as_written_before(run: Path) -> None:
    """Take out what runs of version 0.1 did not have: checksums, the cell's equations, a second stage."""
    for name in (REFIT, FINAL, WINDOWS):
        (run / name).unlink()
    config = json.loads((run / CONFIG).read_text())
    for key in ("format", "cell", "sha256"):
        del config[key]
    (run / CONFIG).write_text(json.dumps(config))
    summary = json.loads((run / SUMMARY).read_text())
    for key in ("files", "sha256"):
        del summary[key]
    (run / SUMMARY).write_text(json.dumps(summary))


def test_a_run_of_the_version_before_loads_and_does_not_resume(forecast_copy: Path) -> None:
    whole = forecast(forecast_copy)
    as_written_before(forecast_copy)
    settings = {"horizon": 3, **TINY, "epochs": 1, "hidden_size": 4}
    without = Forecaster(**settings, refit=False, ensemble=False).fit(wave(60), progress=False)
    assert forecast(forecast_copy) == without.predict()["GRU"].to_list()
    assert all(each.is_whole for each in check_run(forecast_copy))
    (forecast_copy / SUMMARY).unlink()
    model = Forecaster(horizon=3, **{**TINY, "epochs": 1, "hidden_size": 4})
    with pytest.raises(RunFolderError, match="was started by an earlier version of cellwise"):
        model.fit(wave(60), folder=forecast_copy, progress=False)
    model.fit(wave(60), folder=forecast_copy, overwrite=True, progress=False)
    assert forecast(forecast_copy) == whole


def test_a_run_of_the_version_before_with_a_cell_that_nobody_knows(forecast_copy: Path) -> None:
    as_written_before(forecast_copy)
    config = json.loads((forecast_copy / CONFIG).read_text())
    config["settings"]["cell"] = "mine"
    (forecast_copy / CONFIG).write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match=r"no cell is called 'mine' here; .* cellwise\.cells\.register"):
        forecast(forecast_copy)


def test_deep_json_is_damage(forecast_copy: Path) -> None:
    (forecast_copy / SUMMARY).write_text('{"a":' * 100_000)
    with pytest.raises(CellwiseError, match=r"summary\.json is not JSON"):
        forecast(forecast_copy)
