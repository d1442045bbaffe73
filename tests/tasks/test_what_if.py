"""A what-if changes the future of a covariate and nothing else, and refuses in a sentence what it cannot change."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars
import pytest

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.what_if import parse_changes, what_if

H = 3


def frame_of(name: str, base: float, days: int = 40) -> polars.DataFrame:
    steps = np.arange(days + H)
    return polars.DataFrame(
        {
            "unique_id": [name] * len(steps),
            "ds": np.datetime64("2024-01-01", "D") + steps,
            "y": [base + (t % 7) if t < days else None for t in steps.tolist()],
            "promo": steps % 2,
            "price": 10.0 + steps,
            "rain": steps % 3,
        }
    )


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    frame = polars.concat([frame_of("a", 20), frame_of("b", 50)])
    settings: dict[str, Any] = {"horizon": H, "hidden_size": 4, "epochs": 1}
    return Forecaster(known=["promo", "price"], past=["rain"], **settings).fit(frame)


def test_a_value_a_list_and_a_function(fitted: Forecaster) -> None:
    found = fitted.what_if(promo=1, price=lambda values: values * 2)
    assert found.columns[:6] == [
        "unique_id",
        "ds",
        "promo-given",
        "promo-changed",
        "price-given",
        "price-changed",
    ]
    assert found["promo-given"].to_list() == [0, 1, 0] * 2
    assert found["promo-changed"].to_list() == [1, 1, 1] * 2
    assert found["price-changed"].to_list() == [100, 102, 104] * 2
    assert fitted.what_if(changes={"promo": [0, 0, 1]})["promo-changed"].to_list() == [0, 0, 1] * 2
    assert fitted.table_.panel.known[0][-H:, 0].tolist() == [0, 1, 0], "the data stays"


def test_the_forecast_with_the_change_is_that_of_a_file_with_the_change(fitted: Forecaster) -> None:
    frame = polars.concat([frame_of("a", 20), frame_of("b", 50)])
    after = frame.with_columns(
        price=polars.when(polars.col("y").is_null()).then(3.0).otherwise(polars.col("price"))
    )
    found = fitted.what_if(price=3.0)
    for column in ("GRU", "GRU-lo-90", "GRU-hi-80"):
        changed = column.replace("GRU", "GRU-changed")
        assert found[changed].to_list() == fitted.predict(after)[column].to_list()
        assert found[column].to_list() == fitted.predict()[column].to_list()
    assert found["difference"].abs().max() > 0


def test_a_longer_horizon_and_other_series(fitted: Forecaster) -> None:
    longer = fitted.what_if(frame_of("c", 30), {"promo": 0}, horizon=2)
    assert longer["unique_id"].to_list() == ["c"] * 2
    with pytest.raises(DataError, match="a forecast of 9 steps needs promo, price for as many steps"):
        fitted.what_if(promo=0, horizon=9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "nothing is changed; name a covariate and its value, such as promo=0"),
        ({"promos": 0}, "there is no covariate 'promos'; known in advance: promo, price"),
        ({"rain": 0}, "'rain' is known only up to the present, so it has no future to change"),
        ({"promo": [0, 1]}, "'promo' needs one value, or one for each of the 3 steps, not 2"),
        ({"promo": float("nan")}, "'promo' needs numbers, not nan"),
        ({"promo": "no"}, "'promo' needs numbers, not 'no'"),
        ({"promo": lambda values: values[:1]}, "one for each of the 3 steps, not 1"),
    ],
)
def test_what_cannot_be_changed_is_said(fitted: Forecaster, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        fitted.what_if(changes=changes)


def test_without_covariates_nothing_can_be_changed() -> None:
    plain = Forecaster(horizon=H, hidden_size=4, epochs=1).fit(frame_of("a", 20).head(40))
    with pytest.raises(OptionError, match="was given no covariate that is known in advance"):
        plain.what_if(promo=0)


def test_what_is_typed_is_understood_or_refused() -> None:
    found = parse_changes(["promo=0", "price=-10%", "a=b=1,2,3"])
    assert found["promo"] == 0.0 and found["a=b"] == [1.0, 2.0, 3.0]
    assert found["price"](np.array([20.0])) == 18.0  # type: ignore[operator]
    for wrong, says in (
        ("promo", "--set takes COLUMN=VALUE, such as promo=0 or price=-10%, not 'promo'"),
        ("=1", "--set takes COLUMN=VALUE"),
        ("promo=yes", "--set promo=yes: 'yes' is no number"),
        ("promo=1,,2", "'' is no number"),
    ):
        with pytest.raises(OptionError, match=says):
            parse_changes([wrong])
    with pytest.raises(OptionError, match="changes 'promo' twice"):
        parse_changes(["promo=1", "promo=0"])


def test_the_sentence_says_how_much_and_where(fitted: Forecaster) -> None:
    found = what_if(fitted, fitted.table_, {"price": 3.0}, H)
    moved = found.difference.sum()
    assert found.sentence.startswith("With price = 3 the forecast of 3 days of 2 series adds up to ")
    assert (" more (" if moved > 0 else " less (") in found.sentence
    same = what_if(fitted, fitted.table_, {"price": lambda values: values}, H, "with the same price")
    assert same.sentence == "With the same price the forecast stays as it is."
