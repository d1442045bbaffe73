"""What a language model reads: subwords beside characters, and texts that are larger than memory."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwise.tasks import LanguageModel
from cellwise.tasks.data import text_file
from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError, RunFolderError
from cellwise.tasks.text import corpus, ids, objective
from cellwise.tasks.text.corpus import OneText, Passage, TextFiles, as_source, split_text, whole_lines
from cellwise.tasks.text.generating import Choice
from cellwise.tasks.text.ids import IdFile, encoded, taken
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.objective import StreamObjective, TextObjective
from cellwise.tasks.text.reading import bits_of_source
from cellwise.tasks.text.report import surprising_passages
from cellwise.tasks.text.samples import Sample, chosen, restored_samples
from cellwise.tasks.text.scoring import bits_of_pieces, score_lines
from cellwise.tasks.text.units import SubwordUnits, Vocabulary, learned_units

TEXT = "the bird sings, the dog barks.\nthe bird sings again: où?\n" * 90
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "embedding_size": 8,
    "epochs": 2,
    "length": 20,
    "batch_size": 4,
    "dropout": 0.0,
    "learning_rate": 0.02,
}


def small(**options: Any) -> LanguageModel:
    return LanguageModel(**SMALL | options)


@pytest.fixture(scope="module")
def words() -> LanguageModel:
    return small(unit="subwords", subwords=300, epochs=6).fit(TEXT)


# --- subwords -------------------------------------------------------------------------------------------------------


def test_bits_are_per_character_whatever_the_units(words: LanguageModel) -> None:
    text = TEXT[:300]
    (first, count), *rest = words.pieces(text)
    assert first == "the" and count == 1 and len(rest) < 150
    bits = words.surprise(text)
    assert words.evaluate(text) == pytest.approx(float(bits.sum()) / (len(text) - len(first)))
    assert words.evaluate(text) == words.measure([text])["bits_per_character"] < 2
    assert words.trained_ is not None
    validation = split_text(as_source(TEXT)).validation
    watched = words.trained_.best.metrics["bits_per_character"]
    alone = bits_of_source(words.network_, words._data.vocabulary, as_source(validation))
    assert watched == pytest.approx(alone, rel=0.1)


def test_pieces_are_whole_characters(words: LanguageModel) -> None:
    text = "the \U0001f40b où \u20ac"
    pieces = words.pieces(text)
    assert "".join(each for each, _ in pieces) == text
    assert ("\U0001f40b", 4) in pieces or (" \U0001f40b", 5) in pieces or (" \U0001f40b", 4) in pieces
    assert sum(count for _, count in pieces) == len(words._encode(text))


def test_subwords_are_written_scored_and_kept(words: LanguageModel, tmp_path: Path) -> None:
    words.save(tmp_path / "run")
    again = LanguageModel.load(tmp_path / "run")
    assert again.tokens_ == words.tokens_ and again.characters_ == ""
    assert again.generate(30, "the bird", seed=3) == words.generate(30, "the bird", seed=3)
    assert len(again.generate(30, "the bird")) > 40
    assert set(again.predict("the bird")) == set(again.tokens_)
    (row,) = score_lines(again, ["the bird xyzzy"], 3)
    (bits,) = again.surprises([row["line"]])
    costs = bits_of_pieces(again.pieces(row["line"]), bits)
    assert row["bits"] == pytest.approx(sum(cost for _, cost in costs)) == pytest.approx(float(bits.sum()))
    for each in row["surprising"]:
        at = each["position"] - 1
        assert row["line"][at : at + len(each["text"])] == each["text"]
    assert again.unknown("xyzzy\u20ac") == {}
    assert {name.split(",")[0] for name in words.baselines_} == {
        "the network alone",
        "Kneser-Ney",
        "xz",
        "PPMd",
    }


def test_stored_subwords_are_checked(words: LanguageModel, tmp_path: Path) -> None:
    words.save(tmp_path / "run")
    path = tmp_path / "run/config.json"
    config = json.loads(path.read_text())
    for merges, special in (([[97, 9999]], ["\ufffd"]), ([], [])):
        config["subwords"] = {"special": special, "merges": merges}
        path.write_text(json.dumps(config))
        with pytest.raises(RunFolderError, match="damaged"):
            LanguageModel.load(tmp_path / "run")


def test_the_end_of_a_line_ends_a_subword() -> None:
    units = learned_units("subwords", 400, lambda: iter([TEXT]), len(TEXT))
    assert isinstance(units, SubwordUnits)
    one = torch.cat([units.encode(line) for line in TEXT.splitlines(True)])
    assert torch.equal(units.encode(TEXT), one)
    assert not any("\n" in name[:-1] for name in units.names)


def test_what_a_dynamic_reading_costs_is_per_character(words: LanguageModel) -> None:
    still, moved = words.evaluate(TEXT[:400]), words.evaluate(TEXT[:400], dynamic=True)
    assert 0.3 * still < moved < 1.1 * still


# --- texts of any size ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that are read in many blocks."""
    monkeypatch.setattr(text_file, "BLOCK", 97)
    monkeypatch.setattr(corpus, "BLOCK", 131)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_bytes(TEXT[:2000].replace("\n", "\r\n").encode())
    (tmp_path / "texts/b.txt").write_bytes(b"")
    (tmp_path / "texts/c.txt").write_bytes(TEXT[2000:].encode("utf-8-sig"))
    return tmp_path / "texts"


def joined_text() -> str:
    return TEXT[:2000] + "\n" + TEXT[2000:]


@pytest.mark.parametrize("unit", ["characters", "subwords"])
def test_files_are_learned_as_the_text_they_hold(
    folder: Path, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"unit": unit, "subwords": 300, "epochs": 1}
    whole = small(**options).fit(joined_text())
    monkeypatch.setattr(ids, "IN_MEMORY", 0)
    monkeypatch.setattr(encoded, "__defaults__", (0,))
    made = []
    monkeypatch.setattr(
        IdFile, "__init__", lambda self, *a, _was=IdFile.__init__: made.append(_was(self, *a))
    )
    streamed = small(**options).fit(folder)
    assert len(made) == 1
    assert streamed._data.fingerprint == whole._data.fingerprint
    assert streamed.held_out_ == whole.held_out_
    assert torch.equal(streamed.logits("the dog"), whole.logits("the dog"))
    assert streamed.baselines_ == whole.baselines_


def test_passages_are_had_from_blocks(folder: Path) -> None:
    files, text = as_source(folder), joined_text()
    assert isinstance(files, TextFiles) and len(files) == len(text)
    for begin, end in ((0, len(text)), (1, 2), (90, 400), (1999, 2002), (len(text) - 1, len(text))):
        assert (
            Passage(files, begin, end).text() == Passage(OneText(text), begin, end).text() == text[begin:end]
        )
    assert Passage(files, 10, 600).text(7) == text[593:600]
    assert "".join(whole_lines(files.blocks())) == text


@pytest.mark.parametrize("size", [200, 60_000, 100_000])
def test_ids_are_the_same_from_a_file(size: int) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, size, 1000))
    file = IdFile(iter([values[:300].numpy(), values[300:].numpy()]), size)
    assert len(file) == 1000
    starts = torch.tensor([0, 299, 995, 1203])
    assert torch.equal(taken(file, starts, 12), taken(values, starts, 12))
    model = CharacterNetwork("gru", 4, 2, 3, 1, 0.0)
    for kind in (StreamObjective, TextObjective):
        of = [kind(model, each, values, length=20, batch_size=4, seed=1) for each in (file, values)]
        for one, other in zip(*(each.batches(2) for each in of), strict=True):
            assert torch.equal(getattr(one, "ids", one), getattr(other, "ids", other))


def test_a_long_text_is_read_in_several_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "LARGEST_EPOCH", 300)
    model = CharacterNetwork("gru", 4, 2, 3, 1, 0.0)
    values = torch.arange(1200)
    made = StreamObjective(model, values, values, length=10, batch_size=4, seed=1)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(7))
    read = [torch.cat([each.ids[1:].flatten() for each in made.batches(epoch)]) for epoch in (1, 2, 3, 4, 5)]
    assert made.steps * 10 * 4 < 300 + 40
    assert len(torch.cat(read[:4]).unique()) == 4 * len(read[0]) > 1000
    assert torch.equal(read[4], read[0])
    long = LanguageModel(hidden_size=2, embedding_size=2)
    data, training = long._read("ab" * 700)
    long._objective(long._network(data), data, training)
    assert long._epochs(data, training) == 4 * 40


def test_a_long_text_is_measured_in_blocks(
    words: LanguageModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words.evaluate(folder) == pytest.approx(words.evaluate(folder / "a.txt"), abs=0.2)
    in_blocks = words.evaluate(joined_text())
    monkeypatch.setattr(corpus, "BLOCK", 10**6)
    assert in_blocks == pytest.approx(words.evaluate(joined_text()), rel=0.02)


def test_a_large_file_is_not_read_by_the_command(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "IN_MEMORY", 100)
    (tmp_path / "big.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | {"epochs": 1}).items()]
    fitted = run("text", "fit", "big.txt", "--out", "run", *options)
    assert fitted.returncode == 0 and "0 MB, read piece by piece" in fitted.stderr
    measured = json.loads(run("text", "evaluate", "run", "big.txt", "--json").stdout)
    assert measured["bits_per_character"] < 4
    refused = run("text", "predict", "run", "big.txt")
    assert refused.returncode and "FILE is too long to go on from; give the end of it" in refused.stderr


# --- what people have -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_are_read_in_blocks_of_any_size(
    encoding: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "BLOCK", size if encoding == "utf-8" else max(4, size))
    (tmp_path / "a.txt").write_bytes("où\r\nçà\r \U0001f40b\n\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "où\nçà\n \U0001f40b\n\n"


BROKEN = {
    "latin": ("a" * 300 + "é!").encode("latin-1"),
    "cut off": "aé".encode()[:-1],
    "gzip": b"\x1f\x8b\x08\x00",
    "pdf": b"%PDF-1.4",
    "zeros": b"ab\0c",
    "neither UTF-8 nor text": b"a\xfc\0c",
}
SAID = {
    "latin": r"\(byte 300 is not\); convert it first, as from Windows' encoding, in which that byte is 'é': "
    "iconv -f cp1252 -t utf-8 .*a.txt > utf8-a.txt",
    "cut off": r"is no text in UTF-8 \(byte 1 is not\)",
    "gzip": "is no text: by its first bytes it is packed with gzip",
    "pdf": "is no text: by its first bytes it is a PDF",
    "zeros": "is no text: it holds zero bytes",
    "neither UTF-8 nor text": "is no text: it holds zero bytes",
}


@pytest.mark.parametrize("size", [16, 10_000])
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_text_is_said(
    case: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "BLOCK", size)
    (tmp_path / "a.txt").write_bytes(BROKEN[case])
    with pytest.raises(DataError, match=SAID[case]):
        read_text(tmp_path / "a.txt")


def test_passages_cost_what_their_pieces_do(words: LanguageModel) -> None:
    words.held_out_ = split_text(as_source(TEXT)).held_out[:150] + " zzqy \U0001f40b zq" + TEXT[:100]
    (passage, mean, worst, bits), *_ = surprising_passages(words)
    assert "\U0001f40b" in passage and worst in passage and bits > mean


def test_samples_are_kept_by_epoch(words: LanguageModel, tmp_path: Path) -> None:
    assert [each[:2] for each in words.samples_] == [(e, t) for e in range(1, 7) for t in (0.3, 0.7, 1.0)]
    assert words.samples_[0].text != words.samples_[-3].text == words.generate(120, temperature=0.3)
    assert {each.epoch for each in chosen([Sample(e, 1.0, "") for e in range(1, 31)])} == {
        1,
        7,
        13,
        18,
        24,
        30,
    }
    words.save(tmp_path / "run")
    assert LanguageModel.load(tmp_path / "run").samples_ == words.samples_
    for stored in (None, {}, [[1, 0.3]], [[1, 0.3, 7]], [[1, float("nan"), ""]], [[1, 0.3, ""]] * 101):
        assert restored_samples(stored) == []


def test_several_texts_of_subwords_are_written_side_by_side(words: LanguageModel) -> None:
    pieces = list(words.writes(12, "the dog", Choice(0.9), 5, samples=3))
    texts = ["".join(column) for column in zip(*pieces, strict=True)]
    assert len(texts) == 3 and len(set(texts)) > 1


def test_a_vocabulary_is_that_of_all_blocks() -> None:
    assert Vocabulary.of_blocks(["ab", "", "c\ufffd"]) == Vocabulary.of("cab")


def test_a_conversation_goes_on_from_each_line(
    run: Callable[..., Any], words: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words.save(tmp_path / "run")
    monkeypatch.setattr("sys.stdin", io.StringIO("the dog\n\nthe bird"))
    written = run("text", "generate", tmp_path / "run", "--interactive", "--length", 9, "--seed", 4).stdout
    wanted = [
        (start, words.generate(9, start, seed=seed))
        for start, seed in (("the dog", 4), ("the dog", 5), ("the bird", 6))
    ]
    assert written == "".join(f"{start}{text}\n" for start, text in wanted)
    refused = run("text", "generate", tmp_path / "run", "--interactive", "--samples", 2)
    assert refused.returncode and "leave out --start, --samples and --json" in refused.stderr


def test_a_folder_is_told_with_its_empty_files(folder: Path) -> None:
    from cellwise.tasks.text.commands import Commands

    reading = Commands().read(small(), str(folder))
    assert reading.about == f"3 files, {len(joined_text()):,} characters"
    assert reading.notes == (f"{folder / 'b.txt'} is empty",)
    with pytest.raises(DataError, match=r"there is no file .*d\.txt"):
        Commands().read(small(), str(folder / "d.txt"))


def test_a_short_text_is_read_in_fewer_streams() -> None:
    values, model = torch.arange(1200), CharacterNetwork("gru", 4, 2, 3, 1, 0.0)
    made = StreamObjective(model, values, values, length=100, batch_size=32, seed=1)
    assert made.steps == 6 and next(iter(made.batches(1))).ids.shape == (101, 2)


def test_a_page_shades_what_surprises(run: Callable[..., Any], words: LanguageModel, tmp_path: Path) -> None:
    words.save(tmp_path / "run")
    (tmp_path / "lines.txt").write_text("the bird sings\n\n<b>the & zq</b>\n")
    done = run(
        "text", "score", tmp_path / "run", tmp_path / "lines.txt", "--html", tmp_path / "lines.html", "--json"
    )
    page = (tmp_path / "lines.html").read_text()
    assert page.count("<div>") == len(json.loads(done.stdout)) == 2
    assert "&lt;" in page and "&amp;" in page and "<b>" not in page and "<script" not in page
    shades = dict(re.findall(r'class="b(\d)" title="([0-9.]+) bits"', page))
    assert shades and all(int(float(bits) / 2) >= int(shade) for shade, bits in shades.items())
    assert 'class="b6"' in page


def test_a_trace_of_subwords_says_what_to_do_instead(
    run: Callable[..., Any], words: LanguageModel, tmp_path: Path
) -> None:
    words.save(tmp_path / "run")
    refused = run("trace", tmp_path / "run")
    assert refused.returncode and "this model reads subwords; cellwise text score" in refused.stderr
