"""Texts read as subwords, and networks that begin with a language model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sequences import SMALL, series, texts

from cellwise.tasks import LanguageModel, SequenceClassifier, SequenceRegressor
from cellwise.tasks.classify.attribution import step_shares
from cellwise.tasks.classify.columns import Columns
from cellwise.tasks.classify.encoders import TextEncoder
from cellwise.tasks.classify.report_parts import settings_of
from cellwise.tasks.classify.start import read_start
from cellwise.tasks.classify.tables import read_examples
from cellwise.tasks.errors import OptionError, RunFolderError, TaskError

LINES = "\n".join(texts(200, seed=3)[0])
TINY = {"embedding_size": 5, "hidden_size": 7, "epochs": 1, "dropout": 0.0}
STILL = {"epochs": 1, "learning_rate": 1e-8, "weight_decay": 0.0, "min_count": 1, "refit": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of language models."""
    home = tmp_path_factory.mktemp("models")
    for name, how in (
        ("characters", {}),
        ("subwords", {"unit": "subwords", "subwords": 300}),
        ("bytes", {"unit": "bytes"}),
        ("deep", {"num_layers": 2}),
    ):
        LanguageModel(**TINY | how).fit(LINES, folder=home / name)
    return home


def test_spans_of_subwords_are_those_of_the_text() -> None:
    sentences = ["The naïve café, 日本語 🙂!", "", " a  b "]
    encoder = TextEncoder.of(read_examples([*sentences, *texts()[0]], Columns()), "subwords", 1, 100, 300)
    for text in sentences:
        spans = encoder.spans(text)
        assert "".join(text[begin:end] for begin, end in spans) == text
        assert len(spans) == len(encoder.encode(text))
    assert encoder.subwords is not None and len(encoder) == len(encoder.subwords) <= 300
    words = ["film", "story", "people"]
    assert [len(encoder.encode(" " + word)) for word in words] == [1, 1, 1]  # frequent words are one subword
    short = TextEncoder("subwords", (), 4, encoder.subwords)
    assert short.encode("abcdefgh").tolist() == encoder.encode("abgh").tolist()


def test_subwords_are_learned_stored_and_shown(tmp_path: Path) -> None:
    sentences, labels = texts(120)
    how = SMALL | {"epochs": 10, "learning_rate": 0.03, "unit": "subwords", "subwords": 320}
    model = SequenceClassifier(**how).fit(sentences, labels, folder=tmp_path)
    others, right = texts(60, seed=1)
    assert model.score(others, right) > 0.9
    assert model._data.linear.unit == "words"
    again = SequenceClassifier.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(others), model.predict_proba(others))
    assert again.measure_linear() == model.measure_linear()
    text = "the film is a awful story"
    spans, shares = model._data.encoder.spans(text), step_shares(model.network_, model._data, text, 0)
    begin, end = spans[int(shares.argmax())]
    assert text[begin:end].strip() and text[begin:end].strip() in "awful"
    with pytest.raises(OptionError, match="this network reads subwords"):
        SequenceClassifier(**SMALL | {"unit": "subwords", "subwords": 300, "directions": 1}).fit(
            sentences, labels
        ).stream()


@pytest.mark.parametrize("unit", ["characters", "subwords"])
def test_a_network_begins_with_a_language_model(home: Path, tmp_path: Path, unit: str) -> None:
    shutil.copytree(home / unit, tmp_path / "model")
    model = SequenceClassifier(**STILL, pretrained=str(tmp_path / "model"))
    model.fit(*texts(), folder=tmp_path / "run")
    before = LanguageModel.load(home / unit)
    encoder, network = model._data.encoder, model.network_
    assert encoder.unit == unit
    for text in ("a fine film", "ünknown"):
        assert torch.equal(encoder.encode(text), before._encode(text))
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(network.embed.weight, before.network_.embed.weight, **close)
    own, given = dict(network.layer.named_parameters()), dict(before.network_.layer.named_parameters())
    assert {name.removesuffix("_reverse") for name in own} == set(given) and len(own) == 2 * len(given)
    for name, value in own.items():
        torch.testing.assert_close(value, given[name.removesuffix("_reverse")], **close)
    shutil.rmtree(tmp_path / "model")  # a finished run needs it no more
    again = SequenceClassifier.load(tmp_path / "run")
    assert again.network_.config.hidden_size == 7 and settings_of(again)["hidden_size"] == 7
    np.testing.assert_array_equal(again.predict_proba(["a film"]), model.predict_proba(["a film"]))


def test_numbers_begin_with_it_too(home: Path) -> None:
    sentences, labels = texts()
    numbers = [float(label == "positive") for label in labels]
    model = SequenceRegressor(**STILL, pretrained=str(home / "characters")).fit(sentences, numbers)
    assert model.network_.embed.weight.shape[1] == 5


def test_layers_are_taken_in_one_direction(home: Path) -> None:
    model = SequenceClassifier(**STILL, pretrained=str(home / "deep"), directions=1).fit(*texts())
    given = LanguageModel.load(home / "deep").network_.layer.weight_ih_l1
    torch.testing.assert_close(model.network_.layer.weight_ih_l1, given, atol=1e-5, rtol=1e-4)


def test_other_weights_are_another_training(home: Path, tmp_path: Path) -> None:
    LanguageModel(**TINY, seed=1).fit(LINES, folder=tmp_path / "other")
    found = [
        SequenceClassifier(**STILL, pretrained=path)._read(*texts())[0].fingerprint
        for path in (str(home / "characters"), str(tmp_path / "other"), None)
    ]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("bytes", {}, "reads bytes; train one with --unit subwords or --unit characters"),
        ("deep", {}, "2 layers that read forwards.*--directions 1"),
        ("characters", {"cell": "lstm"}, "has the cell gru, and this network lstm; give cell='gru'"),
        ("characters", {"unit": "words"}, "unit is 'words', but .* reads characters; leave out unit"),
        ("characters", {"hidden_size": 9}, "hidden_size is 9, but .* has 7; give that, or leave it out"),
        ("characters", {"embedding_size": 9}, "embedding_size is 9, but .* has 5"),
        ("characters", {"num_layers": 2}, "num_layers is 2, but .* has 1"),
        ("nowhere", {}, "there is no run folder"),
    ],
)
def test_what_does_not_fit_is_one_sentence(home: Path, name: str, how: dict, says: str) -> None:
    with pytest.raises(TaskError, match=says) as raised:
        SequenceClassifier(**STILL | how, pretrained=str(home / name)).fit(*texts())
    assert "\n" not in str(raised.value)


def test_only_a_whole_language_model_is_taken(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="for texts, but these are series"):
        SequenceClassifier(pretrained=str(home / "characters")).fit(*series())
    SequenceClassifier(**SMALL).fit(*texts(), folder=tmp_path / "classifier")
    with pytest.raises(
        RunFolderError, match="the task 'classify'; a warm start takes one of `cellwise text`"
    ):
        SequenceClassifier(pretrained=str(tmp_path / "classifier")).fit(*texts())
    shutil.copytree(home / "characters", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"best\.safetensors"):
        SequenceClassifier(pretrained=str(tmp_path / "damaged")).fit(*texts())
    (tmp_path / "damaged" / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="is not finished"):
        read_start(tmp_path / "damaged")
