"""What is handed over is the better of two on the held-out windows, or a mean of both; never chosen on the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest
from tests.tasks.panels import panel_of, random_series

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import WorseThanSimpleWarning
from cellwise.tasks.forecasting.blend import (
    LEAST_WEIGHT,
    PRIOR_WINDOWS,
    SimpleBlend,
    choose_blend,
    equal_blend,
    is_network,
)
from cellwise.tasks.forecasting.metrics import pinball
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.simple import method_of, plausible_methods

QUANTILES = (0.1, 0.5, 0.9)
HORIZON = 4


def windows(count: int = 6) -> tuple[Panel, np.ndarray]:
    """Series as they were known at each window, and what came after."""
    series = random_series(count, 60)
    return panel_of([y[:-HORIZON] for y in series]), np.stack([y[-HORIZON:] for y in series])


def around(truth: np.ndarray, error: float) -> np.ndarray:
    """Forecasts that are off by so much, and bands around them."""
    return truth[..., None] + error + np.array([-1.0, 0.0, 1.0])


def chosen(error: float, *, mixed: bool, count: int = 6, gains: bool = False) -> SimpleBlend:
    panel, truth = windows(count)
    found = choose_blend(
        "GRU", panel, around(truth, error), truth, np.ones(len(truth)), QUANTILES, mixed=mixed, gains=gains
    )
    assert found is not None
    return found


def test_the_better_one_is_handed_over() -> None:
    good, bad = chosen(0.01, mixed=False), chosen(50.0, mixed=False)
    assert (good.weight, bad.weight) == (1.0, 0.0)
    assert good.note.startswith("GRU is handed over: on 6 held-out windows GRU errs ")
    assert bad.note.startswith(f"{bad.method} is handed over: on 6 held-out windows GRU errs ")
    assert (good.called("GRU"), bad.called("GRU")) == ("GRU", f"best-{bad.method}")
    assert "% less than" in good.note and "% more than" in bad.note


def test_the_mean_is_drawn_to_inverse_squares_by_few_windows() -> None:
    good, bad = chosen(0.01, mixed=True), chosen(50.0, mixed=True)
    # The best weights are 1 and 0; so nearly are those by squares, for one of the two hardly errs beside the other.
    assert good.weight == pytest.approx((6 + PRIOR_WINDOWS * 0.9) / (6 + PRIOR_WINDOWS), abs=0.06)
    assert bad.weight == LEAST_WEIGHT
    assert good.called("LSTM") == f"LSTM+{good.method}"
    share = round(100 * good.weight)
    assert good.note.startswith(f"a mean is handed over, {share} % GRU and {100 - share} % {good.method}: ")


def test_weights_by_squares_of_the_errors() -> None:
    """By hand, of forecasts that lie 3 below, beside a line that lies 2 below: one window would take the line alone."""
    y = np.arange(30.0)
    panel, truth = panel_of([y]), 32.0 + np.arange(HORIZON)[None]
    found = choose_blend("GRU", panel, around(truth, -3.0), truth, np.ones(1), QUANTILES, mixed=True)
    assert found is not None
    methods = {m.name: m.forecast(panel, HORIZON, QUANTILES) for m in plausible_methods(found.seasons)}
    losses = {name: pinball(truth, made, QUANTILES).mean() for name, made in methods.items()}
    own, best = pinball(truth, around(truth, -3.0), QUANTILES).mean(), losses[found.method]
    assert best == min(losses.values())
    by_squares = best**2 / (own**2 + best**2)
    wanted = PRIOR_WINDOWS * by_squares / (PRIOR_WINDOWS + 1)
    assert found.weight == pytest.approx(wanted, abs=1e-4) and wanted > LEAST_WEIGHT


def test_a_network_that_gains_by_what_is_held_out_weighs_more() -> None:
    usual, more = (chosen(1.0, mixed=True, gains=each) for each in (False, True))
    assert more.weight == pytest.approx((1 + usual.weight) / 2, abs=1e-4) and usual.weight < 1
    assert chosen(0.01, mixed=True, count=100).weight > 0.98


def test_without_windows_both_count_alike() -> None:
    """The simple method is the one that would have forecast the past best."""
    rising, season = np.arange(40.0), np.resize([1.0, 5.0, 2.0, 8.0], 60)
    for y, method in ((rising, "SeasonalDrift(4)"), (season, "SeasonalNaive")):
        found = equal_blend("GRU", panel_of([y] * 3), HORIZON, QUANTILES)
        assert (found.weight, found.method) == (0.5, method)
        assert found.note == (
            f"a mean is handed over, 50 % GRU and 50 % {method}: nothing was held out to weigh them by"
        )
    assert equal_blend("GRU", panel_of([np.arange(3.0)]), HORIZON, QUANTILES).method == "Theta"


def test_a_mean_is_taken_quantile_by_quantile() -> None:
    panel, truth = windows()
    forecasts = around(truth, 1.0)
    blend = SimpleBlend("Theta", (4,), 0.25, QUANTILES, "")
    simple = method_of("Theta", (4,)).forecast(panel, HORIZON, QUANTILES)
    assert blend.apply(panel, forecasts) == pytest.approx(0.25 * forecasts + 0.75 * simple)
    alone = SimpleBlend("Theta", (4,), 0.0, QUANTILES, "")
    assert alone.apply(panel, np.full_like(forecasts, 1e9)) == pytest.approx(simple)
    assert SimpleBlend("Theta", (4,), 1.0, QUANTILES, "").apply(panel, forecasts) is forecasts


def test_the_choice_weighs_series_by_their_own_errors() -> None:
    """A series of millions decides no more than one of units."""
    panel, truth = windows(4)
    factors = np.array([1e6, 1.0, 1.0, 1.0])
    large = panel_of([y * f for y, f in zip(panel.y, factors, strict=True)])
    forecasts = around(truth, 0.01)
    forecasts[0] += 50  # only for one is the network bad
    made = choose_blend(
        "GRU",
        large,
        forecasts * factors[:, None, None],
        truth * factors[:, None],
        factors,
        QUANTILES,
        mixed=True,
    )
    same = choose_blend("GRU", panel, forecasts, truth, np.ones(4), QUANTILES, mixed=True)
    assert made is not None and same is not None
    assert (made.method, made.weight) == (same.method, same.weight)


def test_nothing_to_compare_nothing_chosen() -> None:
    panel, truth = windows(2)
    unknown = np.full_like(truth, np.nan)
    assert choose_blend("GRU", panel, around(truth, 1), unknown, np.ones(2), QUANTILES, mixed=True) is None
    empty = panel.select([])
    made = choose_blend(
        "GRU", empty, np.zeros((0, 4, 3)), np.zeros((0, 4)), np.zeros(0), QUANTILES, mixed=True
    )
    assert made is None


def test_constant_series_have_a_choice_too() -> None:
    panel = panel_of([np.full(30, 5.0)] * 3)
    truth = np.full((3, HORIZON), 5.0)
    found = choose_blend("GRU", panel, around(truth, 1), truth, np.full(3, np.nan), QUANTILES, mixed=False)
    assert found is not None and found.weight == 0


def test_through_json_and_back() -> None:
    blend = chosen(1.0, mixed=True)
    assert SimpleBlend.from_dict(json.loads(json.dumps(blend.to_dict())), QUANTILES) == blend


@pytest.mark.parametrize(
    "damage",
    [
        {"method": "Prophet"}, {"method": 3}, {"weight": 1.5}, {"weight": float("nan")}, {"weight": True},
        {"weight": "1"}, {"seasons": [4.0]}, {"seasons": [0]}, {"seasons": [7, 4]}, {"seasons": []},
        {"seasons": list(range(1, 99))}, {"seasons": "4"}, {"quantiles": [0.5]}, {"note": 3},
        {"note": "x" * 2000}, {"note": "\x1b[2J"},
    ],
)  # fmt: skip
def test_a_damaged_blend_is_refused(damage: dict[str, object]) -> None:
    blend = SimpleBlend("Theta", (4,), 0.5, QUANTILES, "a note")
    with pytest.raises((ValueError, TypeError)):
        SimpleBlend.from_dict({**blend.to_dict(), **damage}, QUANTILES)


def test_names() -> None:
    assert is_network("GRU") and is_network("GRU+LSTM") and is_network("my_cell")
    assert not is_network("GRU+Theta") and not is_network("best-Theta")


def straight() -> polars.DataFrame:
    """A season on a line, which a network that has hardly learned misses, and simple methods do not."""
    noise = np.random.default_rng(0).normal(size=150)
    y = np.resize([1e3, -1e3, 5e2], 150) + np.arange(150) + noise
    return polars.DataFrame({"ds": np.arange(150), "y": y})


@pytest.mark.parametrize("option", ["best", "ensemble"])
def test_a_forecaster_hands_it_over_and_a_run_folder_remembers(tmp_path: Path, option: str) -> None:
    options = {"horizon": 6, "hidden_size": 4, "epochs": 1, "learning_rate": 1e-6, "season_length": 3}
    alone = Forecaster(**options, ensemble=False)
    with pytest.warns(
        WorseThanSimpleWarning, match=r"GRU errs [\d,]+ % more than .*: use --best or --ensemble"
    ):
        alone.fit(straight(), cutoffs=3)
    made = Forecaster(**options, best=option == "best").fit(straight(), folder=tmp_path / "run", cutoffs=3)
    name = made.model_name
    assert name.startswith("best-" if option == "best" else "GRU+")
    assert any("handed over" in note for note in made.notes_)
    assert any("that network predicts" in note for note in made.notes_) == (option != "best")
    errors = [each.scores().row(0, named=True)["MAE"] for each in (made, alone)]
    assert errors[0] < errors[1]
    assert made.predict().columns[2] == (name if option == "best" else "GRU")
    again = Forecaster.load(tmp_path / "run")
    assert again.model_name == name and again.predict().equals(made.predict())
    assert again.scores().equals(made.scores())
    assert "handed over" in (tmp_path / "run" / "report.html").read_text()


def test_nothing_held_out_and_the_test_does_not_choose() -> None:
    """Without validation windows the weights are equal, whatever the test windows would like."""
    options = {"horizon": 6, "hidden_size": 4, "epochs": 1, "season_length": 3, "validation": 0}
    made = Forecaster(**options).fit(straight(), cutoffs=3)
    blend = made._postprocessing.blend
    assert blend is not None and blend.weight == 0.5 and "nothing was held out" in blend.note
    assert "weights" not in made.validation_chose_


def test_columns_keep_the_name_of_the_cell() -> None:
    """What reads a forecast does not have to know with what the network was blended this time."""
    made = Forecaster(horizon=6, hidden_size=4, epochs=1, season_length=3).fit(straight(), cutoffs=3)
    assert made.model_name.startswith("GRU+") and made.predict().columns[2:4] == ["GRU", "GRU-lo-80"]
    assert "GRU" in made.backtest(straight(), cutoffs=2).columns
    assert made.scores()["model"][0] == made.model_name


def test_best_has_the_last_word() -> None:
    made = Forecaster(horizon=6, hidden_size=4, epochs=1, season_length=3, best=True, ensemble=True)
    made.fit(straight(), cutoffs=3)
    assert made.model_name == "GRU" or made.model_name.startswith("best-")
