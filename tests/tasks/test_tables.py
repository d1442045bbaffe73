"""The table and the sentence of a backtest: the best of the simple methods is what the model has to beat."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.tasks.panels import panel_of, random_series

from cellwise.tasks.forecasting.backtest import Backtest, cutoff_indices, rolling_forecasts
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.tables import judge, scores_table, series_table

QUANTILES = (0.1, 0.5, 0.9)


def measured(errors: dict[str, list[float]]) -> Backtest:
    """Models that are off by so much in each series, of one window of two steps, whose scale is 1, 10, 100, ..."""
    count = len(next(iter(errors.values())))
    panel = panel_of([np.zeros(12)] * count)
    shape = (count, 1, 2)
    made = {
        name: np.zeros((*shape, 3)) + np.array([-9.0, 0.0, 9.0]) + np.array(each)[:, None, None, None]
        for name, each in errors.items()
    }
    scale = 10.0 ** np.arange(count)[:, None]
    return Backtest(panel, np.full((count, 1), 10), np.zeros(shape), made, QUANTILES, scale, (80,))


def test_every_backtest_holds_the_simple_methods() -> None:
    panel = panel_of(random_series())

    def mean(seen: Panel, horizon: int) -> np.ndarray:
        return np.array([np.full((horizon, 3), np.nanmean(y)) for y in seen.y])

    cutoffs = cutoff_indices(panel.lengths, 2, 5, 5, 10)
    found = rolling_forecasts(mean, panel, cutoffs, 5, name="GRU", quantiles=QUANTILES, levels=(80,))
    assert found.model == "GRU" and {NAIVE_NAME, "Naive", "Mean", "Drift", "Theta"} <= set(found.forecasts)
    assert found.forecasts["Mean"][..., 1] == pytest.approx(found.forecasts["GRU"][..., 1])
    assert all(np.isfinite(each).all() for each in found.forecasts.values())
    errors = [found.scores()[name].overall["MASE"] for name in found.simple]
    assert errors == sorted(errors) and len(errors) == len(found.forecasts) - 1
    assert found.shown[:2] == ("GRU", found.simple[0]) and NAIVE_NAME in found.shown


def test_several_series_are_compared_by_mase() -> None:
    """By the mean of the errors themselves GRU loses, by the sum of the scaled ones it wins."""
    found = measured({"GRU": [1.0, 90.0], "Drift": [8.0, 80.0], NAIVE_NAME: [9.0, 90.0]})
    said = judge(found.scores(), found)
    assert (said.best_simple, said.metric) == ("Drift", "MASE")
    assert (said.error, said.best_error) == (pytest.approx(5.0), pytest.approx(8.0))
    assert said.skill == pytest.approx(100 * (1 - 5 / 8))
    assert said.text.startswith(
        "GRU errs 38 % less than the best simple method, Drift. Their MASE: 5.00 and 8.00."
    )
    assert said.text.endswith("For 1 of 2 series Drift is better.")
    table = scores_table(found.scores(), (80,))
    assert "MAE" not in table.columns and {"MASE", "scaled pinball", "skill %"} <= set(table.columns)
    skill = table.columns.index("skill %")
    assert [(row.name, row.cells[skill].text) for row in table.rows] == [
        ("GRU", "+38"), ("Drift", "0"), (NAIVE_NAME, "-12"),
    ]  # fmt: skip
    rows, _ = series_table(found.scores(), found)
    assert rows.columns[-1] == "MASE of Drift" and len(rows.rows) == 2


@pytest.mark.parametrize(
    ("own", "best", "ahead", "alarming", "words"),
    [
        (2.0, 1.0, False, True, "GRU errs 100 % more than SeasonalNaive: use --best or --ensemble."),
        (1.08, 1.0, False, False, "GRU errs 8 % more than SeasonalNaive: use --best or --ensemble."),
        (1.001, 1.0, True, False, "GRU errs as much as the best simple method, SeasonalNaive."),
        (0.5, 1.0, True, False, "GRU errs 50 % less than the best simple method, SeasonalNaive."),
        (0.5, 0.0, False, True, "GRU errs, SeasonalNaive does not: use --best or --ensemble."),
        (0.0, 0.0, True, False, "GRU errs as much as the best simple method, SeasonalNaive."),
        (math.nan, 1.0, True, False, "Nothing can be compared"),
    ],
)
def test_the_verdict(own: float, best: float, ahead: bool, alarming: bool, words: str) -> None:
    found = measured({"GRU": [own], NAIVE_NAME: [best]})
    said = judge(found.scores(), found)
    assert (said.is_ahead, said.is_alarming) == (ahead, alarming)
    assert said.text.startswith(words)
    json.dumps(said.to_dict(), allow_nan=False)


def test_what_was_blended_is_not_advised_again() -> None:
    found = measured({"GRU+Theta": [2.0], NAIVE_NAME: [1.0]})
    assert judge(found.scores(), found).text.startswith(
        "GRU+Theta errs 100 % more than SeasonalNaive. Their MAE"
    )


def test_beside_what_one_could_have_known() -> None:
    """Drift is the best by luck; Theta was chosen before, and beside it the mean is no disaster."""
    found = measured({"GRU+Theta": [2.0], "Drift": [1.0], "Theta": [2.5], NAIVE_NAME: [3.0]})
    said = judge(found.scores(), found)
    assert said.text == (
        "GRU+Theta errs 100 % more than Drift. Their MAE: 2.00 and 1.00. Drift is the best of 3 in hindsight; before "
        "these windows Theta was, and GRU+Theta errs 20 % less than Theta."
    )
    assert not said.is_ahead and not said.is_alarming


@pytest.mark.parametrize(
    ("theta", "naive", "alarming"), [(1.7, 9.0, True), (9.0, 1.7, True), (1.9, 1.9, False)]
)
def test_worse_than_what_one_could_have_taken_is_alarming(theta: float, naive: float, alarming: bool) -> None:
    found = measured({"GRU+Theta": [2.0], "Drift": [1.0], "Theta": [theta], NAIVE_NAME: [naive]})
    assert judge(found.scores(), found).is_alarming == alarming


def test_the_table_has_a_handful_of_rows() -> None:
    names = ["GRU", *(f"S{i}" for i in range(8)), NAIVE_NAME]
    found = measured({name: [float(i + 1)] for i, name in enumerate(names)})
    assert [row.name for row in scores_table(found.scores(), (80,)).rows] == [
        "GRU",
        "S0",
        "S1",
        "S2",
        "S3",
        NAIVE_NAME,
    ]
