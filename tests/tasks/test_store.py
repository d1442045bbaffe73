"""Two tables share a fingerprint only if a forecast cannot tell them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from panels import panel_of

from cellwise.tasks.forecasting.frames import FrameSchema, Table
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.store import fingerprint, read_table_back, write_table
from cellwise.tasks.training.run_folder import RunFolder

ONE, TWO, NAN = [1.0, 2.0, 3.0], [4.0, 5.0], float("nan")


def named(*ids: str, values: tuple = (ONE, TWO)) -> Panel:
    return replace(panel_of(values), ids=ids)


def columns(known: list, past: list) -> Panel:
    shape = (2, -1)
    return panel_of(
        [[1.0, 2.0]],
        known=[np.reshape(known, shape).astype(float)],
        past=[np.reshape(past, shape).astype(float)],
    )


FIRST = panel_of([ONE, TWO])
PAIRS = {
    "a name that holds a separator": (named("a\0b", "c"), named("a", "b\0c")),
    "names that run together": (named("ab", "c"), named("a", "bc")),
    "order of names": (named("a", "b"), named("b", "a")),
    "values that move from one series to the next": (panel_of([[1, 2], [3]]), panel_of([[1], [2, 3]])),
    "order of series": (panel_of([ONE, TWO]), panel_of([TWO, ONE])),
    "a gap elsewhere": (panel_of([[1.0, NAN, 2.0]]), panel_of([[1.0, 2.0, NAN]])),
    "a gap and a zero": (panel_of([[1.0, NAN]]), panel_of([[1.0, 0.0]])),
    "known and past": (columns([7, 8], []), columns([], [7, 8])),
    "the shape of covariates": (columns([1, 2, 3, 4], [5, 6]), columns([1, 2], [3, 4, 5, 6])),
    "names of columns": (columns([7, 8], []), replace(columns([7, 8], []), known_names=("price",))),
    "the season": (FIRST, panel_of([ONE, TWO], season_length=5)),
    "the frequency": (FIRST, replace(FIRST, frequency=replace(FIRST.frequency, multiple=2))),
    "numbers and dates": (
        replace(FIRST, frequency=parse_frequency("D")),
        replace(
            FIRST,
            frequency=parse_frequency("D"),
            times=tuple(times.astype("datetime64[us]") for times in FIRST.times),
        ),
    ),
    "types of numbers": (FIRST, replace(FIRST, y=tuple(y.astype(np.float32) for y in FIRST.y))),
    "beginnings": (FIRST, replace(FIRST, times=tuple(times + 1 for times in FIRST.times))),
}


@pytest.mark.parametrize("what", PAIRS)
def test_tables_that_differ_have_other_fingerprints(what: str) -> None:
    one, other = PAIRS[what]
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(replace(one))


def test_the_time_zone_and_the_kind_of_names_belong_to_the_data_and_the_kind_of_frame_does_not() -> None:
    schema = FrameSchema()
    assert fingerprint(FIRST, schema) == fingerprint(FIRST, replace(schema, backend="pandas"))
    for other in ({"time_zone": "UTC"}, {"wall_clock": True}, {"id_is_integer": True}):
        assert fingerprint(FIRST, schema) != fingerprint(FIRST, replace(schema, **other))


def test_all_kinds_of_nan_are_the_same_gap() -> None:
    other = np.array([1.0, NAN])
    other.view(np.uint64)[1] ^= 1
    assert fingerprint(panel_of([[1.0, NAN]])) == fingerprint(panel_of([other]))


def test_a_table_comes_back_with_its_fingerprint(tmp_path: Path) -> None:
    panel = replace(columns([7, NAN], [1, 2]), ids=("a\0\udc80\n",))
    write_table(RunFolder(tmp_path), Table(panel, ("a note",), FrameSchema(time_zone="UTC")))
    table = read_table_back(RunFolder(tmp_path))
    assert fingerprint(table.panel, table.schema) == fingerprint(panel, FrameSchema(time_zone="UTC"))
    assert table.notes == ("a note",)
