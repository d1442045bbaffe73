"""A finished run goes on with newer data: what is appended, what is measured, and that no kill spoils it."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from faults import KILLED, Disk, calls_of, in_a_fork, watched
from safetensors.torch import load_file
from test_forecaster import wave
from test_refit import same_run

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import DataError, RunFolderError, TrainingInterrupted
from cellwise.tasks.forecasting.extending import Extension, extend
from cellwise.tasks.forecasting.frames import Columns, Table, read_table
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.replacing import current_run
from cellwise.tasks.training.run_check import check_run

SETTINGS: dict[str, Any] = {"horizon": 5, "hidden_size": 4, "epochs": 2, "patience": 0}
OLD = wave(100)  # until 2024-04-09


def later(*days: date) -> polars.DataFrame:
    """The same series from one day on, up to before another."""
    return wave(140).filter((polars.col.ds >= days[0]) & (polars.col.ds < days[1]))


NEW = later(date(2024, 4, 10), date(2024, 4, 22))  # twelve days


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "run"
    Forecaster(**SETTINGS).fit(OLD, folder=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def updated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("updated") / "run"))
    Forecaster.load(folder).update(NEW, folder=folder, progress=False)
    return folder


# --- tables -----------------------------------------------------------------------------------------------------


def table(frame: polars.DataFrame, known: tuple[str, ...] = (), past: tuple[str, ...] = ()) -> Table:
    return read_table(frame, Columns(known=known, past=past), "D")


def values(extension: Extension, name: str) -> np.ndarray:
    panel = extension.table.panel
    return panel.y[panel.ids.index(name)]


def test_rows_after_the_last_are_appended_and_equal_ones_change_nothing() -> None:
    extension = extend(table(OLD), table(later(date(2024, 4, 1), date(2024, 4, 22))))
    whole = table(wave(112)).panel
    for i, name in enumerate(("a", "b")):
        assert np.array_equal(values(extension, name), whole.y[i])
        assert np.array_equal(extension.table.panel.times[i], whole.times[i])
    assert (extension.appended, extension.filled, extension.revised) == (24, 0, 0)
    assert extension.before.tolist() == [100, 100] and extension.notes == ()
    assert extension.cutoffs(5).tolist() == [[100, 105, 110]] * 2


def test_rows_that_differ_are_revisions_and_missing_ones_are_filled() -> None:
    changed = later(date(2024, 4, 1), date(2024, 4, 11)).with_columns(
        y=polars.when(polars.col.ds == date(2024, 4, 3)).then(polars.col.y + 1).otherwise("y")
    )
    holes = OLD.filter((polars.col.ds != date(2024, 4, 5)) | (polars.col.unique_id == "b"))
    extension = extend(table(holes), table(changed))
    assert (extension.appended, extension.filled, extension.revised) == (2, 1, 2)
    assert values(extension, "a")[93] == pytest.approx(OLD["y"][93] + 1)
    assert values(extension, "a")[95] == OLD["y"][95]
    said = " ".join(extension.notes)
    assert (
        "2 values that the run has were revised" in said
        and "1 value that had been missing was filled in" in said
    )


def test_an_empty_new_value_does_not_erase_an_old_one() -> None:
    empty = later(date(2024, 4, 8), date(2024, 4, 12)).with_columns(
        y=polars.when(polars.col.ds == date(2024, 4, 9)).then(None).otherwise("y")
    )
    extension = extend(table(OLD), table(empty))
    assert values(extension, "a")[99] == OLD["y"][99] and extension.revised == 0


def test_a_gap_counts_as_missing_and_a_window_in_it_is_not_measured() -> None:
    extension = extend(table(OLD), table(later(date(2024, 4, 17), date(2024, 4, 25))))
    assert (
        np.isnan(values(extension, "a")[100:107]).all() and not np.isnan(values(extension, "a")[107:]).any()
    )
    assert any("14 days between what the run has and the new data" in note for note in extension.notes)
    assert extension.cutoffs(5).tolist() == [[-1, 105, 110]] * 2
    with pytest.raises(DataError, match=r"has .* rows and a gap of .* look at the first row of the new data"):
        extend(table(OLD), table(wave(20, start="2034-01-01")))


def test_series_of_other_names_are_added_and_measured_at_their_end() -> None:
    extension = extend(table(OLD), table(polars.concat([NEW, wave(50, ("c",), start="2024-03-03")])))
    assert extension.table.panel.ids == ("a", "b", "c") and extension.new_series == 1
    assert extension.before.tolist() == [100, 100, 0]
    assert extension.cutoffs(5).tolist() == [[100, 105, 110]] * 2 + [[45, -1, -1]]
    only = extend(table(OLD), table(wave(50, ("c",), start="2024-03-03")))
    assert any("2 of 2 series have no new value" in note for note in only.notes)
    assert only.cutoffs(5).tolist() == [[-1], [-1], [45]]


def test_older_rows_are_left_out_and_nothing_new_is_refused() -> None:
    older = wave(30, start="2023-12-15")
    with pytest.raises(DataError, match="there is nothing new"):
        extend(table(OLD), table(older.filter(polars.col.ds < date(2024, 1, 1))))
    with pytest.raises(DataError, match="there is nothing new"):
        extend(table(OLD), table(OLD.tail(5)))
    extension = extend(
        table(OLD), table(polars.concat([older.filter(polars.col.ds < date(2024, 1, 1)), NEW]))
    )
    assert any("34 values before the start of a series were left out" in note for note in extension.notes)
    assert len(values(extension, "a")) == 112


def test_covariates_are_extended_too() -> None:
    future = later(date(2024, 4, 10), date(2024, 4, 27)).with_columns(
        y=polars.when(polars.col.ds < date(2024, 4, 22)).then("y"), rain=polars.col.y
    )
    old = OLD.with_columns(rain=polars.col.y)
    panel = extend(table(old, ("promo",), ("rain",)), table(future, ("promo",), ("rain",))).table.panel
    assert [len(known) for known in panel.known] == [117, 117]
    assert np.array_equal(
        panel.known[1][:, 0], wave(117).filter(polars.col.unique_id == "b")["promo"].to_numpy()
    )
    assert np.array_equal(panel.past[0][:, 0], panel.y[0])


# --- runs -------------------------------------------------------------------------------------------------------


def test_the_figures_are_of_the_network_that_had_not_seen_the_values(run: Path) -> None:
    made = Forecaster.load(run)
    asked = made.evaluate(wave(112), cutoffs=1)  # at 107
    forecast = made.predict()
    made.update(NEW, progress=False)
    backtest = made.backtest_
    assert backtest is not None and made.backtest_is_test_
    assert backtest.cutoffs.tolist() == [[100, 105, 110]] * 2
    own = backtest.forecasts[backtest.model]
    assert own[0, 0, :, 2] == pytest.approx(forecast["GRU"].to_numpy()[:5], rel=1e-6)
    assert own[0, 0, :, 0] == pytest.approx(forecast["GRU-lo-90"].to_numpy()[:5], rel=1e-6)
    assert asked["MAE"][0] > 0 and not made.predict()["ds"].equals(forecast["ds"])
    (record,) = made.updates_
    assert record["values"] == 24 and record["scores"][backtest.model]["MAE"] == pytest.approx(
        made.scores()["MAE"][0]
    )


def test_an_updated_run_is_a_run(run: Path, updated: Path) -> None:
    loaded = Forecaster.load(updated)
    in_memory = Forecaster.load(run).update(NEW, progress=False)
    assert loaded.predict().equals(in_memory.predict()) and loaded.scores().equals(in_memory.scores())
    assert loaded.notes_ == in_memory.notes_ and loaded.backtest_is_test_
    assert all(each.is_whole for each in check_run(updated))
    before, best = load_file(run / "final.safetensors"), load_file(updated / "best.safetensors")
    assert all(torch.equal(before[name], best[name]) for name in best)  # what was measured is what predicted
    rows = polars.read_csv(updated / "metrics.csv")["stage"].to_list()
    assert rows == ["train", "train", "refit", "update"]
    summary = json.loads((updated / "summary.json").read_text())
    assert summary["updates"][0]["values"] == 24
    assert not (updated / "last.safetensors").exists() and not (updated / "next").exists()


def test_updates_follow_each_other_and_bring_windows_for_the_calibration(
    updated: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(updated, tmp_path / "run"))
    one = Forecaster.load(folder)
    assert one._windows is not None
    count, unknown = len(one._windows), int(np.isnan(one._windows.truth).sum())
    two = one.update(later(date(2024, 4, 22), date(2024, 5, 2)), folder=folder, progress=False)
    assert two._windows is not None and len(two._windows) == count + 4
    assert unknown > 0 and int(np.isnan(two._windows.truth).sum()) == 0  # what was open then is known now
    assert [each["values"] for each in Forecaster.load(folder).updates_] == [24, 20]
    assert Forecaster.load(folder).predict().equals(two.predict())


def test_an_update_may_go_to_another_folder(run: Path, updated: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    Forecaster.load(run).update(NEW, folder=tmp_path / "other", progress=False)
    same_update(tmp_path / "other", updated)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    with pytest.raises(RunFolderError, match="holds a finished run"):
        Forecaster.load(run).update(NEW.head(3), folder=tmp_path / "other", progress=False)


def same_update(one: Path, other: Path) -> None:
    for name in ("best.safetensors", "refit.safetensors", "final.safetensors", "windows.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key].nan_to_num(), b[key].nan_to_num()) for key in a), name
    assert Forecaster.load(one).predict().equals(Forecaster.load(other).predict())


class Stop(Silent):
    """Ctrl-C after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, epoch: int, loss: float) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


def test_an_interrupted_update_leaves_the_run_and_goes_on(run: Path, updated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    forecast = Forecaster.load(folder).predict()
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 1 of the update; 7 of the"):
        Forecaster.load(folder).update(NEW, folder=folder, progress=Stop(7))
    assert Forecaster.load(folder).predict().equals(forecast)
    with pytest.raises(TrainingInterrupted):  # other data is another update, which begins anew
        Forecaster.load(folder).update(
            NEW.filter(polars.col.unique_id == "a"), folder=folder, progress=Stop(3)
        )
    with pytest.raises(TrainingInterrupted, match="7 of the"):
        Forecaster.load(folder).update(NEW, folder=folder, progress=Stop(7))
    Forecaster.load(folder).update(NEW, folder=folder, progress=False)
    same_update(folder, updated)


def test_a_kill_at_any_call_leaves_the_old_run_or_the_new(
    run: Path, updated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Forecaster, "_report", lambda self, run: None
    )  # it is tested by itself, and takes long
    old, new = (Forecaster.load(each).predict() for each in (run, updated))

    table = Forecaster.load(run).read(NEW)  # here: polars has threads, which a fork does not

    def update(folder: Path) -> None:
        Forecaster.load(folder).update(table, folder=folder, progress=False)

    counted = Path(shutil.copytree(run, tmp_path / "counted"))
    count = len(calls_of(counted, lambda: update(counted)))
    seen = []
    for at in range(0, count, 11):
        folder = Path(shutil.copytree(run, tmp_path / f"{at}"))

        def killed(folder: Path = folder, at: int = at) -> None:
            with watched(Disk(folder, "kill", at)):
                update(folder)

        assert in_a_fork(killed, (OSError,)) == KILLED
        found = Forecaster.load(folder).predict()
        seen.append(found.equals(new))
        assert seen[-1] or found.equals(old), f"after call {at} it is neither"
        assert all(each.is_whole for each in check_run(folder))
        if not seen[-1]:
            update(folder)
            assert Forecaster.load(folder).predict().equals(new)
        shutil.rmtree(folder)
    assert seen == sorted(seen) and {True, False} == set(seen)


def test_what_was_being_moved_is_read_from_where_it_is(updated: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.copytree(updated, folder / "next")
    (folder / "best.safetensors").write_bytes((updated / "best.safetensors").read_bytes())  # half moved
    assert current_run(folder).path == folder / "next"
    assert Forecaster.load(folder).predict().equals(Forecaster.load(updated).predict())
    Forecaster.load(folder).update(later(date(2024, 4, 22), date(2024, 5, 2)), folder=folder, progress=False)
    assert not (folder / "next").exists() and len(Forecaster.load(folder).updates_) == 2
    shutil.copytree(updated, folder / "next")
    Forecaster(**SETTINGS).fit(OLD, folder=folder, overwrite=True, progress=False)
    same_run(folder, run)


def test_a_run_of_an_earlier_version_is_updated(tmp_path: Path) -> None:
    home = Path(__file__).parent / "written_by_0_2_0" / "forecast"
    folder = Path(shutil.copytree(home, tmp_path / "run"))
    made = Forecaster.load(folder).update(wave(70), folder=folder, progress=False)
    assert made._windows is not None and any("calibrated on" in note for note in made.notes_)
    assert Forecaster.load(folder).predict().equals(made.predict())
