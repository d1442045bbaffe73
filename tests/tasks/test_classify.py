"""Classifiers and regressors of sequences, from fit to stream."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sequences import SMALL, series, texts
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import cross_val_score

from cellwise.tasks import SequenceClassifier, SequenceRegressor
from cellwise.tasks.classify import convolutions, ngrams
from cellwise.tasks.classify.attribution import step_shares
from cellwise.tasks.classify.augment import _stretched, augmented
from cellwise.tasks.classify.blend import blend_of_logits, blend_of_numbers
from cellwise.tasks.classify.convolutions import ConvolutionModel
from cellwise.tasks.classify.metrics import class_metrics, reliability
from cellwise.tasks.classify.network import NetworkConfig, SequenceNetwork
from cellwise.tasks.classify.ngrams import NgramModel
from cellwise.tasks.classify.objective import Encoded, outputs_of
from cellwise.tasks.errors import DataError, OptionError, RunFolderError

POOLINGS = ("last", "mean", "max", "attention", "all")


def network(pooling: str = "all", directions: int = 2, **more: object) -> SequenceNetwork:
    from cellwise import cells

    torch.manual_seed(0)
    return SequenceNetwork(
        NetworkConfig(cells.get("gru"), 0, 2, 3, 4, 1, directions, pooling, 0.0, **more)
    ).eval()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("directions", [1, 2])
def test_padding_changes_nothing(pooling: str, directions: int) -> None:
    made = network(pooling, directions)
    values = [torch.randn(length, 2) for length in (5, 1, 8)]
    batch = Encoded(values, torch.zeros(3)).batch(torch.arange(3))
    padded = batch.inputs.clone()
    padded[5:, 0] = 1e6
    with torch.no_grad():
        together = made(padded, batch.lengths)
        alone = torch.cat([made(each[:, None], torch.tensor([len(each)])) for each in values])
    torch.testing.assert_close(together, alone)


def test_an_empty_text_has_an_answer() -> None:
    made = outputs_of(network(), Encoded([torch.zeros(0, 2)], torch.zeros(1)))
    assert made.isfinite().all()


def test_it_learns_series_of_any_lengths_sorted_by_class() -> None:
    values, labels = series(60)
    order = np.argsort(labels, kind="stable")
    values, labels = [values[row] for row in order], [labels[row] for row in order]
    made = {"epochs": 12, "learning_rate": 0.02, "branch": "none"}
    model = SequenceClassifier(**SMALL | made).fit(values, labels)
    others, right = series(40, seed=1)
    assert model.score(others, right) > 0.9
    assert model.classes_ == ["down", "up"]
    assert model.predict(others[:3]) == [
        model.classes_[each] for each in model.predict_proba(others[:3]).argmax(1)
    ]
    np.testing.assert_allclose(model.predict_proba(others).sum(1), 1)


def test_it_learns_texts_with_and_without_the_linear_branch() -> None:
    others, right = texts(60, seed=1)
    for branch in ("none", "auto"):
        model = SequenceClassifier(**SMALL | {"epochs": 10, "learning_rate": 0.03, "branch": branch})
        model.fit(*texts(120))
        assert model.score(others, right) > 0.9
        assert (model.network_.blend[1] == 0) == (branch == "none")
        assert model.measure_linear(others, right)["accuracy"] > 0.9


def test_labels_are_known_by_their_text() -> None:
    values, labels = series(20)
    numbers = [int(label == "up") for label in labels]
    model = SequenceClassifier(**SMALL).fit(values, np.array(numbers))
    assert model.classes_ == [0, 1] and type(model.predict(values[:1])[0]) is int
    assert model.measure(values, [str(each) for each in numbers]) == model.measure(values, numbers)


@pytest.mark.parametrize("kind", ["series", "texts"])
def test_a_run_folder_is_the_model(tmp_path: Path, kind: str) -> None:
    data, labels = series() if kind == "series" else texts()
    model = SequenceClassifier(**SMALL, directions=1).fit(data, labels, folder=tmp_path / "run")
    model.save(tmp_path / "copy")
    for name in ("run", "copy"):
        again = SequenceClassifier.load(tmp_path / name)
        assert (again.classes_, again.notes_) == (model.classes_, model.notes_)
        np.testing.assert_array_equal(again.predict_proba(data), model.predict_proba(data))
        assert again.measure() == model.measure()
        assert again.measure_linear() == model.measure_linear()
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(RunFolderError, match="holds a run of the task 'classify', not 'regress'"):
        SequenceRegressor.load(tmp_path / "run")


def test_what_was_held_out_is_learned_in_the_end_and_measured_before(tmp_path: Path) -> None:
    values, labels = series(40)
    model = SequenceClassifier(**SMALL, augment=0.0).fit(values, labels, folder=tmp_path)
    held = model.held_out_
    classes = np.array([model.classes_.index(label) for label in held.labels])
    assert model.refitted_ is not None and (tmp_path / "final.safetensors").exists()
    assert model.network_ is not model.measured_
    assert torch.equal(model.network_.blend, model.measured_.blend)
    figures = model.measure()
    assert figures["log_loss"] == pytest.approx(model.trained_.best.metrics["log_loss"], rel=1e-5)
    chances = model.predict_proba(list(held.inputs))  # by the network that has learned them
    assert class_metrics(chances, classes)["log_loss"] < figures["log_loss"]
    again = SequenceClassifier.load(tmp_path)
    assert again.measure() == figures and again.measure_linear() == model.measure_linear()
    np.testing.assert_array_equal(again.predict_proba(values), model.predict_proba(values))
    given = SequenceClassifier(**SMALL).fit(values, labels, valid=series(10, seed=2))
    without = SequenceClassifier(**SMALL, refit=False).fit(values, labels)
    assert given.refitted_ is None and without.refitted_ is None


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        SequenceClassifier(**SMALL).fit(*texts(), folder=tmp_path / name)
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_stream_ends_in_the_prediction_of_the_whole(pooling: str) -> None:
    values, labels = series(20)
    model = SequenceClassifier(**SMALL, pooling=pooling, directions=1, num_layers=2).fit(values, labels)
    stream = model.stream()
    for value in values[:3]:
        stream.reset()
        for step in value:
            said = stream(step)
        assert list(said) == ["down", "up"]
        np.testing.assert_allclose(list(said.values()), model.predict_proba([value])[0], atol=1e-5)
    with pytest.raises(DataError, match="a step is 2 finite numbers"):
        stream([1.0])


def test_a_stream_of_words() -> None:
    sentences, labels = texts()
    model = SequenceClassifier(**SMALL, directions=1).fit(sentences, labels)
    stream = model.stream()
    for word in sentences[0].split():
        said = stream(word)
    np.testing.assert_allclose(list(said.values()), model.predict_proba(sentences[:1])[0], atol=1e-5)
    with pytest.raises(DataError, match="'two words' has 2"):
        stream("two words")


def test_two_directions_have_no_stream() -> None:
    with pytest.raises(OptionError, match="--directions 1"):
        SequenceClassifier(**SMALL).fit(*series(20)).stream()
    with pytest.raises(OptionError, match="--branch none"):
        SequenceClassifier(**SMALL, directions=1, branch="linear").fit(*series(20)).stream()


def test_numbers_are_learned(tmp_path: Path) -> None:
    values, _ = series(60)
    targets = [float(value[:, 0].sum()) for value in values]
    model = SequenceRegressor(
        **SMALL | {"epochs": 25, "learning_rate": 0.02, "hidden_size": 12, "augment": 0.0}
    )
    model.fit(values, targets)
    others, _ = series(30, seed=1)
    right = [float(value[:, 0].sum()) for value in others]
    assert model.score(others, right) > 0.8
    assert model.predict(others).shape == (30,)
    model.save(tmp_path)
    again = SequenceRegressor.load(tmp_path)
    np.testing.assert_array_equal(again.predict(others), model.predict(others))
    assert again.measure() == model.measure() and again.measure_linear() == model.measure_linear()
    with pytest.raises(DataError, match="'down', which is no number; SequenceClassifier"):
        model.fit(*series(20))


def test_bounds_hold_what_they_promise() -> None:
    generator = np.random.default_rng(0)
    values = [generator.normal(size=(3, 1)) for _ in range(300)]
    targets = [float(value.mean() + generator.normal()) for value in values]
    model = SequenceRegressor(**SMALL, held_out=0.5).fit(values, targets)
    held = model.held_out_
    errors = np.sort(np.abs(model._scaled(model._outputs(held)) - np.array(held.labels)))
    assert model.margin_ == errors[math.ceil(0.8 * (len(held) + 1)) - 1]
    others = [generator.normal(size=(3, 1)) for _ in range(300)]
    right = [float(value.mean() + generator.normal()) for value in others]
    assert model.measure(others, right)["coverage_80"] == pytest.approx(0.8, abs=0.06)
    low, high = model.predict_interval(others).T
    inside = (low <= np.array(right)) & (np.array(right) <= high)
    assert inside.mean() == model.measure(others, right)["coverage_80"]


def test_ngrams_are_weighed_by_frequency_and_class(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ["a fine film", "a fine story", "a dull film", "so dull", "so so"]
    labels = np.array([0, 0, 1, 1, 2])
    hashed = ngrams._words(sentences, 1)
    found, weights = ngrams._features(hashed, labels, 3, "words")
    vocabulary = sorted({word for text in sentences for word in text.split()}, key=ngrams._hash)
    assert found.tolist() == sorted(found.tolist()) and len(found) == len(vocabulary) == 6
    table = np.array([[sum(w in t.split() for t, c in zip(sentences, labels, strict=True) if c == k) for k in range(3)]
                      for w in ["a", "fine", "film", "story", "dull", "so"]])  # fmt: skip
    counts, smooth = table.sum(1), table + 1.0
    own, rest = smooth / smooth.sum(0), (smooth.sum(1, keepdims=True) - smooth)
    ratio = np.abs(np.log(own) - np.log(rest / (smooth.sum() - smooth.sum(0)))).max(1)
    wanted = (np.log(6 / (1 + counts)) + 1) * ratio
    np.testing.assert_allclose(np.sort(weights), np.sort(wanted))
    monkeypatch.setattr(
        ngrams, "MOST_WEIGHTS", 9
    )  # room for three of three classes: those in two texts or more
    few, same = ngrams._features(hashed, labels, 3, "words")
    assert len(few) == 3 and set(few) < set(found)
    np.testing.assert_allclose(same, [weights[found.tolist().index(each)] for each in few])


def test_a_linear_model_of_numbers_finds_the_word_that_decides() -> None:
    sentences, labels = texts(200)
    targets = torch.tensor([1.0 if label == "positive" else -1.0 for label in labels])
    others, right = texts(60, seed=1)
    wanted = torch.tensor([1.0 if label == "positive" else -1.0 for label in right])
    model = NgramModel.fit(sentences, targets, 1, "words", 2, (others, wanted))
    error = (model.logits(others)[:, 0] - wanted).square().mean()
    assert float(error) < 0.2
    rows = model.rows(sentences).matrix().to_dense().double()
    centred, goal = rows - rows.mean(0), targets.double() - targets.double().mean()
    found = []
    for strength in (1.0, 4.0):  # the closed form of ridge regression
        dual = torch.linalg.solve(centred @ centred.T + torch.eye(200) / strength, goal)
        found.append(float((centred.T @ dual - model.weights[:, 0]).abs().max()))
    assert min(found) < 0.02


def test_scikit_learn_validates_it() -> None:
    sentences, labels = texts(40)
    assert cross_val_score(SequenceClassifier(**SMALL), sentences, labels, cv=2).shape == (2,)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["a"] * 20, "all 20 sequences have the label 'a'"),
        ([0.5, 1.5] * 10, r"SequenceRegressor \(cellwise regress\) learns numbers"),
        (None, "no labels were given"),
    ],
)
def test_labels_that_are_no_classes_are_one_sentence(labels: list | None, says: str) -> None:
    with pytest.raises(DataError, match=says):
        SequenceClassifier(**SMALL).fit(series(20)[0], labels)


def test_many_fractions_from_a_file_are_numbers() -> None:
    values, _ = series(40)
    with pytest.raises(DataError, match=r"the label 0.01 is a number with a fraction"):
        SequenceClassifier(**SMALL).fit(values, [f"{each + 0.01}" for each in range(40)])


def test_what_does_not_fit_a_trained_network_is_one_sentence() -> None:
    model = SequenceClassifier(**SMALL).fit(*series(20))
    with pytest.raises(DataError, match="was trained on series, but these are texts"):
        model.predict(["a"])
    with pytest.raises(DataError, match="reads 2 channels, but these series have 3"):
        model.predict(series(2, channels=3)[0])
    with pytest.raises(DataError, match="has the label 'left', which the training does not have"):
        model.measure(series(2)[0], ["up", "left"])
    with pytest.raises(DataError, match="has the label 'left'"):
        SequenceClassifier(**SMALL).fit(*series(20), valid=(series(2)[0], ["up", "left"]))


def test_rare_classes_weigh_more_when_balanced() -> None:
    model = SequenceClassifier(class_weight="balanced")
    weights = model._weights(torch.tensor([0, 0, 0, 1]), 2)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    assert SequenceClassifier()._weights(torch.tensor([0, 1]), 2) is None


def test_metrics_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    chances, labels = generator.dirichlet([1, 1, 1], 200), generator.integers(0, 3, 200)
    made = class_metrics(chances, labels)
    said = chances.argmax(1)
    assert made["accuracy"] == pytest.approx((said == labels).mean())
    assert made["macro_f1"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert made["log_loss"] == pytest.approx(log_loss(labels, chances))
    mean, share, count = reliability(chances, labels)
    assert count.sum() == 200
    assert made["calibration_error"] == pytest.approx((np.abs(mean - share) * count).sum() / 200)


def test_the_blend_is_found() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 6000, 3, dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=2 * a + 0.5 * b).sample()
    assert blend_of_logits(a, b, labels).tolist() == pytest.approx([2, 0.5], rel=0.1)
    assert blend_of_logits(3 * a, None, labels)[0] == pytest.approx(2 / 3, rel=0.1)
    assert blend_of_logits(a[:0], b[:0], labels[:0]).tolist() == pytest.approx([0.5, 0.5])
    targets = (0.8 * a + 0.2 * b)[:, 0]
    assert blend_of_numbers(a[:, :1], b[:, :1], targets).tolist() == pytest.approx([0.8, 0.2], abs=0.01)
    assert blend_of_numbers(a[:, :1], None, targets).tolist() == [1, 0]


def test_stretched_series_end_where_they_ended() -> None:
    torch.manual_seed(0)
    values = torch.arange(10.0)[:, None, None].repeat(1, 4, 1)
    lengths = torch.tensor([10, 7, 2, 1])
    made, new = _stretched(values, lengths, 0.5)
    for row in range(4):
        assert made[0, row, 0] == 0 and new[row] >= 1
        if new[row] > 1:
            assert made[new[row] - 1, row, 0] == pytest.approx(float(lengths[row] - 1), abs=1e-5)
    assert (new != lengths).any()
    changed, same = augmented(values, lengths, 0.0)
    assert torch.equal(same, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(changed[:length, row], values[:length, row])


def test_the_linear_model_on_ngrams(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences, labels = texts(200)
    classes = torch.tensor([int(label == "positive") for label in labels])
    others, right = texts(40, seed=1)
    valid = others, torch.tensor([int(label == "positive") for label in right])
    model = NgramModel.fit(sentences, classes, 2, "words", 2, valid)
    own = model.logits(sentences)
    assert (own.argmax(1) == classes).float().mean() > 0.95
    assert model.logits(["zzz"])[0].tolist() == pytest.approx(model.bias.tolist())
    assert model.logits(["", "fine"]).isfinite().all()
    norms = [model.rows(["a fine story"]).values[part] for part in (slice(0, 5), slice(5, None))]
    assert all(np.square(each).sum() == pytest.approx(1) for each in norms)
    monkeypatch.setattr(ngrams, "MOST_LETTERS", 100)
    by_words = NgramModel.fit(sentences, classes, 2, "words", 2, valid)
    assert not len(by_words.letters) and (by_words.logits(others).argmax(1) == valid[1]).float().mean() > 0.9
    monkeypatch.setattr(ngrams, "MOST_WORDS", 1000)
    assert len(NgramModel.fit(sentences, classes, 2, "words", 2, valid).words) < len(by_words.words)
    monkeypatch.setattr(ngrams, "CHUNK", 7)
    torch.testing.assert_close(model.logits(sentences), own)
    monkeypatch.undo()
    by_letters = NgramModel.fit(sentences, classes, 2, "characters", 2, valid)
    assert not len(by_letters.words)
    assert (by_letters.logits(others).argmax(1) == valid[1]).float().mean() > 0.9
    again = NgramModel.restored(model.tensors(), "words", 2, 2)
    assert torch.equal(again.logits(sentences), own)


def test_the_ridge_regression_leaves_each_series_out(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 30, generator=generator, dtype=torch.float64)
    features -= features.mean(0)
    wanted = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    for strength in (0.01, 1.0, 100.0):
        monkeypatch.setattr(convolutions, "STRENGTHS", [strength])
        weights, bias, left_out = convolutions._ridge(features, wanted)
        assert ((features @ weights + bias - wanted) ** 2).mean() < ((left_out - wanted) ** 2).mean()
        for row in range(12):
            rest = torch.arange(12) != row
            x, y = features[rest], wanted[rest]
            centred = x - x.mean(0)
            gram = centred @ centred.T + strength * torch.eye(11, dtype=torch.float64)
            own = centred.T @ torch.linalg.solve(gram, y - y.mean())
            said = (features[row] - x.mean(0)) @ own + y.mean()
            assert float(said) == pytest.approx(float(left_out[row]), rel=1e-6, abs=1e-8)


def test_the_linear_model_on_convolutions_reads_any_length() -> None:
    values, labels = series(40)
    tensors = [torch.from_numpy(value).float() / 10 - 10 for value in values]
    classes = torch.tensor([int(label == "up") for label in labels])
    model = ConvolutionModel.fit(tensors, classes, 2)
    assert (model.outputs(tensors).argmax(1) == classes).float().mean() > 0.9
    alone = torch.cat([model.outputs([each]) for each in tensors])
    torch.testing.assert_close(model.outputs(tensors), alone, atol=1e-4, rtol=1e-4)
    again = ConvolutionModel.restored(model.tensors(), 2, 2)
    assert torch.equal(again.outputs(tensors), model.outputs(tensors))


def test_of_a_long_text_beginning_and_end_are_read() -> None:
    sentences, labels = texts()
    sentences[0] = "the film " + "of two people " * 50 + " a story"
    model = SequenceClassifier(**SMALL, longest=5, branch="none").fit(sentences, labels)
    encoder = model._data.encoder
    read = [encoder.tokens[each] for each in encoder.encode(sentences[0])]
    assert read == ["the", "film", "of", "a", "story"]
    shares = step_shares(model.network_, model._data, sentences[0], 0)
    assert len(shares) == 154 and np.flatnonzero(shares).tolist() == [0, 1, 2, 152, 153]
    assert len(encoder.encode(" ".join(["film"] * 5))) == 5


def test_the_word_that_decides_is_found() -> None:
    model = SequenceClassifier(**SMALL | {"epochs": 10, "learning_rate": 0.03}).fit(*texts(120))
    text = "the film is a awful story of two people"
    shares = step_shares(model.network_, model._data, text, 0)
    assert int(shares.argmax()) == text.split().index("awful")
    assert step_shares(model.network_, model._data, text, 1) + shares == pytest.approx(0, abs=1e-4)


def test_altered_data_are_found(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    from cellwise.tasks.training.digests import tensors_digest

    SequenceClassifier(**SMALL).fit(*series(20), folder=tmp_path)
    path = tmp_path / "data.safetensors"
    with safe_open(str(path), "pt") as file:
        about = file.metadata()["about"]
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, wrong in (
        ("mean", tensors["mean"] * float("nan")),
        ("spread", -tensors["spread"]),
        ("valid/lengths", tensors["valid/lengths"] + 1),
        ("convolutions/bias", torch.zeros(9)),
    ):
        altered = tensors | {name: wrong}
        digest = tensors_digest(altered, about)
        save_file(altered, path, metadata={"about": about, "sha256": digest})
        with pytest.raises(RunFolderError, match=r"data.safetensors"):
            SequenceClassifier.load(tmp_path)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    code = (
        "from test_adding_a_task import KillAfter\n"
        "from sequences import SMALL, texts\n"
        "from cellwise.tasks import SequenceClassifier\n"
        f"SequenceClassifier(**SMALL).fit(*texts(), folder={str(tmp_path / 'killed')!r}, progress=KillAfter(1))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = SequenceClassifier(**SMALL).fit(*texts(), folder=tmp_path / "killed")
    SequenceClassifier(**SMALL).fit(*texts(), folder=tmp_path / "through")
    assert resumed.trained_.resumed_after == 1
    for name in ("best.safetensors", "last.safetensors"):
        a, b = (load_file(tmp_path / run / name) for run in ("killed", "through"))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
