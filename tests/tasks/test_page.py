"""The page that every task's report is made of: sections in order, text as text, colours that the charts know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellwise.tasks.forecasting.options import ForecastOptions
from cellwise.tasks.options import options_of
from cellwise.tasks.report.charts import COLOURS, chart, loss_plot, page_svg
from cellwise.tasks.report.page import Chart, Page, Section, attempt, render, write_page
from cellwise.tasks.report.settings import setting_groups
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.training.history import Epoch, History, Watch
from cellwise.tasks.training.run_files import RunFolder

pytestmark = pytest.mark.draws

HISTORY = History(
    tuple(Epoch(i, 2.0 / i, {"error": 3.0 / i}, 1e-3, 0.1) for i in range(1, 4)), Watch("error")
)
TABLE = ReportTable(
    "class", ("accuracy", "F1"), (TableRow("b<i>rd", (TableCell("0.9", wins=True), TableCell("0.8"))),)
)


def a_page() -> Page:
    loss = Chart("loss", loss_plot(HISTORY), "Loss by epoch.")
    return Page(
        title="birds & <b>ees</b>",
        subtitle="200 sequences\x1b",
        verdict="It is right in 9 of 10 cases.",
        sections=(
            Section("How it learnt", charts=(loss,)),
            Section("How good it is", "On a tenth.", table=TABLE, note="Chance is 0.5."),
        ),
        notes=("two classes are rare",),
        settings={"cell": "gru", "levels": (80, 90), "known": (), "freq": None},
        footer="seed 0",
    )


def test_a_page_says_what_it_was_given_in_order_and_as_text() -> None:
    page = render(a_page())
    body = re.sub(r"<svg.*?</svg>", "", page[page.index("<body>") :], flags=re.DOTALL)
    said = [line for line in re.sub(r"<[^>]*>", "\n", body).split("\n") if line.strip()]
    assert said == [
        *("birds &amp; &lt;b&gt;ees&lt;/b&gt;", "200 sequences\\x1b", "It is right in 9 of 10 cases."),
        *("How it learnt", "Loss by epoch."),
        *("How good it is", "On a tenth.", "class", "accuracy", "F1", "b&lt;i&gt;rd", "0.9", "0.8", "Chance is 0.5."),
        *("About the data", "Two classes are rare."),
        *("Settings", "cell", "gru", "levels", "80, 90", "known", "none", "freq", "chosen", "seed 0"),
    ]  # fmt: skip
    assert body.count('class="win"') == 1
    assert 'class="pair"' not in body


def test_options_stand_in_groups_with_what_was_chosen() -> None:
    options = options_of(ForecastOptions)
    values = {each.name: each.default for each in options} | {"epochs": 7, "levels": [80, 90], "cell": "gru"}
    groups = setting_groups(
        options, values, {"freq": "D (one every <day>)"}, "forecast", {"network": {"weights": "1,000"}}
    )
    assert [group.title for group in groups][:2] == ["forecast", "network"]
    page = render(Page("t", "s", settings=groups))
    rows = dict(re.findall(r'<div[^>]*><span title="[^"]*">([^<]*)</span><span>(.*?)</span></div>', page))
    assert rows["epochs"] == "7" and page.count('class="given"') == 1
    assert rows["freq"] == "D (one every &lt;day&gt;) <i>chosen</i>"
    assert rows["season length"] == "found in the data; where none shows, that of the frequency: 7 for days"
    assert rows["levels"] == "80, 90" and rows["autocast"] == "no" and rows["minutes"] == "no limit"
    assert "<span>weights</span><span>1,000</span>" in page
    assert not {"None", "True", "False"} & set(rows.values())
    assert 'title="--season"' in page


def test_a_chart_may_have_a_drawing_for_narrow_pages(tmp_path: Path) -> None:
    wide, narrow = (chart(lambda axes: axes.plot([1, 2]), width, 3, f"one-{width}") for width in (9, 4))
    section = Section("one", lead=Chart("one", wide, "A line.", narrow=narrow), terms=(("MAE", "an error"),))
    write_page(RunFolder(tmp_path), Page("t", "s", sections=(section,)))
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2 and page.count('<div class="narrow">') == 1
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["one.svg"]
    assert (tmp_path / "plots" / "one.svg").read_text() == wide
    assert "<dt>MAE</dt><dd>an error</dd>" in page


def test_a_small_chart_does_not_grow_with_the_page() -> None:
    assert re.search(
        r'<svg style="max-width: 418px"', page_svg(chart(lambda axes: axes.plot([1]), 4, 3, "a"))
    )


def test_bad_news_has_another_colour_and_charts_stand_side_by_side() -> None:
    charts = tuple(
        Chart(name, chart(lambda axes: axes.plot([1, 2]), 4, 3, name), name) for name in ("one", "two")
    )
    page = render(
        Page("t", "s", "Worse than chance.", is_ahead=False, sections=(Section("both", charts=charts),))
    )
    assert '<p class="verdict behind">' in page
    assert page.count('<div class="pair">') == 1


def test_the_page_has_every_colour_of_a_chart_twice_and_charts_use_no_other() -> None:
    page = render(a_page())
    style = page[: page.index("</style>")]
    for name, (paper, dark) in COLOURS.items():
        assert f"--{name}: {paper};" in style
        assert f"--{name}: {dark};" in style
    drawn = page_svg(loss_plot(HISTORY))
    assert set(re.findall(r"var\(--(\w+)\)", drawn)) <= COLOURS.keys()
    assert re.findall(r"(?:fill|stroke): #(?!000)\w+", drawn) == []


def test_charts_are_files_beside_the_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_page(run, a_page())
    assert (tmp_path / "report.html").read_text() == render(a_page())
    assert (tmp_path / "plots" / "loss.svg").read_text() == a_page().sections[0].charts[0].svg


def test_whatever_a_report_dies_of_is_a_sentence() -> None:
    def fail() -> None:
        raise ZeroDivisionError("no\x1b rows\nat all")

    assert attempt(lambda: None, "again") is None
    assert attempt(fail, "cellwise classify report runs/a") == (
        "the run is finished, but its report could not be made (ZeroDivisionError: no\\x1b rows); "
        "make it again with: cellwise classify report runs/a"
    )
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: (_ for _ in ()).throw(KeyboardInterrupt), "again")
