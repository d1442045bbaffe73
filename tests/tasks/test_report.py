"""The report stands alone, says what it must, and says so plainly when the naive forecast wins."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars
import pytest

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.tables import scores_table, verdict

SETTINGS = {"horizon": 5, "hidden_size": 4, "epochs": 2}


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
        "seasonal naive",
        "SeasonalNaive",
        "Mean absolute error by step",
        "training loss",
        "The last 15 days were kept from training",
        "which neither training nor early stopping has seen",
        "learning_rate",
        "prefers-color-scheme: dark",
    ):
        assert words in page, words
    assert page.count("<svg") == 6
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().replace(
        "dominant", ""
    )


def test_the_figures_on_the_page_are_those_of_the_forecaster(one: Path) -> None:
    scores = Forecaster.load(one).scores()
    row = re.search(r"<td>GRU</td><td[^>]*>([\d.,]+)</td>", (one / "report.html").read_text())
    assert row is not None
    assert float(row[1]) == pytest.approx(scores["MAE"][0], rel=0.01)


def test_plots_are_files_too(one: Path) -> None:
    names = {path.stem for path in (one / "plots").iterdir()}
    assert names == {"forecast", "backtest", "error", "coverage", "cutoff", "loss"}
    assert (one / "plots" / "loss.svg").read_text().startswith("<?xml")


def test_many_series_are_shown_from_best_to_worst_and_escaped(many: str) -> None:
    assert "shop &lt;0&gt; &amp; co" in many
    assert "shop <0>" not in many
    assert "Series by series" in many
    assert "The pictures show 6 of 8 series" in many
    assert "a little flattering" in many


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
    ahead, behind = backtest_where(1.0, 2.0), backtest_where(3.0, 2.0)
    assert verdict(ahead.scores(), ahead) == (
        "GRU errs by 1.00 on average, the seasonal naive forecast by 2.00: 50 % less.", True,
    )  # fmt: skip
    text, better = verdict(behind.scores(), behind)
    assert (text, better) == (
        "GRU errs by 3.00 on average, the seasonal naive forecast by 2.00: 50 % more.",
        False,
    )


def test_the_better_figure_is_marked() -> None:
    measured = backtest_where(3.0, 2.0)
    own, naive = scores_table(measured.scores(), (80,)).rows
    assert [cell.wins for cell in own.cells][:2] == [False, False]
    assert [cell.wins for cell in naive.cells][:2] == [True, True]
