"""The parts of a tagger: schemes of entities, the conditional random field, files in columns, metrics."""

import gzip
import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellwise.tasks.errors import DataError
from cellwise.tasks.tag import brown
from cellwise.tasks.tag.baseline import MostFrequentTag
from cellwise.tasks.tag.batches import collate
from cellwise.tasks.tag.blend import fit_blend
from cellwise.tasks.tag.conll import Layout, has_columns, parse_conll, read_conll, to_conll
from cellwise.tasks.tag.crf import Crf
from cellwise.tasks.tag.data import hold_out, tokenize
from cellwise.tasks.tag.features import EDGE, OFFSETS, feature_hash, features_of
from cellwise.tasks.tag.linear import LinearTagger
from cellwise.tasks.tag.metrics import count_entities, measure_tags
from cellwise.tasks.tag.schemes import SCHEMES, allowed_moves, encode, entities, find_scheme
from cellwise.tasks.tag.tagging import Scored
from cellwise.tasks.tag.vocabulary import Forms, Lexicon, Ragged

BROWN_FILES = (44, 27, 17, 17, 36, 48, 75, 30, 80, 29, 24, 6, 29, 29, 9)
BIOES = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"]


# --- schemes


@st.composite
def marked(draw):
    """A sentence's length, and entities in it that do not overlap."""
    found, position = [], 0
    for _ in range(draw(st.integers(0, 4))):
        start = position + draw(st.integers(0, 2))
        stop = start + draw(st.integers(1, 3))
        found.append((start, stop, draw(st.sampled_from("AB"))))
        position = stop
    return position + draw(st.integers(0, 2)), found


@given(marked())
@pytest.mark.parametrize("scheme", SCHEMES)
def test_entities_survive_every_scheme(scheme, case):
    length, found = case
    tags = encode(found, length, scheme)
    assert len(tags) == length
    assert entities(tags) == found


@given(marked())
def test_bioes_only_makes_allowed_moves(case):
    length, found = case
    moves, begins, ends = allowed_moves(BIOES)
    ids = [BIOES.index(tag) for tag in encode(found, length, "BIOES")]
    assert all(moves[a][b] for a, b in itertools.pairwise(ids))
    if ids:
        assert begins[ids[0]] and ends[ids[-1]]


def test_moves_that_break_an_entity_are_not_allowed():
    moves, begins, ends = allowed_moves(BIOES)
    index = BIOES.index
    for a, b in (("O", "I-A"), ("B-A", "O"), ("B-A", "E-B"), ("E-A", "I-A"), ("S-A", "E-A"), ("I-A", "B-A")):
        assert not moves[index(a)][index(b)], (a, b)
    assert not begins[index("I-A")] and not begins[index("E-B")]
    assert not ends[index("B-A")] and not ends[index("I-B")]


def test_scheme_is_found():
    assert find_scheme([["I-A", "B-A"], ["O"]]) == "IOB1"
    assert find_scheme([["B-A", "I-A", "O"]]) == "IOB2"
    assert find_scheme([["B-A", "L-A", "O", "U-A"]]) == "BIOES"
    assert find_scheme([["NOUN", "O"]]) is None  # a tag "O" among others
    assert find_scheme([["B", "I", "O"]]) == "IOB2"
    assert find_scheme([["in", "B-A"]]) is None


def test_tags_that_no_scheme_allows_are_read_as_conll_reads_them():
    assert entities(["O", "I-A", "I-B", "E-B", "I-B"]) == [(1, 2, "A"), (2, 4, "B"), (4, 5, "B")]


# --- the conditional random field, beside all paths


def all_paths(crf, emissions, length):
    """Each path of one sentence and its score."""
    chain = crf.chain()
    moves, begins, ends = chain.moves, chain.begins, chain.ends
    for path in itertools.product(range(emissions.shape[1]), repeat=length):
        score = begins[path[0]] + ends[path[-1]] + sum(emissions[t, tag] for t, tag in enumerate(path))
        yield path, score + sum(moves[a, b] for a, b in itertools.pairwise(path))


@pytest.fixture(params=[False, True], ids=["all moves", "some moves"])
def crf(request):
    torch.manual_seed(0)
    tags = ["O", "B-A", "I-A", "E-A"]
    made = Crf(4, *(allowed_moves(tags) if request.param else ())).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=2)
    return made


def test_crf_equals_the_sum_and_the_best_over_all_paths(crf):
    lengths = torch.tensor([5, 1, 3, 2])
    emissions = 3 * torch.randn(5, 4, 4, dtype=torch.float64)
    logs, best = crf.chain().log_partition(emissions, lengths), crf.chain().decode(emissions, lengths)
    chances = crf.chain().marginals(emissions, lengths)
    for row, length in enumerate(lengths.tolist()):
        paths = list(all_paths(crf, emissions[:, row], length))
        total = torch.stack([score for _, score in paths]).logsumexp(0)
        torch.testing.assert_close(logs[row], total)
        path, score = max(paths, key=lambda each: float(each[1]))
        assert best[:length, row].tolist() == list(path)
        assert (best[length:, row] == 0).all()
        tags = torch.tensor(path)[:, None].expand(-1, 4)
        padded = torch.nn.functional.pad(tags, (0, 0, 0, 5 - length))
        expected = torch.zeros(5, 4, dtype=torch.float64)
        for each, value in paths:
            for t, tag in enumerate(each):
                expected[t, tag] += (value - total).exp()
        torch.testing.assert_close(chances[:, row], expected)
        own = crf.chain().score(emissions, padded, torch.full((4,), length))[row]
        torch.testing.assert_close(own, score)


def test_crf_gradients_are_those_of_finite_differences(crf):
    emissions = torch.randn(4, 3, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 2, 1])

    def log_partition(emissions, *_):
        return crf.chain().log_partition(emissions, lengths)

    assert torch.autograd.gradcheck(log_partition, (emissions, crf.moves, crf.begins, crf.ends))


def test_crf_in_float32_with_scores_of_any_size():
    made = Crf(3)
    torch.nn.init.normal_(made.moves, std=30)
    emissions = 60 * torch.randn(20, 8, 3)
    lengths = torch.full((8,), 20)
    torch.testing.assert_close(
        made.chain().log_partition(emissions, lengths).double(),
        made.double().chain().log_partition(emissions.double(), lengths),
        rtol=1e-5,
        atol=1e-3,
    )


def test_padding_changes_nothing(crf):
    emissions = torch.randn(6, 2, 4, dtype=torch.float64)
    lengths = torch.tensor([3, 6])
    other = emissions.clone()
    other[3:, 0] = 1e3
    torch.testing.assert_close(
        crf.chain().log_partition(emissions, lengths), crf.chain().log_partition(other, lengths)
    )
    assert crf.chain().decode(emissions, lengths).equal(crf.chain().decode(other, lengths))


# --- files in columns


def test_columns_of_many_kinds():
    plain = parse_conll("The DT\nbird NN\n\nIt PRP\n", "x")
    assert plain.words == (("The", "bird"), ("It",)) and plain.tags == (("DT", "NN"), ("PRP",))
    ner = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n"
    assert parse_conll(ner, "x").tags == (("I-ORG", "O"),)
    assert parse_conll(ner, "x", Layout(tag="2")).tags == (("NNP", "VBZ"),)
    hashes = parse_conll("# newsgroup\n#\tO\nwin\tO\n", "x")
    assert hashes.words == (("#", "win"),)
    spaces = parse_conll("New York\tLOC\nis\tO\n", "x")
    assert spaces.words == (("New York", "is"),)
    assert parse_conll("a\tX\r\n".replace("\r", ""), "x").tags == (("X",),)


@pytest.mark.parametrize("mark", ["/", "_"])
def test_a_line_may_hold_words_with_their_tags(mark):
    text = f"The{mark}DT 1{mark}2{mark}CD cats{mark}NNS\n\n\u3002{mark}w\n"
    found = parse_conll(text, "a.txt")
    assert found.words == (("The", f"1{mark}2", "cats"), ("\u3002",))
    assert found.tags == (("DT", "CD", "NNS"), ("w",))
    assert has_columns(text)
    with pytest.raises(DataError, match="line 301: 'oops' is no word with"):
        parse_conll(f"The{mark}DT cat{mark}NN\n" * 300 + "oops\n", "a.txt")


@pytest.mark.parametrize(
    "text", ["and/or\tCC\ncats\tN\n", "and/or CC\n\ncats N\nand N\nor N\na N\n", "and/or CC\ncats N\n"]
)
def test_a_slash_in_a_word_of_columns_is_no_tag(text):
    assert parse_conll(text, "a.txt").words[0][0] == "and/or"


def test_running_text_with_a_slash_has_no_tags():
    assert not has_columns("Bread and/or cats.\nOr both.\n")
    assert not has_columns("and/or\neither/neither\n")


def test_conllu():
    text = (
        "# sent_id = 1\n# text = vámonos al mar\n"
        "1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n1\tvamos\tir\tVERB\tv\t_\t0\troot\t_\t_\n"
        "2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t_\t_\n2.1\tx\t_\tX\t_\t_\t_\t_\t_\t_\n\n"
    )
    assert parse_conll(text, "x").tags == (("VERB", "PRON"),)
    assert parse_conll(text, "x", Layout("LEMMA", "XPOS")).words == (("ir", "nosotros"),)
    plus = "# global.columns = WORD TAG\na\tX\n"
    assert parse_conll(plus, "x", Layout("WORD", "TAG")).tags == (("X",),)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a X\nb\n", {}, "line 2 has 1 column, line 1 has 2"),
        (
            "a\nb\n",
            {},
            "it has 1 column; |it needs one with words and one with their tags, with tabs or spaces",
        ),
        ("a X\n", {"tag": "3"}, "no column '3' for the tags; it has 2 columns"),
        ("a X\n", {"word": "FORM"}, "no column 'FORM' for the words"),
        ("\n\n", {}, "holds no words"),
        ("a\t\nb\tX\n", {}, "line 1: the word 'a' has no tag"),
    ],
)
def test_wrong_columns(text, options, message):
    with pytest.raises(DataError, match=message):
        parse_conll(text, "x", Layout(**options))


def test_written_sentences_are_read_again():
    words, tags = [["New York", "#"], ["-"]], [["A", "B"], ["C"]]
    made = parse_conll(to_conll(words, tags), "x")
    assert [list(each) for each in made.words] == words and [list(each) for each in made.tags] == tags


def test_running_text_is_not_taken_for_columns():
    assert not has_columns("Two words here.\nTwo more here.\n")
    assert not has_columns("One line.")
    assert has_columns("a\tX\nb\tY\n")
    assert has_columns("a\nb\n\nc\n\nd\ne\n")
    assert has_columns("word\n", "x.conll")


def test_tokens_keep_every_character_but_spaces():
    text = "Dr. Who's 3.5% (of) it... 你好，世界！http://a.b/c?d #tag e-mail"
    assert "".join(word for sentence in tokenize(text) for word in sentence) == text.replace(" ", "")


def test_a_file_of_another_encoding_is_read_or_refused_in_a_sentence(tmp_path):
    file = tmp_path / "words.conll"
    file.write_bytes("caf\u00e9\tX\n".encode("utf-16"))
    assert read_conll(file).words == (("caf\u00e9",),)
    file.write_bytes(gzip.compress("caf\u00e9\tX\n".encode()))
    assert read_conll(file).words == (("caf\u00e9",),)
    file.write_bytes("caf\u00e9\tX\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"is not UTF-8: line 1 holds the byte 0xe9"):
        read_conll(file)
    assert read_conll(file, Layout(encoding="cp1252")).words == (("caf\u00e9",),)
    with pytest.raises(DataError, match="is a folder"):
        read_conll(tmp_path)


# --- words as numbers


def test_rows_of_different_lengths_are_padded():
    rows = Ragged.of([[1, 2, 3], [], [4]])
    assert rows.lengths.tolist() == [3, 0, 1]
    assert rows.padded(torch.tensor([2, 0, 1]), -1).T.tolist() == [[4, -1, -1], [1, 2, 3], [-1, -1, -1]]


def test_rare_words_have_no_embedding_but_are_known():
    lexicon = Lexicon.of([["a", "a", "a", "b", "b", "C", "d"]], ["X", "Y"], 2)
    assert lexicon.embedded == (3, 2) and lexicon.least == 2
    assert [lexicon.word_id(word) for word in ("a", "b", "d", "A")] == [1, 2, 0, 1]
    assert lexicon.knows("d") and not lexicon.knows("e")


def test_forms_are_the_words_of_each_batch_from_long_to_short():
    lexicon = Lexicon.of([["a", "abc", "ab"]], ["X", "Y"], 9)
    forms = Forms(lexicon, [["a", "abc"], ["abc", "ab", "a"], ["ab"]])
    batch = collate(forms, [0, 1])
    assert batch.letter_lengths.tolist() == [3, 2, 1]
    spelled = [["".join("_abc"[i] for i in batch.letters[:, form]) for form in row] for row in batch.forms.T]
    assert spelled == [["a__", "abc", "a__"], ["abc", "ab_", "a__"]]  # behind an end stands any word
    assert batch.lengths.tolist() == [2, 3]


# --- the linear model


def test_the_linear_model_equals_sums_of_its_weights():
    words, tags = [["The", "cat", "sat"], ["A", "cat"]], [[0, 1, 2], [0, 1]]
    lexicon = Lexicon.of(words, ["D", "N", "V"], 99)
    forms = Forms(lexicon, words)
    model = LinearTagger.fit(forms, Ragged.of(tags), lexicon.tags, crf=False, is_bioes=False)
    scores = model.tables(forms).emissions(forms.sentences, torch.tensor([0, 1]))
    for row, sentence in enumerate(words):
        for t in range(len(sentence)):
            total = model.weights[-1].clone()
            for offset in OFFSETS:
                inside = 0 <= t + offset < len(sentence)
                for feature in features_of(sentence[t + offset] if inside else EDGE, offset):
                    total += model.weights[:-1][model.index.hashes == feature_hash(feature)][0]
            torch.testing.assert_close(scores[t, row], total)
    assert scores.argmax(2).T.tolist()[0] == [0, 1, 2]
    again = LinearTagger.restored(model.tensors(), lexicon.tags, is_bioes=False)
    assert again is not None and again.weights.equal(model.weights)
    with pytest.raises(ValueError, match="weights of its linear model are none"):
        LinearTagger.restored(model.tensors(), ["D", "N"], is_bioes=False)
    with pytest.raises(ValueError, match="features of its linear model are none"):
        LinearTagger.restored(
            model.tensors() | {"linear/hashes": model.index.hashes.flip(0)}, lexicon.tags, is_bioes=False
        )


def test_a_linear_model_takes_a_type_from_words_at_other_places_of_an_entity():
    # "Rio" is only ever the end of a place; alone it must be a place too, which no weight of S-LOC has learned from it.
    words = [
        ["to", "old", "Rio"],
        ["to", "New", "Oslo"],
        ["to", "Oslo", "now"],
        ["by", "Ann", "now"],
        ["a", "b"],
    ] * 4
    spans = [(1, 3, "LOC"), (1, 3, "LOC"), (1, 2, "LOC"), (1, 2, "PER"), None] * 4
    marks = [
        encode([] if span is None else [span], len(row), "BIOES")
        for row, span in zip(words, spans, strict=True)
    ]
    names = [f"{prefix}-{kind}" for kind in ("LOC", "PER") for prefix in "BIES"]
    lexicon = Lexicon.of(words, ["O", *names], 99)
    tags = Ragged.of(map(lexicon.tag_ids, marks))
    model = LinearTagger.fit(Forms(lexicon, words), tags, lexicon.tags, crf=True, is_bioes=True)
    row = model.index.hashes.tolist().index(feature_hash("word Rio"))
    weights = dict(zip(lexicon.tags, model.weights[row].tolist(), strict=True))
    assert weights["E-LOC"] > weights["S-LOC"] > 0.01 > weights["O"]
    assert weights["S-LOC"] > weights["S-PER"]


def test_the_blend_follows_who_is_right():
    truth = torch.randint(3, (6, 40), generator=torch.Generator().manual_seed(0))
    right, noise = 4.0 * torch.nn.functional.one_hot(truth, 3), torch.randn(6, 40, 3)
    tags = Ragged.of(truth.T.tolist())
    lengths, numbers = torch.full((40,), 6), list(range(40))
    own = fit_blend([Scored(numbers, lengths, right, noise)], tags, None, None)
    other = fit_blend([Scored(numbers, lengths, noise, right)], tags, None, None)
    assert own[0] > 4 * own[1] and other[1] > 4 * other[0]
    unseen = Ragged.of([[-1] * 6] * 40)
    assert fit_blend([Scored(numbers, lengths, right, noise)], unseen, None, None).tolist() == [0.5, 0.5]


# --- the Brown corpus


def test_the_brown_corpus_is_read_in_its_parts(tmp_path):
    for letter, count in zip("abcdefghjklmnpr", BROWN_FILES, strict=True):
        for number in range(1, count + 1):
            name = f"c{letter}{number:02}"
            (tmp_path / name).write_text(f"\n\tThe/at-hl {name}/nn-tl 1/2/cd\n", encoding="utf8")
    (tmp_path / "README").write_text("no/nn", encoding="utf8")
    parts = brown.read(tmp_path)
    assert [len(each) for each in (parts.training, parts.validation, parts.test)] == [400, 50, 50]
    assert parts.training.words[0] == ("The", "ca01", "1/2")
    assert parts.training.tags[0] == ("at", "nn", "cd")
    assert parts.validation.words[0][1] == "ca09" and parts.test.words[0][1] == "ca10"
    (tmp_path / "ca01").unlink()
    with pytest.raises(DataError, match="holds 499 files of the Brown corpus"):
        brown.read(tmp_path)
    (tmp_path / "x.tgz").write_bytes(b"none")
    with pytest.raises(DataError, match="neither the package"):
        brown.read(tmp_path / "x.tgz")


# --- metrics


def test_entities_are_counted_whole():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]
    made = [["B-PER", "I-PER", "O", "B-PER"], ["B-PER", "I-PER"]]
    counts = count_entities(true, made)
    assert (counts["PER"].right, counts["PER"].predicted, counts["PER"].true) == (1, 3, 2)
    found = measure_tags([["a"] * 4, ["b"] * 2], true, made, lambda word: word == "a", True)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["accuracy_known"] == pytest.approx(3 / 4) and found["accuracy_unknown"] == 0
    assert found["precision"] == pytest.approx(1 / 3) and found["recall"] == pytest.approx(1 / 3)


def test_metrics_of_tags_equal_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = random.Random(0)
    true = [[generator.choice("ABC") for _ in range(9)] for _ in range(20)]
    made = [[generator.choice("ABCD") for _ in range(9)] for _ in range(20)]
    found = measure_tags(true, true, made, lambda word: True, False)
    flat = tuple([tag for tags in each for tag in tags] for each in (true, made))
    wanted = metrics.precision_recall_fscore_support(*flat, average="macro", zero_division=0)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(wanted[:3])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(*flat))


def test_most_frequent_tag():
    made = MostFrequentTag.of([["a", "a", "a", "b", "c", "d"]], [["X", "Y", "Y", "X", "Z", "Z"]])
    assert made.predict([["a", "b", "new"]]) == [["Y", "X", "Z"]]


def test_held_out_sentences_are_every_tenth():
    words = tuple((str(i),) for i in range(40))
    parts = hold_out(parse_conll(to_conll(words, [["X"]] * 40), "x"))
    assert parts.validation.words == (("9",), ("19",), ("29",), ("39",))
    assert parts.test.words == (("4",), ("14",), ("24",), ("34",))
    assert len(parts.training) == 32
