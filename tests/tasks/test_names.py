"""Any text as a name: in pictures, on pages, in tables, in files."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas
import polars
import pytest
from test_forecaster import TINY

from cellwise import Cell, tanh
from cellwise.errors import CellwiseError
from cellwise.tasks import Forecaster
from cellwise.tasks.errors import ReportWarning, TaskError, WorseThanSimpleWarning
from cellwise.tasks.forecasting import plots, report
from cellwise.tasks.report.charts import page_svg
from cellwise.tasks.shown import shown
from cellwise.tasks.training.run_check import check_run

pytestmark = pytest.mark.draws

NAMES = (
    r"$\frac{1}$", "$", "$$", r"$x^{2$", r"\$5 to $6", r"\input{/etc/passwd}", "%", "_hidden", "__", "a_b^c", "{x}",
    "{{ 7 * 7 }}", "{% raw %}", "<script>alert(1)</script>", "</svg><b>", "<!-- ", "]]>", "&amp;", "\"'`", 'id="a"',
    "url(#a)", "#1f2933", "xmlns='a'", "'DejaVu Sans'", "=1+1", "+1", "-1", "@SUM(A1)", "a,b", "a;b", "a\tb", "a\nb",
    "a\r\nb", "\x1b[31mred", "\x00", "\x07bell", "\u202eright to left", "\ufffe", "[red]bold[/red]", "[/]", ":smile:",
    "日本語", "नमस्ते", "🙂", "é", "e\u0301", "x" * 300, " ", "nan", "None", "%s", "{0}", "/", "..", "C:\\a",
)  # fmt: skip

SVG = "http://www.w3.org/2000/svg"


class Odd(Cell):
    """A cell with a name that nobody expects."""

    name = "$\\frac{1}$ <b>_x"
    gates = ("n",)

    def step(self, x, h):
        return tanh(x.n + h.n)


def table(names: tuple[str, ...], **columns: str) -> polars.DataFrame:
    """Forty days of each series."""
    count = 40 * len(names)
    days = np.datetime64("2024-01-01", "D") + np.arange(count) % 40
    return polars.DataFrame({
        columns.get("id", "unique_id"): [name for name in names for _ in range(40)],
        columns.get("time", "ds"): days,
        columns.get("target", "y"): np.sin(np.arange(count)) + 5,
    })  # fmt: skip


def texts(path: Path) -> list[str]:
    """What a picture says; ElementTree raises if it is no XML."""
    found = ElementTree.fromstring(path.read_text("utf8")).iter(f"{{{SVG}}}text")
    return ["".join(each.itertext()).lstrip("\u200b") for each in found]


def fit(frame: object, folder: Path, cell: object = "gru", **settings: object) -> Forecaster:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib too: a missing glyph, a label that is left out
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=WorseThanSimpleWarning)
        return Forecaster(cell, 3, **{**TINY, "epochs": 1, "hidden_size": 4, **settings}).fit(
            frame, folder=folder, progress=False
        )


def readable(name: str) -> bool:
    """Whether reading takes the name as a name; what it refuses, it refuses in a sentence."""
    try:
        Forecaster("gru", 3).read(table((name, "other")))
    except CellwiseError:
        return False
    return True


def ahead(name: str) -> plots.Ahead:
    days = np.datetime64("2024-01-01", "us") + np.arange(12) * np.timedelta64(1, "D")
    return plots.Ahead(name, days[:9], np.arange(9.0), days[9:], np.arange(9.0).reshape(3, 3))


@pytest.mark.parametrize("begin", range(0, len(NAMES), 6))
def test_pictures_of_any_names(begin: int, tmp_path: Path) -> None:
    names = NAMES[begin : begin + 6]
    quantiles, levels = (0.1, 0.5, 0.9), (80,)
    grid = plots.grid_plot([ahead(name) for name in names], quantiles, levels, "GRU", None)
    (tmp_path / "grid.svg").write_text(grid, "utf8")
    written = texts(tmp_path / "grid.svg")
    assert all(shown(name, 60) in written for name in names if name.strip())
    (tmp_path / "page.svg").write_text(f'<svg xmlns="{SVG}" xmlns:xlink="x">{page_svg(grid)}</svg>', "utf8")
    assert texts(tmp_path / "page.svg") == written
    for name in names[:2]:
        for narrow, longest in ((False, 60), (True, 26)):
            drawn = plots.ahead_plot(ahead(name), quantiles, levels, name, narrow)
            (tmp_path / "one.svg").write_text(drawn, "utf8")
            assert texts(tmp_path / "one.svg").count(shown(name, longest)) == 2 or not name.strip()


@pytest.mark.parametrize(
    "name",
    [
        r"$\frac{1}$",
        "<script>alert(1)</script>",
        "_hidden",
        "\x1b[31mred\x07",
        "=1+1",
        'a\r\nb,"c',
        "x" * 300,
    ],
)
def test_a_series_of_any_name(name: str, tmp_path: Path) -> None:
    if not readable(name):
        pytest.skip("no name of a series")
    made = fit(table((name,)), tmp_path / "run")
    kept = made.table_.panel.ids[0]
    assert shown(kept, 60) in texts(tmp_path / "run/plots/forecast.svg")
    page = (tmp_path / "run/report.html").read_text("utf8")
    assert "<script" not in page and not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert made.predict()["unique_id"].to_list() == [kept] * 3
    assert Forecaster.load(tmp_path / "run").predict().equals(made.predict())
    rows = polars.read_csv(tmp_path / "run/backtest.csv", infer_schema=False)
    assert set(rows["unique_id"]) == {kept}, "data is written as it came: it is joined with the person's own"


def test_many_series_of_any_name(tmp_path: Path) -> None:
    names = tuple(name for name in NAMES if readable(name))
    made = fit(table(names), tmp_path / "run")
    written = texts(tmp_path / "run/plots/forecast.svg")
    page = (tmp_path / "run/report.html").read_text("utf8")
    assert sum(shown(name, 60) in written for name in made.table_.panel.ids) == 6
    assert "<script" not in page and "<b>" not in page
    assert made.scores("series").height == 2 * len(names)


@pytest.mark.parametrize("name", ["$\\frac{1}$", "<b>_y"])
def test_columns_of_any_name(name: str, tmp_path: Path) -> None:
    frame = table(("a", "b"), id=f"{name} id", time=f"{name} time", target=name)
    columns = {"id_column": f"{name} id", "time_column": f"{name} time", "target_column": name}
    made = fit(frame, tmp_path / "run", **columns)
    assert Forecaster.load(tmp_path / "run").predict().columns[:2] == [f"{name} id", f"{name} time"]
    assert "<b>" not in (tmp_path / "run/report.html").read_text("utf8")
    assert made.backtest_ is not None


def test_a_cell_of_any_name(tmp_path: Path) -> None:
    made = fit(table(("a",)), tmp_path / "run", cell=Odd, ensemble=False)
    written = texts(tmp_path / "run/plots/error.svg")
    assert made.model_name in written
    assert made.model_name in made.predict().columns
    assert Forecaster.load(tmp_path / "run").predict().equals(made.predict())


def test_half_of_a_surrogate_pair_as_a_name(tmp_path: Path) -> None:
    times = pandas.date_range("2024-01-01", periods=40)
    frame = pandas.DataFrame({"unique_id": ["\udc80"] * 40, "ds": times, "y": np.sin(np.arange(40.0))})
    try:
        made = fit(frame, tmp_path / "run")
    except CellwiseError as error:  # reading may refuse it; one sentence then, and no run
        assert "\n" not in str(error)
        return
    except ReportWarning:  # a CSV file cannot hold it
        made = Forecaster.load(tmp_path / "run")
    assert made.table_.panel.ids == ("\udc80",)
    assert texts(tmp_path / "run/plots/forecast.svg").count("\\udc80") == 1


def test_a_report_that_fails_leaves_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no ink\nand no paper")

    frame = table(("a", "b"))
    monkeypatch.setattr(report, "write_report", fail)
    with pytest.warns(
        ReportWarning, match=r"finished, but its report could not be made \(ValueError: no ink\)"
    ):
        made = Forecaster("gru", 3, **{**TINY, "epochs": 1}).fit(
            frame, folder=tmp_path / "run", progress=False
        )
    assert made.notes_[-1].endswith(f"make it again with: cellwise forecast report {tmp_path / 'run'}")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.predict().equals(made.predict())
    assert not (tmp_path / "run/report.html").exists()
    with pytest.raises(TaskError, match="could not be made"):
        Forecaster.remake_report(tmp_path / "run")
    monkeypatch.undo()
    assert Forecaster.remake_report(tmp_path / "run") == tmp_path / "run/report.html"
    assert (tmp_path / "run/plots/loss.svg").exists()
    assert all(each.is_whole for each in check_run(tmp_path / "run"))
    assert json.loads((tmp_path / "run/summary.json").read_text())["epochs"] == 1
    whole = fit(frame, tmp_path / "whole", epochs=1, hidden_size=TINY["hidden_size"])
    assert whole.predict().equals(made.predict())
    for plot in (tmp_path / "whole/plots").iterdir():
        assert plot.read_text() == (tmp_path / "run/plots" / plot.name).read_text()


def test_text_that_moves_other_text_is_shown_as_its_escape() -> None:
    assert shown("a\x1b]0;title\x07\u2028\udc80é🙂") == "a\\x1b]0;title\\x07\\u2028\\udc80é🙂"
    assert shown("क\u094dष 👨\u200d👩") == "क\u094dष 👨\u200d👩"


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "<!--", "\u202eab", "\x1b[31m", "{{ 7 * 7 }}"]
)
def test_a_trace_of_any_name(name: str, tmp_path: Path) -> None:
    from cellwise.understand.trace.forecast import forecast_page
    from cellwise.understand.trace.run import write_page

    frame = table((name,))
    made = Forecaster("gru", 3, **{**TINY, "epochs": 1, "hidden_size": 4}).fit(frame, progress=False)
    write_page(forecast_page(made, made.table_), tmp_path / "trace.html")
    page = (tmp_path / "trace.html").read_text("utf8")
    assert page.count("<script") == page.count("</script>") == 2 and "<!--" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert "{{ 7 * 7 }}" in page or "7 * 7" not in name


def test_a_cell_whose_name_cannot_be_shown_is_refused() -> None:
    for name in ("a\x1b[31m", "", "a\nb", "x" * 201):
        with pytest.raises(CellwiseError, match="has the name"):
            type("Hidden", (Odd,), {"name": name, "step": Odd.step})
