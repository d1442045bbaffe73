"""Dates in the spellings that people use: read as what they are, said in a note, or refused with a question."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas
import polars
import pytest

from cellwise.tasks import Forecaster
from cellwise.tasks.data.date_formats import DateFormat
from cellwise.tasks.data.zones import to_utc
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.frames import Columns, Table, TextFormat, read_table

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(i) for i in range(60)]
MONTHS = [dt.date(2015 + i // 12, i % 12 + 1, 1) for i in range(36)]
HOURS = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(60)]


def table(times: Any, frequency: str | None = None, **text: Any) -> Table:
    frame = polars.DataFrame({"ds": list(times), "y": [float(i) for i in range(len(list(times)))]})
    return read_table(frame, Columns(text=TextFormat(**text)), frequency)


def starts(times: Any, **text: Any) -> tuple[str, str, int]:
    """First time, frequency and length of what is read; the values must have stayed in their order."""
    panel = table(times, **text).panel
    assert panel.y[0].tolist() == [float(i) for i in range(len(panel.y[0]))]
    return str(panel.times[0][0].astype("datetime64[m]")), panel.frequency.name, len(panel.y[0])


@pytest.mark.parametrize(
    "form",
    [
        "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%d %m %Y", "%Y.%m.%d", "%Y %m %d",
        "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%d.%m.%y", "%y.%m.%d",
        "%d %B %Y", "%B %d, %Y", "%b. %d, %Y", "%d-%b-%Y", "%d%b%Y", "%d/%b/%y", "%b %d %y", "%Y %b %d", "%d. %B %Y",
        "%a, %d %b %Y", "%A %B %d, %Y", "%Y%m%d", "%y%m%d", "%d%m%Y", "%m%d%Y", "%Y%j", "%Y-%j", "%G-W%V-%u",
        "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%d/%m/%Y, %H:%M", "%Y-%m-%dT%H:%M:%S.000Z", "%Y%m%dT%H%M%S",
        "%Y-%m-%d %H:%M:%S,000", "%Y-%m-%d %H:%M UTC", "%Y-%m-%dT%H:%M:%S-0500", "%Y-%m-%d 12:30 AM",
    ],
)  # fmt: skip
def test_days(form: str) -> None:
    first, frequency, length = starts([day.strftime(form) for day in DAYS])
    assert (first[:10], frequency, length) == ("2024-01-01", "D", 60)


@pytest.mark.parametrize(
    "form",
    [
        "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%b %y", "%b%y", "%B/%Y", "%b. %Y", "%b, %Y", "%Y %b", "%Y-%B", "%Y-%m",
        "%Y/%m", "%Y.%m", "%YM%m", "%Y%m", "%m/%Y", "%m-%Y", "%m.%Y", "%d.%m.%Y", "%d.%m.%y", "%y-%m-%d", "%d-%b-%y",
        "%Y/%m/%d",
    ],
)  # fmt: skip
def test_months(form: str) -> None:
    assert starts([day.strftime(form) for day in MONTHS]) == ("2015-01-01T00:00", "MS", 36)


@pytest.mark.parametrize("form", ["%b-%y", "%d.%m.%y", "%y-%m-%d", "%B %Y"])
def test_rows_of_many_series_or_newest_first(form: str) -> None:
    texts = [day.strftime(form) for day in MONTHS]
    by_time = polars.DataFrame(
        {"unique_id": ["a", "b"] * 36, "ds": [text for text in texts for _ in "ab"], "y": np.arange(72.0)}
    )
    for frame in (by_time, by_time.reverse(), by_time.sort("unique_id", maintain_order=True)):
        panel = read_table(frame, Columns()).panel
        assert {str(times[0])[:10] for times in panel.times} == {"2015-01-01"}
        assert panel.lengths.tolist() == [36, 36]


@pytest.mark.parametrize("form", ["{0}Q{1}", "{0}-Q{1}", "{0} Q{1}", "Q{1} {0}", "Q{1}-{0}", "{1}Q{0}"])
def test_quarters(form: str) -> None:
    times = [form.format(2019 + i // 4, i % 4 + 1) for i in range(12)]
    assert starts(times) == ("2019-01-01T00:00", "QS", 12)


@pytest.mark.parametrize("form", ["%G-W%V", "%GW%V", "%G W%V"])
def test_iso_weeks_begin_on_monday_also_over_a_year_of_53(form: str) -> None:
    mondays = [dt.date(2020, 6, 1) + dt.timedelta(weeks=i) for i in range(60)]
    assert starts([day.strftime(form) for day in mondays]) == ("2020-06-01T00:00", "W-MON", 60)
    with pytest.raises(DataError, match="2019-W53"):
        table(["2019-W52", "2019-W53", "2020-W01"])


@pytest.mark.parametrize(
    ("short", "year"), [("69", 1969), ("99", 1999), ("00", 2000), ("15", 2015), ("68", 2068)]
)
def test_years_of_two_digits_turn_as_in_posix(short: str, year: int) -> None:
    made = table(
        [f"{day:02}.06.{short}" for day in range(1, 31)] + [f"{day:02}.07.{short}" for day in range(1, 31)]
    )
    assert made.panel.times[0][0] == np.datetime64(f"{year}-06-01")


def test_what_was_read_is_said_unless_it_is_iso() -> None:
    assert table(["13/01/2024", "14/01/2024"]).notes == (
        "times of ds were read as %d/%m/%Y ('13/01/2024' is 2024-01-13)",
    )
    for plain in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"):
        assert table([hour.strftime(plain) for hour in HOURS[::24]]).notes == ()


SWAPPED = [
    (["01/02/2024", "02/02/2024", "03/02/2024"], "%d/%m/%Y", "%m/%d/%Y"),
    ([day.strftime("%d-%m-%Y") for day in MONTHS[:12]], "%d-%m-%Y", "%m-%d-%Y"),
    ([day.strftime("%m/%d/%y") for day in MONTHS[:12]], "%d/%m/%y", "%m/%d/%y"),
    (["01/02/2024 10:00", "02/02/2024 10:00", "03/02/2024 10:00"], "%d/%m/%Y", "%m/%d/%Y"),
]


@pytest.mark.parametrize(("times", "one", "other"), SWAPPED)
def test_two_orders_that_fit_are_a_question_that_date_format_answers(
    times: list[str], one: str, other: str
) -> None:
    with pytest.raises(DataError, match="can be read in two ways") as caught:
        table(times)
    assert f"date_format={one!r} or date_format={other!r} (--date-format)" in str(caught.value)
    for form in (one, other):
        first = np.datetime64(dt.datetime.strptime(times[0].partition(" ")[0], form), "D")
        assert table(times, date_format=form).panel.times[0][0].astype("datetime64[D]") == first
        assert table(times, learned_format=form).panel.times[0][0].astype("datetime64[D]") == first


def test_a_run_reads_new_data_as_it_read_its_own() -> None:
    days = [day.strftime("%d/%m/%Y") for day in DAYS]
    forecaster = Forecaster(horizon=3, hidden_size=4, epochs=1)
    forecaster.fit(polars.DataFrame({"ds": days, "y": np.arange(60.0)}), progress=False)
    few = polars.DataFrame({"ds": ["01/02/2024", "02/02/2024", "03/02/2024"], "y": [1.0, 2.0, 3.0]})
    assert str(forecaster.predict(few)["ds"][0]) == "2024-02-04"


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ([day.strftime("%b-%d") for day in DAYS], "may be months of a year or days without a year"),
        ([day.strftime("%b %d") for day in DAYS[:25]], "may be months of a year or days without a year"),
        ([DAYS[i * 7 % 60].strftime("%b %d") for i in range(60)], "months of a year or days without a year"),
        ([DAYS[i * 7 % 60].strftime("%d.%m.%y") for i in range(60)], "can be read in two ways"),
        (["15-Jan", "16-Jan", "17-Jan"], "neither a date nor a whole number"),
        (["01/24", "02/24", "03/24"], "neither a date nor a whole number"),
        (["10:00", "11:00", "12:00"], "neither a date nor a whole number"),
        (["2024-01-01", "9024-01-02", "2024-01-03"], "in the year 9024"),
        (["0015-01-01", "0015-01-02"], "in the year 15"),
        (["2024-01-01", "2024-02-30"], "holds '2024-02-30' at row 1, which is not written like '2024-01-01'"),
        (["2024-01-01", "02.01.2024"], "holds '02.01.2024' at row 1, which is not written like"),
        (["2024-01-01", "NaT"], "has no time at row 1"),
        (["2024-01-01 10:00 CET", "2024-01-01 11:00 CET"], "the name of a time zone, CET"),
        (["2024-01-01T10:00[Europe/Berlin]"], "the name of a time zone, Europe/Berlin"),
        (["2024-01-01 10:00+01:00", "2024-01-01 11:00"], "an offset from UTC in some rows, but none in"),
        (["2024-01-01 1:00 PM", "2024-01-01 14:00"], "'2024-01-01 14:00' at row 1"),
        (["2024-01-01 23:00", "2024-01-01 24:00"], "'2024-01-01 24:00' at row 1"),
        (["Tue, 01 Jan 2024", "Tue, 02 Jan 2024"], "'Tue, 01 Jan 2024' at row 0"),
        (["1990.000", "1990.083", "1990.167"], "a number with a fraction"),
        (["43831.5", "43832.5"], "a number with a fraction"),
    ],
)
def test_what_is_refused(times: list[str], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        table(times)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_twelve_hours_noon_and_midnight() -> None:
    clock = [f"2024-01-01 {hour % 12 or 12}:00 {'am' if hour < 12 else 'p.m.'}" for hour in range(24)]
    assert starts(clock) == ("2024-01-01T00:00", "h", 24)


def numbers(start: int, *, days: str = "", months: str = "") -> list[int]:
    return [int(day.strftime(days)) for day in DAYS] if days else [int(d.strftime(months)) for d in MONTHS]


SECONDS = [1_704_067_200 + 3600 * i for i in range(48)]


@pytest.mark.parametrize(
    ("times", "first", "frequency"),
    [
        (numbers(0, months="%Y%m"), "2015-01-01T00:00", "MS"),
        (numbers(0, days="%Y%m%d"), "2024-01-01T00:00", "D"),
        (numbers(0, days="%y%m%d"), "2024-01-01T00:00", "D"),
        (numbers(0, days="%Y%j"), "2024-01-01T00:00", "D"),
        (numbers(0, months="%y%m"), "2015-01-01T00:00", "MS"),
        ([10 * (2019 + i // 4) + i % 4 + 1 for i in range(12)], "2019-01-01T00:00", "QS"),
        ([int(hour.strftime("%Y%m%d%H")) for hour in HOURS], "2024-01-01T00:00", "h"),
        ([int(hour.strftime("%Y%m%d%H%M")) for hour in HOURS], "2024-01-01T00:00", "h"),
        ([int(hour.strftime("%Y%m%d%H%M%S")) for hour in HOURS], "2024-01-01T00:00", "h"),
        (SECONDS, "2024-01-01T00:00", "h"),
        ([float(second) for second in SECONDS], "2024-01-01T00:00", "h"),
        ([10**3 * second for second in SECONDS], "2024-01-01T00:00", "h"),
        ([10**6 * second for second in SECONDS], "2024-01-01T00:00", "h"),
        ([10**9 * second for second in SECONDS], "2024-01-01T00:00", "h"),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_whole_numbers_that_are_dates(times: list[Any], first: str, frequency: str, as_text: bool) -> None:
    times = [str(time) for time in times] if as_text else times
    assert starts(times) == (first, frequency, len(times))
    assert "the whole numbers of ds were read as" in table(times).notes[0]


@pytest.mark.parametrize(
    "times",
    [range(40), range(1, 41), range(-5, 30), range(95, 130), range(1990, 2031), [0, 5, 10, 20], range(1000, 1400)],
)  # fmt: skip
def test_whole_numbers_that_are_steps(times: Any) -> None:
    panel = table(times).panel
    assert panel.frequency.is_integer
    assert panel.times[0][0] == times[0]
    assert table([f"{time:+d}" for time in times]).panel.times[0].tolist() == panel.times[0].tolist()


def test_padded_numbers_are_steps() -> None:
    assert table([f"{i:03}" for i in range(40)]).panel.times[0].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            [43831 + i for i in range(40)],
            r"may be a spreadsheet's dates \(43831 at row 0 would be 2020-01-01\)",
        ),
        ([43831.0 + i for i in range(40)], "may be a spreadsheet's dates"),
        ([f"{43831 + i}.0" for i in range(40)], "may be a spreadsheet's dates"),
        ([*range(202001, 202053), *range(202101, 202120)], "look like years and weeks"),
        ([1.5, 2.5, 3.5], "holds fractions"),
        (
            [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31],
            "would be absent if the whole numbers were counted",
        ),
    ],
)
def test_whole_numbers_that_may_be_either_are_a_question(times: list[Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        table(times)
    if isinstance(times[0], int):  # the answer
        assert table(times, "1").panel.frequency.is_integer


@pytest.mark.parametrize(
    ("form", "text", "time"),
    [
        ("%d/%m/%y", "01/02/24", "2024-02-01"),
        ("%d.%m.%Y %H:%M", "01.02.2024 13:30", "2024-02-01T13:30"),
        ("%m/%d/%Y %I:%M %p", "01/02/2024 12:30 AM", "2024-01-02T00:30"),
        ("%Y%m%d %H:%M:%S.%f", "20240201 10:00:00.25", "2024-02-01T10:00:00.25"),
        ("%y-%b", "15-Jan", "2015-01-01"),
        ("(%Y) week %V", "", ""),
        ("%Y|%m|%d", "2024|02|01", "2024-02-01"),
        ("%d %B %Y", "1 september 1015", "1015-09-01"),
    ],
)
def test_a_format_that_is_told(form: str, text: str, time: str) -> None:
    if not text:
        with pytest.raises(OptionError, match="date format"):
            table(["x"], date_format=form)
        return
    reading = DateFormat(form, anywhere=True).read(polars.Series([text]))
    assert reading.whole
    assert reading.wall[0] == np.datetime64(time, "us")


@pytest.mark.parametrize("form", ["%Q", "%d.%m", "%Y-%Y", "%d%", "", "YYYY-MM-DD", "%Y %m %b"])
def test_what_is_no_format(form: str) -> None:
    with pytest.raises(OptionError, match="date format"):
        TextFormat(date_format=form)


def test_a_row_that_does_not_follow_the_format_is_named() -> None:
    with pytest.raises(DataError, match="'13/13/2024' at row 1, which does not follow the date format"):
        table(["01/02/2024", "13/13/2024"], date_format="%d/%m/%Y")


def local_days(start: str, count: int, zone: str) -> Any:
    """Midnights, or 01:00 where midnight is skipped; the first of two."""
    days = pandas.date_range(start, periods=count, freq="D")
    return days.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(count, dtype=bool))


def in_polars(frame: Any, zone: str) -> polars.DataFrame:
    moments = polars.Series(frame["ds"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    return polars.DataFrame(
        {"ds": moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone), "y": frame["y"].to_numpy()}
    )


@pytest.mark.parametrize("zone", ["Africa/Cairo", "Europe/Berlin", "America/Santiago", "America/New_York"])
@pytest.mark.parametrize("source", ["pandas", "polars", "text"])
def test_days_stay_days_where_clocks_change(zone: str, source: str) -> None:
    """Also where midnight is skipped or comes twice, and the row of that day shows 01:00."""
    days: Any = local_days("2023-01-01", 800, zone)
    if source == "text":
        days = [str(day) for day in days]
    frame: Any = pandas.DataFrame({"ds": days, "y": np.arange(800.0)})
    made = read_table(in_polars(frame, zone) if source == "polars" else frame, Columns())
    assert (made.panel.frequency.name, made.panel.lengths.tolist()) == ("D", [800])
    if source == "pandas":
        assert made.schema.frame({"ds": made.panel.times[0]})["ds"].tolist() == days.tolist()
    if source == "polars":
        back = made.schema.frame({"ds": made.panel.times[0]})["ds"]
        assert back.to_list() == in_polars(frame, zone)["ds"].to_list()


def test_hours_in_text_with_offsets_keep_their_distance() -> None:
    hours = pandas.date_range("2024-03-30", periods=72, freq="h", tz="Europe/Berlin")
    made = table([str(hour) for hour in hours])
    assert (made.panel.frequency.name, made.panel.lengths.tolist()) == ("h", [72])
    assert made.panel.times[0][0] == np.datetime64("2024-03-29T23:00")


def test_a_skipped_and_a_repeated_time() -> None:
    times = np.array(["2024-04-26T00:00", "2024-10-31T23:30"], "datetime64[us]")
    assert to_utc(times, "Africa/Cairo").astype(str).tolist() == [
        "2024-04-25T22:00:00.000000", "2024-10-31T20:30:00.000000"
    ]  # fmt: skip
    assert to_utc(times[:1], "+02:00") == np.datetime64("2024-04-25T22:00")
    with pytest.raises(DataError, match="'Mars/Phobos' is not known"):
        to_utc(times, "Mars/Phobos")


def test_forecasts_over_a_skipped_midnight() -> None:
    days = pandas.date_range("2024-03-01", periods=54, freq="D", tz="Africa/Cairo")
    frame = pandas.DataFrame({"ds": days, "y": np.arange(54.0)})
    made = Forecaster(horizon=5, hidden_size=4, epochs=1).fit(frame, progress=False).predict()
    wanted = local_days("2024-04-24", 5, "Africa/Cairo")
    assert made["ds"].tolist() == wanted.tolist()
