"""The estimator: `SpeechRecognizer().fit("train.csv").predict(["hello.wav"])`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Self

import numpy as np
import torch

from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError, RunFolderError, TaskError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.speech import TASK
from cellwise.tasks.speech.alignment import Word, align, words_of
from cellwise.tasks.speech.data import (
    Clips,
    Known,
    Training,
    blank_share,
    chosen_rate,
    hold_out,
    prepare,
    statistics,
    usable,
)
from cellwise.tasks.speech.decoding import Beam, best_path
from cellwise.tasks.speech.features import STEP, LogMel
from cellwise.tasks.speech.language import Language
from cellwise.tasks.speech.languages import Choice, made_language
from cellwise.tasks.speech.manifest import Listed, as_listed, listed
from cellwise.tasks.speech.metrics import Errors, measure_transcripts
from cellwise.tasks.speech.network import PlainNetwork, Sizes, SpeechNetwork
from cellwise.tasks.speech.objective import Augmentation, SpeechObjective, padded
from cellwise.tasks.speech.options import SpeechOptions
from cellwise.tasks.speech.stored import rebuild, stored
from cellwise.tasks.speech.stream import SpeechStream
from cellwise.tasks.speech.transcripts import Alphabet, normalize, pieces
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import DATA, WINDOWS, Checkpoint, RunFolder

__all__ = ["SpeechRecognizer", "Transcript"]

STEPS = 3_200  # of the optimizer, which suit a few minutes of speech
FEWEST_EPOCHS, MOST_EPOCHS = 10, 120
FRAMES = 12_000  # of features together in a batch of predictions
WEIGHTS, BONUSES = (0.0, 0.5, 0.75, 1.0, 1.25), (0.0, 0.7, 1.4, 2.1)  # of the language; per character
USUAL = (0.5, 1.4)  # where nothing was held out
# Options that run folders of version 0.4.0 do not name, and what they were.
FORMER: Mapping[str, Any] = {"language": "characters"}
LONGEST_CHOICE = 90.0  # seconds of what was held out that choose among them


@dataclass(frozen=True)
class Transcript:
    """What was recognised in a recording, its words with their times in seconds, and how sure the network is: the
    geometric mean of the probabilities of its characters, NaN if there is none."""

    name: str
    text: str
    words: tuple[Word, ...]
    confidence: float


class SpeechRecognizer(SpeechOptions, Estimator[Known, Training]):
    """A recurrent network that writes down what is said in recordings.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. rate, bands,
    normalization: what is heard, and what transcripts keep. hidden_size, num_layers, dropout, reduction, streaming: the
    network. unit: what it writes, "characters" or "subwords", of which it learns `subwords`. masking, speed, noise: how
    recordings are altered in training. beam, language, language_text, language_arpa, language_run: the search for the
    text, and the language model in it. epochs, batch_size, learning_rate, weight_decay, patience, seed, threads,
    device, minutes, accumulate, autocast: the training.

    `fit` takes a table with the columns `path` and `text`, a folder of recordings with .txt files beside them, or a
    list of recordings with a list of texts; a recording is a file or a pair (samples, rate). `valid`, of the same
    kinds, decides when to stop and how much the language model counts; without it every tenth recording does.

    What `fit` learns ends in an underscore: `network_`, `alphabet_`, `rate_` (in Hz), `held_out_` (the recordings that
    decided when to stop, None if too few), `language_weight_` and `bonus_` (of the search), `trained_` (the epochs)."""

    task = TASK.name
    metric = "cer"
    higher_is_better = False
    measured_by = ("normalization", "rate")

    network_: SpeechNetwork
    alphabet_: Alphabet
    rate_: int
    held_out_: Clips | None
    language_weight_: float
    bonus_: float
    _languages: dict[Choice, Language]

    def _read(self, data: Any, target: Any = None, valid: Any = None) -> tuple[Known, Training]:
        told = as_listed(data, target)
        rate = chosen_rate(told) if self.rate is None else self.rate
        mel = LogMel(rate, self.bands)
        read = prepare(told, rate, self.normalization)
        subwords = self._subwords(read.texts)
        units = partial(pieces, subwords=subwords)
        clips = usable(read, mel, self.reduction, units)
        if valid is None:
            clips, held = hold_out(clips)
        else:
            recordings, texts = valid if isinstance(valid, tuple) and len(valid) == 2 else (valid, None)
            own = prepare(as_listed(recordings, texts, "validation"), rate, self.normalization)
            held = usable(own, mel, self.reduction, units)
        notes = clips.notes + (() if held is None else tuple(f"validation: {note}" for note in held.notes))
        alphabet = Alphabet.of(clips.texts, subwords)
        sentences = (*clips.texts, *self._language_sentences())
        self._languages = {}
        language_notes = self._understood(self._choice, sentences, alphabet)
        known = Known(
            rate,
            alphabet,
            *statistics(clips, mel),
            blank_share(clips, mel, self.reduction, sum(alphabet.counts)),
            sentences,
            held,
            clips.digest() + ("" if held is None else held.digest()),
            (*notes, *language_notes),
        )
        return known, Training(clips)

    def _subwords(self, texts: Sequence[str]) -> Subwords | None:
        if self.unit == "characters":
            return None
        return Subwords.learn(texts, self.subwords)

    @property
    def _choice(self) -> Choice:
        return Choice(self.language, self.language_arpa, self.language_run)

    def _understood(self, choice: Choice, sentences: Sequence[str], alphabet: Alphabet) -> tuple[str, ...]:
        """Make a language model, so that what is wrong with its files is said before a training; notes on it."""
        self._languages[choice], notes = made_language(choice, sentences, alphabet.characters)
        return notes

    @property
    def _language(self) -> Language:
        """The language model that the options name now. TaskError where its files cannot be used any more."""
        if self._choice not in self._languages:
            try:
                self._understood(self._choice, self._data.sentences, self.alphabet_)
            except (DataError, RunFolderError) as error:
                raise TaskError(
                    f"{error}; the search of this recogniser needs it: name it with language_arpa or language_run "
                    "(--language-arpa FILE, --language-run RUN)"
                ) from error
        return self._languages[self._choice]

    def _language_sentences(self) -> list[str]:
        if self.language_text is None:
            return []
        sentences = (
            normalize(line, self.normalization) for line in read_text(self.language_text).split("\n")
        )
        return [sentence for sentence in sentences if sentence]

    def _network(self, data: Known) -> SpeechNetwork:
        sizes = Sizes(
            self.bands, self.reduction, self.hidden_size, self.num_layers, not self.streaming, self.dropout
        )
        kind = PlainNetwork if data.is_plain else SpeechNetwork
        return kind(self._cell, sizes, data.mean, data.scale, data.prior)

    def _objective(self, network: SpeechNetwork, data: Known, training: Training) -> SpeechObjective:
        clips, held = training.clips, data.held

        def validate() -> dict[str, float]:
            if held is None:
                return {}
            said = [
                spaced(data.alphabet.decode(best_path(each))) for each in self._scores(network, data, held)
            ]
            words, characters = measure_transcripts(held.texts, said)
            return {"cer": characters.rate, "wer": words.rate}

        return SpeechObjective(
            network,
            LogMel(data.rate, self.bands),
            clips,
            [torch.tensor(data.alphabet.encode(text)) for text in clips.texts],
            validate,
            augmentation=Augmentation(self.masking, self.speed, self.noise),
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def _epochs(self, data: Known, training: Training) -> int:
        per_epoch = math.ceil(len(training.clips) / self.batch_size)
        return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(STEPS / per_epoch)))

    def _store(self, data: Known) -> Stored:
        return Stored(data.fingerprint, stored(data))

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> Known:
        self._languages = {}
        tensors, fingerprint = run.read_tensors(DATA).tensors, config["data"]
        if not isinstance(fingerprint, str):
            raise ValueError("its data has no fingerprint")
        return run.guarded(
            f"{DATA} does not hold what a recogniser knows", lambda: rebuild(tensors, fingerprint, self.bands)
        )

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        return super()._loaded(run, config | {"settings": {**FORMER, **config["settings"]}})

    def _learned(self, data: Known) -> None:
        self.alphabet_, self.rate_, self.held_out_ = data.alphabet, data.rate, data.held
        self.language_weight_, self.bonus_ = USUAL

    def _complete(self) -> tuple[str, ...]:
        """Choose what the language counts for, by what was held out: the least sum of both error rates."""
        held = self.held_out_
        if held is None or self.beam == 1:
            return ()
        ends = accumulate(len(each) / held.rate for each in held.samples)
        held = held.select([row for row, end in enumerate(ends) if row == 0 or end <= LONGEST_CHOICE])
        with torch_threads(self.threads):
            scores = self._scores(self.network_, self._data, held)

        def errors(chosen: tuple[float, float]) -> float:
            said = [self._decoded(each, *chosen) for each in scores]
            return sum(each.rate for each in measure_transcripts(held.texts, said))

        choices = [(weight, bonus) for weight in WEIGHTS for bonus in BONUSES if weight or not bonus]
        self.language_weight_, self.bonus_ = min(choices, key=errors)
        return ()

    def _completion(self) -> Mapping[str, Checkpoint]:
        chosen = torch.tensor([self.language_weight_, self.bonus_], dtype=torch.float64)
        return {WINDOWS: Checkpoint({"search": chosen}, {})}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        if run is None:
            return ()
        chosen = run.read_tensors(WINDOWS).tensors.get("search")
        if chosen is None or chosen.shape != (2,) or not bool(chosen.isfinite().all()):
            raise run.damaged(f"{WINDOWS} does not say how much the language counts")
        self.language_weight_, self.bonus_ = chosen.tolist()
        return ()

    def _notes(self, data: Known) -> tuple[str, ...]:
        if data.held is None:
            return (*data.notes, "too few recordings to hold any out, so training does not stop early")
        return data.notes

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.speech.report import write_report

        write_report(run, self)

    def _figures(self) -> dict[str, Any]:
        if self.held_out_ is None:
            return {}
        return {"held_out": "validation", "scores": self.measure(self.held_out_)}

    @property
    def model_name(self) -> str:
        """How it is called in tables: the cell's name in capitals."""
        return self.cell_name.upper()

    # --- what was said ------------------------------------------------------------------------------------------

    def predict(self, data: Any) -> list[str]:
        """The text of each recording. data: a list of files or of pairs (samples, rate), a table, a folder, a file."""
        return [self._decoded(scores) for scores in self._all_scores(self._clips(data))]

    def transcribe(self, data: Any) -> list[Transcript]:
        """The text of each recording with its words, when they were said, and how sure the network is."""
        clips = self._clips(data)
        return [
            self._transcript(name, scores)
            for name, scores in zip(clips.names, self._all_scores(clips), strict=True)
        ]

    def stream(self, rate: int | None = None) -> SpeechStream:
        """A recording that comes in pieces, at `rate` Hz: `feed` samples, read the text so far, `end` it.

        OptionError for a network of two directions."""
        self._check_fitted()
        return SpeechStream(
            self.network_, LogMel(self.rate_, self.bands), self.alphabet_, rate, self._transcript
        )

    def measure(self, data: Any, target: Any = None) -> dict[str, float]:
        """`wer`, `cer`: word and character error rates, edits per word or character of the transcripts, which are
        normalised as for training; the counts of substitutions, insertions and deletions of each."""
        clips = self._clips(data, target, needs_texts=True)
        said = [self._decoded(scores) for scores in self._all_scores(clips)]
        return figures(*measure_transcripts(clips.texts, said))

    def _clips(self, data: Any, target: Any = None, needs_texts: bool = False) -> Clips:
        self._check_fitted()
        if isinstance(data, Clips):
            return data
        told: Listed = as_listed(data, target, "measuring") if needs_texts else listed(data)
        clips = prepare(told, self.rate_, self.normalization)
        if needs_texts and not any(clips.texts):
            raise DataError(f"no transcript of {told.origin} holds a word, so nothing can be measured")
        return clips

    def _all_scores(self, clips: Clips) -> list[np.ndarray]:
        with torch_threads(self.threads):
            return self._scores(self.network_, self._data, clips)

    def _scores(self, network: SpeechNetwork, data: Known, clips: Clips) -> list[np.ndarray]:
        """Log-probabilities (T', K) of each recording."""
        mel, device, training = LogMel(data.rate, self.bands), network.mean.device, network.training
        made: dict[int, np.ndarray] = {}
        network.eval()
        with torch.no_grad():
            for rows in _by_length([mel.count(len(each)) for each in clips.samples]):
                own = [network.normalized(mel(clips.sound(row)).to(device)) for row in rows]
                features, lengths = padded(own)
                scores = network(features, lengths).transpose(0, 1).cpu().numpy()
                for row, each, steps in zip(rows, scores, network.steps(lengths).tolist(), strict=True):
                    made[row] = each[:steps]
        network.train(training)
        return [made[row] for row in range(len(clips))]

    def _search(self, weight: float | None = None, bonus: float | None = None) -> Beam:
        weight = self.language_weight_ if weight is None else weight
        bonus = self.bonus_ if bonus is None else bonus
        return Beam(self.beam, self.alphabet_.units, self._language if weight else None, weight, bonus)

    def _found(
        self, scores: np.ndarray, weight: float | None = None, bonus: float | None = None
    ) -> list[int]:
        return best_path(scores) if self.beam == 1 else self._search(weight, bonus).decode(scores)

    def _decoded(self, scores: np.ndarray, weight: float | None = None, bonus: float | None = None) -> str:
        return spaced(self.alphabet_.decode(self._found(scores, weight, bonus)))

    def _transcript(self, name: str, scores: np.ndarray) -> Transcript:
        found = self._found(scores)
        spans = align(scores, found)
        confidence = float(np.exp(np.mean([span.score for span in spans]))) if spans else float("nan")
        units = [self.alphabet_.decode([each]) for each in found]
        text = spaced("".join(units))
        return Transcript(name, text, words_of(units, spans, STEP * self.reduction), confidence)


def spaced(text: str) -> str:
    """A text with one space between words."""
    return " ".join(text.split())


def figures(words: Errors, characters: Errors) -> dict[str, float]:
    """The errors of words and characters by name."""
    made: dict[str, float] = {"wer": words.rate, "cer": characters.rate}
    for unit, errors in (("word", words), ("character", characters)):
        for kind in ("substitutions", "insertions", "deletions"):
            made[f"{unit}_{kind}"] = getattr(errors, kind)
        made[f"{unit}s"] = errors.total
    return made


def _by_length(counts: list[int]) -> list[list[int]]:
    """Rows from short to long, about FRAMES frames in a batch."""
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(counts)), key=counts.__getitem__):
        if batches[-1] and (len(batches[-1]) + 1) * counts[row] > FRAMES:
            batches.append([])
        batches[-1].append(row)
    return batches if batches[-1] else []
