"""The report stands alone, says what it must, and says so plainly when the naive forecast wins."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars
import pytest
from browser import browser, needs_browser

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.report_measured import (
    Measured,
    good_section,
    measured_on,
    sure_section,
    wrong_sections,
)
from cellwise.tasks.forecasting.tables import judge, scores_table, verdict
from cellwise.tasks.report.page import Page, Section, render

pytestmark = pytest.mark.draws

SETTINGS = {"horizon": 5, "hidden_size": 4, "epochs": 2, "ensemble": False}


def series(names: tuple[str, ...], days: int = 90) -> polars.DataFrame:
    parts = []
    for i, name in enumerate(names):
        y = 10 * i + np.sin(np.arange(days) / 3) + 5
        ds = np.datetime64("2024-01-01", "D") + np.arange(days)
        parts.append(polars.DataFrame({"unique_id": [name] * days, "ds": ds, "y": y}))
    return polars.concat(parts)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    Forecaster(**SETTINGS).fit(series(("births",)), folder=run, cutoffs=3)
    return run


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("many") / "run"
    frame = series(tuple(f"shop <{i}> & co" for i in range(8)))
    Forecaster(**SETTINGS).fit(frame, folder=run, cutoffs=0)
    return (run / "report.html").read_text()


class Checker(HTMLParser):
    """Collects what is opened and not closed, what is loaded, and every id."""

    empty = frozenset({"meta", "br", "img", "link", "path", "use", "rect", "stop", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.empty:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data") and value:
                self.loaded.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.empty:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.empty:
            assert self.open.pop() == tag


def test_it_is_one_page_without_a_network(one: Path, many: str) -> None:
    for page in ((one / "report.html").read_text(), many):
        assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
        checker = Checker()
        checker.feed(page)
        assert checker.open == []
        assert all(address.startswith("#") for address in checker.loaded)
        assert len(checker.ids) == len(set(checker.ids)), "ids of two plots collide"
        assert {address[1:] for address in checker.loaded} <= set(checker.ids)
        assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(checker.ids)


def test_it_says_what_it_must(one: Path) -> None:
    page = (one / "report.html").read_text()
    for words in (
        "births: GRU forecast",
        "one series, 90 values, one every day, 2024-01-01 to 2024-03-30",
        "The next 5 days",
        "80 % band",
        "90 % band",
        "SeasonalNaive",
        "How good it is",
        "How sure it is",
        "Where it is wrong",
        "What it looks at",
        "Interval score: the width of the band",
        "training loss",
        "The last 15 days were kept from training",
        "which neither training nor early stopping has seen",
        "learning rate",
        "prefers-color-scheme: dark",
    ):
        assert words in page, words
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().replace(
        "dominant", ""
    )


def rows_of(page: str, title: str) -> list[list[str]]:
    """The cells of the first table after a heading, as text."""
    table = page[page.index(f"<h2>{title}</h2>") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)]


def measured_again(run: Path, rival: str) -> dict[str, float]:
    """The figures of the model, and the error of a simple method, from the rows of backtest.csv alone."""
    rows = polars.read_csv(run / "backtest.csv", try_parse_dates=True).drop_nulls("y")
    y, point = rows["y"].to_numpy(), rows["GRU"].to_numpy()
    low, high = rows["GRU-lo-80"].to_numpy(), rows["GRU-hi-80"].to_numpy()
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    errors = rows.group_by("cutoff").agg((polars.col("y") - polars.col("GRU")).abs().mean().alias("error"))
    return {
        "MAE": float(np.abs(y - point).mean()),
        "RMSE": float(np.sqrt(((y - point) ** 2).mean())),
        "inside": float(100 * ((low <= y) & (y <= high)).mean()),
        "width": float((high - low).mean()),
        "interval": float((high - low + 10 * outside).mean()),
        "rival": float(np.abs(y - rows[rival].to_numpy()).mean()),
        "worst": max(errors["error"].to_list()),
    }


def test_the_figures_on_the_page_are_those_of_the_backtest_file(one: Path) -> None:
    page = (one / "report.html").read_text()
    (rival,) = re.findall(r"than that of ([^<]*), the best of the simple methods", page)
    found = measured_again(one, rival)
    rows = {row[0]: row[1:] for row in rows_of(page, "How good it is")}
    own, simple = rows["GRU"], rows[rival]
    assert "SeasonalNaive" in rows
    assert [float(each) for each in own[:2]] == pytest.approx([found["MAE"], found["RMSE"]], rel=0.005)
    assert float(simple[0]) == pytest.approx(found["rival"], rel=0.005)
    assert float(own[-1]) == pytest.approx(100 * (1 - found["MAE"] / found["rival"]), abs=0.51)
    name, inside, width, interval = rows_of(page, "How sure it is")[0]
    assert name == "80 % band of GRU"
    assert float(inside.removesuffix(" %")) == pytest.approx(found["inside"], abs=0.051)
    assert [float(width), float(interval)] == pytest.approx([found["width"], found["interval"]], rel=0.005)
    assert float(rows_of(page, "Where it is wrong")[0][1]) == pytest.approx(found["worst"], rel=0.005)


def test_plots_are_files_too(one: Path) -> None:
    names = {path.stem for path in (one / "plots").iterdir()}
    assert names == {"forecast", "backtest", "error", "cutoff", "loss", "lags", "shares"}
    assert (one / "plots" / "loss.svg").read_text().startswith("<?xml")


def settings_in(page: str) -> dict[str, str]:
    rows = re.findall(
        r"<div(?: class=\"given\")?><span(?: title=\"[^\"]*\")?>([^<]*)</span><span>(.*?)</span></div>", page
    )
    return {name: re.sub("<[^>]*>", "", value) for name, value in rows}


def test_settings_have_their_chosen_values(one: Path, many: str) -> None:
    found = settings_in((one / "report.html").read_text())
    assert found["freq"] == "D (one every day) chosen"
    assert found["season length"] == "7 steps chosen"
    assert found["cutoffs"] == "3" and found["horizon"] == "5"
    assert found["validation"] == f"{(Forecaster.load(one)._data.split.validation >= 0).sum()} windows chosen"
    assert found["input length"] == "up to 212 steps"
    assert found["epochs"] == "2" and re.fullmatch(r"2, kept that of epoch [12]", found["epochs run"])
    assert settings_in(many)["validation"].endswith(" of each series chosen")
    assert not [name for name, value in found.items() if value in ("None", "")]


def test_many_series_are_shown_from_best_to_worst_and_escaped(many: str) -> None:
    assert "shop &lt;0&gt; &amp; co" in many
    assert "shop <0>" not in many
    assert "Series by series" in many
    assert "The pictures show 6 of 8 series" in many
    assert "held out from training but decided when to stop, so a little flattering" in many


@pytest.mark.parametrize(
    ("days", "options", "said"),
    [
        (11, {}, None),
        (19, {}, "; a single window says little, and has no others to calibrate its bands by."),
        (
            19,
            {"epochs": 1},
            " but decided when to stop, so a little flattering. A backtest gives honest figures.",
        ),
        (19, {"best": True}, " but decided what is handed over, so"),
        (19, {"ensemble": True}, " but decided the weights of the mean that is handed over, so"),
        (60, {"validation": 3}, "; they decided nothing but the width of the bands."),
    ],
)
def test_what_validation_decided_is_said(days: int, options: dict[str, object], said: str | None) -> None:
    forecaster = Forecaster(**{"horizon": 5, "hidden_size": 4, "ensemble": False} | options)
    forecaster.fit(series(("one",), days=days), cutoffs=0, progress=False)
    assert (forecaster.backtest_ is None) == (said is None)
    if said is not None:
        assert said in measured_on(forecaster)


def test_many_series_are_measured_in_units_that_they_share(many: str) -> None:
    head = many[many.index("<h2>How good it is") : many.index("<h2>How sure it is")]
    assert re.findall(r"<th>([^<]*)</th>", head) == ["model", "sMAPE", "MASE", "scaled pinball", "skill %"]
    assert "in units of the naive error" in many and "in the units of the data" not in many.replace("MAE", "")


def test_nothing_measured_nothing_drawn(tmp_path: Path) -> None:
    forecaster = Forecaster(horizon=5, hidden_size=4, epochs=2)
    forecaster.fit(series(("short",), days=11), folder=tmp_path / "run")
    assert forecaster.backtest_ is None
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing was held out, so nobody knows how good this forecast is" in page
    for absent in ("How good it is", "How sure it is", "Where it is wrong", "on what was held out", "skill"):
        assert absent not in page, absent
    assert {path.stem for path in (tmp_path / "run" / "plots").iterdir()} == {"forecast", "loss"}
    widths = [float(each) for each in re.findall(r'<svg style="max-width: (\d+)px"', page)]
    assert len(widths) == 3 and sorted(widths)[:2] <= [500.0, 500.0]
    assert not (tmp_path / "run" / "backtest.csv").exists()


def test_covariates_have_rows_influence_and_a_what_if(tmp_path: Path) -> None:
    frame = series(("shop",), days=60).with_columns(
        promo=polars.int_range(60) % 5 == 0, rain=polars.int_range(60) % 3
    )
    frame = frame.with_columns(promo=polars.col("promo").cast(polars.Int64))
    settings = {"known": ["promo"], "past": ["rain"], "horizon": 5, "hidden_size": 4, "epochs": 2}
    last = frame["ds"][-1]
    more = polars.DataFrame(
        {
            "unique_id": ["shop"] * 5,
            "ds": [last + np.timedelta64(k, "D").astype(object) for k in range(1, 6)],
            "y": [None] * 5,
            "promo": [1, 0, 0, 0, 0],
            "rain": [0] * 5,
        },
        schema=frame.schema,
    )
    run = tmp_path / "run"
    forecaster = Forecaster(**settings).fit(polars.concat([frame, more]), folder=run, cutoffs=2)
    page = (run / "report.html").read_text()
    assert {"influence", "shares", "lags", "what-if"} <= {path.stem for path in (run / "plots").iterdir()}
    assert "What if: without promo" in page
    moved = forecaster.what_if(promo=0)["difference"].sum()
    said = re.search(r"Without promo the forecast of 5 days adds up to ([\d.]+) (more|less)", page)
    assert said is not None
    assert float(said[1]) == pytest.approx(abs(moved), rel=0.01) and (said[2] == "more") == (moved > 0)
    drawn = (run / "plots" / "forecast.svg").read_text()
    assert ">promo<" in drawn and ">rain<" not in drawn


def backtest_where(own_error: float, naive_error: float) -> Backtest:
    frequency = parse_frequency("D")
    times = frequency.times(np.datetime64("2024-01-01", "us"), np.arange(10))
    panel = Panel(("a",), frequency, (times,), (np.zeros(10),), (np.zeros((10, 0)),), (np.zeros((10, 0)),))
    made = {
        name: np.zeros((1, 1, 2, 3)) + np.array([-9.0, 0.0, 9.0]) + error
        for name, error in (("GRU", own_error), (NAIVE_NAME, naive_error))
    }
    return Backtest(
        panel, np.array([[8]]), np.zeros((1, 1, 2)), made, (0.1, 0.5, 0.9), np.ones((1, 1)), (80,)
    )


def test_the_verdict_is_plain() -> None:
    ahead, behind, far = backtest_where(1.0, 2.0), backtest_where(2.1, 2.0), backtest_where(3.0, 2.0)
    assert verdict(ahead.scores(), ahead) == (
        "GRU errs 50 % less than the best simple method, SeasonalNaive. Their MAE: 1.00 and 2.00.",
        True,
    )
    assert verdict(behind.scores(), behind) == (
        "GRU errs 5 % more than SeasonalNaive: use --best or --ensemble. Their MAE: 2.10 and 2.00.",
        False,
    )
    assert [judge(each.scores(), each).is_alarming for each in (ahead, behind, far)] == [False, False, True]


def test_the_better_figure_is_marked() -> None:
    measured = backtest_where(3.0, 2.0)
    own, naive = scores_table(measured.scores(), (80,)).rows
    assert [cell.wins for cell in own.cells][:2] == [False, False]
    assert [cell.wins for cell in naive.cells][:2] == [True, True]


def backtest_of(errors: dict[str, float], series_count: int = 3) -> Backtest:
    """A model and simple methods that are off by so much at every step, over some series and two windows each."""
    frequency = parse_frequency("D")
    times = frequency.times(np.datetime64("2024-01-01", "us"), np.arange(20))
    none = tuple(np.zeros((20, 0)) for _ in range(series_count))
    names = tuple(f"s{i}" for i in range(series_count))
    panel = Panel(names, frequency, (times,) * series_count, (np.zeros(20),) * series_count, none, none)
    shape = (series_count, 2, 4)
    made = {
        name: np.zeros((*shape, 3)) + np.array([-9.0, 0.0, 9.0]) + error for name, error in errors.items()
    }
    cutoffs = np.tile([12, 16], (series_count, 1))
    scale = np.ones((series_count, 2))
    return Backtest(panel, cutoffs, np.zeros(shape), made, (0.1, 0.5, 0.9), scale, (80,))


@pytest.mark.parametrize("series_count", [1, 3])
def test_the_best_of_several_simple_methods_stands_beside_the_model(series_count: int) -> None:
    errors = {"GRU": 2.0, "Drift": 3.0, NAIVE_NAME: 4.0, "Mean": 8.0}
    measured = Measured(backtest_of(errors, series_count))
    assert measured.rival == "Drift"
    good = good_section(measured, "", ())
    assert good.table is not None
    skill = [row.cells[-1].text for row in good.table.rows]
    assert skill == ["+33", "0", "-33", "-167"]
    sure = sure_section(measured)
    assert sure.table is not None
    assert [row.name for row in sure.table.rows] == ["80 % band of GRU", "80 % band of Drift"]
    wrong = wrong_sections(measured)[0]
    assert wrong.table is not None and wrong.table.columns[:2] == ("GRU", "Drift")
    assert "In 0 of" in wrong.text


def test_a_backtest_without_a_simple_method_has_a_report_too() -> None:
    measured = Measured(backtest_of({"GRU": 2.0}, 1))
    assert measured.rival is None
    good, sure, wrong = good_section(measured, "", ()), sure_section(measured), wrong_sections(measured)[0]
    assert good.table is not None and "skill %" not in good.table.columns
    assert sure.table is not None and len(sure.table.rows) == 1
    assert wrong.table is not None and wrong.table.columns == ("GRU", "inside the 80 % band")


def test_coverage_by_step_is_drawn_where_there_are_windows_enough() -> None:
    few, many = (Measured(backtest_of({"GRU": 2.0, NAIVE_NAME: 3.0}, count)) for count in (2, 3))
    assert [len(sure_section(each).charts) for each in (few, many)] == [0, 1]


def test_a_method_that_errs_much_does_not_flatten_the_chart() -> None:
    drawn = {}
    for naive in (4.0, 40.0):
        measured = Measured(backtest_of({"GRU": 2.0, "Drift": 3.0, NAIVE_NAME: naive}, 1))
        drawn[naive] = wrong_sections(measured)[0].charts[0].svg
    assert ">Drift<" in drawn[4.0] and ">Drift<" in drawn[40.0]
    ticks = [[float(each) for each in re.findall(r">([\d.]+)<", svg)] for svg in drawn.values()]
    assert max(ticks[1]) <= max(ticks[0]) <= 5


def test_the_worst_window_is_first() -> None:
    backtest = backtest_of({"GRU": 1.0, NAIVE_NAME: 2.0}, 2)
    backtest.forecasts["GRU"][1, 0] += 20.0
    wrong = wrong_sections(Measured(backtest))[0]
    assert wrong.table is not None
    first = wrong.table.rows[0]
    assert first.name == "s1, from 2024-01-13"
    assert [cell.text for cell in first.cells] == ["21.00", "2.00", "0 of 4"]
    assert [cell.wins for cell in first.cells] == [False, True, False]


@needs_browser
def test_long_words_are_broken_on_a_narrow_page(tmp_path: Path) -> None:
    word = "nrefs:1|case:mixed|" * 9
    file = tmp_path / "report.html"
    file.write_text(render(Page("Title", word, verdict=word, sections=(Section("One", note=word),))), "utf8")
    with browser() as page:
        page.send(
            "Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=1, mobile=False
        )
        page.send("Page.navigate", url=file.as_uri())
        page.wait("document.readyState === 'complete'")
        wide, width = page.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide == width
