"""`cellwise forecast explain` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest

from cellwise.tasks import Forecaster

H = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    steps = np.arange(60 + H)
    frame = polars.DataFrame(
        {
            "ds": np.datetime64("2024-01-01", "D") + steps,
            "y": [float(20 + t % 7 + 5 * (t % 3 == 0)) if t < 60 else None for t in steps.tolist()],
            "promo": (steps % 3 == 0).astype(int),
            "rain": steps % 4,
        }
    )
    frame.write_csv(folder / "shop.csv")
    settings = {"horizon": H, "hidden_size": 4, "epochs": 1, "known": ["promo"], "past": ["rain"]}
    Forecaster(**settings).fit(frame, folder=folder / "run", cutoffs=1)
    return folder / "run"


@pytest.fixture
def explain(run):
    return lambda *arguments: run("forecast", "explain", *arguments)


def test_what_forecasts_look_at(explain, trained: Path) -> None:
    status, out, err = explain(trained)
    assert status == 0, err
    assert {line.split("  ")[0] for line in out.splitlines()[2:]} == {
        "the series' own past", "the calendar", "promo", "rain",
    }  # fmt: skip
    assert "Shapley values" in err
    _, printed, _ = explain(trained, "--json")
    assert json.loads(printed) == json.loads(
        Forecaster.load(trained).influence().write_json().replace("NaN", "null")
    )


def test_of_another_file_the_shares_are_told_and_no_error(explain, trained: Path) -> None:
    status, out, err = explain(trained, trained.parent / "shop.csv", "--json")
    assert status == 0, err
    assert {row["error_growth"] for row in json.loads(out)} == {None}
    assert "Nothing was measured here" in err


def test_a_what_if_is_printed_or_written(explain, trained: Path, tmp_path: Path) -> None:
    status, out, err = explain(trained, "--set", "promo=0")
    assert status == 0, err
    printed = polars.read_csv(out.encode())
    wanted = Forecaster.load(trained).what_if(promo=0)
    assert printed.columns == wanted.columns
    np.testing.assert_allclose(printed["difference"], wanted["difference"], atol=1e-3)
    assert err.startswith("With promo = 0 the forecast of 4 days adds up to ")
    status, out, err = explain(trained, "--set", "promo=+50%", "-H", 2, "--out", tmp_path / "made.csv")
    assert status == 0 and out == "" and "wrote 2 rows" in err and "With promo 50 % higher" in err
    assert polars.read_csv(tmp_path / "made.csv")["promo-changed"].to_list() == [1.5, 0.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "rain=0"), "'rain' is known only up to the present"),
        (("--set", "promo"), "--set takes COLUMN=VALUE"),
        (("--horizon", "2"), "--horizon goes with --set"),
        (("--json", "--out", "x.csv"), "give one of them"),
        (("--set", "promo=0", "-H", "9"), "a forecast of 9 steps needs promo for as many steps"),
        (("--out", "x.txt"), "x.txt"),
    ],
)
def test_a_mistake_is_one_sentence(explain, trained: Path, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = explain(trained, *arguments)
    assert status == 2 and out == "" and says in err and len(err.splitlines()) == 1
