"""Files of the Monash archive are read with their names and times, and what is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.frames import Columns, Table, read_table

HEADER = """# about these series
@relation sales
@attribute series_name string
@attribute start_timestamp date
@frequency {}
@missing true
@data
"""


def read(folder: Path, lines: str, frequency: str = "monthly", header: str = HEADER) -> Table:
    path = folder / "sales.tsf"
    path.write_text(header.format(frequency) + lines, encoding="utf8")
    return read_table(path, Columns(id="shop"))


def test_names_times_and_gaps_are_those_of_the_file(tmp_path: Path) -> None:
    table = read(tmp_path, "Köln:2019-11-01 00-00-00:1,?,3,4.5\nBonn:2020-01-01 00-00-00:7,8,9\n")
    assert table.panel.ids == ("Köln", "Bonn")
    assert (table.schema.id, table.schema.time, table.schema.target) == ("shop", "ds", "y")
    assert [str(each[0])[:10] for each in table.panel.times] == ["2019-11-01", "2020-01-01"]
    np.testing.assert_array_equal(table.panel.y[0], [1, np.nan, 3, 4.5])
    assert table.panel.frequency.words == "month"


@pytest.mark.parametrize(
    ("frequency", "words", "last"),
    [
        ("yearly", "year", "2023-01-31T08:30"),
        ("quarterly", "quarter", "2020-10-31T08:30"),
        ("weekly", "week", "2020-02-21T08:30"),
        ("half_hourly", "30 minutes", "2020-01-31T10:00"),
        ("10_minutes", "10 minutes", "2020-01-31T09:00"),
        ("4_seconds", "4 seconds", "2020-01-31T08:30:12"),
    ],
)
def test_the_frequency_of_the_file_spaces_its_values(
    frequency: str, words: str, last: str, tmp_path: Path
) -> None:
    table = read(tmp_path, "a:2020-01-31 08-30-00:1,2,3,4\n", frequency)
    assert table.panel.frequency.words == words
    assert table.panel.times[0][-1] == np.datetime64(last)


def test_without_a_beginning_or_a_name_they_are_numbered(tmp_path: Path) -> None:
    table = read(tmp_path, "5,6,7\n8,9\n", header="@relation x\n@frequency daily\n@data\n")
    assert table.panel.ids == ("0", "1") and table.panel.frequency.is_integer
    assert table.panel.times[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("lines", "frequency", "said"),
    [
        ("a:2020-01-01 00-00-00:1,x,3\n", "daily", "line 8 holds 'x', which is no number"),
        ("a:1,2,3\n", "daily", "line 8 has 1 attributes before its values, but the header names 2"),
        ("a:yesterday:1,2\n", "daily", "line 8 begins at 'yesterday', which is no time such as"),
        ("a:2020-01-01:1,2\n", "fortnightly", "the frequency 'fortnightly', which is none of secondly"),
        ("a:2020-01-01:1,2\na:2020-01-01:1,2\n", "daily", "two series named 'a'"),
        ("\n", "daily", "no series after @data"),
    ],
)
def test_what_is_wrong_is_named(lines: str, frequency: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, lines, frequency)
