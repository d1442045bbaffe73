"""The estimators: `LanguageModel(cell="gru").fit(text).generate(start="Call me Ish")`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cellwise.tasks.common_options import NETWORK
from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.options import Range, option, with_options
from cellwise.tasks.stored_run import without_groups
from cellwise.tasks.text import TASK
from cellwise.tasks.text.baselines import KneserNey, compressor_bits
from cellwise.tasks.text.corpus import Parts, as_source, fingerprint_of, split_text
from cellwise.tasks.text.generating import Choice, write_ids
from cellwise.tasks.text.ids import encoded
from cellwise.tasks.text.network import CharacterNetwork, Regularisation
from cellwise.tasks.text.ngrams import NGrams
from cellwise.tasks.text.objective import StreamObjective, TextObjective
from cellwise.tasks.text.options import TextOptions
from cellwise.tasks.text.reading import bits_of_each, bits_of_lines, bits_of_source
from cellwise.tasks.text.samples import Sample, chosen, restored_samples, samples_of
from cellwise.tasks.text.sizes import Sizes, sizes_for
from cellwise.tasks.text.units import Units, Vocabulary, learned_units, restored_units
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.run_folder import CONFIG, DATA, WINDOWS, Checkpoint, RunFolder

__all__ = ["CharacterModel", "LanguageModel", "TextData"]

MOST_COUNTED = 10_000_000  # characters of a training text, its last, that the models beside it see
# Options that run folders of earlier versions do not name, and what they were.
FORMER: Mapping[str, Any] = {"unit": "characters", "branch": "none", "carry": False, "locked": False}


@dataclass(frozen=True, eq=False)
class TextData:
    """The part of a text that a model keeps: its vocabulary, the held-out end, a hash of the whole, the sizes that
    were chosen for it."""

    vocabulary: Units
    held_out: str
    is_test: bool
    fingerprint: str
    sizes: Sizes


class LanguageModel(TextOptions, Estimator[TextData, Parts]):
    """A recurrent network that predicts a text by characters, bytes or subwords.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. unit:
    "characters", "bytes" or "subwords", of which it learns `subwords`. branch: "ngrams" or "none", beside the
    network. embedding_size, hidden_size, num_layers, tied (the embedding is the output weights too): the network.
    dropout (None: by the size of the text), input_dropout, embedding_dropout, weight_dropout, locked,
    activation_penalty, slowness_penalty: its regularisation. carry: whether a training sequence begins with the
    state of the one before it. epochs, batch_size, length (characters of one sequence), learning_rate,
    weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the training.

    `fit` takes a text, a list of texts, which are read as one, each on its own line, or the `Path` of a file or a
    folder of .txt files, which may be larger than memory. `valid`, another text, decides when to stop. Without it nine
    tenths are learned from, half of the rest decides when to stop, and the end stays unseen; of a long text, a million
    characters each.

    What `fit` learns ends in an underscore: `network_`, `tokens_` (what it reads and predicts, by id; the first
    stands for all that is unknown), `ngrams_` (None without), `characters_` (`tokens_` as a text; empty with
    subwords), `held_out_` (the end of the text, which training never saw, or the validation text), `trained_` (the
    epochs), `samples_` (what it wrote after its epochs)."""

    task = TASK.name
    former_tasks = TASK.former_names
    metric = "bits_per_character"

    network_: CharacterNetwork
    characters_: str
    tokens_: tuple[str, ...]
    held_out_: str
    samples_: list[Sample]
    ngrams_: NGrams | None = None
    _validation: Tensor | None = None  # as ids, by which the n-grams' share is chosen
    _parts: int = 1  # epochs that read the text once
    _counted: str | None = None  # the training text, for the models beside the network
    _baselines: dict[str, float] | None = None

    def _read(self, data: Any, valid: Any = None) -> tuple[TextData, Parts]:
        text, other = as_source(data), None if valid is None else as_source(valid)
        parts = split_text(text, other)
        count = len(parts.training)
        units = learned_units(self.unit, self.subwords, parts.training.blocks, count)
        sizes = sizes_for(count, self.dropout)
        known = TextData(units, parts.held_out, parts.is_test, fingerprint_of(text, other), sizes)
        return known, parts

    def _network(self, data: TextData) -> CharacterNetwork:
        regularisation = Regularisation(
            self.input_dropout,
            self.embedding_dropout,
            self.weight_dropout,
            self.locked,
            self.activation_penalty,
            self.slowness_penalty,
        )
        sizes = self.embedding_size, self.hidden_size, self.num_layers, data.sizes.dropout
        return CharacterNetwork(self._cell, len(data.vocabulary), *sizes, self.tied, regularisation)

    def _objective(self, network: CharacterNetwork, data: TextData, training: Parts) -> Objective[Any]:
        self._counted, self._baselines = training.training.text(MOST_COUNTED), None
        self.samples_ = []
        self._validation = validation = data.vocabulary.encode_small(training.validation)
        kind = StreamObjective if self.carry else TextObjective
        made = kind(
            network,
            encoded(data.vocabulary, training.training),
            validation,
            length=self.length,
            batch_size=self.batch_size,
            seed=self.seed,
            per_character=len(validation) / len(training.validation),
            sample=lambda epoch: self.samples_.extend(samples_of(network, data.vocabulary, epoch, self.seed)),
        )
        self._parts = made.parts
        return made

    def _epochs(self, data: TextData, training: Parts) -> int:
        return data.sizes.epochs * self._parts

    def _store(self, data: TextData) -> Stored:
        held_out = torch.frombuffer(
            bytearray(data.held_out.encode("utf8", "surrogatepass")), dtype=torch.uint8
        )
        config: dict[str, Any] = {**data.vocabulary.stored(), "sizes": data.sizes.stored()}
        if not data.is_test:
            config["held_out"] = "validation"
        return Stored(data.fingerprint, {"held_out": held_out}, {"encoding": "utf8"}, config)

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> TextData:
        fingerprint = config["data"]
        if not isinstance(fingerprint, str):
            raise run.damaged(f"{CONFIG} lacks its data")
        units = run.guarded(f"{CONFIG} holds no vocabulary", lambda: restored_units(self.unit, config))
        sizes = Sizes.of(config["sizes"]) if "sizes" in config else sizes_for(0, self.dropout)
        tensors = run.read_tensors(DATA).tensors
        held_out = run.guarded(
            f"{DATA} holds no text",
            lambda: tensors["held_out"].numpy().tobytes().decode("utf8", "surrogatepass"),
        )
        is_test = config.get("held_out", "test") == "test"
        return TextData(units, held_out, is_test, fingerprint, sizes)

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        settings = without_groups(config["settings"])
        made = super()._loaded(run, config | {"settings": {**FORMER, **settings}})
        summary = run.summary() if run.is_finished else {}
        made.samples_, found = restored_samples(summary.get("samples")), summary.get("baselines")
        if isinstance(found, dict) and all(type(bits) is float for bits in found.values()):
            made._baselines = found
        return made

    def _learned(self, data: TextData) -> None:
        self.tokens_, self.held_out_ = data.vocabulary.names, data.held_out
        self.ngrams_ = None
        self.characters_ = "" if self.unit == "subwords" else "".join(self.tokens_)

    def _complete(self) -> tuple[str, ...]:
        """Count n-grams, if they are to stand beside the network."""
        validation, self._validation = self._validation, None
        if self.branch == "none" or validation is None or self._counted is None:
            return ()
        units = self._data.vocabulary
        bits = bits_of_each(self.network_, validation)
        self.ngrams_ = NGrams.learn(units.encode_small(self._counted), len(units), validation, bits)
        order, share = self.ngrams_.counted.order, self.ngrams_.share
        return (f"n-grams up to the order {order} are mixed in; the network counts {share:.2f}",)

    def _completion(self) -> Mapping[str, Checkpoint]:
        return {} if self.ngrams_ is None else {WINDOWS: self.ngrams_.stored()}

    def _restore_completion(self, run: RunFolder | None) -> tuple[str, ...]:
        if run is not None:
            saved, size = run.read_tensors(WINDOWS), len(self._data.vocabulary)
            self.ngrams_ = run.guarded(
                f"{WINDOWS} does not hold n-grams", lambda: NGrams.restored(saved, size)
            )
        return ()

    def _report(self, run: RunFolder) -> None:
        from cellwise.tasks.text.report import write_report

        write_report(run, self)

    def _figures(self) -> dict[str, Any]:
        own: dict[str, Any] = {"held_out_bits_per_character": self.evaluate()}
        if self.ngrams_ is not None:
            own["network_share"] = self.ngrams_.share
        if self.baselines_:
            own["baselines"] = self.baselines_
        if self.samples_:
            own["samples"] = [list(each) for each in chosen(self.samples_)]
        return own

    @property
    def baselines_(self) -> dict[str, float]:
        """Bits per character, on what was held out, of models without a network: Kneser-Ney, trained on the same
        text, and of compressors. Empty for runs of earlier versions."""
        self._check_fitted()
        if self._baselines is None:
            self._baselines = {} if self._counted is None else self._measured_baselines(self._counted)
            self._counted = None  # the text is needed no more
        return self._baselines

    def _measured_baselines(self, training: str) -> dict[str, float]:
        # It counts characters, whatever the network reads; of bytes, bytes.
        units = self._data.vocabulary if self.unit == "bytes" else Vocabulary.of(training)
        ids, held = units.encode(training).numpy(), units.encode(self.held_out_).numpy()
        counted = KneserNey(ids, len(units))
        bits = float(counted.bits(held).sum()) / (len(self.held_out_) - 1)
        alone = {} if self.ngrams_ is None else {"the network alone": self._alone()}
        counts = {f"Kneser-Ney, order {counted.order}": bits}
        return alone | counts | compressor_bits(training, self.held_out_)

    def _alone(self) -> float:
        """Bits per character of the network without n-grams."""
        return bits_of_source(self.network_, self._data.vocabulary, as_source(self.held_out_))

    def _held_out_figures(self) -> HeldOut:
        kept = f"{len(self.held_out_):,} characters"
        words = (
            f"the last {kept} of the text, which training has not seen"
            if self.is_test_
            else f"the validation text of {kept}, which decided when to stop"
        )
        return HeldOut(self.measure(self.held_out_), words, self.is_test_)

    def _one_prediction(self) -> tuple[str, Callable[[], object]]:
        before = self.held_out_[: self.length]
        return f"the character after {len(before)} others", lambda: self.logits(before)

    @property
    def is_test_(self) -> bool:
        """Whether neither training nor early stopping has seen `held_out_`."""
        self._check_fitted()
        return self._data.is_test

    def predict(self, text: str) -> dict[str, float]:
        """The probability of each character (byte, subword) after a text, the most likely first.

        Raises DataError for an empty text."""
        found = self.logits(text)[-1].double().softmax(0)
        if self.ngrams_ is not None:
            found = self.ngrams_.following(found, self._encode(text))
        order, chances = found.argsort(descending=True).tolist(), found.tolist()
        return {self.tokens_[i]: chances[i] for i in order}

    def logits(self, text: str) -> Tensor:
        """The network's logits of what comes after each character (byte, subword) of a text, float32 (T, V)."""
        self._check_fitted()
        if not text:
            raise DataError("a prediction needs at least one character to go on from; the text is empty")
        with torch.no_grad(), torch_threads(1):
            return self.network_(self._encode(text)[:, None])[0][:, 0]

    def evaluate(self, text: str | Iterable[str] | Path | None = None, dynamic: bool = False) -> float:
        """Bits per character on a text; without one, on what `fit` held out. Lower is better.

        dynamic: let a copy of the network learn from the text as it reads it, each part after it was predicted.
        Raises DataError as `fit` does, and for a text that is too short."""
        self._check_fitted()
        source = as_source(self.held_out_ if text is None else text)
        with torch_threads(self.threads):
            return bits_of_source(self.network_, self._data.vocabulary, source, dynamic, self.ngrams_)

    def measure(self, data: Any, target: None = None, dynamic: bool = False) -> dict[str, float]:
        """Bits per character and perplexity on a text, as `evaluate` takes it."""
        bits = self.evaluate(data, dynamic)
        return {"bits_per_character": bits, "perplexity": 2**bits}

    def surprise(self, text: str) -> Tensor:
        """Bits of each unit of a text (character, byte, subword) but the first, float64 (T - 1,)."""
        self._check_fitted()
        if len(text) < 2:
            raise DataError(f"measuring needs at least two characters; the text has {len(text)}")
        with torch_threads(self.threads):
            ids = self._encode(text)
            bits = bits_of_each(self.network_, ids)
            return bits if self.ngrams_ is None else self.ngrams_.mixed(bits, ids)

    def surprises(self, lines: Iterable[str]) -> list[Tensor]:
        """Bits of each unit of each line, float64 (T,), each line read by itself, as after a newline."""
        self._check_fitted()
        with torch_threads(self.threads):
            ids = [self._encode("\n" + line) for line in lines]
            bits = bits_of_lines(self.network_, ids)
            beside = self.ngrams_
            return bits if beside is None else [beside.mixed(*each) for each in zip(bits, ids, strict=True)]

    def generate(
        self,
        length: int = 200,
        start: str = "\n",
        temperature: float = 0.7,
        seed: int = 0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ) -> str:
        """`length` characters (bytes, subwords) after `start`, sampled one by one; `temperature` 0 always takes the
        most likely.

        top_k, top_p, min_p: leave out what is unlikely: all but the k most likely; all but the fewest that together
        have the probability top_p; those less than min_p times as likely as the most likely. Raises OptionError."""
        choice = Choice(temperature, top_k, top_p, min_p)
        return "".join(each[0] for each in self.writes(length, start, choice, seed))

    def writes(
        self, length: int, start: str, choice: Choice, seed: int = 0, samples: int = 1
    ) -> Iterator[list[str]]:
        """So many texts that go on from `start`, side by side: at each step the next character of each.

        A character of several bytes comes with the last of them; before it, the texts are empty."""
        self._check_fitted()
        if not start or length < 0 or samples < 1:
            raise OptionError(
                f"generate needs a start of at least one character, a length of at least 0 (got {length}) and at "
                f"least 1 sample (got {samples})"
            )
        return self._written(length, self._encode(start), choice, seed, samples)

    def _written(
        self, length: int, start: Tensor, choice: Choice, seed: int, samples: int
    ) -> Iterator[list[str]]:
        writers = [self._data.vocabulary.writer() for _ in range(samples)]
        for ids in islice(write_ids(self.network_, start, samples, choice, seed), length):
            yield [write(i) for write, i in zip(writers, ids, strict=True)]

    def unknown(self, text: str) -> dict[str, int]:
        """The characters of a text that the model does not know, with their counts, the most frequent first."""
        self._check_fitted()
        return self._data.vocabulary.unknown(text)

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """A text in parts: its characters, or subwords (those that make a character together); with how many of the
        model's units each is."""
        self._check_fitted()
        return self._data.vocabulary.pieces(text)

    def _encode(self, text: str) -> Tensor:
        return self._data.vocabulary.encode(text)


@with_options
class CharacterModel(LanguageModel):
    """A small language model of characters, whose training sequences begin at random: `LanguageModel` with other
    defaults."""

    embedding_size: int = 32
    hidden_size: int = 160
    length: int = 128
    carry: bool = False
    branch: str = "none"
    dropout: float | None = option(  # type: ignore[assignment]
        default=0.0,
        help="Dropout probability in training.",
        at_least=0.0,
        at_most=0.95,
        group=NETWORK,
        search=Range(0.0, 0.5),
        none="by the length of the text",
    )
    locked: bool = False
    epochs: int | None = 12
    batch_size: int = 16
    patience: int = 3
