"""The pieces of speech recognition, each against its definition."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cellwise.tasks.data.kneser_ney import KneserNey
from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.alignment import align, steps_needed, words_of
from cellwise.tasks.speech.arpa import read_arpa
from cellwise.tasks.speech.augment import masked, noisy
from cellwise.tasks.speech.data import Known
from cellwise.tasks.speech.decoding import Beam, best_path, collapse
from cellwise.tasks.speech.features import FeatureStream, LogMel
from cellwise.tasks.speech.language import CharacterLanguage, Language
from cellwise.tasks.speech.metrics import Errors, count_errors, edits
from cellwise.tasks.speech.network import PlainNetwork, Sizes, SpeechNetwork
from cellwise.tasks.speech.network_language import NetworkLanguage
from cellwise.tasks.speech.objective import mean_loss, padded
from cellwise.tasks.speech.resampling import Resampler, ResamplerStream
from cellwise.tasks.speech.stored import rebuild, stored
from cellwise.tasks.speech.transcripts import Alphabet, normalize
from cellwise.tasks.speech.words import WordLanguage, WordModel, WordNGram
from cellwise.tasks.text.network import CharacterNetwork


def tone(frequency: float, rate: int, count: int) -> torch.Tensor:
    return (2 * math.pi * frequency / rate * torch.arange(count, dtype=torch.float64)).sin().float()


@pytest.mark.parametrize(
    ("source", "target"), [(44_100, 8_000), (22_050, 16_000), (8_000, 16_000), (44_099, 8_000)]
)
def test_a_resampled_tone_is_that_tone_and_what_is_too_high_is_gone(source: int, target: int) -> None:
    resample = Resampler(source, target)
    made = resample(tone(900.0, source, source // 4))
    assert len(made) == math.ceil(source // 4 * target / source)
    inner = slice(200, -200)
    assert torch.allclose(made[inner], tone(900.0, target, len(made))[inner], atol=2e-4)
    if source > target:
        high = resample(tone(0.55 * target, source, source // 4))
        assert float(high[inner].abs().max()) < 1e-3


@pytest.mark.parametrize(("source", "target"), [(22_050, 8_000), (8_000, 16_000), (8_000, 8_000)])
def test_a_resampled_stream_is_the_whole(source: int, target: int) -> None:
    torch.manual_seed(0)
    samples = torch.randn(3001)
    stream, parts = ResamplerStream(source, target), []
    for size in (1, 10, 0, 990, 500, 1500):
        parts.append(stream.feed(samples[:size]))
        samples = samples[size:]
    parts.append(stream.end())
    torch.manual_seed(0)
    assert torch.allclose(torch.cat(parts), Resampler(source, target)(torch.randn(3001)), atol=1e-6)


def test_features_of_a_stream_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    samples, mel = 0.1 * torch.randn(4000), LogMel(8000, 24)
    for count in (4000, 150, 1):
        stream = FeatureStream(mel)
        pieces = [stream.feed(piece) for piece in samples[:count].split(77)]
        whole = mel(samples[:count])
        assert whole.shape == (mel.count(count), 24)
        assert torch.allclose(torch.cat([*pieces, stream.end()]), whole, atol=1e-4)


def test_a_band_is_where_its_tone_is_and_speed_moves_it() -> None:
    mel = LogMel(8000, 40)
    slow, fast = tone(1000.0, 8000, 8000), tone(1200.0, 8000, 8000)
    assert len(mel(slow, 1.25)) == 79 and len(mel(slow)) == 98
    assert mel(slow).mean(0).argmax() < mel(slow, 1.2).mean(0).argmax() == mel(fast).mean(0).argmax()


def test_speed_is_that_of_a_recording_played_faster() -> None:
    torch.manual_seed(0)
    samples = torch.randn(40_000).cumsum(0).diff(n=1) * 0.1 + 0.2 * tone(700.0, 8000, 39_999)
    mel = LogMel(8000, 20)
    faster = Resampler(9600, 8000)(samples)  # every 1.2th sample
    wanted, made = (values.exp().mean(0).log() for values in (mel(faster), mel(samples, 1.2)))
    assert torch.allclose(
        made[:-1], wanted[:-1], atol=0.3
    )  # the last band reaches where nothing was recorded
    assert not torch.allclose(mel(samples).exp().mean(0).log()[:-1], wanted[:-1], atol=0.3)


def test_masks_hide_whole_bands_and_moments_and_noise_keeps_the_length() -> None:
    torch.manual_seed(3)
    made = masked(torch.ones(100, 40))
    hidden = made == 0
    rows, columns = hidden.all(1), hidden.all(0)
    assert 0 < hidden.sum() < 3000
    assert hidden.equal(rows[:, None] | columns)
    sound = tone(500.0, 8000, 800)
    loud = noisy(sound)
    assert loud.shape == sound.shape and not loud.equal(sound)
    assert torch.isfinite(noisy(torch.zeros(80))).all()


def random_scores(steps: int, classes: int, seed: int) -> np.ndarray:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(steps, classes, generator=draw).mul(2).log_softmax(-1).numpy()


def all_texts(scores: np.ndarray) -> dict[tuple[int, ...], float]:
    """Text -> its probability, the sum over all paths."""
    found: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        found[tuple(collapse(path))] += math.exp(sum(scores[t, k] for t, k in enumerate(path)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_the_exhaustive_search(seed: int) -> None:
    scores = random_scores(5, 3, seed)
    wanted = all_texts(scores)
    ranked = Beam(1000, unlikely=-math.inf, most_likely=99).ranked(scores)
    assert {tuple(text) for text, _ in ranked} == set(wanted)
    for text, score in ranked:
        assert score == pytest.approx(math.log(wanted[tuple(text)]), abs=1e-6)


CHARACTERS = " ab"
SENTENCES = ["ab a", "abb", "b ab a", "a b"]
ARPA = """made by hand

\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.4
-0.7\t</s>
-0.5\tab\t-0.2
-0.6\ta

\\2-grams:
-0.3\t<s> ab
-0.1\tab a
-0.2\ta </s>

\\end\\
"""


def spelled_by(language: Language, text: str) -> list[float]:
    """The log-probability of each character behind those before it, and of the end."""
    made, context = [], language.start
    for character in text:
        chance, context = language.following(context, character)
        made.append(chance)
    return [*made, language.end(context)]


def characters_say(text: str) -> float:
    """By the probabilities of n-grams, without `CharacterLanguage`."""
    numbers = [CHARACTERS.index(each) + 1 for each in text]
    between = [0] * (LONGEST_CONTEXT)
    every = list(between)
    for sentence in SENTENCES:
        every += [CHARACTERS.index(each) + 1 for each in sentence] + between
    model, whole = KneserNey(np.array(every), 4, LONGEST_CONTEXT + 1), [*between, *numbers, 0]
    return sum(
        math.log(model.following(np.array(whole[:i]))[whole[i]]) for i in range(len(between), len(whole))
    )


LONGEST_CONTEXT = 7


def words_say(model: WordModel, text: str) -> float:
    """Word by word, with the spelling of each, and the end."""
    total, history, at = 0.0, model.start, 0
    characters = CharacterLanguage(SENTENCES, CHARACTERS)
    spelling = spelled_by(characters, text)
    for word in text.split(" "):
        begin, at = at, at + len(word) + 1
        if not word:  # a space that ends no word is scored as a character
            total += spelling[at - 1] if at - 1 < len(text) else 0.0
            continue
        context = characters.start
        for character in text[: at - 1]:
            context = characters.following(context, character)[1]
        either = math.exp(characters.following(context, " ")[0]) + math.exp(characters.end(context))
        total += model.chance(history, word, sum(spelling[begin : at - 1]) + math.log(either))
        history = model.after(history, word)
    return total + model.end(history)


def network_says(network: CharacterNetwork, text: str) -> float:
    """All characters in one call, with the first of a vocabulary (?, newline, space, a, b, c) and c left out."""
    ids = torch.tensor([1, *("?\n abc".index(each) for each in text), 1])[:, None]
    with torch.no_grad():
        logits = network(ids[:-1])[0][:, 0, 1:5].double()
    return float(logits.log_softmax(1)[torch.arange(len(text) + 1), ids[1:, 0] - 1].sum())


def languages(tmp_path: Path) -> dict[str, tuple[Language, Callable[[str], float]]]:
    """Each kind, and how its log-probability of a whole text is had in another way."""
    characters, counted = CharacterLanguage(SENTENCES, CHARACTERS), WordNGram(SENTENCES)
    (tmp_path / "words.arpa").write_text(ARPA)
    read = read_arpa(tmp_path / "words.arpa")
    torch.manual_seed(0)
    network = CharacterNetwork("lstm", 6, 4, 8, 2, 0.0).eval()
    trained = NetworkLanguage(network, {"\n": (1,), " ": (2,), "a": (3,), "b": (4,)})
    return {
        "characters": (characters, characters_say),
        "words": (WordLanguage(counted, characters), partial(words_say, counted)),
        "arpa": (WordLanguage(read, characters), partial(words_say, read)),
        "network": (trained, partial(network_says, network)),
    }


@pytest.mark.parametrize("kind", ["characters", "words", "arpa", "network"])
def test_a_wide_beam_with_a_language_is_the_exhaustive_search(kind: str, tmp_path: Path) -> None:
    scores = random_scores(4, 4, 3)
    language, says = languages(tmp_path)[kind]
    wanted = {
        text: math.log(chance) + 0.7 * says("".join(CHARACTERS[k - 1] for k in text)) + 0.3 * len(text)
        for text, chance in all_texts(scores).items()
    }
    search = Beam(5000, tuple(CHARACTERS), language, 0.7, 0.3, unlikely=-math.inf, most_likely=99)
    ranked = search.ranked(scores)
    assert len(ranked) == len(wanted) and tuple(ranked[0][0]) == max(wanted, key=wanted.__getitem__)
    for text, score in ranked:
        assert score == pytest.approx(wanted[tuple(text)], abs=1e-5)


def test_units_of_several_characters_are_scored_by_their_characters(tmp_path: Path) -> None:
    units, scores = ("a", " b", "b a"), random_scores(3, 4, 1)
    texts = all_texts(scores)
    for language, says in languages(tmp_path).values():
        search = Beam(999, units, language, 0.7, 0.3, unlikely=-math.inf, most_likely=99)
        for classes, score in search.ranked(scores):
            text = "".join(units[k - 1] for k in classes)
            wanted = math.log(texts[tuple(classes)]) + 0.7 * says(text) + 0.3 * len(text)
            assert score == pytest.approx(wanted, abs=1e-5)


def test_words_and_spellings_share_one_probability() -> None:
    model = KneserNey(np.array([0, 0, 1, 2, 0, 0, 1, 3, 0, 0]), 5, 3)
    # of all spellings: none is the end's, three words have a share each, and one stands for all other words
    spellings = np.array([0.0, 0.2, 0.1, 0.05, 0.65])
    for context in ((0, 0), (0, 1), (4, 4), (4, 1)):
        counted, left = np.array([model.share(context, number) for number in range(5)]).T
        assert (counted + left * spellings).sum() == pytest.approx(1.0)
        assert counted + left / 5 == pytest.approx(model.following(np.array(context)))
    known = WordNGram(["turn left", "turn right"])
    assert known.chance(known.after(known.start, "turn"), "left", -9.0) > math.log(0.25)
    assert known.chance(known.start, "lift", -9.0) < -9.0


def test_an_arpa_file_backs_off_and_knows_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "words.arpa").write_text(ARPA)
    model = read_arpa(tmp_path / "words.arpa")
    ten = math.log(10)
    behind = model.after(model.start, "ab")
    assert model.chance(model.start, "ab", -5.0) == pytest.approx(-0.3 * ten)
    assert model.chance(behind, "a", -5.0) == pytest.approx(-0.1 * ten)
    assert model.chance(behind, "ab", -5.0) == pytest.approx((-0.2 - 0.5) * ten)
    assert model.chance(model.start, "cab", -5.0) == pytest.approx((-0.4 - 1.0) * ten - 5.0)
    assert model.end(model.after(behind, "a")) == pytest.approx(-0.2 * ten)
    assert model.end(model.after(behind, "cab")) == pytest.approx(-0.7 * ten)
    (tmp_path / "bare.arpa").write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.2 a\n-0.9 b\n\\end\\\n")
    bare = read_arpa(tmp_path / "bare.arpa")
    assert bare.chance((), "c", -5.0) == pytest.approx(-0.9 * ten - 5.0) and bare.end(()) == 0.0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("\\data\\", "data", "is no n-gram model"),
        ("\\end\\", "", "not whole"),
        ("ngram 1=5", "ngram 1=4", "more 1-grams than the 4"),
        ("ngram 1=5", "ngram 1=99999999999999", "too many n-grams"),
        ("ngram 2=3", "ngram 11=3", "too many n-grams"),
        ("\\2-grams:", "\\3-grams:", "line 14: it has not said how many 3-grams"),
        ("-0.1\tab a", "-0.1\tab", "line 16: a 2-gram is a number, 2 words"),
        ("-0.1\tab a", "much\tab a", "'much' is no logarithm"),
        ("-0.1\tab a", "0.1\tab a", "not above 0"),
        ("\\1-grams:", "", "line 8: an n-gram stands before"),
    ],
)
def test_what_is_no_arpa_file_is_said_with_its_line(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "bad.arpa"
    path.write_text(ARPA.replace(before, after))
    with pytest.raises(DataError, match=message):
        read_arpa(path)


def test_the_language_decides_where_the_sound_does_not() -> None:
    scores = np.log(np.array([[0.02, 0.94, 0.02, 0.02], [0.9, 0.04, 0.03, 0.03], [0.02, 0.02, 0.46, 0.5]]))
    alphabet = Alphabet.of(["ab", "c"])
    assert alphabet.decode(best_path(scores)) == "ac"
    for language in (
        CharacterLanguage(["ab"] * 9 + ["c"], "abc"),
        WordLanguage(WordNGram(["ab"] * 9 + ["c"]), CharacterLanguage(["ab", "c"], " abc")),
    ):
        assert alphabet.decode(Beam(8, alphabet.units, language, 1.0).decode(scores)) == "ab"


def test_next_characters_have_chances_that_sum_to_one_and_are_those_of_the_text() -> None:
    text = np.random.default_rng(0).integers(0, 5, 400)
    model = KneserNey(text, 5, 4)
    bits = model.bits(text)
    for end in (1, 2, 3, 50, 399):
        chances = model.following(text[:end])
        assert chances.sum() == pytest.approx(1.0)
        assert -math.log2(chances[text[end]]) == pytest.approx(bits[end - 1])


@pytest.mark.parametrize("seed", range(4))
def test_an_alignment_is_the_best_path_of_its_text(seed: int) -> None:
    scores, text = random_scores(6, 3, seed), [1, 1, 2]
    paths = [p for p in itertools.product(range(3), repeat=6) if collapse(p) == text]
    best = max(paths, key=lambda path: sum(scores[t, k] for t, k in enumerate(path)))
    spans = align(scores, text)
    made = [0] * 6
    for span, k in zip(spans, text, strict=True):
        made[span.first : span.last + 1] = [k] * (span.last + 1 - span.first)
        own = scores[span.first : span.last + 1, k]
        assert span.score == pytest.approx(own.mean())
    assert tuple(made) == best
    assert steps_needed(text) == 4
    with pytest.raises(ValueError, match="cannot be aligned"):
        align(scores[:3], text)


def test_words_have_the_times_of_their_characters() -> None:
    scores = np.full((9, 4), -20.0)
    for step, k in enumerate([0, 1, 0, 2, 2, 0, 3, 0, 0]):
        scores[step, k] = 0.0
    spans = align(scores, [1, 2, 3])
    (first, second) = words_of(["a", " ", "c"], spans, 0.03)
    assert (first.text, second.text) == ("a", "c")
    assert (first.start, first.end) == pytest.approx((0.03, 0.06))
    assert (second.start, second.end, second.confidence) == pytest.approx((0.18, 0.21, 1.0))
    assert align(scores, []) == [] and words_of([], [], 0.03) == ()
    joined = words_of(["ab", " c", "d e"], spans, 0.03)
    assert [(word.text, round(word.start, 2)) for word in joined] == [("ab", 0.03), ("cd", 0.09), ("e", 0.18)]


def distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_edits_are_the_fewest_and_lead_from_one_to_the_other() -> None:
    draw = np.random.default_rng(0)
    for _ in range(60):
        a, b = ("".join(draw.choice(list("abc"), size=int(draw.integers(0, 6)))) for _ in range(2))
        pairs = edits(a, b)
        assert "".join(x for x, _ in pairs if x) == a and "".join(y for _, y in pairs if y) == b
        assert sum(x != y for x, y in pairs) == distance(a, b)
    found = count_errors(["the", "cat", "sat"], ["the", "bat", "sat", "down"])
    assert found == Errors(substitutions=1, insertions=1, deletions=0, total=3)
    assert count_errors(["a", "b"], []).rate == 1.0 and math.isnan(Errors().rate)


def test_transcripts_are_normalised() -> None:
    assert normalize("  L’État—c'est «moi» 'quoted' ") == "l'état c'est moi quoted"
    assert normalize("ПРИВЕТ, Мир!") == "привет мир" and normalize("日本語。") == "日本語"
    assert normalize(" A  b.\n", "spaces") == "A b." and normalize("...") == ""
    alphabet = Alphabet.of(["ab", "b"])
    assert alphabet.encode("bxa") == [2, 1] and alphabet.decode([2, 1]) == "ba" and alphabet.counts == (1, 2)


def test_what_a_run_folder_holds_and_what_one_of_0_4_0_held() -> None:
    alphabet = Alphabet.of(["ab a", "b"])
    known = Known(8000, alphabet, torch.zeros(8), torch.ones(8), 0.5, ("ab a", "b"), None, "digest")
    tensors = stored(known)
    made = rebuild(tensors, "digest", 8)
    assert (made.alphabet, made.sentences, made.is_plain) == (alphabet, ("ab a", "b"), False)
    words = json.loads(tensors["words"].numpy().tobytes())
    del words["is_plain"], words["subwords"], tensors["sentences"]
    tensors["words"] = torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)
    tensors["language"] = torch.tensor([0, 0, 2, 3, 1, 2, 0, 0, 3, 0, 0])
    former = rebuild(tensors, "digest", 8)
    assert (former.alphabet, former.sentences, former.is_plain) == (alphabet, ("ab a", "b"), True)
    for name, value in (("language", torch.tensor([4])), ("mean", torch.tensor([math.nan] * 8))):
        with pytest.raises(ValueError, match="its "):
            rebuild({**tensors, name: value}, "digest", 8)


def network(kind: type[SpeechNetwork] = SpeechNetwork, bidirectional: bool = True) -> SpeechNetwork:
    torch.manual_seed(0)
    sizes = Sizes(bands=5, reduction=3, hidden_size=6, num_layers=2, bidirectional=bidirectional, dropout=0.2)
    prior = torch.tensor([0.5, 0.3, 0.2])
    return kind("gru", sizes, torch.zeros(5), torch.ones(5), prior).eval()


@pytest.mark.parametrize("kind", [SpeechNetwork, PlainNetwork])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_never_leaks(kind: type[SpeechNetwork], bidirectional: bool) -> None:
    made = network(kind, bidirectional)
    rows = [torch.randn(count, 5) for count in (31, 7, 30, 1)]
    scores = made(*padded(rows))
    for number, row in enumerate(rows):
        alone = made(*padded([row]))[:, 0]
        assert len(alone) == math.ceil(len(row) / 3)
        assert torch.allclose(scores[: len(alone), number], alone, atol=1e-6)


def test_it_starts_from_how_often_each_character_is_right() -> None:
    made = network()
    with torch.no_grad():
        made.decode.weight.zero_()
    assert torch.allclose(made(*padded([torch.randn(9, 5)])).exp()[0, 0], torch.tensor([0.5, 0.3, 0.2]))


def test_gradients_in_double_precision() -> None:
    made = network().double()
    lengths = torch.tensor([11, 6])
    keep = (torch.arange(11)[:, None] < lengths)[..., None]
    targets = [torch.tensor([1, 1]), torch.tensor([2])]

    def loss(features: torch.Tensor) -> torch.Tensor:
        scores = made(features * keep, lengths)
        return (
            torch.nn.functional.ctc_loss(
                scores, torch.cat(targets), made.steps(lengths), torch.tensor([2, 1]), reduction="sum"
            )
            / 3
        )

    features = torch.randn(11, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, features)
    scores = made(features * keep, lengths)
    own = mean_loss(scores, made.steps(lengths), targets)
    assert float(own.detach()) == pytest.approx(float(loss(features).detach()), rel=1e-5)


def test_a_text_that_no_longer_fits_gives_no_nan() -> None:
    scores = torch.zeros(2, 1, 3, requires_grad=True)
    loss = mean_loss(scores.log_softmax(-1), torch.tensor([2]), [torch.tensor([1, 1, 1])])
    loss.backward()
    assert float(loss.detach()) == 0.0 and scores.grad is not None and torch.isfinite(scores.grad).all()
