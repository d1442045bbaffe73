"""The tagger: it learns what needs letters and context, survives the disk, and mistakes are one sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cellwise.tasks import SequenceTagger
from cellwise.tasks.errors import DataError, RunFolderError
from cellwise.tasks.tag.coloured import TaggedSentence, TaggedWord, tagged_sentences
from cellwise.tasks.tag.conll import Sentences, to_conll
from cellwise.tasks.tag.data import Parts, bundled
from cellwise.tasks.tag.reproduce import run as reproduce

Sentence = tuple[list[str], list[str]]


def sentences(count: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    """Made-up words, nearly all of them new: those on -ing are verbs, after "the" nouns whatever they end on; "set" is
    a verb exactly if the sentence ends on "!", which only the other direction sees."""
    generator = random.Random(seed)
    words, tags = [], []
    for _ in range(count):
        own: list[str] = []
        given: list[str] = []
        for _ in range(generator.randint(2, 5)):
            stem = "".join(generator.choice("bdfgklmnprst") + generator.choice("aeiou") for _ in range(3))
            if generator.random() < 0.4:
                own += ["the", stem + generator.choice(["ing", "um"])]
                given += ["DET", "NOUN"]
            else:
                ends_on_ing = generator.random() < 0.5
                own.append(stem + ("ing" if ends_on_ing else "ly"))
                given.append("VERB" if ends_on_ing else "ADV")
        mark = generator.choice("!.")
        words.append([*own, "set", mark])
        tags.append([*given, "VERB" if mark == "!" else "NOUN", "PUNCT"])
    return words, tags


def people(count: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    """Names of one to three words after "with", in IOB1: two names that follow each other are told apart by B-."""
    generator = random.Random(seed)
    words, tags = [], []
    for _ in range(count):
        own, given = ["we", "went"], ["O", "O"]
        for _ in range(generator.randint(0, 2)):
            length = generator.randint(1, 3)
            own += ["with", *(generator.choice(["Ann", "Bo", "Cy", "Di"]) for _ in range(length))]
            given += ["O", *["I-PER"] * length]
        words.append(own)
        tags.append(given)
    words[0], tags[0] = ["with", "Ann", "Bo"], ["O", "I-PER", "B-PER"]
    return words, tags


def small(**options: object) -> SequenceTagger:
    settings = {
        "hidden_size": 24,
        "embedding_size": 16,
        "character_size": 16,
        "epochs": 8,
        "batch_size": 8,
        "dropout": 0.1,
        "learning_rate": 0.02,
        "branch": "none",
    }
    return SequenceTagger(**settings | options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SequenceTagger, Path]:
    folder = tmp_path_factory.mktemp("runs") / "tags"
    return small(branch="auto").fit(*sentences(300), folder=folder), folder


def test_it_learns_from_letters_and_from_both_sides(trained: tuple[SequenceTagger, Path]) -> None:
    figures = trained[0].measure(*sentences(100, seed=1))
    assert figures["accuracy"] > 0.97
    assert figures["accuracy_unknown"] > 0.97
    assert trained[0].score(*sentences(50, seed=2)) > 0.97


def test_without_letters_it_cannot_know_new_words() -> None:
    figures = small(character_size=0).fit(*sentences(300)).measure(*sentences(100, seed=1))
    assert figures["accuracy_unknown"] < 0.8


def test_with_one_direction_it_cannot_see_the_end() -> None:
    words, tags = sentences(60, seed=1)
    made = small(bidirectional=False).fit(*sentences(300)).predict(words)
    sets = [(own[-2], real[-2]) for own, real in zip(made, tags, strict=True)]
    assert 0.2 < sum(a == b for a, b in sets) / len(sets) < 0.8


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_any_cell(cell: str) -> None:
    assert small(cell=cell, epochs=6).fit(*sentences(200)).measure(*sentences(30, seed=1))["accuracy"] > 0.8


def test_entities_come_back_in_their_scheme(tmp_path: Path) -> None:
    tagger = small(branch="linear").fit(*people(200), folder=tmp_path / "run")
    assert tagger.scheme_ == "IOB1"
    assert tagger.network_.crf is not None
    assert tagger.predict([["we", "went", "with", "Ann", "Bo", "with", "Di"]]) == [
        ["O", "O", "O", "I-PER", "I-PER", "O", "I-PER"]
    ]
    words, tags = people(50, seed=1)
    assert tagger.measure(words, tags)["f1"] > 0.95
    assert SequenceTagger.load(tmp_path / "run").predict(words) == tagger.predict(words)


def doubtful(count: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Names after "with" are marked two times in five, those after "and" never: a tag by itself is never worth it."""
    generator = random.Random(seed)
    words, tags = [], []
    for _ in range(count):
        link, name = generator.choice(["with", "and"]), generator.choice(["Ann", "Bo", "Cy", "Di"])
        marked = link == "with" and generator.random() < 0.4
        words.append(["we", "went", link, name])
        tags.append(["O", "O", "O", "B-PER" if marked else "O"])
    return words, tags


def test_entities_that_are_rather_none_are_taken_for_the_sake_of_f1(tmp_path: Path) -> None:
    tagger = small(branch="linear", epochs=3).fit(*doubtful(400, seed=0), folder=tmp_path / "run")
    words, tags = doubtful(200, seed=1)
    found, chances = tagger.measure(words, tags), tagger.tagged(Sentences(((*words[0],),), ((*tags[0],),)))
    assert 0 < tagger.entity_bonus_ <= 2.2
    loaded = SequenceTagger.load(tmp_path / "run")
    assert loaded.entity_bonus_ == tagger.entity_bonus_ and loaded.predict(words) == tagger.predict(words)
    tagger.entity_bonus_ = 0.0
    assert tagger.measure(words, tags)["f1"] < 0.1 and found["f1"] > 0.5  # all of "with": a half of 0.4 and 1
    without = tagger.tagged(Sentences(((*words[0],),), ((*tags[0],),)))
    assert without[0].true_chances == chances[0].true_chances  # probabilities are what they were


@pytest.mark.parametrize("bonus", [float("nan"), 9.0, -1.0])
def test_a_bonus_that_is_none_is_refused(tmp_path: Path, bonus: float) -> None:
    tagger = small(branch="linear", epochs=1).fit(*doubtful(60, seed=0))
    tagger.entity_bonus_ = bonus
    tagger.save(tmp_path / "run")
    with pytest.raises(RunFolderError, match="does not hold the bonus of entities"):
        SequenceTagger.load(tmp_path / "run")


def test_tags_that_mark_no_entities_have_no_bonus(trained: tuple[SequenceTagger, Path]) -> None:
    assert trained[0].entity_bonus_ == 0.0 and not (trained[1] / "windows.safetensors").exists()


def test_a_sentence_alone_gets_the_tags_it_gets_among_others(trained: tuple[SequenceTagger, Path]) -> None:
    words, _ = sentences(40, seed=3)
    together = trained[0].predict(words)
    assert [trained[0].predict([each])[0] for each in words] == together


def test_a_loaded_tagger_is_equal(trained: tuple[SequenceTagger, Path], tmp_path: Path) -> None:
    words, tags = sentences(30, seed=4)
    loaded = SequenceTagger.load(trained[1])
    assert loaded.predict(words) == trained[0].predict(words)
    assert loaded.held_out_ == trained[0].held_out_
    loaded.save(tmp_path / "again")
    assert SequenceTagger.load(tmp_path / "again").measure(words, tags) == trained[0].measure(words, tags)


def test_the_report_says_the_figures(trained: tuple[SequenceTagger, Path]) -> None:
    page = (trained[1] / "report.html").read_text("utf8")
    figures = trained[0].measure(trained[0].held_out_)
    assert f"{100 * figures['accuracy']:.1f}" in page
    assert (
        "most frequent tag" in page
        and "linear model" in page
        and "neither training nor early stopping" in page
    )
    summary = json.loads((trained[1] / "summary.json").read_text())
    assert summary["scores"]["accuracy"] == figures["accuracy"] and summary["held_out"] == "test"


def test_tags_have_probabilities(trained: tuple[SequenceTagger, Path]) -> None:
    held = trained[0].held_out_
    assert held is not None
    made = trained[0].tagged(held)
    assert [each.tags for each in made] == trained[0].predict(held)
    for real, own in zip(held.tags or (), made, strict=True):
        for a, b, chance, true in zip(real, own.tags, own.chances, own.true_chances or (), strict=True):
            assert 0 < chance <= 1.0001 and (true == chance if a == b else true <= chance)


def test_the_linear_model_is_left_out_where_asked(
    trained: tuple[SequenceTagger, Path], tmp_path: Path
) -> None:
    words, _ = sentences(10, seed=5)
    assert trained[0]._data.linear is not None
    alone = small(epochs=1).fit(*sentences(40), folder=tmp_path / "run")
    assert alone._data.linear is None and "blend" not in alone.network_.state_dict()
    assert SequenceTagger.load(tmp_path / "run").predict(words) == alone.predict(words)


def test_worst_sentences_are_drawn(trained: tuple[SequenceTagger, Path]) -> None:
    words = [TaggedWord("<b>", "X", "Y", 0.6, 0.1), TaggedWord("a" * 99, "Z", "Z", 1.0, 1.0)]
    for narrow in (False, True):
        svg = tagged_sentences([TaggedSentence("1 of 2", words * 20)], narrow=narrow)
        root = ElementTree.fromstring(svg)
        assert float(root.attrib["width"].removesuffix("pt")) == (400 if narrow else 960)
        assert "X 60%" in svg and "Y 10%" in svg and "&lt;b&gt;" in svg and "Z 100%" in svg
        assert all(float(each.attrib["x"]) < 960 for each in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_run_of_altered_data_is_refused(trained: tuple[SequenceTagger, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained[0].save(folder)
    file = folder / "data.safetensors"
    file.write_bytes(file.read_bytes().replace(b"VERB", b"BREV", 1))
    with pytest.raises(RunFolderError):
        SequenceTagger.load(folder)


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    data = sentences(80)
    whole = small(epochs=4).fit(*data)
    from cellwise.tasks.training.progress import Silent

    class Stop(Silent):
        def epoch(self, epoch: object, best: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(epochs=4).fit(*data, folder=tmp_path / "run", progress=Stop())
    resumed = small(epochs=4).fit(*data, folder=tmp_path / "run")
    for name, value in whole.network_.state_dict().items():
        assert value.equal(resumed.network_.state_dict()[name]), name


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        ([], [], "no sentence for training"),
        ([["a"], []], [["X"], []], "sentence 2 has no words"),
        ([["a", "b"]], [["X"]], "sentence 1 has 2 words and 1 tags"),
        ([["a"]], [["X"], ["Y"]], "1 sentences and 2 lists of tags"),
        (["a b"], [["X"]], "sentence 1 must be a list of words, not 'a b'"),
        ([["a", 3]], [["X", "Y"]], "sentence 1 holds 3 where a word should be"),
        ([["a", "b"]], [["X", "X"]], "all words have the tag 'X'"),
        ([[("a", "X", 1)]], None, r"lists of \(word, tag\) pairs; sentence 1"),
        (7, None, "must be a list of lists"),
    ],
)
def test_mistakes_are_one_sentence(data: object, target: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().fit(data, target)


def test_tags_that_training_never_saw_are_wrong_and_no_error(trained: tuple[SequenceTagger, Path]) -> None:
    figures = trained[0].measure([["the", "set", "."]], [["DET", "NEW", "PUNCT"]])
    assert figures["accuracy"] == pytest.approx(2 / 3)


def test_pairs_and_running_text(trained: tuple[SequenceTagger, Path]) -> None:
    words, tags = sentences(60)
    pairs = [list(zip(*each, strict=True)) for each in zip(words, tags, strict=True)]
    assert small(epochs=1).fit(pairs)._data.fingerprint == small(epochs=1).fit(words, tags)._data.fingerprint
    assert trained[0].predict("the bikaluing set!") == [["DET", "NOUN", "VERB", "PUNCT"]]


def test_a_corpus_is_reproduced_beside_others() -> None:
    parts = Parts(*(Sentences(*map(as_tuples, sentences(count, count))) for count in (60, 20, 30)))
    said: list[str] = []
    rows = reproduce(parts, 2, {"epochs": 1, "hidden_size": 16}, said.append)
    assert [row.method for row in rows] == [
        "TnT, trigrams of tags",
        "linear model",
        "most frequent tag",
        "gru of cellwise, seed 0",
        "gru of cellwise, seed 1",
        "gru of cellwise, mean of 2 seeds",
    ]
    assert rows[-1].accuracy == pytest.approx((rows[-2].accuracy + rows[-3].accuracy) / 2)
    assert all(0 < row.accuracy <= 100 for row in rows) and rows[-1].words_per_second > 0
    assert f"{rows[3].accuracy:.2f}" in said[1]


def as_tuples(rows: list[list[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, rows))


def test_letters_that_nobody_has_seen_and_words_of_any_length(trained: tuple[SequenceTagger, Path]) -> None:
    made = trained[0].predict([["\U0001f600", "a" * 10_000, "\u6a39"]])
    assert len(made[0]) == 3


def test_commands(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count, seed in (("train", 120, 0), ("dev", 20, 1), ("test", 20, 2)):
        Path(f"{name}.conll").write_text(to_conll(*sentences(count, seed)), encoding="utf8")
    options = ["--hidden-size", "16", "--epochs", "2", "--batch-size", "8"]
    assert run("tag", "fit", "train.conll", "--valid", "dev.conll", "--out", "run", *options).returncode == 0
    found = json.loads(run("tag", "evaluate", "run", "test.conll", "--json").stdout)
    assert {"accuracy", "f1", "precision", "recall"} <= set(found)
    Path("news.txt").write_text("the bikaluing set!\nthe dog.", encoding="utf8")
    printed = run("tag", "predict", "run", "news.txt").stdout
    assert [line.split("\t")[0] for line in printed.splitlines()] == [
        *("the", "bikaluing", "set", "!", ""),
        *("the", "dog", ".", ""),
    ]
    made = json.loads(run("tag", "predict", "run", "test.conll", "--json").stdout)
    assert made[0]["words"] == sentences(20, 2)[0][0]
    Path("other.conll").write_text("the\tDET\nset\tODD\n", encoding="utf8")
    assert (
        "1 word has a tag that training never saw (ODD)"
        in run("tag", "evaluate", "run", "other.conll").stderr
    )
    assert run("tag", "report", "run").returncode == 0
    refused = run("tag", "evaluate", "run", "news.txt")
    assert refused.returncode == 2 and "have no tags" in refused.stderr


def test_the_bundled_corpus_is_whole() -> None:
    corpus = bundled()
    assert corpus.count > 130_000
    assert corpus.tags is not None and len({tag for each in corpus.tags for tag in each}) > 80
