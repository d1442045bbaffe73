"""Language models: what training carries on, what is measured beside them, what they write."""

from __future__ import annotations

import json
import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwise.tasks import CharacterModel, LanguageModel
from cellwise.tasks.errors import DataError, OptionError, RunFolderError
from cellwise.tasks.text import baselines
from cellwise.tasks.text.baselines import KneserNey, compressor_bits
from cellwise.tasks.text.corpus import read_texts
from cellwise.tasks.text.dynamic import adapting_bits
from cellwise.tasks.text.generating import Choice, write_ids
from cellwise.tasks.text.network import CharacterNetwork, Regularisation
from cellwise.tasks.text.ngrams import NGrams
from cellwise.tasks.text.objective import StreamObjective
from cellwise.tasks.text.reading import RUN_UP, bits_of_each, bits_of_lines
from cellwise.tasks.text.report import beaten_by_learners, bits_by_position, surprising_passages
from cellwise.tasks.text.scoring import bits_by_character, bits_of_pieces, score_lines
from cellwise.tasks.text.units import ByteUnits, Vocabulary
from cellwise.tasks.training.run_folder import LAST, Checkpoint, RunFolder

ABC = "abcabcabd" * 400
ACCENTS = "où çà? là! " * 300
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "embedding_size": 8,
    "epochs": 12,
    "length": 27,
    "batch_size": 4,
    "dropout": 0.0,
    "learning_rate": 0.02,
}


def small(**options: Any) -> LanguageModel:
    return LanguageModel(**SMALL | options)


@pytest.fixture(scope="module")
def trained() -> LanguageModel:
    return small().fit(ABC)


def network(**options: Any) -> CharacterNetwork:
    torch.manual_seed(1)
    return CharacterNetwork("lstm", 5, 4, 6, 1, 0.0, **options)


def objective(model: CharacterNetwork, **options: Any) -> StreamObjective:
    ids = torch.arange(200) % 5
    return StreamObjective(model, ids, ids, **{"length": 10, "batch_size": 4, "seed": 3} | options)


# --- training -------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_as_one_text() -> None:
    model = network()
    made = objective(model)
    pieces = list(made.batches(1))
    assert len(pieces) == made.steps == 5
    assert [each.is_first for each in pieces] == [True, False, False, False, False]
    for before, after in pairwise(pieces):
        assert torch.equal(before.ids[-1], after.ids[0])
    in_parts = [float(made.loss(each)) for each in pieces]
    whole = torch.cat([pieces[0].ids, *(each.ids[1:] for each in pieces[1:])])
    assert np.mean(in_parts) == pytest.approx(float(model.cross_entropy(whole)), rel=1e-5)
    assert float(made.loss(pieces[0])) == in_parts[0]  # an epoch begins with an empty memory


def test_an_epoch_reads_every_character_once() -> None:
    ids = torch.arange(200)
    made = StreamObjective(network(), ids, ids, length=10, batch_size=4, seed=0)
    read = torch.cat([each.ids[1:].flatten() for each in made.batches(2)])
    assert sorted(read.tolist()) == list(range(200))
    assert not torch.equal(next(iter(made.batches(1))).ids, next(iter(made.batches(2))).ids)


def test_what_is_carried_is_taken_up() -> None:
    model = network()
    pieces = list(objective(model).batches(1))
    first, second = objective(model), objective(model)
    first.loss(pieces[0])
    second.carry(first.carried())
    assert torch.equal(second.loss(pieces[1]), first.loss(pieces[1]))
    assert set(first.carried()) == {"0", "1"}
    second.carry({})
    assert second.carried() == {}


class Stop:
    """Interrupts a training within its second epoch."""

    def start(self, *_: Any, **__: Any) -> None: ...

    def step(self, epoch: int, loss: float) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 45:
            raise KeyboardInterrupt

    def epoch(self, *_: Any) -> None: ...

    def end(self) -> None: ...


def test_a_run_goes_on_within_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    options = {"epochs": 3, "weight_dropout": 0.2, "dropout": 0.1, "cell": "lstm"}
    through = small(**options).fit(ABC, progress=False)
    with pytest.raises(KeyboardInterrupt):
        small(**options).fit(ABC, folder=tmp_path, progress=Stop())
    about = RunFolder(tmp_path).read_tensors(LAST)
    assert about.about["within"]["steps"] > 0
    assert any("carried" in name for name in about.tensors)
    resumed = small(**options).fit(ABC, folder=tmp_path, progress=False)
    assert torch.equal(resumed.logits("abcab"), through.logits("abcab"))


def test_it_learns_what_needs_memory(trained: LanguageModel) -> None:
    assert trained.evaluate() < 0.2
    assert trained.generate(18, "abcabcab", temperature=0) == "dabcabcabdabcabcab"


@pytest.mark.parametrize(
    "options",
    [
        {"tied": True},
        {"tied": True, "embedding_size": 16},
        {"weight_dropout": 0.3, "cell": "lstm"},
        {"embedding_dropout": 0.2, "input_dropout": 0.2, "dropout": 0.2, "num_layers": 2},
        {"activation_penalty": 0.1, "slowness_penalty": 0.1},
        {"unit": "bytes"},
        {"cell": "mingru", "weight_dropout": 0.3},
    ],
)
def test_every_option_learns_and_is_loaded(options: dict[str, Any], tmp_path: Path) -> None:
    model = small(**options, epochs=3).fit(ABC)
    assert model.evaluate() < 1.8  # log2(5) is 2.3
    model.save(tmp_path / "run")
    again = LanguageModel.load(tmp_path / "run")
    assert torch.equal(again.logits("abcabd"), model.logits("abcabd"))


def test_regularisation_is_for_training_alone() -> None:
    ids = torch.arange(40).view(10, 4) % 5
    plain = network()
    for own in (
        Regularisation(input_dropout=0.5),
        Regularisation(embedding_dropout=0.5),
        Regularisation(weight_dropout=0.5),
    ):
        dropped = network(regularisation=own)
        assert not torch.equal(dropped.loss(ids)[0], plain.loss(ids)[0])
        assert torch.equal(dropped.eval()(ids)[0], plain.eval()(ids)[0])
        plain.train()
    penalised = network(regularisation=Regularisation(activation=2.0))
    output, _ = plain.layer(plain.embed(ids[:-1]))
    difference = penalised.loss(ids)[0] - plain.loss(ids)[0]
    assert float(difference) == pytest.approx(2 * float(output.square().mean()), rel=1e-4)


def test_locked_dropout_is_the_same_at_all_steps() -> None:
    model = CharacterNetwork("gru", 5, 4, 64, 1, 0.5, regularisation=Regularisation(locked=True))
    dropped = model._dropped(torch.ones(7, 3, 64))
    assert torch.equal(dropped, dropped[:1].expand(7, 3, 64))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_a_validation_text_is_held_out_and_the_rest_learned(tmp_path: Path) -> None:
    model = small(epochs=1).fit(ABC, valid=ABC[:200], folder=tmp_path)
    assert model.held_out_ == ABC[:200] and not model.is_test_
    assert not LanguageModel.load(tmp_path).is_test_
    with pytest.raises(DataError, match="validation text needs at least 50 characters; it has 3"):
        small().fit(ABC, valid="abc")


def test_dropout_follows_the_text_and_stays(tmp_path: Path) -> None:
    model = small(epochs=1, dropout=None).fit(ABC)
    assert (model.network_.drop.p, model.dropout) == (0.3, None)
    model.save(tmp_path / "run")
    assert LanguageModel.load(tmp_path / "run").network_.drop.p == 0.3
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["sizes"]["dropout"] = "much"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match="damaged"):
        LanguageModel.load(tmp_path / "run")


def test_a_run_of_an_earlier_version_is_one_of_characters() -> None:
    folder = Path(__file__).parent / "written_by_0_1_0/characters"
    model = LanguageModel.load(folder)
    assert (model.unit, model.carry, model.locked, model.hidden_size) == ("characters", False, False, 6)
    assert torch.equal(model.logits("the fox"), CharacterModel.load(folder).logits("the fox"))
    assert model.baselines_ == {}


# --- texts ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_as_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "more/c.txt").write_text("three")
    (tmp_path / "note.md").write_text("no")
    assert read_texts(tmp_path) == "one\ntwo\nthree"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no \.txt file in the folder"):
        read_texts(tmp_path / "empty")


def test_bytes_are_their_numbers() -> None:
    units = ByteUnits()
    ids = units.encode("é€")
    assert (ids - 1).tolist() == list("é€".encode())
    write = units.writer()
    assert [write(i) for i in ids.tolist()] == ["", "é", "", "", "€"]
    assert units.pieces("aé€") == [("a", 1), ("é", 2), ("€", 3)]


def test_small_ids_are_those_of_a_dictionary() -> None:
    vocabulary = Vocabulary.of("hello € \U0001f40b world")
    text = "a whale \U0001f40b costs 3 €, hello"
    index = {character: number for number, character in enumerate(vocabulary.characters)}
    assert vocabulary.encode_small(text).tolist() == [index.get(each, 0) for each in text]


# --- measuring ------------------------------------------------------------------------------------------------------


def test_bits_of_each_are_those_of_reading_on() -> None:
    model = network().eval()
    ids = torch.randint(5, (9001,), generator=torch.Generator().manual_seed(0))
    found = bits_of_each(model, ids)
    with torch.no_grad():
        logits, _ = model(ids[:-1, None])
    wanted = torch.nn.functional.cross_entropy(logits[:, 0].double(), ids[1:], reduction="none") / math.log(2)
    assert found.shape == (9000,)
    assert RUN_UP == 200
    torch.testing.assert_close(
        found, wanted, rtol=0, atol=1e-4
    )  # a run-up is as good as all that came before
    torch.testing.assert_close(found[:2000], wanted[:2000], rtol=0, atol=2e-6)


def test_bits_of_lines_are_those_of_each_alone() -> None:
    model = network()
    lines = [torch.tensor(each) for each in ([1, 2, 3], [4, 1], [0, 1, 2, 3, 4, 0, 1])]
    for found, line in zip(bits_of_lines(model, lines), lines, strict=True):
        torch.testing.assert_close(found, bits_of_each(model, line))


def test_what_adapts_learns_what_is_new(trained: LanguageModel) -> None:
    other = "dcbdcbdca" * 150
    before, ids = trained.logits("abc"), trained._encode(other)
    still = bits_of_each(trained.network_, ids)
    assert trained.evaluate(other, dynamic=True) < trained.evaluate(other)
    assert float(adapting_bits(trained.network_, ids, rate=2e-3).mean()) < 0.85 * float(still.mean())
    assert torch.equal(trained.logits("abc"), before)
    unmoved = adapting_bits(trained.network_, ids, rate=0.0)
    torch.testing.assert_close(unmoved, still, rtol=0, atol=1e-3)


def test_bits_of_bytes_are_per_character() -> None:
    model = small(unit="bytes", epochs=4).fit(ACCENTS)
    text = ACCENTS[:110]
    bits = model.surprise(text)
    assert len(bits) == len(text.encode()) - 1
    assert model.evaluate(text) == pytest.approx(float(bits.sum()) / (len(text) - 1))
    assert model.unknown("€") == {}
    (_, first), *pieces = model.pieces(text)
    each = bits_by_character(bits_of_pieces(pieces, bits[first - 1 :]))
    assert len(each) == len(text) - 1 and sum(each) == pytest.approx(float(bits[first - 1 :].sum()))


def test_lines_are_scored_and_their_surprises_named(trained: LanguageModel) -> None:
    rows = score_lines(trained, ["abcabcabd", "", "abcdbcabd"], 2)
    assert [row["number"] for row in rows] == [1, 3]
    assert rows[1]["bits"] > rows[0]["bits"]
    assert rows[1]["surprising"][0]["bits"] >= rows[1]["surprising"][1]["bits"]
    assert (rows[1]["surprising"][0]["text"], rows[1]["surprising"][0]["position"]) in {("d", 4), ("b", 5)}
    assert rows[0]["bits_per_character"] == pytest.approx(rows[0]["bits"] / 9)


def test_kneser_ney_adds_up_and_knows_what_it_counted() -> None:
    ids = np.random.default_rng(0).integers(1, 5, 500)
    model = KneserNey(ids, 6, 4)
    for start in ([1, 2, 3], [5, 5, 5], [0, 1, 2]):
        chances = [2 ** -model.bits(np.array([*start, each]))[-1] for each in range(6)]
        assert sum(chances) == pytest.approx(1)
    text = np.array([1, 2, 3, 1, 2, 4] * 200)
    assert KneserNey(text, 5, 6).bits(text[:300])[10:].mean() < 0.1
    assert KneserNey(text, 5, 1).bits(text[:300]).mean() > 1.5
    assert KneserNey(text, 2**20, 7).order == 3


def test_kneser_ney_thinks_anything_possible_behind_phrases_that_come_again_and_again() -> None:
    # Of the n-grams that occur three times or more, most occur four times: the discount of these would be below 0.
    phrases = [[0, 1, 2, each] for each in range(3, 40) for _ in range(4)]
    ids = np.concatenate([*phrases, *([0, 1, 40 + each] for each in range(5))])
    model = KneserNey(ids, 50, 3)
    after = model.following(np.array([1, 2]))
    assert after.sum() == pytest.approx(1) and after.min() > 0
    assert np.isfinite(model.bits(np.array([0, 1, 2, 49, 2, 3, 49]))).all()


def test_n_grams_are_mixed_in_and_kept(trained: LanguageModel, tmp_path: Path) -> None:
    beside, alone = trained.ngrams_, small(branch="none").fit(ABC)
    assert beside is not None and 0 < beside.share < 1 and alone.ngrams_ is None
    ids = trained._encode(ABC[:40])
    own = bits_of_each(trained.network_, ids)
    assert torch.equal(own, alone.surprise(ABC[:40]))  # the network is the same
    shares = torch.tensor([beside.share, 1 - beside.share], dtype=torch.float64)
    both = torch.stack(
        [torch.exp2(-own), torch.from_numpy(np.exp2(-beside.counted.bits(ids.long().numpy())))]
    )
    wanted = -torch.log2(shares @ both)
    torch.testing.assert_close(trained.surprise(ABC[:40]), wanted)
    assert trained.evaluate(ABC[:40]) == pytest.approx(float(wanted.mean()))
    (line,) = trained.surprises([ABC[:39]])
    assert float((line[-20:] - wanted[-21:-1]).abs().max()) < 0.05
    chances = trained.predict("abcab")
    assert sum(chances.values()) == pytest.approx(1)
    cost = float(trained.surprise("abcabc")[-1])
    assert chances["c"] == pytest.approx(2**-cost, rel=1e-4)
    trained.save(tmp_path / "run")
    loaded = LanguageModel.load(tmp_path / "run")
    assert torch.equal(loaded.surprise(ABC[:40]), trained.surprise(ABC[:40]))
    assert loaded.evaluate(dynamic=True) == trained.evaluate(dynamic=True)


@pytest.mark.parametrize("wrong", ["order", "counts", "grams", "share", "size"])
def test_n_grams_that_cannot_be_are_refused(trained: LanguageModel, wrong: str) -> None:
    assert trained.ngrams_ is not None
    saved, size = trained.ngrams_.stored(), len(trained._data.vocabulary)
    tensors, about = dict(saved.tensors), dict(saved.about)
    if wrong == "order":
        about["order"] = "9000"
    elif wrong == "size":
        size = 2
    elif wrong == "share":
        tensors["share"] = torch.tensor(float("nan"), dtype=torch.float64)
    else:
        tensors[wrong] = tensors[wrong].flip(0) if wrong == "grams" else tensors[wrong] * 0
    with pytest.raises(ValueError, match=r"n-grams|share"):
        NGrams.restored(Checkpoint(tensors, about), size)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"gru": 2.0, "Kneser-Ney, order 7": 1.0, "xz": 2.5, "PPMd": 2.1}, ()),
        ({"gru": 2.0, "xz": 2.5, "PPMd": 1.9}, ("PPMd learns as it reads",)),
        ({"gru": 2.0, "xz": 1.5, "PPMd": 1.4}, ("xz and PPMd learn as they read",)),
    ],
)
def test_it_is_said_that_a_better_compressor_learns_as_it_reads(
    scores: dict[str, float], said: tuple[str, ...]
) -> None:
    assert tuple(each.partition(";")[0] for each in beaten_by_learners(scores, "gru")) == said


def test_compressors_add_little_for_what_they_have_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(map(chr, np.random.default_rng(0).integers(32, 127, 4000)))
    seen, unseen = compressor_bits(text, text[:2000]), compressor_bits(ABC, text)
    assert set(seen) == {"xz", "PPMd"}
    assert all(seen[name] < 1 < 6 < unseen[name] for name in seen)
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert set(compressor_bits(ABC, ABC)) == {"xz"}


def test_the_models_beside_it_are_measured_once_and_kept(trained: LanguageModel, tmp_path: Path) -> None:
    kept = trained.baselines_
    assert list(kept) == ["the network alone", "Kneser-Ney, order 7", "xz", "PPMd"]
    assert kept["Kneser-Ney, order 7"] < 0.2
    trained.save(tmp_path / "run")
    assert LanguageModel.load(tmp_path / "run").baselines_ == kept


def test_the_report_says_what_it_is_about(tmp_path: Path) -> None:
    small(epochs=2).fit(ABC, folder=tmp_path)
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Kneser-Ney, order 7",
        "What its memory is worth",
        "What surprises it",
        "What it wrote as it",
    ):
        assert words in page
    assert (tmp_path / "plots/memory.svg").is_file()


def test_its_memory_is_seen() -> None:
    model = small().fit(
        ABC, valid=ABC[1:]
    )  # its pieces begin with "b", which tells little about what follows
    places, bits = bits_by_position(model)
    assert len(places) == len(bits) > 5
    assert bits[0] > 0.4 > bits[-1]


def test_a_strange_passage_is_found() -> None:
    model = small().fit(ABC, valid=ABC[:300] + "dddddddddddd" + ABC[:300])
    passage, mean, _, worst = surprising_passages(model)[0]
    assert "ddddd" in passage and worst > mean > 0


# --- writing --------------------------------------------------------------------------------------------------------


def test_choices_leave_out_what_they_say() -> None:
    logits = torch.tensor([[0.0, 0.4, 0.2, 0.3, 0.1], [0.0, 0.1, 0.1, 0.1, 0.7]]).log()

    def kept(**options: Any) -> list[list[int]]:
        found = Choice(1.0, **options).kept(logits)
        assert torch.equal(found[found.isfinite()], logits[found.isfinite()])
        return [row.isfinite().nonzero().flatten().tolist() for row in found]

    assert kept() == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert kept(top_k=2) == [[1, 3], [1, 4]]
    assert kept(top_p=0.35) == [[1], [4]]
    assert kept(top_p=0.75) == [[1, 2, 3], [1, 4]]  # .4 and .3 are less than .75
    assert kept(min_p=0.4) == [[1, 2, 3], [4]]
    assert kept(min_p=0.4, top_k=2) == [[1, 3], [4]]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"min_p": 0.001}])
def test_draws_have_the_predicted_shares(options: dict[str, Any]) -> None:
    model = CharacterNetwork("rnn", 4, 2, 3, 1, 0.0)
    chances = torch.tensor([0.5, 0.1, 0.25, 0.15])
    torch.nn.init.zeros_(model.decode.weight)
    model.decode.bias.data = chances.log()
    for temperature in (1.0, 0.5):
        drawn = islice(write_ids(model, torch.tensor([1]), 2000, Choice(temperature, **options), 0), 10)
        shares = np.bincount(np.concatenate(list(drawn)), minlength=4) / 20000
        wanted = np.array([0, *chances[1:].tolist()]) ** (1 / temperature)
        np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.015)
    assert next(write_ids(model, torch.tensor([1]), 3, Choice(0.0, **options), 0)) == [2, 2, 2]


def test_one_step_at_a_time_is_as_the_whole(trained: LanguageModel) -> None:
    text = "ab"
    for _ in range(20):
        text += next(each for each in trained.predict(text) if each in "abcd")
    assert trained.generate(20, "ab", temperature=0) == text[2:]


def test_several_texts_are_drawn_at_once(trained: LanguageModel) -> None:
    steps = list(trained.writes(30, "ab", Choice(3.0), seed=4, samples=5))
    texts = ["".join(each) for each in zip(*steps, strict=True)]
    assert len(steps) == 30 and len(set(texts)) == 5
    again = ["".join(each) for each in zip(*trained.writes(30, "ab", Choice(3.0), 4, 5), strict=True)]
    assert again == texts


def test_what_is_written_in_bytes_is_text() -> None:
    model = small(unit="bytes", epochs=30).fit(ACCENTS)
    assert model.evaluate() < 0.5
    assert model.generate(60, "où ", temperature=0.1).startswith("çà? là! où çà?")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"min_p": 0.0}, "min_p must be above 0"),
        ({"temperature": -1.0}, "temperature of at least 0"),
        ({"length": -1}, "a length of at least 0"),
    ],
)
def test_wrong_choices_are_one_sentence(trained: LanguageModel, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        trained.generate(**options)


def test_a_wrong_unit_is_said() -> None:
    with pytest.raises(OptionError, match="unit must be 'characters', 'bytes' or 'subwords', not 'words'"):
        small(unit="words").fit(ABC)
