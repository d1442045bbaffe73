"""The parts of a translator: attention, likelihoods, search, alignment, metrics, files."""

from __future__ import annotations

import functools
import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from torch.autograd import gradcheck

from cellwise.tasks.errors import DataError
from cellwise.tasks.translate import memory, monotone
from cellwise.tasks.translate.alignment import WordPairs
from cellwise.tasks.translate.allowed import Allowed, Paths, read_allowed
from cellwise.tasks.translate.attention import SCORES, Attention
from cellwise.tasks.translate.baselines import simple_translations
from cellwise.tasks.translate.batches import Languages, collate
from cellwise.tasks.translate.likelihood import log_likelihood
from cellwise.tasks.translate.metrics import edit_distance, error_rates, measure_texts, signatures
from cellwise.tasks.translate.near import NearSources
from cellwise.tasks.translate.network import (
    BEGIN,
    END,
    NO_COPY,
    Pairs,
    TranslateNetwork,
    TranslateSizes,
)
from cellwise.tasks.translate.pairs import TextPairs, as_pairs, bundled, hold_out, read_pairs, read_sources
from cellwise.tasks.translate.searching import beam_search, greedy_search
from cellwise.tasks.translate.vocabulary import JOINER, Vocabulary, choose_unit, cut, joined
from cellwise.tasks.translate.writer import Writer

VOCABULARY = 6  # of the targets: three signs, three words


def network(cell: str = "gru", **changed: Any) -> TranslateNetwork:
    """A small network with large weights, so that its distributions are far from even."""
    given = {"sources": 7, "targets": VOCABULARY, "embedding_size": 5, "hidden_size": 6, "num_layers": 1}
    given |= {"upper_layers": 1, "attention": "general", "copy": False, "tied": True, "shared": False}
    given |= {"dropout": 0.0, "word_dropout": 0.0, "smoothing": 0.0, "guide": 0.0}
    torch.manual_seed(3)
    made = TranslateNetwork(cell, TranslateSizes(**(given | changed))).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight *= 2
        cover = getattr(made.attention, "cover", None)
        if cover is not None:
            cover.weight.uniform_(-2, 1)
    if made.lexicon is not None:
        made.lexicon.learn(WordPairs.learn([[3, 4], [4, 6], [3, 6]] * 2, [[3, 5], [5, 4], [3, 4]] * 2), END)
    return made


def pairs() -> Pairs:
    """Three sources; the second holds a word that the targets' vocabulary lacks, and so does its target."""
    nothing = NO_COPY
    return Pairs(
        torch.tensor([[3, 6, 4], [4, 5, 2], [5, 2, 2], [2, 2, 2]]),
        torch.tensor([4, 3, 2]),
        torch.tensor([[3, 6, 4], [4, 5, 2], [5, 2, nothing], [2, nothing, nothing]]),
        torch.tensor([[3, 6, 5], [4, 5, 2], [2, 2, 2]]),
        torch.tensor([3, 3, 2]),
    )


def row(batch: Pairs, number: int) -> Pairs:
    """One pair as a batch of its own, without padding."""
    s, t = int(batch.source_lengths[number]), int(batch.target_lengths[number])
    one = slice(number, number + 1)
    return Pairs(
        batch.sources[:s, one], batch.source_lengths[one], batch.copies[:s, one], batch.targets[:t, one],
        batch.target_lengths[one],
    )  # fmt: skip


FORMS: dict[str, dict[str, Any]] = {
    "plain": {"upper_layers": 0},
    "upper": {},
    "copy": {"copy": True},
    "additive": {"attention": "additive", "num_layers": 2},
    "dot": {"attention": "dot", "tied": False, "hidden_size": 5},
    "lstm": {"cell": "lstm"},
    "lexicon": {"lexicon": True, "copy": True, "upper_layers": 0},
    "coverage": {"coverage": 0.5, "attention": "additive"},
    "fed": {"input_feeding": True, "coverage": 0.5, "cell": "lstm"},
}
IN_TURN: dict[str, Any] = {"attention": "monotone"}


@pytest.mark.parametrize("form", FORMS)
def test_padding_never_leaks(form: str) -> None:
    made, batch = network(**FORMS[form]), pairs()
    together = made.likelihoods(batch)
    alone = torch.cat([made.likelihoods(row(batch, number)) for number in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    beyond = batch.sources.clone()
    beyond[3, 1:], beyond[2, 2] = 5, 6  # what stands beyond the ends
    other = Pairs(beyond, batch.source_lengths, batch.copies, batch.targets, batch.target_lengths)
    assert torch.equal(made.likelihoods(other), together)


@pytest.mark.parametrize("form", ["plain", "additive", "lstm", "lexicon", "coverage", "fed"])
def test_gradients(form: str) -> None:
    made = network(**FORMS[form] | {"smoothing": 0.2, "guide": 0.5})
    told = torch.rand(3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = pairs()
    told[:, 2:, 2] = told[:, 3:, 1] = 0.0
    batch = Pairs(
        batch.sources, batch.source_lengths, batch.copies, batch.targets, batch.target_lengths, told
    )
    names = [name for name, _ in made.named_parameters()]

    def loss(*weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            made, dict(zip(names, weights, strict=True)), kwargs={"batch": batch}
        )

    made.forward = made.loss  # type: ignore[method-assign]
    weights = tuple(weight.detach().clone().requires_grad_() for weight in made.parameters())
    assert gradcheck(loss, weights, fast_mode=True)


def test_likelihood_is_that_of_the_whole_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in (150, 2000))
    bias = torch.randn(2000, dtype=torch.float64, generator=generator)
    targets = torch.randint(2000, (150,), generator=generator)  # more rows than a block has
    given = [each.requires_grad_() for each in (states, weight, bias)]
    own, mean = log_likelihood(*given, targets)
    found = torch.autograd.grad((own * own).sum() + mean.cos().sum(), given)
    logs = (states @ weight.T + bias).log_softmax(-1)
    real, middle = logs.gather(1, targets[:, None])[:, 0], logs.mean(1)
    torch.testing.assert_close(own, real)
    torch.testing.assert_close(mean, middle)
    for a, b in zip(found, torch.autograd.grad((real * real).sum() + middle.cos().sum(), given), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("score", SCORES)
def test_attention_sums_to_one_over_the_source(score: str) -> None:
    torch.manual_seed(0)
    made, memory = Attention(score, 4), torch.randn(2, 5, 4)
    weights = made(torch.randn(2, 3, 4), made.keys(memory), torch.tensor([5, 2]), None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert (weights[1, :, 2:] == 0).all() and (weights[1, :, :2] > 0).all()


# --- search -----------------------------------------------------------------------------------------------------


def every_translation(
    made: TranslateNetwork, pair: Pairs, limit: int, penalty: float
) -> list[tuple[float, Any]]:
    """Score and ids of all translations within a limit, the best first."""
    longest = int(pair.copies.max()) + 1 if made.sizes.copy else 0
    words = [word for word in range(max(VOCABULARY, longest)) if word != END]
    found = []
    for length in range(limit):
        for ids in itertools.product(words, repeat=length):
            target = torch.tensor([*ids, END])[:, None]
            given = Pairs(pair.sources, pair.source_lengths, pair.copies, target, torch.tensor([length + 1]))
            found.append((float(likelihood_of(made, given).sum()) / (length + 1) ** penalty, ids))
    return sorted(found, key=lambda each: -each[0])


def likelihood_of(made: TranslateNetwork, pair: Pairs) -> torch.Tensor:
    """Log-probabilities, a word at a time by the kernels' single steps."""
    before = torch.cat([torch.tensor([[BEGIN]]), pair.targets[:-1]])
    return distributions_of(made, pair, before).gather(1, pair.targets)[:, 0]


def distributions_of(made: TranslateNetwork, pair: Pairs, before: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of all words (T, V'), given the words before (T, 1)."""
    source, state = made.encode(pair.sources, pair.source_lengths, pair.copies)
    writer = Writer(made, source, state, 1)
    scores = torch.cat([writer.step(word[None])[0][0] for word in before])
    return scores.log_softmax(-1) if made.gate is None else scores


@pytest.mark.parametrize("form", ["plain", "fed"])
def test_sampling_reads_the_words_that_the_network_would_write(form: str) -> None:
    made, batch = network(**FORMS[form] | {"coverage": 0.0}), pairs()
    with torch.no_grad():
        loss = made.loss(row(batch, 0), sampling=1.0)
        true = torch.tensor([[BEGIN], *row(batch, 0).targets[:-1].tolist()])
        own = distributions_of(made, row(batch, 0), true).argmax(-1)[:, None]
        read = torch.cat([true[:1], own[:-1]])
        real = distributions_of(made, row(batch, 0), read).gather(1, row(batch, 0).targets)
    assert not torch.equal(read, true)
    assert float(loss) == pytest.approx(float(-real.mean()))


@pytest.mark.parametrize("form", ["copy", "lexicon"])
def test_all_ways_together_sum_to_one(form: str) -> None:
    made, pair = network(**FORMS[form]), row(pairs(), 1)
    with torch.no_grad():
        made_up = distributions_of(made, pair, torch.tensor([[BEGIN], [6], [0]])).exp()
    torch.testing.assert_close(made_up.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("form", ["plain", "upper", "copy", "lexicon", "coverage", "fed"])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(form: str) -> None:
    made, batch = network(**FORMS[form]), pairs()
    limits = torch.tensor([3, 3, 2])
    with torch.no_grad():
        for penalty in (0.0, 1.0):
            found = beam_search(made, batch, limits, beams=60, count=60, length_penalty=penalty)
            for number, own in enumerate(found):
                pair = row(batch, number)
                best = every_translation(made, pair, int(limits[number]), penalty)
                assert [each.ids for each in own] == [ids for _, ids in best]
                assert [each.score for each in own] == pytest.approx([score for score, _ in best])


@pytest.mark.parametrize("form", ["plain", "upper", "copy", "fed"])
def test_a_memory_is_mixed_in_at_every_word(form: str) -> None:
    """Every score is that of a word-by-word sum, in which the memory has its share."""
    made, batch = network(**FORMS[form]), pairs()
    draw = torch.Generator().manual_seed(1)
    states = torch.tanh(torch.randn(3, 4, 5, dtype=torch.float64, generator=draw))
    words = torch.tensor([[3, 4, END, 0], [5, 3, 3, END], [0, 0, 0, 0]])
    alike = torch.tensor([[0.9, 0.9, 0.4, 0.0], [0.5, 0.6, 0.6, 0.2], [0.0] * 4], dtype=torch.float64)
    shares = torch.linspace(0.1, 0.9, memory.SHARES[0] * memory.SHARES[1]).double().view(memory.SHARES)
    recall = memory.Recall(memory._Place(states, words, alike), shares, 2.0)
    with torch.no_grad():
        found = beam_search(made, batch, torch.tensor([3, 3, 2]), beams=30, count=30, recall=recall)
        free = beam_search(made, batch, torch.tensor([3, 3, 2]), beams=30, count=30)
        for number, own in enumerate(found):
            pair, seen = row(batch, number), []
            for each in own:
                ids = torch.tensor([*each.ids, END])
                given = Pairs(
                    pair.sources, pair.source_lengths, pair.copies, ids[:, None], torch.tensor([len(ids)])
                )
                chances = distributions_of(
                    made, given, torch.tensor([[BEGIN], *ids[:-1, None].tolist()])
                ).exp()
                total = 0.0
                for step, state in enumerate(made.states(given)):
                    away = ((states[number] - state) ** 2).sum(-1) / 2.0
                    near = [n for n in range(4) if alike[number, n] > 0]
                    weights = {n: float(alike[number, n] ** 2 * torch.exp(-away[n])) for n in near}
                    told = sum(w for n, w in weights.items() if words[number, n] == ids[step])
                    level = sum(float(alike[number].max()) > bound for bound in memory.ALIKE)
                    farther = sum(min((float(away[n]) for n in near), default=9e9) > b for b in memory.AWAY)
                    share = float(shares[level, farther]) if near else 0.0
                    mixed = (1 - share) * float(chances[step, ids[step]])
                    total += math.log(mixed + share * told / max(sum(weights.values()), 1e-300))
                seen.append(total / len(ids))
            assert [each.score for each in own] == pytest.approx(seen)
        assert found[2] == free[2] and found[0] != free[0]  # the last source has nothing near


def test_shares_are_the_likeliest() -> None:
    """Words of two kinds of places; the memory is right in one and wrong in the other, and says nothing of a third."""
    draw = np.random.default_rng(0)
    cell = np.repeat([0, 4, 8], 4000)
    right = np.select([cell == 0, cell == 4], [0.7, 0.1], 0.0)
    told = np.where(draw.random(len(cell)) < right, 1.0, 0.0)
    own = np.full(len(cell), 0.2)
    found = memory._learned(own, told, cell)
    for kind in (0, 4):
        grid = np.linspace(0, 0.99, 400)
        here = cell == kind
        likely = [np.log((1 - share) * own[here] + share * told[here] + 1e-300).sum() for share in grid]
        assert found[kind] == pytest.approx(grid[int(np.argmax(likely))], abs=0.02)
    assert found[8] < 0.01 and found[0] > 0.5
    assert found[9] == pytest.approx(found[0], abs=0.02)  # of the same distance, and no word has been seen


def test_near_sources_are_those_of_the_largest_cosine() -> None:
    sources = ["a b c", "a b d", "x y", "a b c", "x a"]
    near = NearSources(sources, "symbols")
    found = near.find("a b c", 3)
    assert [number for number, _ in found] == [0, 3, 1] and found[0][1] == pytest.approx(1.0)
    assert near.find("q") == [] and len(near.find("a x y", 9)) == 5
    weights = {"a": math.log(5 / 4), "x": math.log(5 / 2), "y": math.log(5), "x y": math.log(5)}
    lengths = [sum(weights[f] ** 2 for f in own) for own in (["x", "y", "x y"], ["x", "y", "x y"])]
    assert near.find("x y")[0] == (2, pytest.approx(lengths[0] / math.sqrt(lengths[0] * lengths[1])))


ALLOWED = [[3], [4], [4, 5], [5, 4]]  # one begins another


@pytest.mark.parametrize(("form", "whole"), [("plain", False), ("copy", False), ("fed", True)])
def test_a_wide_beam_finds_all_that_is_allowed(form: str, whole: bool) -> None:
    made, batch, limits = network(**FORMS[form]), pairs(), torch.tensor([3, 3, 3])
    texts = {
        0: ALLOWED,
        1: [*ALLOWED, [6]] if form == "copy" else ALLOWED,
    }  # the second source has the word 6
    allowed = [Paths(texts[0], whole), Paths(texts[1], whole), None]
    with torch.no_grad():
        found = beam_search(made, batch, limits, beams=40, count=40, allowed=allowed)
        greedy = greedy_search(made, batch, limits, allowed)
        for number, own in texts.items():
            counts = (1,) if whole else (1, 2)
            every = (each for n in counts for each in itertools.product(own, repeat=n))
            right = {tuple(itertools.chain(*each)) for each in every}
            best = [ids for _, ids in every_translation(made, row(batch, number), 3, 1.0) if ids in right]
            assert [each.ids for each in found[number]] == best and len(best) >= 4
            assert greedy[number].ids in best
        free = beam_search(made, batch, limits, beams=40, count=40)
    assert found[2] == free[2] and found[0] != free[0]


def test_a_text_may_begin_another() -> None:
    paths = Paths([[4], [4, 5], [5, 4]], whole=False)
    for ids, is_whole in (
        ((4, 5), True),
        ((4, 5, 4), True),
        ((5,), False),
        ((4, 4, 5, 5), False),
        ((4, 5, 5, 4), True),
    ):
        state = 0
        for number in ids:
            state = paths.follow(state)[number]
        assert (END in paths.offered(state, 9)) is is_whole and (paths.left(state) == 0) is is_whole
    assert paths.offered(0, 0) == [4] and set(paths.offered(0, 1)) == {4, 5}  # 5 needs another


def test_what_is_allowed_has_room_to_end() -> None:
    made, batch = network(upper_layers=0), pairs()
    paths = Paths([[3, 4, 5, 3, 4]], whole=True)
    with torch.no_grad():
        for each in beam_search(made, batch, torch.ones(3, dtype=torch.long), beams=2, allowed=[paths] * 3):
            assert [own.ids for own in each] == [(3, 4, 5, 3, 4)]
        (one, *_) = greedy_search(made, batch, torch.ones(3, dtype=torch.long), [paths] * 3)
    assert one.ids == (3, 4, 5, 3, 4)


def test_what_may_be_written(tmp_path: Path) -> None:
    known = Vocabulary.learn(["a b , c"], "words", 100)
    languages = Languages(known, known, copies=True)
    plain, with_name = languages.rows(["a b", "a Rome"])
    allowed = Allowed(["a b", "Rome", ","], languages, whole=False)
    first, other = allowed.paths("a b", plain), allowed.paths("a Rome", with_name)
    assert first is not None and other is not None and allowed.paths("", plain) is first
    assert set(first.follow(0)) == {known.id_of("a"), known.id_of(",")}
    assert set(other.follow(0)) == {*first.follow(0), len(known)}  # Rome can be copied
    (tmp_path / "some").write_text("x\ta\nx\tb\ny\tOslo\n", "utf8")
    own = Allowed(read_allowed(tmp_path / "some"), languages, whole=True)
    assert own.paths("z", plain) is None
    with pytest.raises(
        DataError, match=r"nothing that is allowed for 'y' can be written: the vocabulary .* lacks 'Oslo'"
    ):
        own.paths("y", plain)
    (tmp_path / "both").write_text("x\ta\nb\n", "utf8")
    with pytest.raises(DataError, match="in each line a text, or in each line a source, a tab and a text"):
        read_allowed(tmp_path / "both")
    assert Vocabulary("words").forms(",") == [[f"{JOINER},{JOINER}"], [f"{JOINER},"], [f",{JOINER}"], [","]]
    pieces = Vocabulary.learn(["so, so", "so, so"], "subwords", 300)
    assert [pieces.text([b"so", *form]) for form in pieces.forms(",")] == ["so ,", "so,"]


@pytest.mark.parametrize("form", ["plain", "copy", "lexicon", "coverage", "fed"])
def test_single_steps_are_the_whole_call(form: str) -> None:
    made, batch = network(**FORMS[form]), pairs()
    chosen = (0, 1, 2) if made.sizes.copy else (0, 2)  # without copies nothing writes the word of the second
    with torch.no_grad():
        whole = torch.cat([made.likelihoods(row(batch, number)) for number in chosen])
        steps = torch.cat([likelihood_of(made, row(batch, number)) for number in chosen])
    torch.testing.assert_close(whole, steps, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", ["upper", "copy"])
def test_a_beam_of_one_is_greedy(form: str) -> None:
    made, batch = network(**FORMS[form]), pairs()
    limits = torch.tensor([9, 5, 7])
    with torch.no_grad():
        greedy = greedy_search(made, batch, limits)
        beams = beam_search(made, batch, limits, beams=1)
    for own, (best,), limit in zip(greedy, beams, limits.tolist(), strict=True):
        assert own.ids[: limit - 1] == best.ids and own.places[: limit - 1] == best.places


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["He said: (yes).", 'A "quoted" rock-solid thing, 3.5 %!', "don't", "¿Qué?", "a...b ''x''", ""]
)
def test_words_are_had_back(text: str) -> None:
    assert joined(cut(text)) == text
    assert all(piece.strip(JOINER) for piece in cut(text))


def test_units_are_chosen_by_the_texts() -> None:
    sentences = [f"word{number} and word{number + 1}." for number in range(300)]
    assert choose_unit(sentences) == "subwords"
    assert choose_unit(["HH AH L", "W ER"]) == "symbols"
    assert choose_unit(["hello", "New York", "Oslo"]) == "characters"
    with pytest.raises(DataError, match="no word in the texts of one side"):
        choose_unit(["", " "])


@pytest.mark.parametrize("unit", ["words", "symbols", "characters", "subwords"])
def test_vocabularies_are_had_back(unit: str) -> None:
    texts = ["the cat sat", "the cat, the mat"] * 3
    made = Vocabulary.learn(texts, unit, 300)
    again = Vocabulary.restored(made.stored())
    assert again == made and len(again) == len(made)
    ((*pieces,),) = made.cut(["the cat"])
    ids = [made.id_of(piece) for piece in pieces]
    assert None not in ids and again.text([again.piece(number) for number in ids if number]) == "the cat"


def test_a_word_that_the_targets_lack_is_copied_by_its_own_number() -> None:
    source, target = (Vocabulary.learn(texts, "words", 100) for texts in (["a b Rome"], ["x y"]))
    languages = Languages(source, target, copies=True)
    (made,) = languages.pairs(TextPairs(("a Rome Oslo",), ("x Oslo z",))).values()
    size = len(target)
    assert made.copies.tolist() == [size, size + 1, size + 2, END]
    assert made.target.tolist() == [target.id_of("x"), size + 2, 0, END]
    assert languages.pieces(made, ["a", "Rome", "Oslo"], [size + 2, 0], [0, 1]) == ["Oslo", "Rome"]


def test_counting_finds_which_word_belongs_to_which() -> None:
    made = WordPairs.learn([[0, 1], [0, 2], [1, 2]] * 5, [[5, 6], [7, 5], [7, 6]] * 5)
    assert made.best() == {0: 5, 1: 6, 2: 7}
    ids, chances = made.likeliest(4, 2)
    assert ids[:3, 0].tolist() == [5, 6, 7] and (chances[:3, 0] > 0.9).all() and (chances[3] == 0).all()
    told = made.aligned(np.array([[0], [1]]), np.array([[6], [5], [9]]))
    assert told.shape == (3, 2, 1) and told[0, 1, 0] > 0.9 and told[1, 0, 0] > 0.9
    assert told.sum(1)[:, 0].tolist() == pytest.approx([1, 1, 0])  # nobody knows 9
    nothing = WordPairs.learn([], [])
    for method in (nothing.aligned, nothing.by_others):
        assert method(np.zeros((2, 1)), np.zeros((3, 1))).shape == (3, 2, 1)


def test_a_pair_is_told_what_the_others_say() -> None:
    known = [[[0, 1], [5, 6]], [[0, 2], [5, 7]], [[0, 3], [5, 8]], [[0], [5]]]
    made = WordPairs.learn(*zip(*known, strict=True))
    said = made.by_others(np.array([[0], [1]]), np.array([[5], [6], [9]]))[:, :, 0]
    assert said[0, 0] > 0.9 and made.aligned(np.array([[1]]), np.array([[6]])) == 1
    assert said[1, 1] < 0.01 and (said[2] == 0).all()  # 1 and 6 stand in this pair alone
    assert (made.by_others(np.array([[99]]), np.array([[5]])) == 0).all()


def test_simple_translations() -> None:
    known = TextPairs(("the cat", "the dog", "a dog"), ("die Katze", "der Hund", "ein Hund"))
    made = simple_translations(known, ["the cat sleeps"], ("words", "words"))
    assert made["copy"] == ["the cat sleeps"] and made["translation memory"] == ["die Katze"]
    assert made["IBM model 1"][0].split()[1:] == ["Katze", "sleeps"]


# --- metrics ----------------------------------------------------------------------------------------------------


def test_errors_are_counted_against_the_best_of_several_targets() -> None:
    known = TextPairs(("a", "a", "b"), ("EY", "AH T", "B IY"))
    assert edit_distance(["AH", "T"], ["EY"]) == 2
    right = error_rates(known, ["AH T", "AH T", "B"], by_letter=False)
    assert right == {"word_error_rate": 0.5, "symbol_error_rate": 1 / 4, "exact_match": 0.5}
    letters = error_rates(TextPairs(("a",), ("abc",)), ["abd"], by_letter=True)
    assert letters["symbol_error_rate"] == pytest.approx(1 / 3)


def test_bleu_and_chrf_are_sacrebleus() -> None:
    texts = ("the cat sat on the mat today", "a dog barks at the moon")
    found = measure_texts(TextPairs(("x", "y"), texts), list(texts), by_letter=False)
    assert found["bleu"] == pytest.approx(100) and found["chrf"] == pytest.approx(100)
    assert "tok:13a" in signatures()["bleu"] and "nrefs:1" in signatures()["chrf"]
    assert all(math.isnan(value) for value in measure_texts(TextPairs((), ()), [], by_letter=False).values())


# --- files ------------------------------------------------------------------------------------------------------


def test_files_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one\tuno\n\ntwo\tdos\r\n", "utf8")
    (tmp_path / "a.en").write_text("one\ntwo\n", "utf8")
    (tmp_path / "a.es").write_text("uno\ndos", "utf8")
    wanted = TextPairs(("one", "two"), ("uno", "dos"))
    assert read_pairs(tmp_path / "a.tsv") == wanted
    assert read_pairs(f"{tmp_path / 'a.en'},{tmp_path / 'a.es'}") == wanted
    assert as_pairs(tmp_path / "a.en", tmp_path / "a.es") == wanted
    assert as_pairs([("one", "uno"), ["two", "dos"]]) == as_pairs(["one", "two"], ["uno", "dos"]) == wanted


def test_tables_of_pairs(tmp_path: Path) -> None:
    wanted = TextPairs(("one, two", "three"), ("uno, dos", "tres"))
    (tmp_path / "a.csv").write_text('English;Spanish\n"one, two";"uno,\ndos"\nthree;tres\n;\n', "utf8")
    frame = polars.DataFrame({"id": [1, 2], "target": wanted.targets, "source": wanted.sources})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.drop("id").write_ndjson(tmp_path / "a.jsonl")
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        assert read_pairs(tmp_path / name) == read_sources(tmp_path / name) == wanted, name
    (tmp_path / "b.csv").write_text("English\none\n", "utf8")
    assert read_sources(tmp_path / "b.csv") == ("one",)
    (tmp_path / "c.csv").write_text("one\tuno\n", "utf8")  # a pair a line, whatever its name
    assert read_pairs(tmp_path / "c.csv") == TextPairs(("one",), ("uno",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,en,es\n1,one,uno\n", "of more than two, one is to be named 'source'"),
        ("en,es\none,uno\ntwo,\n", "has a target without text at line 3"),
        ("en\none\n", "needs a column of sources and one of targets"),
    ],
)
def test_what_is_no_table_of_pairs_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, "utf8")
    with pytest.raises(DataError, match=said):
        read_pairs(tmp_path / "a.csv")


BAD: dict[str, tuple[Any, str]] = {
    "no tab": ("one uno\n", "line 1 of .* has no tab; a line is a source, one tab, and its target"),
    "two tabs": ("one\tuno\t1\n", "line 1 of .* has 2 tabs; .*cut -f1,2 .*keeps the first two columns"),
    "nothing": ("\n", "holds no pairs"),
    "no text": ([("one", 1)], "pair 1 must be two texts"),
    "a number": (7, "must be a list of .source, target., not 7"),
    "none": ([], "there are no pairs for training"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_are_no_pairs_is_said(case: str, tmp_path: Path) -> None:
    given, sentence = BAD[case]
    if isinstance(given, str):
        (tmp_path / "bad.tsv").write_text(given, "utf8")
        given = tmp_path / "bad.tsv"
    with pytest.raises(DataError, match=sentence):
        as_pairs(given)


def test_files_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n", "utf8")
    (tmp_path / "b").write_text("uno\n", "utf8")
    with pytest.raises(DataError, match=r"a has 2 lines and .*b 1; aligned files have equally many"):
        read_pairs(f"{tmp_path / 'a'},{tmp_path / 'b'}")


def test_all_targets_of_a_source_stay_together() -> None:
    known = TextPairs(tuple(f"s{n // 2}" for n in range(80)), tuple(f"t{n}" for n in range(80)))
    parts = hold_out(known)
    assert parts.validation is not None and parts.test is not None
    sides = [set(part.sources) for part in (parts.training, parts.validation, parts.test)]
    assert sum(map(len, sides)) == 40 and [len(side) for side in sides] == [32, 4, 4]
    assert hold_out(known.rows(range(30))).validation is None


def test_bundled_verses() -> None:
    assert len(bundled()) == 2056 + 87 + 130 and len(bundled("test")) == 130
    assert not set(bundled("test").sources) & set(bundled("train").sources)


def test_a_batch_is_told_alignments_within_its_sentences() -> None:
    words = Vocabulary.learn(["a b c"], "symbols", 50)
    pairs = TextPairs(("a b c", "a"), ("a b", "a"))
    rows = list(Languages(words, words, copies=False).pairs(pairs).values())
    made = collate(rows, WordPairs.learn([[3, 4], [3], [4]] * 3, [[3, 4], [3], [4]] * 3), lexical=True)
    told, said = made.alignments, made.lexical
    assert said is not None and said[:, :, 0].diagonal().tolist()[:2] == pytest.approx([1, 1], abs=0.1)
    assert said[2, :, 0].tolist() == [0, 0, 0, 1] and said[1, :, 1].tolist() == [0, 1, 0, 0]  # the ends
    assert told is not None and told.shape == (3, 4, 2)
    assert told[0, 0, 0] > 0.5 and (told[:, 3:, 0] == 0).all() and (told[1:, :, 1] == 0).all()


# --- each piece of the source in its turn -----------------------------------------------------------------------------


def _ways(letters: int, sounds: int, widest: int) -> list[list[int]]:
    """All ways to cut so many sounds into as many chunks as there are letters: the widths."""
    every = itertools.product(range(widest + 1), repeat=letters)
    return [list(widths) for widths in every if sum(widths) == sounds]


def _entries(table: monotone._Table, letters: list[int], sounds: list[int], widths: list[int]) -> np.ndarray:
    keys = [
        letter * 9 + functools.reduce(lambda number, sound: number * 3 + sound + 1, chunk, 0)
        for letter, chunk in zip(letters, monotone._chunks(sounds, widths), strict=True)
    ]
    return np.searchsorted(table.keys, keys) + 2


def test_expected_counts_and_the_likeliest_cut_are_those_of_all_cuts() -> None:
    generator = random.Random(0)
    pairs = {}
    for number in range(12):
        letters = [generator.randrange(3) for _ in range(generator.randint(1, 4))]
        pairs[number] = (
            letters,
            [generator.randrange(2) for _ in range(generator.randint(0, 2 * len(letters)))],
        )
    table = monotone._Table(2, 2)
    batch = monotone._Batch(table, pairs, list(pairs))
    table.learn([batch])
    counts = np.zeros(len(table.chances))
    best = []
    for letters, sounds in pairs.values():
        weights, entries = [], []
        for widths in _ways(len(letters), len(sounds), 2):
            entries.append(_entries(table, letters, sounds, widths))
            weights.append(table.chances[entries[-1]].prod())
        for own, weight in zip(entries, weights, strict=True):
            np.add.at(counts, own, weight / sum(weights))
        best.append(max(weights))
    np.testing.assert_allclose(batch.expected(batch.placed())[2:], counts[2:], atol=1e-9)
    for (letters, sounds), widths, chance in zip(pairs.values(), batch.likeliest(), best, strict=True):
        assert widths is not None
        assert table.chances[_entries(table, letters, sounds, widths)].prod() == pytest.approx(chance)


def test_targets_are_cut_into_what_each_letter_writes() -> None:
    spoken = {"x": "K S", "s": "S", "h": "HH", "a": "AA", "t": "T", "e": ""}
    generator = random.Random(1)
    words = [generator.choices(list(spoken), k=generator.randint(2, 6)) for _ in range(200)]
    aligner = monotone.Aligner(words, [" ".join(spoken[c] for c in word).split() for word in words])
    found = aligner.cut(
        [list("taxes"), list("q"), list("ta")], [["T", "AA", "K", "S", "S"], ["K"], ["T"] * 5]
    )
    assert found == [[("T",), ("AA",), ("K", "S"), (), ("S",)], None, None]


def test_of_few_pairs_chunks_are_kept_that_are_rare() -> None:
    plain = [list("sat"), list("hat"), list("eta"), list("hasta")] * 40
    spoken = {"x": "K S", "q": "K W", "s": "S", "h": "HH", "a": "AA", "t": "T", "e": ""}

    def cut(rare: list[str], plain: list[list[str]]) -> list[list[tuple[str, ...]] | None]:
        words = [*plain, *map(list, rare)]
        aligner = monotone.Aligner(words, [" ".join(spoken[c] for c in word).split() for word in words])
        return aligner.cut([list("tax"), list("qat")], [["T", "AA", "K", "S"], ["K", "W", "AA", "T"]])  # type: ignore[return-value]

    wanted = [("T",), ("AA",), ("K", "S")]
    assert cut(["tax", "ax", "qat"], plain) == [wanted, None]  # twice, and once
    many = [*plain, *([list("hat"), list("sat")] * 5000)]
    assert cut(["tax", "ax"] * 2 + ["qat"], many) == [None, None]  # five times are asked of 10,000 pairs
    assert cut(["tax", "ax", "xa"] * 2, many)[0] == wanted


def test_the_end_of_a_source_writes_the_end_and_nothing_else_does() -> None:
    made, batch = network(**IN_TURN), pairs()
    lengths = batch.source_lengths
    with torch.no_grad():
        made.bias[END] += 10  # it would be written at once
        greedy = greedy_search(made, batch, lengths)
        searched = beam_search(made, batch, lengths, beams=3, count=3, length_penalty=1.0)
    for length, first, others in zip(lengths.tolist(), greedy, searched, strict=True):
        for each in (first, *others):
            assert (
                END not in each.ids
                and each.places == tuple(range(length - 1))
                and len(each.ids) == length - 1
            )
        assert len(others) == 3 and len({each.ids for each in others}) == 3
