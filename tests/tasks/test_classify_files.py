"""Labelled sequences that are no table: files of the UCR archive, folders of texts, texts with their class before
them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cellwise.tasks.classify.columns import Columns, Schema
from cellwise.tasks.classify.examples import SERIES, TEXT, Channel, Examples
from cellwise.tasks.classify.tables import read_examples
from cellwise.tasks.errors import DataError

ROWS = "2{0}0.5{0}-1e-1{0}.25{0}3\n-1{0}1{0}2{0}NaN{0}NaN\n2{0}7{0}8{0}9{0}10\n"


def read(path: Path, text: str, columns: Columns | None = None) -> Examples:
    path.write_text(text, encoding="utf8")
    return read_examples(path, columns or Columns())


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.txt", "  "), ("a.csv", ",")])
def test_a_file_of_the_ucr_archive_has_its_classes_first(name: str, mark: str, tmp_path: Path) -> None:
    found = read(tmp_path / name, ROWS.format(mark))
    assert (found.kind, found.labels) == (SERIES, ("2", "-1", "2"))
    assert "a class and the values of a series" in found.notes[0]
    np.testing.assert_allclose(found.inputs[0], [[0.5], [-0.1], [0.25], [3]])
    np.testing.assert_allclose(found.inputs[1], [[1], [2]])  # what was filled up is cut off


def test_a_packed_file_of_the_ucr_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(ROWS.format("\t").encode()))
    assert read_examples(tmp_path / "a.tsv.gz", Columns()).labels == ("2", "-1", "2")


def test_classes_in_exponents_are_whole_numbers(tmp_path: Path) -> None:
    rows = "  1.0000000e+00  -5.2e-01  3.1e-01  2.0e+00\n  1.0000000e+00   1.0e+00  0.1e+00  3.0e+00\n"
    assert read(tmp_path / "a.txt", rows).labels == ("1", "1")


def test_a_class_that_stands_there_once_is_one_for_a_trained_network(tmp_path: Path) -> None:
    once = "1\t2\t3\t5\n2\t4\t5\t8\n"
    with pytest.raises(DataError):
        read(tmp_path / "a.tsv", once)  # the first column may name the series
    learned = Columns(learned=Schema(SERIES, (Channel("x1"),)))
    assert read(tmp_path / "a.tsv", once, learned).labels == ("1", "2")
    assert read(tmp_path / "b.tsv", "1\t2\t3\t5\n", learned).labels == ("1",)


@pytest.mark.parametrize(
    "text",
    [
        "0\t1\t2\t3\n1\t5\t6\t7\n1\t5\t6\t8\n",  # a header that counts
        "0.5\t1\t2\t4\n1.5\t5\t6\t7\n0.5\t1\t1\t1\n",  # no classes
        "text\tlabel\na\tb\n",
    ],
)
def test_other_tables_are_none_of_the_ucr_archive(text: str, tmp_path: Path) -> None:
    try:
        found = read(tmp_path / "a.tsv", text)
    except DataError:
        return
    assert found.kind == TEXT


def test_a_word_among_the_numbers_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 4 holds .*'oops'.*, which is no number"):
        read(tmp_path / "a.tsv", ROWS.format("\t") + "2\toops\t1\t2\t3\n")


def test_a_folder_of_a_class_holds_its_texts(tmp_path: Path) -> None:
    for name, text in {"ham/1.txt": "see you", "spam/2.txt": "win\nnow", "spam/10.txt": "free"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf8")
    (tmp_path / "spam" / ".hidden").write_text("x")
    (tmp_path / "spam" / "notes.md").write_text("x")
    found = read_examples(tmp_path, Columns())
    assert found.inputs == ("see you", "free", "win\nnow")
    assert (found.labels, found.names[0]) == (("ham", "spam", "spam"), "ham/1.txt")


def test_files_without_an_ending_are_texts_where_all_are(tmp_path: Path) -> None:
    (tmp_path / "sci.space").mkdir()
    (tmp_path / "sci.space" / "60000").write_text("orbit")
    assert read_examples(tmp_path, Columns()).labels == ("sci.space",)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it needs a folder for each class"):
        read_examples(tmp_path, Columns())


def test_lines_of_fasttext_begin_with_their_class(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "__label__ham see, you\n\n__label__not_ham win\tnow\n")
    assert (found.inputs, found.labels) == (("see, you", "win\tnow"), ("ham", "not_ham"))
    with pytest.raises(DataError, match="line 2 is to begin with one class"):
        read(tmp_path / "a.txt", "__label__ham see\n__label__a __label__b both\n")


def test_a_file_without_a_header_is_told_from_a_missing_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="if its first line is no header"):
        read(tmp_path / "a.tsv", "ham\tsee you there\nspam\twin it now\n")
    with pytest.raises(DataError, match=r"this one has 'category', 'message'$"):
        read(tmp_path / "b.csv", "category,message\nham,see you\n")
