"""Tables of every kind go in, the same kind comes out, and what is wrong with one is named."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.errors import FrequencyError
from cellwise.tasks.forecasting.frames import Columns, read_table

DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(6)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf8")
    return path


def csv_of(rows: dict[str, list[Any]]) -> str:
    return polars.DataFrame(rows).write_csv()


PLAIN = {"unique_id": ["b"] * 3 + ["a"] * 3, "ds": DAYS[:3] * 2, "y": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}


@pytest.mark.parametrize(
    "kind", ["polars", "pandas", "lazy", "csv", "csv.gz", "parquet", "semicolon", "index"]
)
def test_every_kind_gives_the_same_panel(kind: str, tmp_path: Path) -> None:
    frame = polars.DataFrame(PLAIN)
    source: Any = frame
    if kind == "pandas":
        source = frame.to_dict(as_series=False)
        source = pandas.DataFrame(source).assign(ds=lambda f: pandas.to_datetime(f.ds))
    elif kind == "index":
        source = pandas.DataFrame(frame.to_dict(as_series=False)).set_index("ds")
        source.index = pandas.to_datetime(source.index)
    elif kind == "lazy":
        source = frame.lazy()
    elif kind == "csv":
        source = write(tmp_path / "data.csv", frame.write_csv())
    elif kind == "csv.gz":
        import gzip

        source = tmp_path / "data.csv.gz"
        source.write_bytes(gzip.compress(frame.write_csv().encode()))
    elif kind == "semicolon":
        source = str(write(tmp_path / "data.csv", frame.write_csv(separator=";")))
    elif kind == "parquet":
        source = tmp_path / "data.parquet"
        frame.write_parquet(source)
    table = read_table(source, Columns())
    assert table.panel.ids == ("b", "a")
    assert [y.tolist() for y in table.panel.y] == [[1, 2, 3], [4, 5, 6]]
    assert (table.panel.times[0] == np.array(DAYS[:3], dtype="datetime64[us]")).all()
    assert table.panel.frequency.name == "D"
    assert table.notes == ()


def test_rows_may_come_in_any_order() -> None:
    shuffled = polars.DataFrame(PLAIN)[[5, 0, 3, 2, 4, 1]]
    table = read_table(shuffled, Columns())
    assert dict(zip(table.panel.ids, (y.tolist() for y in table.panel.y), strict=True)) == {
        "a": [4, 5, 6],
        "b": [1, 2, 3],
    }


def test_columns_may_have_any_name() -> None:
    frame = polars.DataFrame(
        {"shop": ["x"] * 3, "day": DAYS[:3], "sold": [1, 2, 3], "promo": [0, 1, 0], "rain": [5, 6, 7]}
    )
    table = read_table(frame, Columns("shop", "day", "sold", ("promo",), ("rain",)))
    assert table.panel.known[0][:, 0].tolist() == [0, 1, 0]
    assert table.panel.past[0][:, 0].tolist() == [5, 6, 7]
    assert (table.panel.known_names, table.panel.past_names) == (("promo",), ("rain",))


def test_a_column_has_one_meaning() -> None:
    with pytest.raises(OptionError, match="'promo' is given two meanings"):
        Columns(known=("promo",), past=("promo",))


def test_one_series_needs_no_id_and_is_called_after_its_values() -> None:
    assert read_table(polars.DataFrame({"ds": DAYS, "y": range(6)}), Columns()).panel.ids == ("y",)


def test_a_pandas_series_over_dates_is_a_table() -> None:
    series = pandas.Series([1.0, 2.0, 3.0], index=pandas.date_range("2024-01-31", periods=3, freq="ME"))
    table = read_table(series, Columns())
    assert (table.panel.frequency.name, table.panel.y[0].tolist()) == ("ME", [1, 2, 3])


def test_gaps_are_filled_and_said() -> None:
    frame = polars.DataFrame({"ds": [DAYS[0], DAYS[1], DAYS[5]], "y": [1.0, None, 6.0]})
    table = read_table(frame, Columns())
    assert table.panel.lengths.tolist() == [6]
    assert np.isnan(table.panel.y[0]).tolist() == [False, True, True, True, True, False]
    assert table.notes == (
        "3 of 6 times were absent from the data and count as missing (in 1 of 1 series; the longest gap, 3 days, "
        "follows 2024-01-02 in 'y')",
        "1 of 6 times have no value and count as missing",
    )


def test_rows_without_a_value_at_the_end_are_the_future() -> None:
    frame = polars.DataFrame({"ds": DAYS, "y": [1.0, 2.0, 3.0, 4.0, None, None], "promo": [0, 1, 0, 1, 1, 0]})
    table = read_table(frame, Columns(known=("promo",)))
    assert table.panel.lengths.tolist() == [4]
    assert table.panel.known[0][:, 0].tolist() == [0, 1, 0, 1, 1, 0]
    assert table.notes == (
        "2 rows after the last value of a series are taken as the future; they supply promo",
    )
    plain = read_table(frame, Columns())
    assert plain.notes == (
        "2 rows after the last value of a series are taken as the future; they were left out",
    )
    assert plain.panel.known[0].shape == (4, 0)


def test_missing_covariates_are_carried_forward_and_said() -> None:
    frame = polars.DataFrame(
        {"ds": [DAYS[0], DAYS[1], DAYS[3], DAYS[4]], "y": [1.0, 2, 3, 4], "price": [None, 5.0, 7.0, None]}
    )
    table = read_table(frame, Columns(known=("price",)))
    assert table.panel.known[0][:, 0].tolist() == [0, 5, 5, 7, 7]
    assert "3 missing values of price were carried forward" in table.notes


def test_a_series_without_a_value_is_left_out_and_said() -> None:
    frame = polars.DataFrame(PLAIN).with_columns(
        y=polars.when(polars.col.unique_id == "a").then(polars.col.y)
    )
    table = read_table(frame, Columns())
    assert table.panel.ids == ("a",)
    assert "1 series without any value was left out ('b')" in table.notes


@pytest.mark.parametrize(
    ("texts", "first", "frequency"),
    [
        (["2024-01-01", "2024-01-02", "2024-01-03"], "2024-01-01", "D"),
        (["2024/01/01", "2024/01/02", "2024/01/03"], "2024-01-01", "D"),
        (["20240101", "20240102", "20240103"], "2024-01-01", "D"),
        (["01.02.2024", "02.02.2024", "03.02.2024"], "2024-02-01", "D"),
        (["1/13/2024", "1/14/2024", "1/15/2024"], "2024-01-13", "D"),
        (["13/1/2024", "14/1/2024", "15/1/2024"], "2024-01-13", "D"),
        (["2024-01-01 00:00:00", "2024-01-01 01:00:00", "2024-01-01 02:00:00"], "2024-01-01", "h"),
        (["2024-01-01T00:00", "2024-01-01T00:30", "2024-01-01T01:00"], "2024-01-01", "30min"),
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"], "2024-01-01", "h"),
        (["2024-01-01T00:00:00+02:00", "2024-01-01T01:00:00+02:00"], "2023-12-31T22:00", "h"),
        (["2024-01", "2024-02", "2024-03"], "2024-01-01", "MS"),
        (["2024 Jan", "2024 Feb", "2024 Mar"], "2024-01-01", "MS"),
        (["2024-01-01 10:00:00.500", "2024-01-01 10:00:01.500"], "2024-01-01T10:00:00.5", "s"),
    ],
)
def test_dates_in_many_spellings(texts: list[str], first: str, frequency: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", csv_of({"ds": texts, "y": list(range(len(texts)))}))
    panel = read_table(path, Columns()).panel
    assert panel.times[0][0] == np.datetime64(first, "us")
    assert panel.frequency.name == frequency


def test_whole_numbers_are_times_too(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", "ds,y\n1950,1\n1951,2\n1953,4\n")
    panel = read_table(path, Columns()).panel
    assert panel.times[0].tolist() == [1950, 1951, 1952, 1953]
    assert panel.frequency.is_integer


def test_zones_keep_days_as_days_and_hours_as_hours() -> None:
    days = pandas.date_range(
        "2024-03-29", periods=4, freq="D", tz="Europe/Berlin"
    )  # the clock changes on the 31st
    table = read_table(pandas.DataFrame({"ds": days, "y": range(4)}), Columns())
    assert (table.panel.frequency.name, table.panel.lengths.tolist()) == ("D", [4])
    hours = pandas.date_range("2024-03-30 22:00", periods=8, freq="h", tz="Europe/Berlin")
    table = read_table(pandas.DataFrame({"ds": hours, "y": range(8)}), Columns())
    assert (table.panel.frequency.name, table.panel.lengths.tolist()) == ("h", [8])
    back = table.schema.frame({"ds": table.panel.times[0]})
    assert (back["ds"] == hours).all()


def test_the_same_kind_of_frame_comes_back() -> None:
    numbers = polars.DataFrame({"unique_id": [7] * 3, "ds": DAYS[:3], "y": [1.0, 2.0, 3.0]})
    table = read_table(numbers, Columns())
    columns = {
        "unique_id": np.array(["7", "7", "7"], dtype=object),
        "ds": table.panel.times[0],
        "GRU": np.zeros(3),
    }
    made = table.schema.frame(columns)
    assert made.schema == {"unique_id": polars.Int64, "ds": polars.Date, "GRU": polars.Float64}
    as_pandas = pandas.DataFrame({"ds": pandas.to_datetime(DAYS[:3]), "y": [1.0, 2.0, 3.0]})
    made = read_table(as_pandas, Columns()).schema.frame(
        columns | {"unique_id": np.array(["x"] * 3, dtype=object)}
    )
    assert isinstance(made, pandas.DataFrame)
    assert made["unique_id"].tolist() == ["x"] * 3
    assert made["ds"].dtype.kind == "M"


BAD = {
    "text in y": ("ds,y\n2024-01-01,1\n2024-01-02,two\n", "column 'y' is not numeric: line 3 holds 'two'"),
    "infinite": ("ds,y\n2024-01-01,1\n2024-01-02,inf\n", "column 'y' holds an infinite value at line 3"),
    "no column": ("ds,value\n2024-01-01,1\n", "there is no column 'y'; the table has 'ds', 'value'"),
    "near column": ("ds,yy\n2024-01-01,1\n", "did you mean 'yy'?"),
    "no dates": ("ds,y\nMonday,1\nTuesday,2\n", "column 'ds' holds 'Monday' at line 2, which is neither a date"),
    "one bad date": ("ds,y\n2024-01-01,1\n2024-13-01,2\n", "holds '2024-13-01' at line 3"),
    "empty date": ("ds,y\n2024-01-01,1\n,2\n", "column 'ds' has no time at line 3"),
    "either way": ("ds,y\n01/02/2024,1\n02/02/2024,2\n", "in two ways: '01/02/2024' at line 2 is 2024-02-01"),
    "duplicates": ("ds,y\n2024-01-01,1\n2024-01-01,2\n", "'y' has two rows for 2024-01-01; keep one, or name the"),
    "no id": ("unique_id,ds,y\na,2024-01-01,1\n,2024-01-02,2\n", "column 'unique_id' names no series at line 3"),
    "no values": ("ds,y\n2024-01-01,\n2024-01-02,\n", "no series has a single value"),
    "no rows": ("ds,y\n", "has columns ('ds', 'y') but no rows"),
    "empty": ("", "is empty"),
    "no grid of two days": (
        "ds,y\n2024-01-01,1\n2024-01-03,2\n2024-01-05,3\n2024-01-08,4\n",
        "most are 2 days apart",
    ),
    "no grid": (
        "ds,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n2024-01-05 07:00,4\n",
        "most are one day apart, but not all",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str, tmp_path: Path) -> None:
    text, sentence = BAD[case]
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path / "data.csv", text), Columns())
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("freq", "text", "sentence"),
    [
        (
            "D",
            "ds,y\n2024-01-01,1\n2024-02-01,2\n2024-03-01,3\n",
            "no two times are closer than 29 days; they look like MS",
        ),
        (
            "MS",
            "ds,y\n2024-01-01,1\n2024-01-02,2\n",
            "MS does not fit the data: 2024-01-02 is not on its grid",
        ),
        ("D", "ds,y\n1,1\n2,2\n", "the times are whole numbers, so give one such as 1"),
        ("1", "ds,y\n2024-01-01,1\n2024-01-02,2\n", "the times are dates, so give a name such as D"),
        ("fortnight", "ds,y\n2024-01-01,1\n2024-01-02,2\n", "'fortnight' is not a frequency"),
    ],
)
def test_a_frequency_that_does_not_fit(freq: str, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FrequencyError) as caught:
        read_table(write(tmp_path / "data.csv", text), Columns(), freq)
    assert sentence in str(caught.value)


def test_no_such_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "sales.csv", "ds,y\n2024-01-01,1\n")
    with pytest.raises(DataError, match=r"there is no file .*sale\.csv; did you mean .*sales\.csv\?"):
        read_table(tmp_path / "sale.csv", Columns())
    with pytest.raises(DataError, match="does not exist either"):
        read_table(tmp_path / "no" / "sale.csv", Columns())


def test_folders_other_kinds_and_garbage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a CSV, Excel or Parquet file"):
        read_table(tmp_path, Columns())
    with pytest.raises(DataError, match="neither CSV, Excel nor Parquet by its name"):
        read_table(write(tmp_path / "data.docx", "x"), Columns())
    with pytest.raises(DataError, match="cannot be read"):
        read_table(write(tmp_path / "data.parquet", "x"), Columns())
    with pytest.raises(DataError, match="not list"):
        read_table([1, 2, 3], Columns())


def test_duplicates_in_named_series_say_which() -> None:
    frame = polars.DataFrame({"unique_id": ["a", "b", "b", "b"], "ds": [DAYS[0]] * 4, "y": [1.0] * 4})
    with pytest.raises(
        DataError, match=r"series 'b' has two rows for 2024-01-01 \(2 such rows in all\); keep one row"
    ):
        read_table(frame, Columns())


NAMES = ["a", "b"]
INDEX = pandas.MultiIndex.from_product([NAMES, pandas.date_range("2024-01-01", periods=4)])


@pytest.mark.parametrize("names", [["unique_id", "ds"], [None, None], ["ds", "unique_id"]])
def test_a_pandas_series_over_names_and_times(names: list[str | None]) -> None:
    index = INDEX.swaplevel() if names[0] == "ds" else INDEX
    series = pandas.Series(np.arange(8.0), index=index.set_names(names))
    for source in (series, series.to_frame("y"), series.rename("anything")):
        panel = read_table(source, Columns()).panel
        assert panel.ids == ("a", "b")
        assert panel.y[1].tolist() == [4.0, 5.0, 6.0, 7.0]


def test_what_groupby_gives() -> None:
    frame = pandas.DataFrame({"shop": ["x", "y"] * 6, "day": DAYS * 2, "sold": range(12)})
    totals = frame.groupby(["shop", "day"])["sold"].sum()
    assert read_table(totals, Columns("shop", "day", "sold")).panel.ids == ("x", "y")
    assert read_table(totals, Columns("shop", "day", "y")).panel.y[0].tolist()[0] == 6.0
    with pytest.raises(DataError, match="there is no column 'ds'"):
        read_table(totals, Columns())


def test_an_index_of_dates_needs_no_name() -> None:
    frame = pandas.DataFrame({"y": range(6)}, index=pandas.to_datetime(DAYS))
    assert read_table(frame, Columns()).panel.frequency.name == "D"
    periods = pandas.DataFrame({"y": range(6)}, index=pandas.period_range("2024-01", periods=6, freq="M"))
    assert read_table(periods, Columns()).panel.frequency.name == "MS"


def test_columns_win_over_an_index_of_their_name() -> None:
    frame = pandas.DataFrame({"ds": DAYS, "y": range(6)})
    panel = read_table(frame.set_index("ds", drop=False), Columns()).panel
    assert panel.y[0].tolist() == list(range(6))


def test_many_columns_do_not_fill_the_screen() -> None:
    frame = polars.DataFrame({f"column {i}": [1] for i in range(5000)})
    with pytest.raises(DataError, match=r"'column 9', ... \(5,000 in all\)") as caught:
        read_table(frame, Columns())
    assert len(str(caught.value)) < 300


def test_one_row_is_spoken_of_as_one() -> None:
    frame = polars.DataFrame(
        {"ds": DAYS, "y": [None, 2.0, 3.0, 4.0, 5.0, None], "promo": [0, 1, None, 1, 1, 0]}
    )
    assert read_table(frame, Columns(known=("promo",))).notes == (
        "1 row before the first value of a series was left out",
        "1 row after the last value of a series is taken as the future; it supplies promo",
        "1 missing value of promo was carried forward",
    )
    assert read_table(frame, Columns()).notes[1].endswith("taken as the future; it was left out")


ODD_COLUMNS = {
    "names in lists": ({"unique_id": [[1]] * 6}, r"type List\(Int64\), which names no series"),
    "names in bytes": ({"unique_id": [b"a"] * 6}, "which names no series"),
    "no number as name": ({"unique_id": [float("nan")] * 6}, "names no series at row 0"),
    "numbers beyond 64 bits": ({"ds": [2**63 + i for i in range(6)]}, "of more than 64 bits"),
    "values in lists": ({"y": [[1.0]] * 6}, "is not numeric"),
    "times of day": ({"ds": [datetime.time(i) for i in range(6)]}, "neither a date nor a whole number"),
    "nothing": ({"ds": [None] * 6}, "has no time at row 0"),
}


@pytest.mark.parametrize("case", ODD_COLUMNS)
def test_columns_of_odd_types(case: str) -> None:
    changed, sentence = ODD_COLUMNS[case]
    plain: dict[str, Any] = {"unique_id": ["a"] * 6, "ds": DAYS, "y": [1.0] * 6}
    with pytest.raises(DataError, match=sentence):
        read_table(polars.DataFrame(plain | changed), Columns())


def test_pandas_columns_of_one_name_or_none() -> None:
    frame = pandas.DataFrame({"ds": DAYS, "y": range(6)})
    with pytest.raises(DataError, match="need different names"):
        read_table(pandas.concat([frame, frame[["y"]]], axis=1), Columns())
    with pytest.raises(DataError, match="there is no column 'ds'; the table has '0', '1'"):
        read_table(pandas.DataFrame(np.zeros((3, 2))), Columns())
    missing = frame.assign(y=pandas.Series([1, pandas.NA, float("nan"), None, 2, "3"], dtype=object))
    assert np.isnan(read_table(missing, Columns()).panel.y[0]).tolist() == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_several_columns_tell_series_apart(tmp_path: Path) -> None:
    rows = {"store": [1, 1, 1, 2, 2, 2], "item": ["a, b"] * 3 + ["c"] * 3, "ds": DAYS[:3] * 2, "y": [1.0] * 6}
    path = write(tmp_path / "sales.csv", csv_of(rows))
    for source in (
        path,
        polars.DataFrame(rows),
        pandas.DataFrame(rows).assign(ds=lambda f: f.ds.astype("datetime64[s]")),
    ):
        table = read_table(source, Columns(id="store, item"))
        assert table.panel.ids == ("1/a, b", "2/c")
        assert (table.schema.id, table.schema.id_is_integer) == ("store/item", False)
    with pytest.raises(DataError, match=r"no column 'itm'.*did you mean 'item'\?"):
        read_table(path, Columns(id="store,itm"))
    with pytest.raises(DataError, match=r"two rows for 2024-01-01.*or several with commas"):
        read_table(path, Columns())
    one = write(tmp_path / "one.csv", csv_of({"a,b": ["x"] * 3, "ds": DAYS[:3], "y": [1.0] * 3}))
    assert read_table(one, Columns(id="a,b")).schema.id == "a,b"  # a name that holds a comma
