"""Texts and series as people have them: what is read, and the sentence that refuses what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas
import polars
import pytest
from sequences import long_table, series, text_table, texts

from cellwise.tasks.classify.coloured import ColouredText, coloured_texts
from cellwise.tasks.classify.columns import Columns, Schema
from cellwise.tasks.classify.data import Classes, split_off, without_empty
from cellwise.tasks.classify.datasets import bundled, parts_of
from cellwise.tasks.classify.examples import Channel, Examples
from cellwise.tasks.classify.tables import read_examples
from cellwise.tasks.classify.tokens import choose_unit, spans_of, tokens_of, words_of
from cellwise.tasks.errors import DataError, OptionError


def same(a: Examples, b: Examples) -> None:
    assert (a.kind, a.labels, len(a)) == (b.kind, b.labels, len(b))
    for one, other in zip(a.inputs, b.inputs, strict=True):
        if a.kind == "text":
            assert one == other
        else:
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_every_form_of_the_same_series_is_read_alike(tmp_path: Path) -> None:
    values, labels = series(6)
    wanted = read_examples(values, Columns()).labelled(labels)
    (tmp_path / "a.csv").write_text(long_table(values, labels))
    frame = polars.read_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
    (tmp_path / "a.jsonl").write_text(lines)
    rows = [":".join(",".join(f"{x:.6f}" for x in channel) for channel in v.T) for v in values]
    ts = "@problemName a\n@classLabel true up down\n@data\n"
    ts += "".join(f"{row}:{label}\n" for row, label in zip(rows, labels, strict=True))
    (tmp_path / "a.ts").write_text(ts)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1).sort("series", maintain_order=True)
    for source in (tmp_path / "a.csv", tmp_path / "a.parquet", tmp_path / "a.jsonl", tmp_path / "a.ts"):
        same(read_examples(source, Columns()), wanted)
    for source in (frame, pandas.DataFrame(frame.to_dict(as_series=False)), shuffled):
        same(read_examples(source, Columns()), wanted)
    turned = read_examples([value.T for value in values], Columns(layout="nct")).labelled(labels)
    same(turned, wanted)


def test_every_form_of_the_same_texts_is_read_alike(tmp_path: Path) -> None:
    sentences, labels = texts(6)
    wanted = read_examples(sentences, Columns()).labelled(labels)
    (tmp_path / "a.csv").write_text(text_table(sentences, labels))
    frame = polars.read_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.ndjson").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    for name in ("a.csv", "a.tsv", "a.parquet", "a.ndjson"):
        same(read_examples(tmp_path / name, Columns()), wanted)
    same(read_examples(pandas.DataFrame(frame.to_dict(as_series=False)), Columns()), wanted)
    same(read_examples(pandas.Series(sentences), Columns()).labelled(pandas.Series(labels)), wanted)
    same(read_examples(np.array(sentences), Columns()).labelled(np.array(labels)), wanted)
    other = frame.rename({"text": "review", "label": "stars"})
    same(read_examples(other, Columns(text="review", label="stars")), wanted)


def test_quotes_in_a_file_of_tabs_are_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\nan 8" record\tgood\n"quoted ""so"""\tbad\r\n"begun\tgood\n')
    made = read_examples(path, Columns())
    assert made.inputs == ('an 8" record', 'quoted "so"', '"begun')
    assert made.labels == ("good", "bad", "good")
    path.write_text('text\tlabel\n"two\nlines"\tgood\n')
    assert read_examples(path, Columns()).inputs == ("two\nlines",)
    path.write_text("text\tlabel\na\tgood\nb\t\n")
    assert read_examples(path, Columns()).unlabelled == "column 'label' is empty at line 3"


def test_an_array_of_three_axes_needs_its_layout() -> None:
    array = np.random.default_rng(0).normal(size=(5, 3, 9))
    with pytest.raises(DataError, match=r"shape \(5, 3, 9\) may be .*layout='nct' or layout='ntc'"):
        read_examples(array, Columns())
    assert read_examples(array, Columns(layout="nct")).inputs[0].shape == (9, 3)
    assert read_examples(array, Columns(layout="ntc")).inputs[0].shape == (3, 9)
    learned = Schema("series", tuple(Channel(name) for name in "abc"))
    assert read_examples(array, Columns(learned=learned)).inputs[0].shape == (9, 3)
    assert read_examples(array[:, 0], Columns()).inputs[0].shape == (9, 1)


def test_categories_and_uneven_steps_become_channels() -> None:
    frame = polars.DataFrame(
        {
            "series": ["a"] * 3 + ["b"] * 2,
            "step": [0.0, 1.0, 5.0, 2.0, 3.0],
            "x": [1, 2, 3, 4, 5],
            "mode": ["on", "off", "on", None, "on"],
        }
    )
    made = read_examples(frame, Columns())
    assert [one.name for one in made.channels] == ["x", "mode", "step"]
    assert made.channels[1].categories == ("off", "on")
    np.testing.assert_array_equal(made.inputs[0], [[1, 0, 1, 0], [2, 1, 0, 1], [3, 0, 1, 4]])
    np.testing.assert_array_equal(made.inputs[1], [[4, 0, 0, 0], [5, 0, 1, 1]])
    assert "time since the step before" in made.notes[-1]
    learned = Columns(learned=Schema("series", made.channels))
    new = frame.with_columns(polars.lit("auto").alias("mode"), step=polars.Series([0, 1, 2, 0, 1]))
    again = read_examples(new, learned)
    assert again.inputs[0].shape == (3, 4) and (again.inputs[0][:, 1:3] == 0).all()
    assert "categories that training has not seen: 'auto'" in " ".join(again.notes)


def test_dates_are_steps() -> None:
    days = ["2024-01-01", "2024-01-02", "2024-01-10"]
    frame = polars.DataFrame({"series": ["a"] * 3, "step": days, "x": [1.0, 2.0, 3.0]})
    assert read_examples(frame, Columns()).inputs[0][:, 1].tolist() == [0.0, 86400.0, 8 * 86400.0]


def test_missing_values_are_refused_or_carried() -> None:
    values = np.array([[np.nan, 1.0], [2.0, np.nan], [3.0, 4.0], [np.nan, np.nan]])
    with pytest.raises(DataError, match=r"series '0' has no value at step 0, channel 1; .*--missing carry"):
        read_examples([values], Columns())
    made = read_examples([values], Columns(missing="carry"))
    np.testing.assert_array_equal(made.inputs[0], [[2, 1], [2, 1], [3, 4]])
    assert len(made.notes) == 2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (polars.DataFrame({"review": ["a"], "y": [1]}), "has a column 'text' .*'review', 'y'"),
        (polars.DataFrame({"texts": ["a"]}), "did you mean 'texts'"),
        (polars.DataFrame({"series": ["a"], "label": [1]}), "the table has no values"),
        (polars.DataFrame({"series": ["a", "a"], "step": [1, 1], "x": [1, 2]}), "two rows of the same step"),
        (
            polars.DataFrame({"series": ["a", "a"], "label": ["u", "v"], "x": [1, 2]}),
            "two labels, 'u' and 'v'",
        ),
        ([np.array([[np.inf]])], "infinite value at step 0"),
        ([np.zeros((0, 2))], "series '0' has no values"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], "series 1 has 1 channels, but series 0 has 2"),
        (["a", 3], "text 1 is '3', of type int"),
        ([], "there are no sequences"),
        (7, "not int"),
        ("nowhere.ts", "there is no file nowhere.ts"),
        ("nowhere.jsonl", "there is no file nowhere.jsonl"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(source: object, says: str) -> None:
    with pytest.raises(DataError, match=says) as raised:
        read_examples(source, Columns())
    assert "\n" not in str(raised.value)


def test_a_wrong_number_among_numbers_is_named_with_its_line(tmp_path: Path) -> None:
    values, labels = series(4)
    table = long_table(values, labels).splitlines()
    table[5] = ",".join([*table[5].split(",")[:-1], "12a"])
    (tmp_path / "a.csv").write_text("\n".join(table))
    with pytest.raises(DataError, match=r"column 'x2' is not numeric: line 6 holds '12a'"):
        read_examples(tmp_path / "a.csv", Columns())


def test_a_ts_file_with_times(tmp_path: Path) -> None:
    head = "%# a remark\n@timeStamps true\n@classLabel true a b\n@data\n"
    rows = (
        "(2007-01-01 00:00:00,1),(2007-01-01 00:01:00,2):(2007-01-01 00:00:00,3),(2007-01-01 00:01:00,4):a\n"
    )
    (tmp_path / "a.ts").write_text(head + rows)
    made = read_examples(tmp_path / "a.ts", Columns())
    assert (made.inputs[0].tolist(), made.labels) == ([[1, 3], [2, 4]], ("a",))
    (tmp_path / "a.ts").write_text(head + rows + "(1,1),(5,2),(6,3):(1,3),(5,4),(6,?):b\n")
    uneven = read_examples(tmp_path / "a.ts", Columns(missing="carry"))
    assert uneven.inputs[1].tolist() == [[1, 3, 0], [2, 4, 4], [3, 4, 1]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2:a\n", "no line @data"),
        ("@data\n", "no series after @data"),
        ("@classLabel true\n@data\n1,x:a\n", "line 3 holds 'x'"),
        ("@classLabel true\n@data\n1,2:3,4:a\n1,2:a\n", "line 4 has 1 channels"),
    ],
)
def test_a_damaged_ts_file_is_named_with_its_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.ts").write_text(content)
    with pytest.raises(DataError, match=says):
        read_examples(tmp_path / "a.ts", Columns())


def test_two_meanings_of_a_column_are_refused() -> None:
    with pytest.raises(OptionError, match="column 'text' is given two meanings"):
        Columns(label="text")


def test_labels_must_be_as_many_as_sequences() -> None:
    with pytest.raises(DataError, match="2 sequences and 1 labels"):
        read_examples(["a", "b"], Columns()).labelled(["x"])
    with pytest.raises(DataError, match="'1' has no label"):
        read_examples(["a", "b"], Columns()).labelled(["x", None])


def test_empty_texts_are_left_out_with_a_note() -> None:
    made = without_empty(read_examples(["a", " ", "b"], Columns()).labelled([1, 2, 3]))
    assert (made.inputs, made.labels) == (("a", "b"), (1, 3))
    assert made.notes == ("1 empty texts were left out of the training, the first is number 1",)
    with pytest.raises(DataError, match="all 1 texts are empty"):
        without_empty(read_examples([""], Columns()))


def test_a_share_of_every_class_is_held_out_whatever_the_order() -> None:
    labels = np.array([0] * 30 + [1] * 10 + [2] * 2)
    examples = read_examples([str(row) for row in range(42)], Columns()).labelled(labels.tolist())
    train, held = split_off(examples, labels, 0.1)
    assert np.bincount(held.labels).tolist() == [3, 1, 1]
    assert sorted(train.inputs + held.inputs) == sorted(examples.inputs)
    assert split_off(examples, labels, 0.1)[1].inputs == held.inputs
    sizes = {count: len(split_off(examples.select(range(count)), None)[1]) for count in (10, 42)}
    assert sizes == {10: 3, 42: 13}
    many = read_examples(["a"] * 1000, Columns())
    assert len(split_off(many, None)[1]) == 100
    with pytest.raises(DataError, match="1 sequence is too few to hold any out; give more"):
        split_off(examples.select([0]), None, 0.1)
    with pytest.raises(
        DataError, match="every one of 2 sequences has another label, so none can be held out"
    ):
        split_off(examples.select([0, 41]), np.array([0, 1]), 0.1)


def test_one_label_is_none_to_choose_from() -> None:
    for labels, said in (
        (["a"], "the one sequence has the label 'a'"),
        (["a"] * 3, "all 3 sequences have the label"),
    ):
        with pytest.raises(DataError, match=said):
            Classes.of(labels)


def test_bundled_data_have_their_test_part() -> None:
    vowels = bundled("japanese-vowels")
    assert vowels is not None and vowels.test is not None
    assert (len(vowels), len(vowels.test), len(set(vowels.labels))) == (270, 370, 9)
    assert {len(each) for each in vowels.inputs} <= set(range(7, 30))
    assert [len(each) for each in parts_of(vowels)] == [216, 54]
    movies = bundled("movie-sentences")
    assert movies is not None and movies.test is not None
    assert [len(each) for each in (*parts_of(movies), movies.test)] == [8058, 1007, 1007]
    assert bundled("nothing") is None


def test_words() -> None:
    assert words_of("Don't STOP, it’s 8) great!") == ["don't", "stop", ",", "it's", "8", ")", "great", "!"]
    assert words_of("映画は良い") == list("映画は良い")
    assert choose_unit(["these are words"]) == "words"
    assert choose_unit(["Bo", "Li", "Li", "Ann Lee", "Cy"]) == "characters"
    assert choose_unit(["good", "bad", "very good", "bad"]) == "words"  # which come again
    assert choose_unit(["x" * 400]) == "characters"


def test_coloured_texts_escape_what_stands_in_them_and_hold_all_of_it() -> None:
    text = 'a <b> & "c" \x1b[31m ' + "word " * 60
    spans = spans_of(text, "words")
    svg = coloured_texts([ColouredText("<i>", text, spans, np.linspace(-1, 1, len(spans)))])
    root = ElementTree.fromstring(svg)
    lines = ["".join(part for part in line.itertext()) for line in root if line.tag.endswith("text")]
    assert lines[0] == "<i>" and len(lines) > 3
    assert "\x1b" not in svg and "\\x1b" in svg
    assert svg.count("word") == 60


def test_spans_are_those_of_the_tokens() -> None:
    text = "Don't STOP: http://x.y/z 映画 :-)"
    for unit in ("words", "characters"):
        spans, tokens = spans_of(text, unit), tokens_of(text, unit)
        assert len(spans) == len(tokens)
    assert [text[a:b] for a, b in spans_of(text, "words")][:3] == ["Don't", "STOP", ":"]
