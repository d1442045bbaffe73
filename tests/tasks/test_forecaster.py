"""The estimator: what goes in and comes out, equal seeds, files there and back, honesty, speed-independent
values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
import torch
from safetensors.torch import load_file

from cellwise import Cell, Vector, cells, sigmoid, tanh
from cellwise.errors import CellwiseError
from cellwise.tasks import Forecaster
from cellwise.tasks.errors import (
    DataError,
    NotFittedError,
    OptionError,
    RunFolderError,
    TaskError,
    TrainingInterrupted,
)
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.progress import Silent

TINY = {"hidden_size": 8, "epochs": 2, "batch_size": 16, "validation": 1}


def wave(days: int = 140, names: tuple[str, ...] = ("a", "b"), start: str = "2024-01-01") -> polars.DataFrame:
    """Weekly waves with a little noise, one level per series, and a promotion that adds ten."""
    made = []
    for i, name in enumerate(names):
        steps = np.arange(days)
        promo = ((steps * 7 + i) % 11 == 0).astype(float)
        noise = np.random.default_rng(i).normal(size=days)
        y = 50 + 40 * i + 10 * np.sin(2 * np.pi * steps / 7) + 10 * promo + noise
        ds = np.datetime64(start, "D") + steps
        made.append(polars.DataFrame({"unique_id": [name] * days, "ds": ds, "y": y, "promo": promo}))
    return polars.concat(made)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(horizon=7, **TINY).fit(wave())


def test_output_has_the_promised_columns_times_and_kind(fitted: Forecaster) -> None:
    made = fitted.predict()
    assert made.columns == ["unique_id", "ds", "GRU", "GRU-lo-80", "GRU-hi-80", "GRU-lo-90", "GRU-hi-90"]
    assert made["unique_id"].to_list() == ["a"] * 7 + ["b"] * 7
    days = np.datetime64("2024-05-20", "D") + np.arange(7)
    assert (made.filter(polars.col.unique_id == "b")["ds"].to_numpy() == days).all()
    assert made["GRU"].is_finite().all()


def test_bands_do_not_cross(fitted: Forecaster) -> None:
    made = fitted.predict(horizon=20)
    order = ["GRU-lo-90", "GRU-lo-80", "GRU", "GRU-hi-80", "GRU-hi-90"]
    assert (np.diff(made.select(order).to_numpy(), axis=1) >= 0).all()


def test_pandas_stays_pandas_and_gives_the_same_numbers(fitted: Forecaster) -> None:
    frame = pandas.DataFrame(wave().to_dict(as_series=False)).assign(ds=lambda f: pandas.to_datetime(f.ds))
    made = fitted.predict(frame)
    assert isinstance(made, pandas.DataFrame)
    assert made["GRU"].to_numpy() == pytest.approx(fitted.predict()["GRU"].to_numpy(), rel=1e-12)
    assert made["ds"].iloc[0] == pandas.Timestamp("2024-05-20")


def test_series_never_seen_and_a_longer_horizon(fitted: Forecaster) -> None:
    other = wave(90, ("z",), start="2021-05-05").with_columns(y=polars.col.y * 1000)
    made = fitted.predict(other, horizon=25)
    assert made["unique_id"].unique().to_list() == ["z"]
    assert made.height == 25
    assert made["ds"][-1] == other["ds"][-1] + (other["ds"][25] - other["ds"][0])
    assert made["GRU"].mean() == pytest.approx(other["y"].mean(), rel=0.3)


def test_a_series_is_forecast_alike_alone_and_in_company(fitted: Forecaster) -> None:
    alone = fitted.predict(wave().filter(polars.col.unique_id == "b"))
    together = fitted.predict().filter(polars.col.unique_id == "b")
    assert alone["GRU"].to_numpy() == pytest.approx(together["GRU"].to_numpy(), rel=1e-5)


def test_equal_seeds_give_equal_bits_other_seeds_do_not() -> None:
    first, second = (Forecaster(horizon=7, seed=4, **TINY).fit(wave()).predict() for _ in range(2))
    assert first.equals(second)
    assert not first.equals(Forecaster(horizon=7, seed=5, **TINY).fit(wave()).predict())


def test_parameters_are_stored_as_given() -> None:
    known = ["promo"]
    forecaster = Forecaster("lstm", 5, known=known, epochs=3)
    assert forecaster.get_params()["known"] is known
    assert Forecaster(**forecaster.get_params()).get_params() == forecaster.get_params()
    assert repr(forecaster) == "Forecaster(cell='lstm', horizon=5, known=['promo'], epochs=3)"
    assert forecaster.set_params(epochs=9) is forecaster
    assert forecaster.epochs == 9
    with pytest.raises(TaskError, match="has no parameter 'epoch'; it has cell, horizon"):
        forecaster.set_params(epoch=9)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"horizon": 0}, "horizon must be a whole number from 1 to"),
        ({"horizon": 2.5}, "horizon must be a whole number"),
        ({"epochs": 0}, "epochs must be"),
        ({"dropout": 1.5}, "dropout must be a number from 0.0 to 0.95, not 1.5"),
        ({"learning_rate": -1}, "learning_rate must be a number"),
        ({"seed": -1}, "seed must be"),
        ({"levels": (80, 80)}, "levels must be different whole percentages"),
        ({"levels": (100,)}, "levels must be"),
        ({"known": "promo"}, r"known must be a list of column names, such as \['promo'\]"),
        ({"season_length": 0}, "season_length must be"),
        ({"freq": "nonsense"}, "is not a frequency"),
        ({"date_format": "YYYY"}, "the date format 'YYYY' is none"),
        ({"decimal": ";"}, "decimal must be '.' or ','"),
        ({"encoding": "none"}, "'none' is no encoding"),
        ({"cell": "gruu"}, "gru"),
    ],
)
def test_settings_that_make_no_sense(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CellwiseError, match=sentence):
        Forecaster(**params).fit(wave())


def test_any_cell_is_called_by_its_name() -> None:
    for cell in ("lstm", "mingru"):
        made = Forecaster(cell, 3, hidden_size=4, epochs=1, validation=0).fit(wave(40)).predict()
        assert cell.upper() in made.columns


def test_known_covariates_reach_the_future_and_matter() -> None:
    frame = wave(147)
    masked = frame.with_columns(y=polars.when(polars.col.ds < polars.date(2024, 5, 20)).then(polars.col.y))
    forecaster = Forecaster(horizon=7, known=["promo"], **TINY).fit(masked)
    assert forecaster.predict().height == 14
    swapped = masked.with_columns(
        promo=polars.when(polars.col.y.is_null()).then(1 - polars.col.promo).otherwise("promo")
    )
    assert not forecaster.predict(swapped).equals(forecaster.predict())
    with pytest.raises(
        DataError, match=r"a forecast of 8 steps needs promo .* series 'a' has 7; add rows with an empty 'y'"
    ):
        forecaster.predict(horizon=8)


def test_past_covariates_and_missing_values_are_taken() -> None:
    frame = wave().with_columns(
        y=polars.when(polars.col.promo == 1).then(None).otherwise("y"),
        rain=polars.when(polars.col.y > 60).then(1.0),
    )
    made = Forecaster(horizon=7, past=["rain"], **TINY).fit(frame).predict()
    assert made["GRU"].is_finite().all()


def test_a_backtest_does_not_know_what_comes_later() -> None:
    frame = wave(160, ("a",))
    cutoff = frame["ds"][139]
    changed = frame.with_columns(
        y=polars.when(polars.col.ds > cutoff).then(polars.col.y * 3 + 100).otherwise("y")
    )
    made = [Forecaster(horizon=10, **TINY).backtest(table, cutoffs=2) for table in (frame, changed)]
    common = [name for name in made[0].columns if name in made[1].columns and name != "y"]
    first = [table.filter(polars.col.cutoff == cutoff).select(common) for table in made]
    assert first[0].height == 10 and {"GRU", "SeasonalNaive-hi-90"} <= set(common)
    assert first[0].equals(first[1])
    assert not made[0].equals(made[1])  # the second cutoff has seen the change


def test_backtest_columns_and_scores_agree() -> None:
    forecaster = Forecaster(horizon=5, **TINY)
    made = forecaster.backtest(wave(), cutoffs=3, step=4)
    expected = ["unique_id", "ds", "cutoff", "y", "GRU", "GRU-lo-80", "GRU-hi-80", "GRU-lo-90", "GRU-hi-90"]
    assert made.columns[:9] == expected
    assert "SeasonalNaive" in made.columns
    assert made.select("unique_id", "cutoff").unique().height == 6
    by_hand = made.group_by("unique_id").agg((polars.col.y - polars.col.GRU).abs().mean())["y"].mean()
    scores = forecaster.scores()
    models = scores["model"].to_list()
    assert models[0].startswith("GRU+") and {"SeasonalNaive", "Naive", "Mean", "Drift", "Theta"} <= set(
        models
    )
    assert scores["MASE"][1:].is_sorted()
    assert scores["MAE"][0] == pytest.approx(by_hand)
    shown = {models[0], "SeasonalNaive", models[1]}
    assert forecaster.scores("horizon").height == 5 * len(shown)
    assert forecaster.scores("series").columns[:2] == ["model", "unique_id"]
    with pytest.raises(OptionError, match="by must be 'all', 'series' or 'horizon', not 'foo'"):
        forecaster.scores(by="foo")


def test_backtest_leaves_what_fit_learned(fitted: Forecaster) -> None:
    before = fitted.predict()
    fitted.backtest(wave(100, ("q",)), cutoffs=1)
    assert fitted.predict().equals(before)


def test_evaluate_measures_this_network_on_any_table(fitted: Forecaster) -> None:
    scores = fitted.evaluate(wave(100, ("new",)), cutoffs=2)
    assert scores["model"][0] == fitted.model_name and "SeasonalNaive" in scores["model"]
    with pytest.raises(SeriesTooShortError, match="measuring a horizon of 7 needs"):
        fitted.evaluate(wave(8, ("new",)))


def test_before_fit_nothing_can_be_asked() -> None:
    for call in (
        lambda f: f.predict(),
        lambda f: f.scores(),
        lambda f: f.save("nowhere"),
        lambda f: f.evaluate(),
    ):
        with pytest.raises(NotFittedError):
            call(Forecaster())


def test_a_saved_forecaster_is_the_same_forecaster(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.predict().equals(fitted.predict())
    lists = {"known": [], "past": [], "holidays": [], "drop": [], "levels": [80, 90]}
    assert loaded.get_params() == {**fitted.get_params(), **lists}
    other = wave(60, ("z",))
    assert loaded.predict(other, horizon=9).equals(fitted.predict(other, horizon=9))


def test_a_saved_forecaster_measures_what_it_kept_from_training(tmp_path: Path) -> None:
    made = Forecaster(horizon=7, **TINY).fit(wave(), cutoffs=2, step=3)
    made.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.backtest_is_test_ and loaded.kept_from_training(2, 3)
    assert loaded.scores().equals(made.scores())


def test_a_fit_that_fails_leaves_what_was_learned(fitted: Forecaster) -> None:
    before, notes = fitted.predict(), fitted.notes_
    with pytest.raises(SeriesTooShortError):
        fitted.fit(wave(5, ("a",)))
    assert fitted.predict().equals(before) and fitted.notes_ == notes


def test_integer_times_and_ids_come_back_as_integers() -> None:
    frame = polars.DataFrame({"unique_id": [3] * 60, "ds": range(60), "y": np.sin(np.arange(60) / 3) + 2})
    made = Forecaster(horizon=4, **TINY).fit(frame).predict()
    assert made["unique_id"].to_list() == [3] * 4
    assert made["ds"].to_list() == [60, 61, 62, 63]


def test_a_series_too_short(fitted: Forecaster) -> None:
    with pytest.raises(
        SeriesTooShortError, match="series 'a' has 5 values, but a horizon of 28 needs at least"
    ):
        Forecaster().fit(wave(5, ("a",)))
    assert (
        fitted.predict(wave(1, ("tiny",)))["GRU"].is_finite().all()
    )  # a network that has learned can start from one


def test_a_folder_holds_the_run_and_gives_the_same_forecaster(tmp_path: Path) -> None:
    forecaster = Forecaster(horizon=7, **TINY).fit(wave(), folder=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    wanted = {
        "config.json",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "report.html",
        "summary.json",
        "plots",
    }
    assert wanted <= names
    metrics = polars.read_csv(tmp_path / "run" / "metrics.csv")
    epochs = (*forecaster.trained_.epochs, *forecaster.refitted_.epochs)
    assert metrics["epoch"].to_list() == [1, 2, 1]
    assert metrics["loss"].to_list() == pytest.approx([epoch.loss for epoch in epochs])
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.predict().equals(forecaster.predict())
    assert loaded.scores().equals(forecaster.scores())


class StopAfter(Silent):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def step(self, epoch: int, loss: float) -> None:
        if epoch > self.epochs:
            raise KeyboardInterrupt


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    settings = {"horizon": 7, **TINY, "epochs": 4}
    whole = Forecaster(**settings).fit(wave(), folder=tmp_path / "whole")
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 3; 2 epochs are saved"):
        Forecaster(**settings).fit(wave(), folder=tmp_path / "parts", progress=StopAfter(2))
    with pytest.raises(RunFolderError, match="is not finished"):
        Forecaster.load(tmp_path / "parts")
    torch.rand(3)
    resumed = Forecaster(**settings).fit(wave(), folder=tmp_path / "parts")
    assert resumed.trained_.resumed_after == 2
    for name in ("best.safetensors", "last.safetensors"):
        a, b = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert resumed.predict().equals(whole.predict())
    shown = [(tmp_path / run / "plots" / "forecast.svg").read_text() for run in ("whole", "parts")]
    assert shown[0] == shown[1]


def test_other_data_does_not_resume(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        Forecaster(horizon=7, **TINY).fit(wave(), folder=tmp_path / "run", progress=StopAfter(1))
    with pytest.raises(RunFolderError, match="was started with other data"):
        Forecaster(horizon=7, **TINY).fit(wave(139), folder=tmp_path / "run")
    with pytest.raises(RunFolderError, match="was started with hidden_size = 8, not 9"):
        Forecaster(horizon=7, **{**TINY, "hidden_size": 9}).fit(wave(), folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b'{"task": "forecast", "settings": {}}', "config.json lacks settings"),
        ("config.json", None, "is not a run folder"),
        ("best.safetensors", b"\x08", "best.safetensors is cut short"),
        ("best.safetensors", None, "best.safetensors is missing"),
        ("data.safetensors", b"12345678", "data.safetensors is cut short"),
        ("summary.json", b"nonsense", "summary.json is not JSON"),
    ],
)
def test_damaged_runs(
    fitted: Forecaster, tmp_path: Path, name: str, damage: bytes | None, sentence: str
) -> None:
    fitted.save(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(RunFolderError, match=sentence):
        Forecaster.load(tmp_path / "run")


def test_early_stopping_says_what_it_held_out() -> None:
    forecaster = Forecaster(horizon=7, **TINY, refit=False, ensemble=False).fit(wave(), cutoffs=0)
    held_out, calibrated = forecaster.notes_
    assert held_out == "the last 7 days were held out from training for validation in 2 of 2 series"
    assert calibrated.startswith("the bands are calibrated on 2 windows")
    assert not forecaster.backtest_is_test_
    assert all(
        isinstance(epoch, Epoch) and list(epoch.metrics) == ["scaled_pinball"]
        for epoch in forecaster.trained_.epochs
    )


def test_a_cell_that_its_name_does_not_tell_is_read_from_its_equations(tmp_path: Path, caplog) -> None:
    class Mine(Cell):
        """Nobody else's."""

        gates = ("f", "n")
        weight = Vector((-0.5, 0.5))

        def step(self, x, h):
            f = sigmoid(x.f + h.f + self.weight * h)
            return (1 - f) * h + f * tanh(x.n + (f * h).n)

    for cell, said in (
        (Mine, "'mine' is not registered here"),
        (cells.RNN(nonlinearity="relu"), "'rnn' has other"),
    ):
        made = Forecaster(cell, horizon=7, **TINY).fit(wave(), folder=tmp_path / said[:5])
        caplog.clear()
        loaded = Forecaster.load(tmp_path / said[:5])
        assert said in caplog.text
        assert loaded.model_name == made.model_name
        assert loaded.predict().equals(made.predict())
        loaded.save(tmp_path / f"{said[:5]} again")
        assert Forecaster.load(tmp_path / f"{said[:5]} again").predict().equals(made.predict())
    assert Forecaster(cells.GRU).model_name == "GRU"


def test_a_class_as_cell_loads_as_the_known_cell_it_is(tmp_path: Path) -> None:
    Forecaster(cells.GRU, horizon=7, **TINY).fit(wave()).save(tmp_path / "run")
    assert Forecaster.load(tmp_path / "run").cell == "gru"


@pytest.mark.parametrize(
    "values", ["constant", "zeros", "mostly missing", "huge", "tiny", "negative", "one jump"]
)
def test_awkward_series_give_finite_forecasts_and_figures(values: str) -> None:
    steps = np.arange(100.0)
    y = {
        "constant": np.full(100, 7.0),
        "zeros": np.zeros(100),
        "mostly missing": np.where(steps % 9 == 0, steps, np.nan),
        "huge": 1e15 * (2 + np.sin(steps)),
        "tiny": 1e-12 * (2 + np.sin(steps)),
        "negative": -50 - 10 * np.sin(steps),
        "one jump": np.where(steps < 60, 1.0, 1e6),
    }[values]
    frame = polars.DataFrame({"ds": np.datetime64("2024-01-01", "D") + np.arange(100), "y": y})
    frame = frame.with_columns(polars.col.y.fill_nan(None))
    forecaster = Forecaster(horizon=7, **TINY).fit(frame, cutoffs=1)
    made = forecaster.predict()
    assert made.select(polars.col("GRU", "GRU-lo-90", "GRU-hi-90").is_finite().all()).row(0) == (
        True,
        True,
        True,
    )
    assert np.isfinite(forecaster.scores()["MAE"][0])
    if values in ("constant", "zeros"):
        assert made["GRU"].to_numpy() == pytest.approx(y[:7], abs=1e-3 * max(1, abs(y[0])))


def test_without_polars_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(
        CellwiseError, match=r"cellwise.tasks needs polars, .*: pip install polars narwhals matplotlib jinja2"
    ):
        Forecaster().fit("sales.csv")


def test_importing_the_estimator_loads_no_frame_or_plot_library() -> None:
    code = (
        "import sys, cellwise.tasks, cellwise.tasks.forecasting.forecaster as f\n"
        "loaded = {'polars', 'narwhals', 'pandas', 'matplotlib', 'jinja2', 'click', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_best_weights_so_far_of_a_run_that_trains(tmp_path: Path) -> None:
    seen: list[polars.DataFrame] = []

    class Look(Silent):
        def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
            loaded = Forecaster.load(tmp_path / "run", unfinished=True)
            assert loaded.notes_[-1].endswith(f"weights of epoch {best.epoch}, the best so far")
            seen.append(loaded.predict())

    with pytest.raises(RunFolderError, match="there is no run folder"):
        Forecaster.load(tmp_path / "run", unfinished=True)
    settings = {"horizon": 7, **TINY, "refit": False, "calibrate": False, "ensemble": False}
    made = Forecaster(**settings).fit(wave(), folder=tmp_path / "run", progress=Look())
    assert seen[made.trained_.best.epoch - 1].equals(made.predict())
