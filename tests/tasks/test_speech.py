"""The recogniser from end to end: learning, files, mistakes, streams, the report, the commands."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from speech_work import RATE, manifest, sentences, spoken

from cellwise.tasks import LanguageModel, SpeechRecognizer
from cellwise.tasks.errors import DataError, OptionError, RunFolderError, TaskError
from cellwise.tasks.speech.datasets import digits, prompts
from cellwise.tasks.speech.report import GREEDY
from cellwise.tasks.speech.resampling import Resampler
from cellwise.tasks.training.progress import Silent

pytestmark = pytest.mark.draws

SMALL = {
    "hidden_size": 24,
    "num_layers": 1,
    "bands": 16,
    "dropout": 0.0,
    "batch_size": 8,
    "speed": 0.0,
    "noise": 0.0,
    "beam": 8,
}


def small(**settings: Any) -> SpeechRecognizer:
    return SpeechRecognizer(**{**SMALL, "epochs": 1, **settings})


def lists(count: int, seed: int = 0) -> tuple[list[tuple[np.ndarray, int]], list[str]]:
    texts = sentences(count, seed)
    return [(spoken(text, seed=seed + i), RATE) for i, text in enumerate(texts)], texts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeechRecognizer, Path]:
    """One direction, so that the stream can be tried, trained on recordings of under three minutes."""
    home = tmp_path_factory.mktemp("speech")
    table = manifest(home, sentences(120))
    made = small(epochs=16, streaming=True, learning_rate=1e-2, noise=0.5)
    return made.fit(table, folder=home / "run", progress=False), home


def test_it_leaves_the_blank_plateau_within_a_few_steps(trained: tuple[SpeechRecognizer, Path]) -> None:
    made, _ = trained
    recordings, texts = lists(20, seed=500)
    found = made.measure(recordings, texts)
    assert found["cer"] < 0.1
    assert found["words"] == 40 and found["characters"] == len("".join(texts))
    assert made.trained_ is not None and made.trained_.epochs[5].metrics["cer"] < 0.7
    assert made.score(recordings, texts) == -found["cer"]


def test_words_have_times_and_confidences(trained: tuple[SpeechRecognizer, Path]) -> None:
    made, _ = trained
    (found,) = made.transcribe([(spoken("cab deed"), RATE)])
    assert found.text == "cab deed" and [word.text for word in found.words] == ["cab", "deed"]
    assert 0 <= found.words[0].start < found.words[0].end <= found.words[1].start < found.words[1].end < 1.1
    # a letter takes 110 ms behind 50 ms of silence: the second word begins at 0.49 s
    assert found.words[1].start == pytest.approx(0.49, abs=0.12)
    assert all(0.3 < word.confidence <= 1 for word in found.words) and found.confidence > 0.5


def test_a_recording_alone_is_what_it_is_among_others(trained: tuple[SpeechRecognizer, Path]) -> None:
    made, _ = trained
    recordings, _ = lists(5, seed=30)
    recordings.append((spoken("abcde ab cd abcde bad"), RATE))
    together = made._all_scores(made._clips(recordings))
    for number, each in enumerate(recordings):
        (alone,) = made._all_scores(made._clips([each]))
        np.testing.assert_allclose(together[number], alone, atol=1e-5)


@pytest.mark.parametrize("rate", [RATE, 22_050])
def test_a_stream_gives_what_the_whole_gives(trained: tuple[SpeechRecognizer, Path], rate: int) -> None:
    made, _ = trained
    sound = spoken("bad cab", rate)
    stream = made.stream(rate)
    shown = [stream.feed(piece) for piece in np.array_split(sound, 13)]
    (wanted,) = made.transcribe([(sound, rate)])
    found = stream.end("recording 1")
    assert found.text == wanted.text == "bad cab"
    assert [(w.text, w.start, w.end) for w in found.words] == [(w.text, w.start, w.end) for w in wanted.words]
    assert found.confidence == pytest.approx(wanted.confidence, rel=1e-3)
    (scores,) = made._all_scores(made._clips([(sound, rate)]))
    np.testing.assert_allclose(
        torch.stack(stream._scores).numpy(), scores, atol=1e-4 if rate == RATE else 1e-2
    )
    assert shown[5] and "bad cab".startswith(shown[5]) and len(shown[5]) < 6
    with pytest.raises(DataError, match="over"):
        stream.feed(sound)


def test_a_stream_of_almost_nothing(trained: tuple[SpeechRecognizer, Path]) -> None:
    made, _ = trained
    for count in (0, 1, 250):
        stream = made.stream()
        stream.feed(np.zeros(count, dtype=np.int16))
        assert stream.end().text == ""
    with pytest.raises(OptionError, match="--streaming"):
        small(bands=8).fit(*lists(4), progress=False).stream()


def test_a_loaded_recogniser_is_equal(trained: tuple[SpeechRecognizer, Path], tmp_path: Path) -> None:
    made, home = trained
    for loaded in (SpeechRecognizer.load(home / "run"), _saved(made, tmp_path / "copy")):
        assert loaded.transcribe(loaded.held_out_) == made.transcribe(made.held_out_)
        assert (loaded.language_weight_, loaded.bonus_) == (made.language_weight_, made.bonus_)
        assert loaded.measure(home / "train.csv") == made.measure(home / "train.csv")
    file = tmp_path / "copy/data.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"rate"', b'"tare"', 1))
    with pytest.raises(RunFolderError):
        SpeechRecognizer.load(tmp_path / "copy")


def _saved(made: SpeechRecognizer, folder: Path) -> SpeechRecognizer:
    made.save(folder)
    return SpeechRecognizer.load(folder)


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    data = lists(30)
    settings = {"epochs": 3, "dropout": 0.2, "speed": 0.1, "noise": 0.5, "num_layers": 2}
    whole = small(**settings).fit(*data)

    class Stop(Silent):
        def epoch(self, epoch: object, best: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(**settings).fit(*data, folder=tmp_path / "run", progress=Stop())
    resumed = small(**settings).fit(*data, folder=tmp_path / "run")
    for name, value in whole.network_.state_dict().items():
        assert value.equal(resumed.network_.state_dict()[name]), name


def test_any_rate_any_channels_any_kind_of_file(
    trained: tuple[SpeechRecognizer, Path], tmp_path: Path
) -> None:
    made, _ = trained
    for name, rate in (("a.wav", 44_100), ("b.flac", 11_025), ("c.ogg", 16_000), ("d.wav", 48_000)):
        sound = spoken("dab ace", rate)
        several = sound if name == "b.flac" else np.stack([sound, 0.9 * sound, 0.8 * sound], axis=1)
        soundfile.write(tmp_path / name, several, rate)
    folder = made.predict(tmp_path)
    assert folder == ["dab ace"] * 4
    up = Resampler(RATE, 16_000)(torch.from_numpy(spoken("dab ace"))).numpy()
    assert made.predict([(up, 16_000), ((32767 * up).astype(np.int16), 16_000)]) == ["dab ace"] * 2


def test_what_cannot_be_learned_from_is_named_and_left_out(tmp_path: Path) -> None:
    table = manifest(tmp_path, sentences(30))
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    soundfile.write(tmp_path / "short.wav", spoken("ab"), RATE)
    soundfile.write(tmp_path / "tiny.wav", spoken("ab")[:5], RATE)
    soundfile.write(tmp_path / "low.wav", spoken("ab", 4000), 4000)
    with table.open("a") as file:
        file.write("silent.wav,ab\nshort.wav,abcdeabcdeabcde\ntiny.wav,ab\ntrain0.wav,?!\nlow.wav,ab\n")
    made = small().fit(table, valid=table, progress=False)
    said = " ".join(made.notes_)
    assert "1 recording left out, silent from beginning to end: silent.wav" in said
    assert (
        "too long for its sound at 30 ms a character: short.wav (0.3 s, 'abcdeabcdeabcde'), tiny.wav" in said
    )
    assert "1 recording left out, without a word in the transcript: train0.wav" in said
    assert "low.wav: recorded at 4,000 Hz" in said and "validation: " in said
    assert made.trained_ is not None and all(math.isfinite(each.loss) for each in made.trained_.epochs)
    found = made.measure(table)
    assert found["words"] == 64 and math.isfinite(found["cer"])
    assert made.transcribe([tmp_path / "silent.wav", tmp_path / "tiny.wav"])[0].name.endswith("silent.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,text\nnone.wav,ab\n", r"there is no recording .*none\.wav"),
        ("path,text\nbad.wav,ab\n", r"bad\.wav cannot be read as a recording"),
        ("path,text\nempty.wav,ab\n", r"empty\.wav holds no sound"),
        ("path,text\nnan.wav,ab\n", r"nan\.wav holds samples that are no numbers"),
        ("path,text\nslow.wav,ab\n", r"slow\.wav has 1,000 samples a second"),
        ("path,text\nsilent.wav,ab\n", r"no recording is left to learn from .*silent\.wav"),
        ("path,text\n.,ab\n", "is a folder or a device"),
        ("path,text\n,ab\n", r"names no recording in column 'path' at line 2"),
        ("sound,text\na.wav,ab\n", "needs a column `path`"),
        ("path,words\nsilent.wav,ab\n", "has no transcripts for training"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound at all")
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "slow.wav", np.zeros(500), 1000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan] * 50), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=message) as caught:
        small().fit(tmp_path / "train.csv", progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        ([(np.zeros(9), RATE)], None, "need transcripts"),
        ([(np.zeros(9), RATE)], ["a", "b"], "1 recordings and 2 transcripts"),
        ([(np.zeros(9), RATE)], [3], "transcript 1 is 3"),
        ([np.zeros(9)], ["a"], r"pair \(samples, rate\)"),
        ([(np.zeros(9), 0.5)], ["a"], "whole number of samples"),
        ([(np.zeros(9, dtype=np.int64), RATE)], ["a"], "must be int16"),
        ([(np.full(9, 2e4), RATE)], ["a"], "samples up to 20,000"),
        ([(np.zeros((9, 99)), RATE)], ["a"], "99 channels"),
        (5, ["a"], "must be a list"),
    ],
)
def test_wrong_lists_are_one_sentence(data: Any, target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().fit(data, target, progress=False)


def test_a_folder_with_texts_beside(tmp_path: Path) -> None:
    for number, text in enumerate(("ab", "cd bad")):
        soundfile.write(tmp_path / f"{number}.flac", spoken(text), RATE)
        (tmp_path / f"{number}.txt").write_text(f"{text.upper()}.\n")
    made = small().fit(tmp_path, progress=False)
    assert "".join(made.alphabet_.characters) == " abcd" and made.held_out_ is None
    assert any("too few recordings" in note for note in made.notes_)
    (tmp_path / "1.txt").unlink()
    with pytest.raises(DataError, match=r"1\.flac has no transcript beside it"):
        small().fit(tmp_path, progress=False)


def test_another_text_teaches_the_language_model(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("Ebb, ebb; ebb.\nzzz\n")
    plain = small().fit(*lists(4), progress=False)
    more = small(language_text=str(tmp_path / "more.txt")).fit(*lists(4), progress=False)
    assert more._data.sentences == (*plain._data.sentences, "ebb ebb ebb", "zzz")
    with pytest.raises(DataError, match=r"none\.arpa"):
        small(language_arpa=str(tmp_path / "none.arpa")).fit(*lists(4), progress=False)


def test_a_trained_language_model_stands_in_the_search(tmp_path: Path) -> None:
    texts = sentences(200, 3)
    settings = {"embedding_size": 8, "hidden_size": 16, "epochs": 1, "length": 20}
    LanguageModel(**settings).fit("\n".join(texts), folder=tmp_path / "text", progress=False)
    made = small(language="characters", language_run=str(tmp_path / "text"))
    made.fit(*lists(24), folder=tmp_path / "run", progress=False)
    assert made._language.end(made._language.start) < -1.0  # it has learned that no line is empty
    scores = made._all_scores(made._clips([(spoken("cab deed"), RATE)]))[0]
    found = made._decoded(scores, 0.5, 0.7)
    loaded = SpeechRecognizer.load(tmp_path / "run")
    assert loaded._decoded(scores, 0.5, 0.7) == found != made._decoded(scores, 0.0, 0.0)
    (tmp_path / "text").rename(tmp_path / "moved")
    with pytest.raises(TaskError, match=r"text.*the search of this recogniser needs it"):
        SpeechRecognizer.load(tmp_path / "run")._decoded(scores, 0.5)
    loaded = SpeechRecognizer.load(tmp_path / "run").set_params(language_run=str(tmp_path / "moved"))
    assert loaded._decoded(scores, 0.5, 0.7) == found
    with pytest.raises(OptionError, match="one sentence a line"):
        LanguageModel(**settings).fit(" ".join(texts), folder=tmp_path / "line", progress=False)
        small(language_run=str(tmp_path / "line")).fit(*lists(4), progress=False)


def test_subwords(tmp_path: Path) -> None:
    made = small(unit="subwords", subwords=262, epochs=4, streaming=True, learning_rate=1e-2)
    made.fit(*lists(60), folder=tmp_path / "run", progress=False)
    losses = [epoch.loss for epoch in made.trained_.epochs]
    assert losses[-1] < 0.9 * losses[0]
    units = made.alphabet_.units
    assert set("abcde ") <= set(units) and any(len(unit) > 1 for unit in units) and len(units) < 20
    assert made.alphabet_.decode(made.alphabet_.encode("cab deed")) == "cab deed"
    recordings, _ = lists(3, seed=500)
    loaded = SpeechRecognizer.load(tmp_path / "run")
    for each in (made, loaded):  # so little training says too little by itself
        each.language_weight_, each.bonus_ = 0.5, 4.0
    (wanted, *_) = found = made.transcribe(recordings)
    assert loaded.transcribe(recordings) == found
    assert all(" ".join(word.text for word in each.words) == each.text != "" for each in found)
    stream = made.stream()
    stream.feed(recordings[0][0])
    last = stream.end("recording 1")
    assert [(w.text, w.start, w.end) for w in last.words] == [(w.text, w.start, w.end) for w in wanted.words]


def test_the_report_says_the_figures_and_plays_the_worst(tmp_path: Path) -> None:
    made = small(epochs=2).fit(*lists(30), folder=tmp_path / "run", progress=False)
    page = (tmp_path / "run/report.html").read_text("utf8")
    found = made.measure(made.held_out_)
    assert f"{100 * found['cer']:.1f}" in page and GREEDY in page
    assert 'src="data:audio/wav;base64,' in page and "media-src data:" in page and "data:image/png" in page
    assert "letters, digits and apostrophes" in page
    assert SpeechRecognizer.remake_report(tmp_path / "run").read_text("utf8") == page


def test_commands(
    run: Any, trained: tuple[SpeechRecognizer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, home = trained
    test = manifest(tmp_path, sentences(5, seed=9), "test.csv", seed=90)
    done = run("speech", "evaluate", str(home / "run"), str(test), "--json")
    figures = json.loads(done.stdout)
    assert figures["wer"] == made.measure(test)["wer"] and figures["cer"] < 0.2
    done = run("speech", "predict", str(home / "run"), str(tmp_path / "test0.wav"))
    assert done.stdout == made.predict(tmp_path / "test0.wav")[0] + "\n" and "times as fast" in done.stderr
    done = run("speech", "predict", str(home / "run"), str(test), "--out", str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "path,text,confidence"
    (value, *_) = json.loads(run("speech", "predict", str(home / "run"), str(test), "--json").stdout)
    assert value["text"] == " ".join(word["text"] for word in value["words"])

    raw = (32767 * spoken("bad ace")).astype("<i2").tobytes() + b"\x00"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    done = run("speech", "predict", str(home / "run"), "-", "--streaming")
    assert done.stdout == "bad ace\n" and "... ba" in done.stderr and "a step waits 75 ms" in done.stderr
    buffer = io.BytesIO()
    soundfile.write(buffer, spoken("bad ace"), RATE, format="WAV")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(buffer.getvalue())))
    assert run("speech", "predict", str(home / "run"), "-").stdout == "bad ace\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert "holds no sound" in run("speech", "predict", str(home / "run"), "-", "--streaming").stderr
    done = run("speech", "predict", str(home / "run"), str(test), "--streaming")
    assert done.returncode == 2 and "name - instead" in done.stderr


def test_the_bundled_digits_are_whole() -> None:
    made = digits(50)
    assert made.texts is not None and len(made) == 50 == len(set(made.names))
    assert {word for text in made.texts for word in text.split()} >= {
        "seven",
        "ocho",
        "zéro",
        "quattro",
        "семь",
    }
    assert all(rate == RATE and np.abs(sound).max() <= 1.01 for sound, rate in made.items)
    again = digits(50)
    assert all((a[0] == b[0]).all() for a, b in zip(made.items, again.items, strict=True))


def test_the_split_of_the_prompts(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(DataError, match="asterisk-core-sounds-en-wav"):
        prompts(tmp_path)
    lines = [
        "; a list",
        "hello: Hello, world!",
        "digits/1: 1",
        "year: In 2004",
        "beep: [beep]",
        "twice: Hello world",
    ]
    (tmp_path / "core-sounds-en.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    voice = tmp_path / "sounds/en_US"
    (voice / "digits").mkdir(parents=True)
    for name in ("hello", "digits/1", "year", "beep", "twice", "unknown"):
        (voice / f"{name}.wav").write_bytes(b"")
    parts = prompts(tmp_path)
    texts = {name: list(part.texts or ()) for name, part in parts.items()}
    assert sorted(text for own in texts.values() for text in own) == ["hello world", "hello world", "one"]
    assert ["hello world", "hello world"] in [[t for t in own if t != "one"] for own in texts.values()]
