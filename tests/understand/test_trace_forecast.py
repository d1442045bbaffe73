"""A traced forecast is the forecast, and its derivatives are what happens when a value is changed."""

from __future__ import annotations

import numpy as np
import polars
import pytest
import torch

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.stretches import CONTEXT
from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.forecast import forecast_page, trace_forecast

HORIZON = 5


def frame_of(steps: int, shift: float = 0.0, name: str = "a") -> polars.DataFrame:
    generator = np.random.default_rng(3)
    y = 40 + 8 * np.sin(2 * np.pi * np.arange(steps) / 7) + generator.normal(size=steps) + shift
    ds = np.datetime64("2024-01-01", "D") + np.arange(steps)
    return polars.DataFrame({"unique_id": [name] * steps, "ds": ds, "y": y})


def trained(frame: polars.DataFrame, **options: object) -> Forecaster:
    settings = {
        "horizon": HORIZON,
        "hidden_size": 8,
        "epochs": 2,
        "validation": 1,
        "ensemble": False,
    } | options
    return Forecaster(**settings).fit(frame)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def one() -> Forecaster:
    made = trained(frame_of(200), cell="lstm", num_layers=2, members=2)
    with torch.no_grad():
        for member in made.network_.members:
            member.decode.weight.mul_(20)  # so much that what the network adds to its base is seen
    return made


@pytest.fixture(scope="module")
def crossing_zero() -> Forecaster:
    return trained(frame_of(60, shift=-40.0))


@pytest.mark.parametrize("which", ["one", "crossing_zero"])
def test_the_last_step_holds_the_forecast_that_predict_gives(
    which: str, request: pytest.FixtureRequest
) -> None:
    forecaster = request.getfixturevalue(which)
    trace = trace_forecast(forecaster, forecaster.table_)
    made = forecaster.predict()
    for column, place in (("-lo-90", 0), ("", 2), ("-hi-90", 4)):
        wanted = made[forecaster.model_name + column].to_numpy()
        np.testing.assert_allclose(trace.forecasts[-1, :, place], wanted, rtol=2e-5, atol=2e-5)


def changed(forecaster: Forecaster, step: int, by: float) -> np.ndarray:
    frame = frame_of(200)
    y = frame["y"].to_numpy().copy()
    y[step] += by
    return forecaster.predict(frame.with_columns(y=y))[forecaster.model_name].to_numpy()


def test_derivatives_are_what_a_changed_value_does(one: Forecaster) -> None:
    trace = trace_forecast(one, one.table_)
    assert trace.filled.shape == (CONTEXT,)
    size = 0.05
    for back in (1, 2, 3, 7, 8, 14, 21, 50):
        moved = (changed(one, 200 - back, size) - changed(one, 200 - back, -size)) / (2 * size)
        found = trace.by_value[:, -1, CONTEXT - back].numpy()
        np.testing.assert_allclose(found, moved, rtol=0.005, atol=3e-4)
    assert abs(trace.by_value[0, -1, -1]) > 0.05


def test_nothing_depends_on_what_comes_later(one: Forecaster) -> None:
    trace = trace_forecast(one, one.table_)
    for values in (trace.by_value, trace.by_input):
        later = values[:, np.triu(np.ones((CONTEXT, CONTEXT), bool), 1)]
        assert (later == 0).all()
        assert values.isfinite().all()


def test_a_series_of_gaps_below_zero_has_derivatives_too(crossing_zero: Forecaster) -> None:
    frame = frame_of(60, shift=-40.0).with_columns(
        y=polars.when(polars.int_range(60) == 50).then(None).otherwise(polars.col("y"))
    )
    trace = trace_forecast(crossing_zero, crossing_zero.read(frame))
    assert trace.observed.tolist() == [i != 50 for i in range(60)]
    assert trace.by_value.isfinite().all()
    # A forecast of a level moves with the level: raising everything by one raises it by about one.
    assert trace.by_value[:, -1].sum(-1).mean() == pytest.approx(1.0, abs=0.3)


def test_one_of_several_series_is_chosen_by_name() -> None:
    frame = polars.concat([frame_of(60), frame_of(60, shift=5.0, name="b")])
    forecaster = trained(frame)
    assert trace_forecast(forecaster, forecaster.table_, "b").panel.ids == ("b",)
    assert "one of 2 series" in forecast_page(forecaster, forecaster.table_).subtitle
    with pytest.raises(TraceError, match="there is no series 'c'; the data has a, b"):
        trace_forecast(forecaster, forecaster.table_, "c")


def test_covariates_must_reach_the_horizon() -> None:
    births = us_births(ahead=HORIZON).tail(120 + HORIZON).drop("unique_id")
    forecaster = trained(births, known=["holiday"])
    assert len(forecast_page(forecaster, forecaster.table_).dependences) == 3
    with pytest.raises(DataError, match="needs holiday for as many steps"):
        trace_forecast(forecaster, forecaster.read(births.head(120)))


def with_covariates(steps: int = 200) -> polars.DataFrame:
    """`frame_of`, with a flag known in advance that raises the series, and rain known up to the present."""
    generator = np.random.default_rng(5)
    promo = (np.arange(steps + HORIZON) % 9 == 0).astype(float)
    rows = frame_of(steps + HORIZON)
    y = rows["y"].to_numpy() + 20 * promo
    rain = generator.gamma(1.0, 2.0, steps + HORIZON)
    rows = rows.with_columns(y=y, promo=promo, rain=rain)
    return rows.with_columns(
        y=polars.when(polars.int_range(steps + HORIZON) < steps).then(polars.col("y")).otherwise(None)
    )


@pytest.fixture(scope="module")
def told() -> Forecaster:
    made = trained(with_covariates(), known=["promo"], past=["rain"], epochs=4)
    with torch.no_grad():
        for member in made.network_.members:
            member.decode.weight.mul_(20)
    return made


@pytest.mark.parametrize(("name", "back"), [("promo", 1), ("promo", 4), ("rain", 1), ("rain", 2)])
def test_derivatives_by_a_covariate_are_what_a_changed_covariate_does(
    told: Forecaster, name: str, back: int
) -> None:
    trace = trace_forecast(told, told.table_)
    frame, size = with_covariates(), 0.01

    def moved(by: float) -> np.ndarray:
        column = frame[name].to_numpy().copy()
        column[200 - back] += by
        return told.predict(frame.with_columns(polars.Series(name, column)))["GRU"].to_numpy()

    found = trace.by_covariate[name][:, -1, CONTEXT - back].numpy()
    np.testing.assert_allclose(found, (moved(size) - moved(-size)) / (2 * size), rtol=0.02, atol=2e-3)
    assert np.abs(found).max() > 0.01


def test_the_page_has_the_covariates_their_shares_and_a_what_if(told: Forecaster) -> None:
    page = forecast_page(told, told.table_)
    rows = {row["name"]: row["values"] for row in page.reader["rows"]}
    assert len(rows["promo"]) == CONTEXT + HORIZON and len(rows["rain"]) == CONTEXT
    assert rows["promo"][-HORIZON:] == with_covariates()["promo"].to_list()[-HORIZON:]
    assert [each.name for each in page.dependences] == [
        "each value",
        "what the layer is given",
        "promo",
        "rain",
    ]
    assert {name for name, _ in page.parts} == {"the series' own past", "the calendar", "promo", "rain"}
    assert sum(float(share.removesuffix(" %")) for _, share in page.parts) == pytest.approx(100, abs=0.3)
    (one,) = page.reader["whatIfs"]
    on = [value == 1 for value in rows["promo"][-HORIZON:]]
    assert one["words"] == ("without promo" if any(on) else "with promo throughout")
    wanted = told.what_if(promo=0 if any(on) else 1)["GRU-changed"].to_list()
    assert one["median"] == pytest.approx(wanted, rel=1e-4)


def test_without_covariates_the_page_has_none_of_that(one: Forecaster) -> None:
    page = forecast_page(one, one.table_)
    assert page.reader["rows"] == [] and page.reader["whatIfs"] == []


def test_a_long_horizon_is_looked_into_at_some_of_its_steps() -> None:
    forecaster = trained(frame_of(200), horizon=40, hidden_size=4)
    trace = trace_forecast(forecaster, forecaster.table_)
    assert len(trace.horizons) == 28 and trace.horizons[0] == 0 and trace.horizons[-1] == 39
    page = forecast_page(forecaster, forecaster.table_)
    assert page.targets[-1] == "40 days ahead" and len(page.reader["horizons"]) == 28
