"""Excel workbooks go in and out: types of cells, titles above the header, sheets, text that must stay text, and files
that were made to do harm."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from cellwise.tasks.data import workbook
from cellwise.tasks.data.files import check_writable, read_file, write_file
from cellwise.tasks.data.workbook import write_workbook
from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.frames import Columns, TextFormat, read_table

xlsxwriter = pytest.importorskip("xlsxwriter")
pytest.importorskip("python_calamine")

DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(6)]


def book(path: Path, fill: Callable[[Any, Any], None], **options: Any) -> Path:
    made = xlsxwriter.Workbook(str(path), options)
    fill(made, made.add_worksheet("Sales"))
    made.close()
    return path


def series(made: Any, sheet: Any, top: int = 0, names: tuple[str, str] = ("ds", "y")) -> None:
    day = made.add_format({"num_format": "dd.mm.yyyy"})
    sheet.write_row(top, 0, names)
    for i, each in enumerate(DAYS):
        sheet.write_datetime(top + 1 + i, 0, datetime.datetime.combine(each, datetime.time()), day)
        sheet.write_number(top + 1 + i, 1, i + 0.5)


def test_dates_and_numbers_of_cells(tmp_path: Path) -> None:
    table = read_table(book(tmp_path / "a.xlsx", series), Columns())
    assert (table.panel.times[0] == np.array(DAYS, dtype="datetime64[us]")).all()
    assert table.panel.y[0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert table.notes == ()


def test_dates_counted_from_1904(tmp_path: Path) -> None:
    table = read_table(book(tmp_path / "a.xlsx", series, date_1904=True), Columns())
    assert (table.panel.times[0] == np.array(DAYS, dtype="datetime64[us]")).all()


@pytest.mark.parametrize("minutes", [5, 20, 60])
def test_times_of_day_are_whole(tmp_path: Path, minutes: int) -> None:
    """They are fractions of a day in the file, of which most are no binary numbers."""
    times = [datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=minutes * i) for i in range(400)]

    def fill(made: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["ds", "y"])
        for i, each in enumerate(times):
            sheet.write_datetime(1 + i, 0, each, made.add_format({"num_format": "yyyy-mm-dd hh:mm"}))
            sheet.write_number(1 + i, 1, i)

    table = read_table(book(tmp_path / "a.xlsx", fill), Columns())
    assert (table.panel.times[0] == np.array(times, dtype="datetime64[us]")).all()


def test_titles_above_the_header_and_a_total_below(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        sheet.merge_range(0, 0, 0, 3, "Sales of 2024")
        sheet.write(1, 0, "printed on Monday")
        series(made, sheet, top=3)
        sheet.write(10, 0, "Total")
        sheet.write_formula(10, 1, "=SUM(B5:B10)", None, 18)

    table = read_table(book(tmp_path / "a.xlsx", fill), Columns())
    assert table.panel.y[0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert table.notes == (
        "rows 1, 2 of sheet 'Sales', above the header, left out ('Sales of 2024')",
        "row 11 of sheet 'Sales' ('Total') is no time and was left out",
    )


def test_formulas_count_as_their_stored_values(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet)
        sheet.write_formula(1, 1, '=WEBSERVICE("http://localhost/")', None, 7.5)

    assert read_table(book(tmp_path / "a.xlsx", fill), Columns()).panel.y[0][0] == 7.5


def test_numbers_as_text(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet)
        for i in range(6):
            sheet.write_string(1 + i, 1, f"1.00{i},5")

    table = read_table(book(tmp_path / "a.xlsx", fill), Columns())
    assert table.panel.y[0].tolist() == [1000.5, 1001.5, 1002.5, 1003.5, 1004.5, 1005.5]
    assert "a dot between thousands and a comma before decimals" in table.notes[0]


def test_a_word_for_nothing_among_numbers_is_missing(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet)
        sheet.write_string(3, 1, "n/a")

    assert np.isnan(read_table(book(tmp_path / "a.xlsx", fill), Columns()).panel.y[0]).tolist() == [
        False, False, True, False, False, False,
    ]  # fmt: skip


def test_a_bad_cell_is_named_by_its_row(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet, top=2)
        sheet.write_string(5, 1, "closed")

    with pytest.raises(DataError, match="column 'y' is not numeric: row 6 of sheet 'Sales' holds 'closed'"):
        read_table(book(tmp_path / "a.xlsx", fill), Columns())


def test_sheets(tmp_path: Path) -> None:
    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet)
        series(made, made.add_worksheet("Stock"), names=("ds", "left"))
        made.add_worksheet("secret").hide()

    path = book(tmp_path / "a.xlsx", fill)
    frame, origin = read_file(path)
    assert frame.columns == ["ds", "y"]
    assert origin.notes == (
        "sheet 'Sales' was read, the first of 2 ('Sales', 'Stock'); --sheet NAME reads another",
    )
    frame, origin = read_file(path, sheet="Stock")
    assert (frame.columns, origin.notes) == (["ds", "left"], ())
    with pytest.raises(DataError, match="it has no sheet 'Stok'; its sheets are 'Sales', 'Stock'"):
        read_table(path, Columns(text=TextFormat(sheet="Stok")))
    (tmp_path / "a.csv").write_text("ds,y\n2024-01-01,1\n")
    with pytest.raises(DataError, match="has no sheets"):
        read_file(tmp_path / "a.csv", sheet="Stock")


def test_no_header_and_nothing_at_all(tmp_path: Path) -> None:
    def headless(made: Any, sheet: Any) -> None:
        for i in range(4):
            sheet.write_row(i, 0, [20240101 + i, i])

    with pytest.raises(DataError, match="must name the columns, but it holds '20240101', '0'"):
        read_file(book(tmp_path / "a.xlsx", headless))
    with pytest.raises(DataError, match=r"sheet 'Sales' of .* is empty"):
        read_file(book(tmp_path / "b.xlsx", lambda made, sheet: None))


def test_what_is_no_workbook(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(100))
    with pytest.raises(DataError, match=r"old workbook \(.xls\) or has a password"):
        read_file(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match="workbook, or cut off"):
        read_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match="cannot be read"):
        read_file(path)
    (tmp_path / "a.ods").write_bytes(b"PK")
    with pytest.raises(DataError, match="of a kind that is not read; save it"):
        read_file(tmp_path / "a.ods")


def test_a_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "SAFE_UNPACKED", 2**20)
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(2**24))
    with pytest.raises(DataError, match="unpacks to 16,777,216 bytes in 1 parts, too much for a workbook"):
        read_file(path)


def test_a_cell_far_away_ends_only_the_reader(tmp_path: Path) -> None:
    """It would take a table of 17 thousand million cells."""

    def fill(made: Any, sheet: Any) -> None:
        series(made, sheet)
        sheet.write(2**20 - 1, 2**14 - 1, "x")

    with pytest.raises(DataError, match="cannot be read"):
        read_file(book(tmp_path / "a.xlsx", fill))


NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "http://localhost", "plain", "", None]


def test_what_is_written_is_read_and_no_text_becomes_a_formula(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {
            "name": NAMES,
            "day": [DAYS[0]] * 8,
            "time": [datetime.datetime(2024, 1, 1, 12, 30)] * 8,
            "value": [1.5, float("nan"), float("inf"), None, -2.0, 0.0, 1e300, 3.0],
            "count": list(range(8)),
        }
    )
    path = tmp_path / "made" / "a.xlsx"
    write_file({"one": frame, "two": frame.head(1)}, path)
    back, _ = read_file(path, sheet="one")
    assert back["name"].to_list() == [*NAMES[:6], None, None]
    assert back["day"].dt.date().to_list() == [DAYS[0]] * 8
    assert back["time"].to_list() == frame["time"].to_list()
    assert back["value"].to_list() == [1.5, None, None, None, -2.0, 0.0, 1e300, 3.0]
    assert read_file(path, sheet="two")[0].height == 1
    with zipfile.ZipFile(path) as archive:
        assert b"<f>" not in archive.read("xl/worksheets/sheet1.xml")


def test_too_many_rows_for_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MOST_ROWS", 2)
    with pytest.raises(DataError, match="a sheet of Excel holds 2 rows, and long has 3; write"):
        write_workbook({"long": polars.DataFrame({"a": [1, 2, 3]})}, tmp_path / "a.xlsx")


@pytest.mark.parametrize("end", [".csv", ".xlsx", ".parquet", ".jsonl"])
def test_every_kind_of_table(end: str, tmp_path: Path) -> None:
    frame = polars.DataFrame({"day": DAYS, "y": [0.5] * 6})
    path = tmp_path / f"a{end}"
    check_writable(path)
    write_file(frame, path)
    read = polars.read_ndjson(path) if end == ".jsonl" else None
    back = read_file(path)[0] if read is None else read
    assert back["y"].cast(polars.Float64).to_list() == [0.5] * 6
    assert [str(each)[:10] for each in back["day"]] == [str(day) for day in DAYS]
    with pytest.raises(DataError, match=r"a file named .csv, .xlsx, .parquet, .pq or .jsonl"):
        check_writable(tmp_path / "a.docx")
