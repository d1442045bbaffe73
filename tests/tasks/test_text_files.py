"""Text files as programs write them: encodings, marks, numbers of other countries; and files that are damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from cellwise.tasks.data import delimited
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.frames import Columns, Table, TextFormat, read_table

DAYS = [str(np.datetime64("2024-01-01") + i) for i in range(31)]
PLAIN = "ds,y\n" + "".join(f"{day},{i}\n" for i, day in enumerate(DAYS))
NAMED = "unique_id,ds,y\n" + "".join(f"K{'öü'[i % 2]}ln,{DAYS[i // 2]},{i}\n" for i in range(60))


@pytest.fixture
def read(tmp_path: Path):
    def make(content: str | bytes, name: str = "data.csv", **text: Any) -> Table:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, Columns(text=TextFormat(**text)))

    return make


def numbers(values: list[str], separator: str = ";") -> str:
    rows = (f"{day}{separator}{value}\n" for day, value in zip(DAYS, values, strict=False))
    return f"ds{separator}y\n" + "".join(rows)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_leave_no_doubt(read, encoding: str) -> None:
    panel = read(NAMED.encode(encoding)).panel
    assert panel.ids == ("Köln", "Küln")
    assert panel.y[1].tolist() == list(range(1, 60, 2))


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250", "shift-jis", "mac-roman", "cp1251"])
def test_other_encodings_are_asked_for(read, encoding: str) -> None:
    text = NAMED.replace("ö", "ш").replace("ü", "ж") if encoding == "cp1251" else NAMED
    text = text.replace("ö", "鼻").replace("ü", "目") if encoding == "shift-jis" else text
    raw = text.encode(encoding)
    with pytest.raises(DataError, match=r"is not UTF-8: line 2 holds the byte 0x..") as caught:
        read(raw)
    assert "--encoding cp1252" in str(caught.value)
    assert len(read(raw, encoding=encoding).panel) == 2
    assert read(raw, encoding=encoding).panel.ids[0] == text[15:19]


KOELN = "\n".join(f"{line};Köln" for line in numbers([str(i) for i in range(30)]).splitlines()).encode()


def test_a_file_that_is_cut_off_within_a_letter_is_said_to_be(read) -> None:
    with pytest.raises(
        DataError, match=r"is cut off: it ends within a letter of line 31; copy the file again"
    ):
        read(KOELN[:-3])
    with pytest.raises(DataError, match="is not UTF-8: line 2"):  # a single letter may be of any encoding
        read("unique_id;ds;y\nKé".encode("cp1252"))


def test_utf8_that_is_damaged_is_not_taken_for_another_encoding(read) -> None:
    with pytest.raises(
        DataError, match=r"is UTF-8 up to line 31, which holds the byte 0xff .*correct that line"
    ):
        read(KOELN + b"\xff\n")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "utf-16"])
def test_an_encoding_that_is_not_that_of_the_file(read, encoding: str) -> None:
    with pytest.raises(DataError, match="give its true encoding"):
        read(NAMED.replace("ü", "Ò").encode("cp1252") + b"\xd2\n", encoding=encoding)


@pytest.mark.parametrize("encoding", ["foo", "hex", "", 7])
def test_what_is_no_encoding(encoding: Any) -> None:
    with pytest.raises(OptionError, match="is no encoding"):
        TextFormat(encoding=encoding)


ALIKE = {
    "carriage returns": PLAIN.replace("\n", "\r"),
    "both": PLAIN.replace("\n", "\r\n"),
    "no last end": PLAIN.rstrip("\n"),
    "blank lines at the end": PLAIN + "\n\n",
    "blank lines at the end, both": PLAIN.replace("\n", "\r\n") + "\r\n \r\n",
    "blank lines": "\n\n" + PLAIN.replace("2024-01-05", "\n\n2024-01-05"),
    "empty rows": PLAIN + ",\n,\n",
    "sep": "sep=;\n" + PLAIN.replace(",", ";"),
    "sep, quoted": '"sep=;"\r\n' + PLAIN.replace(",", ";"),
    "SEP of tabs": "SEP=\t\n" + PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "spaces": PLAIN.replace(",", " , "),
    "quotes": "".join(f'"{line[:-1]}"\n'.replace(",", '","') for line in PLAIN.splitlines(True)),
    "one column more": "".join(line[:-1] + ",\n" for line in PLAIN.splitlines(True)),
    "utf-16 with sep": ("sep=;\n" + PLAIN.replace(",", ";")).encode("utf-16"),
    "gzip": gzip.compress(PLAIN.encode()),
    "gzip of two": gzip.compress(PLAIN[:100].encode()) + gzip.compress(PLAIN[100:].encode()),
    "lines in quotes": "".join(line[:-1] + ',"a\nb,"\n' for line in PLAIN.splitlines(True)),
}


@pytest.mark.parametrize("case", ALIKE)
def test_forms_of_the_same_table(read, case: str) -> None:
    panel = read(ALIKE[case]).panel
    assert panel.y[0].tolist() == list(range(31))
    assert str(panel.times[0][-1])[:10] == DAYS[-1]


@pytest.mark.parametrize("case", [case for case in ALIKE if isinstance(ALIKE[case], str)])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_tables_are_the_same_however_they_are_cut_for_counting(
    read, case: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "CHUNK", size)
    assert read(ALIKE[case]).panel.y[0].tolist() == list(range(31))


@pytest.mark.parametrize("size", [1, 5, 64])
def test_an_open_quote_is_found_however_the_text_is_cut(
    read, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "CHUNK", size)
    with pytest.raises(DataError, match="a quote in line 33 that no other one closes"):
        read(PLAIN + '2024-02-01,"1\n2024-02-02,2\n')


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("data.csv", PLAIN)
    return made.getvalue()


PACKED = gzip.compress(PLAIN.encode())
BROKEN = {
    "short line": (PLAIN + "2024-02-01\n", "line 33 has 1 field, but the header names 2 columns"),
    "long line": (PLAIN + "2024-02-01,1,2\n", "line 33 has 3 fields, but the header names 2 columns"),
    "cut off": (PLAIN[:-12], "line 32 has 1 field"),
    "after blank lines": (PLAIN + "\n\nx\n", "line 35 has 1 field"),
    "open quote": (PLAIN + '2024-02-01,"1\n2024-02-02,2\n', "a quote in line 33 that no other one closes"),
    "stray quote": ('ds,y,size\n2024-01-01,1,5" pipe\n', "a quote in line 2 that no other one closes"),
    "two of a name": ("ds,y,y\n2024-01-01,1,2\n", "two columns named 'y'"),
    "no header": (PLAIN.partition("\n")[2], "must name the columns, but it holds '2024-01-01', '0'"),
    "endless header": (200_000 * "x" + "," + PLAIN, "the first line does not name the columns"),
    "quote in a value": ('ds,y,size\n2024-01-01,1,x"a,b"\n', "cannot be read: "),
    "line in such a quote": ('ds,y,size\n2024-01-01,1,x"a\n2024-01-02,2,b"\n', "cannot be read: "),
    "control character": (PLAIN.replace("9\n", "\x019\n", 1), "the control character 0x01 in line 11"),
    "zero bytes": (PLAIN.replace("9\n", "\x00\n", 1), "the control character 0x00 in line 11"),
    "neither UTF-8 nor text": (b"ds,y\n\xfc\x02,1\n", "the control character 0x02 in line 2"),
    "only blank": (" \n\n", "is empty"),
    "rows of nothing": ("ds,y\n,\n,\n", "but no rows"),
    "lost letters": (NAMED.replace("ö", "\ufffd"), "letters that an earlier conversion has lost, at line 2"),
    "no name": ('unique_id,ds,y\na,2024-01-01,1\n"",2024-01-02,2\n', "names no series at line 3"),
    "utf-16 cut off": (PLAIN.encode("utf-16")[:-1], "cannot be read as utf-16"),
    "gzip cut off": (PACKED[:-30], "is cut off: the packed data ends too soon"),
    "gzip of nothing": (PACKED[:4], "is cut off"),
    "gzip without sum": (PACKED[:-6], "is cut off"),
    "gzip, wrong sum": (PACKED[:-6] + b"ab" + PACKED[-4:], "is damaged: it cannot be unpacked"),
    "gzip, damaged": (PACKED[:40] + bytes(20) + PACKED[60:], "is damaged: it cannot be unpacked"),
    "gzip, more behind": (PACKED + b"more", "4 bytes after the packed data are none of it"),
    "gzip bomb": (gzip.compress(bytes(300_000_000)), "unpacks to more than 200 times its size"),
    "zip": (archive(), "a ZIP archive or an Excel workbook"),
    "bzip2": (bz2.compress(PLAIN.encode()), "packed with bzip2"),
    "line in quotes": ('ds,y,c\n2024-01-01,1,"a\nb"\n2024-01-02,x,c\n', "line 4 holds 'x'"),
    "line after sep": ("sep=;\nds;y\n2024-01-01;x\n", "line 3 holds 'x'"),
    "long value": ("ds,y\n2024-01-01," + 200 * "x" + "\n", "holds '" + 57 * "x" + "...'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(read, case: str) -> None:
    content, sentence = BROKEN[case]
    with pytest.raises(DataError) as caught:
        read(content)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.csv")
    with pytest.raises(DataError, match="no regular file"):
        read_table(tmp_path / "data.csv", Columns())


@pytest.mark.parametrize("keep", [4, 11, 300, -1, -9])
def test_parquet_files_that_are_cut_off(tmp_path: Path, capfd: Any, keep: int) -> None:
    polars.DataFrame({"ds": DAYS, "y": range(31)}).write_parquet(tmp_path / "data.parquet")
    whole = (tmp_path / "data.parquet").read_bytes()
    (tmp_path / "data.parquet").write_bytes(whole[:keep])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "data.parquet", Columns())
    assert capfd.readouterr().err == ""


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    polars.DataFrame({"ds": [], "y": []}).write_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"has columns \('ds', 'y'\) but no rows"):
        read_table(tmp_path / "data.parquet", Columns())


CONVENTIONS = [
    (["1,5", "2,25", "3"], [1.5, 2.25, 3.0]),
    (["1.234,5", "2,25", "987"], [1234.5, 2.25, 987.0]),
    (["1.234.567", "2.345", "987"], [1234567.0, 2345.0, 987.0]),
    (['"1,234.5"', '"2,345"', "987"], [1234.5, 2345.0, 987.0]),
    (["1 234", "2 345,5", "987"], [1234.0, 2345.5, 987.0]),
    (["1\u00a0234,5", "2\u202f345", "987"], [1234.5, 2345.0, 987.0]),
    (["1'234.50", "2\u2019345", "987"], [1234.5, 2345.0, 987.0]),
    (["\u22121,5", "+2", "3e2"], [-1.5, 2.0, 300.0]),
    (["1,5E+03", "-2,0", ",5"], [1500.0, -2.0, 0.5]),
    (["NA", "1,5", "-"], [1.5]),
]


@pytest.mark.parametrize(("texts", "values"), CONVENTIONS)
@pytest.mark.parametrize("separator", [";", "\t"])
def test_numbers_of_other_countries(read, texts: list[str], values: list[float], separator: str) -> None:
    table = read(numbers(texts, separator))
    assert table.panel.y[0].tolist() == values
    assert any("numbers of y were read with" in note for note in table.notes)


@pytest.mark.parametrize(
    "texts", [["1.5", "2.25", "3"], ["0.234", "12.345"], ["1234.567", "2.345"], ["1e5", ".5"]]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_plain_numbers_are_read_as_they_are(read, texts: list[str], separator: str) -> None:
    table = read(numbers(texts, separator))
    assert table.panel.y[0].tolist() == [float(text) for text in texts]
    assert table.notes == ()


@pytest.mark.parametrize(
    ("texts", "separator", "comma", "dot"),
    [
        (["1.234", "2.345", "987"], ";", [1234.0, 2345.0, 987.0], [1.234, 2.345, 987.0]),
        (['"1,234"', '"2,345"', "987"], ",", [1.234, 2.345, 987.0], [1234.0, 2345.0, 987.0]),
        (["1,234", "2,345"], ";", [1.234, 2.345], [1234.0, 2345.0]),
        (["1 234,567", "2"], ";", [1234.567, 2.0], None),
    ],
)
def test_marks_that_may_mean_two_things_are_a_question(
    read, texts: list[str], separator: str, comma: list[float], dot: list[float] | None
) -> None:
    content = numbers(texts, separator)
    assert read(content, decimal=",").panel.y[0].tolist() == comma
    if dot is None:
        with pytest.raises(DataError, match="is not numeric"):
            read(content, decimal=".")
        return
    assert read(content, decimal=".").panel.y[0].tolist() == dot
    with pytest.raises(DataError, match="can be read in two ways") as caught:
        read(content)
    assert "(--decimal)" in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["1.5", "1,5"], "mixes ways to write numbers: '1.5' at line 2, '1,5' at line 3"),
        (["1.234,5", "1,234.5"], "mixes ways to write numbers"),
        (["1,5 €", "2"], "holds '1,5 €'; write numbers alone, without units or signs of currency"),
        (["$5", "6"], "holds '$5'"),
        (["5 %", "6"], "holds '5 %'"),
        (["(5)", "6"], "holds '(5)'"),
        (["1.23.456", "6"], "holds '1.23.456'"),
        (["0x10", "6"], "holds '0x10'"),
        (["1_000", "6"], "holds '1_000'"),
        (["yes", "no"], "holds 'yes'"),
        (["1e999", "6"], "an infinite value at line 2"),
        (["6", "-1e200"], "holds -1e+200, too much to compute with, at line 3"),
    ],
)
def test_what_is_no_number(read, texts: list[str], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        read(numbers(texts))
    assert sentence in str(caught.value)


def test_covariates_are_read_like_the_target(tmp_path: Path) -> None:
    rows = "".join(f"{day};{i},5;1.00{i % 10},0\n" for i, day in enumerate(DAYS))
    (tmp_path / "data.csv").write_text("ds;y;price\n" + rows)
    table = read_table(tmp_path / "data.csv", Columns(known=("price",)))
    assert table.panel.known[0][:3, 0].tolist() == [1000.0, 1001.0, 1002.0]
    assert sum("were read with" in note for note in table.notes) == 2


def test_what_is_no_decimal_mark() -> None:
    with pytest.raises(OptionError, match="decimal must be"):
        TextFormat(decimal=";")


TITLED = {
    "a title": ("Sales 2024\n", "line 1"),
    "padded, as a spreadsheet does": ("Sales 2024,,\n,,\nprinted on Monday,,\n", "lines 1, 3"),
    "with the mark in quotes": ('"Sales, monthly"\n\n', "line 1"),
}


@pytest.mark.parametrize("case", TITLED)
@pytest.mark.parametrize("mark", [",", ";"])
def test_titles_above_the_header_are_left_out_with_a_note(case: str, mark: str, tmp_path: Path) -> None:
    title, lines = TITLED[case]
    body = "ds,y,z\n2024-01-01,1,x\n2024-01-02,2,x\n2024-01-03,3,x\n"
    path = tmp_path / "data.csv"
    path.write_text(
        (title if case.startswith("with") else title.replace(",", mark)) + body.replace(",", mark)
    )
    table = read_table(path, Columns())
    assert table.panel.y[0].tolist() == [1, 2, 3]
    assert table.notes[0].startswith(f"{lines}, above the header, left out ('Sales")
    path.write_text(path.read_text().replace("-02", "-0x"))
    with pytest.raises(DataError, match=rf"at line {title.count(chr(10)) + 3}\b"):
        read_table(path, Columns())


def test_one_name_and_numbers_below_are_no_title(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("y\n1,5\n2,5\n")
    with pytest.raises(DataError, match="line 2 has 2 fields, but the header names 1"):
        read_table(path, Columns())


def test_a_total_at_the_end_is_no_time(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("ds,y\n2024-01-01,1\n2024-01-02,2\nSumme:,3\n")
    table = read_table(path, Columns())
    assert table.panel.y[0].tolist() == [1, 2]
    assert table.notes == ("line 4 ('Summe:') is no time and was left out",)
    path.write_text("ds,y\nTotal,3\n2024-01-01,1\n2024-01-02,2\n")
    with pytest.raises(DataError, match="column 'ds' holds 'Total' at line 2"):
        read_table(path, Columns())


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["$924.30", "-$1,000.25"], [924.30, -1000.25]),
        (["1000,50 €", "7,25\u00a0€"], [1000.5, 7.25]),
        (["20.4%", "21%"], [20.4, 21.0]),
    ],
)
def test_one_sign_of_all_numbers_is_left_out_with_a_note(values: list[str], numbers: list[float]) -> None:
    days = ["2024-01-01", "2024-01-02"]
    table = read_table(polars.DataFrame({"ds": days, "y": values}), Columns(), "D")
    assert table.panel.y[0].tolist() == numbers
    assert table.notes[0].startswith("the sign ") and table.notes[0].endswith(
        "of the numbers of y was left out"
    )


@pytest.mark.parametrize(
    "values", [["$1", "2"], ["$1", "2€"], ["1$2", "3$4"], ["$1%", "$2%"], ["$$1", "$$2"]]
)
def test_signs_that_are_not_the_same_are_no_numbers(values: list[str]) -> None:
    with pytest.raises(DataError, match="column 'y' is not numeric"):
        read_table(polars.DataFrame({"ds": ["2024-01-01", "2024-01-02"], "y": values}), Columns(), "D")


def test_a_remark_below_the_table_and_dates_in_two_columns() -> None:
    frame = polars.DataFrame({"ds": ["2024-01-01", "2024-01-02", "Source: ERP"], "y": [1, 2, None]})
    with pytest.raises(
        DataError, match="holds 'Source: ERP' at row 2, which is no time; leave the row out if"
    ):
        read_table(frame, Columns())
    with pytest.raises(DataError, match="put year and month into one column"):
        read_table(polars.DataFrame({"Year": [2024], "Month": [1], "y": [2]}), Columns())
