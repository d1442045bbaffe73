"""The vocabulary of subwords: any text there and back, the same each time, and nothing taken on trust."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwise.tasks.data.subwords import BYTES, LONGEST, Subwords
from cellwise.tasks.errors import DataError, OptionError, TaskError

LINES = ["the whale, the whale!\n", "Where is the white whale?\n", "the  sea\r\n\tthe sea\n"] * 20
SPECIAL = ("<pad>", "<begin>", "<end>")


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    return Subwords.learn(LINES, 300, SPECIAL)


def test_frequent_words_are_one_token(subwords: Subwords) -> None:
    assert BYTES + len(SPECIAL) < len(subwords) <= 300
    (ids,) = subwords.encode(["the whale"])
    assert [subwords.bytes_of(i) for i in ids] == [b"the", b" whale"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_any_text_comes_back(subwords: Subwords, texts: list[str]) -> None:
    ids = subwords.encode(texts)
    assert subwords.decode(ids) == texts
    assert all(len(SPECIAL) <= i < len(subwords) for row in ids for i in row)


def test_special_tokens_are_the_callers(subwords: Subwords) -> None:
    assert [subwords.id_of(name) for name in SPECIAL] == [0, 1, 2]
    (ids,) = subwords.encode(["<pad>the<end>"])
    assert not {0, 1, 2} & set(ids)
    assert subwords.decode([[1, *ids, 2, 0, 0]]) == ["<pad>the<end>"]
    with pytest.raises(ValueError, match="not in tuple"):
        subwords.id_of("<unknown>")


def test_learning_and_encoding_are_a_function_of_the_texts(subwords: Subwords) -> None:
    again = Subwords.learn(iter(LINES), 300, SPECIAL)
    assert again == subwords and len(again) == len(subwords)
    other = Subwords.learn(LINES, 300)
    assert other.merges == subwords.merges
    assert [[i + 3 for i in row] for row in other.encode(LINES)] == subwords.encode(LINES)


def test_it_is_had_back_from_json(subwords: Subwords) -> None:
    again = Subwords.from_json(json.loads(json.dumps(subwords.to_json())))
    assert again == subwords
    assert again.encode(LINES) == subwords.encode(LINES)
    assert again.decode(again.encode(LINES)) == LINES


def test_what_no_tokens_of_the_training_make_is_bytes() -> None:
    made = Subwords.learn(["x"], 256)
    assert len(made) == 256
    assert made.encode(["é", ""]) == [list("é".encode()), []]
    assert made.decode([[0xC3], [0xC3, 0xA9]]) == ["\ufffd", "é"]


def test_numbers_of_the_bytes_are_those_of_the_package() -> None:
    made = Subwords.learn(["x"], 256)
    text = "".join(map(chr, range(0x250))) + "\U0001f40b\ud7ff\uffff\U0010ffff"
    (ids,) = made.encode([text])
    assert bytes(ids) == text.encode()


DOUBLING = [[97, 97], *([BYTES + i, BYTES + i] for i in range(40))]
BROKEN: dict[str, tuple[Any, str]] = {
    "no table": ([], "has special tokens and merges"),
    "more": ({"special": [], "merges": [], "code": ""}, "has special tokens and merges"),
    "no lists": ({"special": {}, "merges": []}, "must be lists"),
    "a name": ({"special": [7], "merges": []}, "must be names"),
    "an empty name": ({"special": [""], "merges": []}, "names of 1 to 60 characters"),
    "many names": ({"special": [str(i) for i in range(101)], "merges": []}, "at most 100 names"),
    "a name twice": ({"special": ["a", "a"], "merges": []}, "a name stands there twice"),
    "a merge of three": ({"special": [], "merges": [[1, 2, 3]]}, "must be two tokens"),
    "a merge of true": ({"special": [], "merges": [[True, 2]]}, "must be two tokens"),
    "a merge of text": ({"special": [], "merges": ["ab"]}, "must be a list of two tokens"),
    "a token to come": ({"special": [], "merges": [[256, 1]]}, "names a token that is not there yet"),
    "a token below 0": ({"special": [], "merges": [[-1, 1]]}, "names a token that is not there yet"),
    "a merge twice": ({"special": [], "merges": [[97, 98], [97, 98]]}, "stands there twice"),
    "doubling": ({"special": [], "merges": DOUBLING}, f"a token of more than {LONGEST} bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_nothing_stored_is_trusted(case: str) -> None:
    stored, sentence = BROKEN[case]
    with pytest.raises((TypeError, ValueError), match=sentence):
        Subwords.from_json(stored)


def test_one_token_may_come_of_two_merges() -> None:
    made = Subwords((), ((97, 98), (98, 99), (256, 99), (97, 257)))
    assert len(made) == BYTES + 3 and made.bytes_of(258) == b"abc"
    assert made.encode(["abc"]) == [[258]]


def broken() -> Iterator[Any]:
    yield "one"
    yield 7


def test_what_cannot_be_learned_is_said() -> None:
    with pytest.raises(DataError, match="text 2 is none: 7"):
        Subwords.learn(broken(), 300)
    with pytest.raises(DataError, match="no text to learn subwords from"):
        Subwords.learn([], 300)
    with pytest.raises(DataError, match="one text must stand in a list"):
        Subwords.learn("a text", 300)
    with pytest.raises(DataError, match="text 1 holds half of a surrogate pair at character 2"):
        Subwords.learn(["a\ud800"], 300)
    with pytest.raises(OptionError, match=r"a size from 259 .* to 1,000,000, not 258"):
        Subwords.learn(LINES, 258, SPECIAL)
    with pytest.raises(OptionError, match="special tokens: a name stands there twice"):
        Subwords.learn(LINES, 300, ("a", "a"))


def test_what_cannot_be_encoded_or_decoded_is_said(subwords: Subwords) -> None:
    with pytest.raises(DataError, match="text 2 holds half of a surrogate pair"):
        subwords.encode(["a", "\udc00"])
    with pytest.raises(DataError, match="text 1 is none: None"):
        subwords.encode([None])  # type: ignore[list-item]
    for token in (-1, len(subwords)):
        with pytest.raises(ValueError, match=f"there is no token {token}"):
            subwords.decode([[token]])


def test_without_the_package_it_says_how_to_get_it(
    subwords: Subwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = subwords.encode(LINES)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    again = Subwords.from_json(subwords.to_json())
    assert again.decode(ids) == LINES  # decoding needs none
    with pytest.raises(
        TaskError, match=r"tokenizers, which is not installed; .* pip install 'tokenizers>=0.20'"
    ):
        again.encode(LINES)
