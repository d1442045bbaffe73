"""Wide tables of both kinds are the long ones that they mean; what looks like another kind is said."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.frames import Columns, FrameSchema, Table, TextFormat, read_table
from cellwise.tasks.forecasting.wide import wide_frames

MONTHS = [datetime.date(2020 + i // 12, i % 12 + 1, 1) for i in range(24)]
NORTH, SOUTH = [100.0 + i for i in range(24)], [10.0 * i + 5 for i in range(24)]
BY_COLUMN = {"Month": MONTHS, "North": NORTH, "South": SOUTH}
BY_ROW = {"Region": ["North", "South"]} | {
    f"{month:%b %Y}": [a, b] for month, a, b in zip(MONTHS, NORTH, SOUTH, strict=True)
}


def csv(path: Path, rows: dict[str, Any]) -> Path:
    polars.DataFrame(rows).write_csv(path)
    return path


def check(table: Table) -> None:
    assert table.panel.ids == ("North", "South")
    assert [y.tolist() for y in table.panel.y] == [NORTH, SOUTH]
    assert (table.panel.times[1] == np.array(MONTHS, dtype="datetime64[us]")).all()
    assert table.panel.frequency.name == "MS"


@pytest.mark.parametrize("rows", [BY_COLUMN, BY_ROW], ids=["columns", "rows"])
@pytest.mark.parametrize("kind", ["polars", "pandas", "csv"])
def test_both_kinds_of_every_source(rows: dict[str, Any], kind: str, tmp_path: Path) -> None:
    source: Any = polars.DataFrame(rows)
    if kind == "pandas":
        source = pandas.DataFrame(rows)
    elif kind == "csv":
        source = csv(tmp_path / "wide.csv", rows)
    table = read_table(source, Columns(wide=True))
    check(table)
    assert table.schema.backend == ("pandas" if kind == "pandas" else "polars")
    assert (table.schema.layout, table.schema.id, table.schema.time) == (
        ("columns", "unique_id", "Month") if rows is BY_COLUMN else ("rows", "Region", "ds")
    )


@pytest.mark.parametrize(("head", "first"), [("d_{}", 1), ("V{}", 2), ("t{}", 0)])
def test_columns_that_are_counted(head: str, first: int, tmp_path: Path) -> None:
    names = [head.format(first + i) for i in range(24)]
    rows = {"V1": ["North", "South"], "state": ["NY", "GA"]}
    rows |= {name: [a, b] for name, a, b in zip(names, NORTH, [*SOUTH[:20], *[None] * 4], strict=True)}
    path = csv(tmp_path / "wide.csv", rows)
    with pytest.raises(DataError, match="its columns are counted, so it looks wide, with one row per series"):
        read_table(path, Columns())
    table = read_table(path, Columns(wide=True))
    assert table.panel.ids == ("North", "South") and table.panel.frequency.is_integer
    assert [times[0] for times in table.panel.times] == [first, first]
    assert [y.tolist() for y in table.panel.y] == [NORTH, SOUTH[:20]]
    assert table.schema.layout == "rows" and any("'state' was not used" in note for note in table.notes)


def test_counted_columns_beside_whole_numbers_are_series(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "wide.csv", {"week": list(range(24)), "shop1": NORTH, "shop2": SOUTH, "shop3": SOUTH}
    )
    assert read_table(path, Columns(wide=True)).panel.ids == ("shop1", "shop2", "shop3")


def test_times_as_the_index_or_the_columns_of_pandas() -> None:
    frame = pandas.DataFrame(
        {"North": NORTH, "South": SOUTH}, index=pandas.DatetimeIndex(pandas.to_datetime(MONTHS))
    )
    check(read_table(frame, Columns(wide=True)))
    turned = frame.T.rename_axis("Region").reset_index()
    check(read_table(turned, Columns(wide=True)))


def test_covariates_hold_for_every_series() -> None:
    price, rain = [1.0, 2.0] * 12, [3.0, 4.0] * 12
    frame = polars.DataFrame(BY_COLUMN | {"price": price, "rain": rain})
    panel = read_table(frame, Columns(known=("price",), past=("rain",), wide=True)).panel
    assert panel.ids == ("North", "South")
    assert all(known[:, 0].tolist() == price for known in panel.known)
    assert all(past[:, 0].tolist() == rain for past in panel.past)
    longer = polars.concat(
        [frame, polars.DataFrame({"Month": [datetime.date(2022, 1, 1)], "price": [9.0]})], how="diagonal"
    )
    known = read_table(longer, Columns(known=("price",), past=("rain",), wide=True)).panel.known
    assert [each[-1, 0] for each in known] == [9.0, 9.0]
    with pytest.raises(DataError, match="one row per series holds no covariates"):
        read_table(polars.DataFrame(BY_ROW), Columns(past=("Region",), wide=True))


def test_one_convention_for_all_cells(tmp_path: Path) -> None:
    """1,234 alone may be two numbers; 1,234,567 in another column says which."""
    path = tmp_path / "wide.csv"
    path.write_text('Month,North,South\n2020-01-01,"1,234","1,234,567"\n2020-02-01,"2,345","2,345,678"\n')
    panel = read_table(path, Columns(wide=True)).panel
    assert [y.tolist() for y in panel.y] == [[1234, 2345], [1234567, 2345678]]
    path.write_text('Month,North\n2020-01-01,"1,234"\n2020-02-01,"2,345"\n')
    with pytest.raises(
        DataError, match="the numbers of the wide table can be read in two ways: '1,234' at line 2, col"
    ):
        read_table(path, Columns(wide=True))
    assert read_table(path, Columns(text=TextFormat(decimal="."), wide=True)).panel.y[0].tolist() == [
        1234,
        2345,
    ]


def test_totals(tmp_path: Path) -> None:
    total = [a + b for a, b in zip(NORTH, SOUTH, strict=True)]
    rows = BY_COLUMN | {"Total": total}
    path = csv(tmp_path / "wide.csv", rows)
    with path.open("a") as file:
        file.write(f"Grand Total,{sum(NORTH)},{sum(SOUTH)},{sum(total)}\n")
    table = read_table(path, Columns(wide=True))
    assert table.panel.ids == ("North", "South", "Total")
    assert "line 26 ('Grand Total') is no time and was left out" in table.notes
    assert "'Total' is taken as one more series; --drop Total leaves it out" in table.notes
    check(read_table(path, Columns(wide=True, drop=("Total",))))
    turned = polars.DataFrame(BY_ROW)
    turned = polars.concat([turned, turned.sum().with_columns(Region=polars.lit("Total"))])
    check(read_table(turned, Columns(wide=True, drop=("Total",))))
    with pytest.raises(DataError, match="there is no column 'Totl' to drop"):
        read_table(path, Columns(wide=True, drop=("Totl",)))
    with pytest.raises(OptionError, match="give wide=True"):
        Columns(drop=("Total",))


def test_bad_cells_are_named_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("Month,North,South\n2020-01-01,1,2\n2020-02-01,3,4 EUR\n")
    with pytest.raises(
        DataError, match="the wide table is not numeric: line 3, column 'South' holds '4 EUR'"
    ):
        read_table(path, Columns(wide=True))
    path.write_text("Month,North,Notes\n2020-01-01,1,good\n2020-02-01,3,bad\n")
    with pytest.raises(DataError, match=r"column 'Notes' of the wide table holds words.*--drop Notes"):
        read_table(path, Columns(wide=True))
    path.write_text("Month,North\n2020-01-01,1\n2020-01-01,3\n")
    with pytest.raises(DataError, match="has the time of line 2 again at line 3"):
        read_table(path, Columns(wide=True))
    path.write_text("Region,2020-01,2020-02\nNorth,1,2\nNorth,3,4\n")
    with pytest.raises(DataError, match="two rows of the wide table are named 'North', the second at line 3"):
        read_table(path, Columns(wide=True))


LOOKS = {
    "wide without the option": (BY_COLUMN, {}, "looks wide, with one column per series: give wide=True"),
    "rows without the option": (BY_ROW, {}, "looks wide, with one row per series: give wide=True"),
    "long": (
        {"unique_id": ["a", "a"], "ds": MONTHS[:2], "y": [1, 2]},
        {"wide": True},
        "so it is long; leave wide",
    ),
    "neither": ({"a": ["x", "y"], "b": [1, 2]}, {"wide": True}, "does not look wide: no column holds dates"),
    "other names": (
        {"date": MONTHS[:2], "sales": [1, 2]},
        {},
        "perhaps time_column='date', target_column='sales' (--time date --target sales)",
    ),
    "several series": (
        {"date": MONTHS[:1] * 2, "shop no": ["A", "B"], "sales": [1, 2]},
        {},
        "(--time date --target sales --id 'shop no')",
    ),
    "names that resemble dates": (
        {"item": ["part01", "part02"], "date": MONTHS[:1] * 2, "sold": [1, 2]},
        {},
        "(--time date --target sold --id item)",
    ),
    "numbers that resemble dates": (
        {"Month": ["1987 Jan", "1987 Feb"], "Sales": ["1664.81", "2397.53"]},
        {},
        "perhaps time_column='Month', target_column='Sales' (--time Month --target Sales)",
    ),
    "no such time": (BY_COLUMN, {"wide": True, "time": "month"}, "did you mean 'Month'"),
}


@pytest.mark.parametrize("case", LOOKS)
def test_what_a_table_looks_like(case: str) -> None:
    rows, options, sentence = LOOKS[case]
    with pytest.raises(DataError) as caught:
        read_table(polars.DataFrame(rows), Columns(**options))
    assert sentence in str(caught.value)


def test_forecasts_as_wide_tables() -> None:
    made = polars.DataFrame(
        {
            "id": ["b", "b", "a", "a"],
            "ds": [MONTHS[0], MONTHS[1], MONTHS[1], MONTHS[2]],
            "GRU": [1.0, 2.0, 3.0, 4.0],
            "GRU-lo-80": [0.0, 1.0, 2.0, 3.0],
        }
    )
    columns = wide_frames(made, "id", "ds", "columns")
    assert list(columns) == ["forecast", "lo-80"]
    assert columns["forecast"].to_dict(as_series=False) == {
        "ds": MONTHS[:3],
        "b": [1.0, 2.0, None],
        "a": [None, 3.0, 4.0],
    }
    assert wide_frames(made, "id", "ds", "rows")["lo-80"].to_dict(as_series=False) == {
        "id": ["b", "a"],
        "2020-01-01": [0.0, None],
        "2020-02-01": [1.0, 2.0],
        "2020-03-01": [None, 3.0],
    }


def test_a_schema_from_a_file_has_a_known_layout() -> None:
    with pytest.raises(ValueError, match="layout 'upside down'"):
        FrameSchema(layout="upside down")
