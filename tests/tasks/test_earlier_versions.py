"""Run folders of versions 0.1.0 and 0.2.0 are read as they were, and unfinished ones go on.

They were written by those versions: forecasters that were saved after their training, a model of characters with all
that its training left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from damage import rewrite_json
from safetensors.torch import load_file
from test_forecaster import TINY, StopAfter, wave

from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import RunFolderError, TrainingInterrupted
from cellwise.tasks.training.run_check import check_run

HOME = Path(__file__).parent / "written_by_0_1_0"
LATER = Path(__file__).parent / "written_by_0_2_0"
TEXT = "the fox sat. " * 150
OPTIONS = {"embedding_size": 4, "hidden_size": 6, "epochs": 2, "length": 27, "batch_size": 4}

# What version 0.2.0 printed: with two test windows, and with nothing but three validation windows.
FORECASTS = {
    "forecast": [46.5865198539547, 41.29284594580267, 44.78451102097175],
    "without_test": [46.111692887991346, 40.73360808779157, 44.50118980948247],
}
UPPER = [50.621933294433774, 45.10177352562032, 48.663611275164406]
ERRORS = {
    "forecast": [2.826299611395833, 2.9172322309227408],
    "without_test": [2.324421842330333, 2.7490961797187694],
}
CUTOFFS = {"forecast": [[54, 57]] * 2, "without_test": [[51, 54, 57]] * 2}

# What version 0.1.0 printed.
FORECAST = [46.242788509368346, 40.02048562879301, 42.739556952009906]
LOGITS = [
    -0.2709827721118927, -0.030888058245182037, -0.10674719512462616, -0.03479916602373123, -0.24280697107315063,
    0.4563235640525818, 0.19656483829021454, -0.3637906312942505, 0.20842093229293823, -0.010168269276618958,
    0.048512235283851624,
]  # fmt: skip


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HOME / "characters", tmp_path / "characters"))


def test_a_forecaster_forecasts_as_it_did() -> None:
    loaded = Forecaster.load(HOME / "forecast")
    assert loaded.predict()["GRU"].to_list() == pytest.approx(FORECAST, rel=1e-6)
    assert (loaded.hidden_size, loaded.past, loaded.levels, loaded.accumulate) == (4, ["promo"], [80], 1)


def test_a_model_of_characters_reads_as_it_did(characters: Path) -> None:
    assert CharacterModel.load(characters).logits("the fox")[-1].tolist() == pytest.approx(LOGITS, abs=1e-6)


@pytest.mark.parametrize("name", ["forecast", "characters"])
def test_they_are_whole(name: str) -> None:
    findings = list(check_run(HOME / name))
    assert findings[-1].words == "finished; it loads"
    assert all(each.is_whole for each in findings)


def test_an_unfinished_one_goes_on_with_the_same_options(characters: Path) -> None:
    wanted = load_file(characters / "best.safetensors")
    (characters / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="was started with hidden_size = 6, not 7"):
        CharacterModel("lstm", **OPTIONS | {"hidden_size": 7}).fit(TEXT, folder=characters)
    with pytest.raises(RunFolderError, match="was started with accumulate = 1, not 2"):
        CharacterModel("lstm", **OPTIONS, accumulate=2).fit(TEXT, folder=characters)
    made = CharacterModel("lstm", **OPTIONS).fit(TEXT, folder=characters, progress=False)
    assert made.trained_ is not None and made.trained_.resumed_after == 2
    found = load_file(characters / "best.safetensors")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert CharacterModel.load(characters).logits("the").isfinite().all()


def test_one_that_is_replaced_bears_the_name_of_today(characters: Path) -> None:
    CharacterModel("gru", **OPTIONS | {"epochs": 1}).fit(TEXT, folder=characters, overwrite=True)
    assert json.loads((characters / "config.json").read_text())["task"] == "text"


def test_a_run_of_another_task_is_refused() -> None:
    with pytest.raises(RunFolderError, match="holds a run of the task 'characters', not 'forecast'"):
        Forecaster.load(HOME / "characters")
    with pytest.raises(RunFolderError, match="holds a run of the task 'forecast', not 'text'"):
        CharacterModel.load(HOME / "forecast")


def test_the_groups_of_a_forecaster_are_those_of_today(tmp_path: Path) -> None:
    options = {"horizon": 7, **TINY}
    with pytest.raises(TrainingInterrupted):
        Forecaster(**options).fit(wave(), folder=tmp_path / "run", cutoffs=2, progress=StopAfter(1))
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    windows = {name: settings.pop(name) for name in ("cutoffs", "step")}
    for name in ("device", "minutes", "accumulate", "autocast"):
        del settings[name]
    rewrite_json(tmp_path / "run" / "config.json", {("settings",): {"forecaster": settings, **windows}})
    with pytest.raises(RunFolderError, match="was started with cutoffs = 2, not 3"):
        Forecaster(**options).fit(wave(), folder=tmp_path / "run", cutoffs=3)
    made = Forecaster(**options).fit(wave(), folder=tmp_path / "run", cutoffs=2, progress=False)
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.scores().equals(made.scores())
    assert loaded.kept_from_training(2, None) and not loaded.kept_from_training(2, 3)


@pytest.mark.parametrize("name", ["forecast", "without_test"])
def test_a_forecaster_of_0_2_0_forecasts_and_measures_as_it_did(name: str, tmp_path: Path) -> None:
    """Its bands were not calibrated, which is said, and no window is measured that it was trained on."""
    loaded = Forecaster.load(LATER / name)
    assert loaded.predict()["GRU"].to_list()[:3] == pytest.approx(FORECASTS[name], rel=1e-6)
    backtest = loaded.backtest_
    assert backtest is not None and backtest.cutoffs.tolist() == CUTOFFS[name]
    assert loaded.scores().filter(model="GRU")["MAE"][0] == pytest.approx(ERRORS[name][0], rel=1e-6)
    assert loaded.backtest_is_test_ == (name == "forecast")
    assert (
        loaded.notes_[-1].startswith("the bands are not calibrated") and loaded.network_ is loaded.measured_
    )
    loaded.save(tmp_path / "again")
    again = Forecaster.load(tmp_path / "again")
    assert again.predict().equals(loaded.predict()) and again.notes_ == loaded.notes_


def test_its_bands_stay_as_they_were() -> None:
    assert Forecaster.load(LATER / "forecast").predict()["GRU-hi-80"].to_list()[:3] == pytest.approx(
        UPPER, rel=1e-6
    )
