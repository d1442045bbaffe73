"""The estimator: `CharacterModel(cell="gru").fit(text).predict("Call me Ish")`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.estimator import Estimator, Stored
from cellwise.tasks.text import TASK
from cellwise.tasks.text.corpus import UNKNOWN, Parts, Vocabulary, joined, split_text
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.objective import TextObjective, bits_per_character
from cellwise.tasks.text.options import TextOptions
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.run_folder import CONFIG, DATA, RunFolder

__all__ = ["CharacterModel", "TextData"]


@dataclass(frozen=True, eq=False)
class TextData:
    """The part of a text that a model keeps: its vocabulary, the held-out end, a hash of the whole."""

    vocabulary: Vocabulary
    held_out: str
    fingerprint: str


class CharacterModel(TextOptions, Estimator[TextData, Parts]):
    """A small recurrent network that predicts a text character by character.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. embedding_size,
    hidden_size, num_layers, dropout: the network. epochs, batch_size, length (characters of one piece of
    text), learning_rate, weight_decay, patience, seed, threads, device, minutes, accumulate, autocast: the training.

    `fit` takes a text, or a list of texts, which are read as one, each on its own line. It learns from the first nine
    tenths; half of the rest decides when to stop, the end stays unseen.

    What `fit` learns ends in an underscore: `network_`, `characters_` (those it knows; the first stands for
    all others), `held_out_` (the end of the text, which training never saw), `trained_` (the epochs)."""

    task = TASK.name
    former_tasks = TASK.former_names
    metric = "bits_per_character"

    network_: CharacterNetwork
    characters_: str
    held_out_: str

    def _read(self, data: Any) -> tuple[TextData, Parts]:
        text = joined(data)
        parts = split_text(text)
        return TextData(Vocabulary.of(parts.training), parts.held_out, _fingerprint(text)), parts

    def _network(self, data: TextData) -> CharacterNetwork:
        sizes = self.embedding_size, self.hidden_size, self.num_layers
        return CharacterNetwork(self._cell, len(data.vocabulary), *sizes, self.dropout)

    def _objective(self, network: CharacterNetwork, data: TextData, training: Parts) -> TextObjective:
        return TextObjective(
            network,
            data.vocabulary.encode(training.training),
            data.vocabulary.encode(training.validation),
            length=self.length,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def _store(self, data: TextData) -> Stored:
        held_out = torch.frombuffer(bytearray(_to_bytes(data.held_out)), dtype=torch.uint8)
        config = {"characters": data.vocabulary.characters}
        return Stored(data.fingerprint, {"held_out": held_out}, {"encoding": "utf8"}, config)

    def _restore(self, run: RunFolder, config: Mapping[str, Any]) -> TextData:
        characters, fingerprint = config["characters"], config["data"]
        if not isinstance(characters, str) or not isinstance(fingerprint, str):
            raise run.damaged(f"{CONFIG} lacks its characters or data")
        if characters[:1] != UNKNOWN or len(set(characters)) != len(characters):
            raise run.damaged(f"{CONFIG} names a character twice, or not the sign for unknown ones")
        tensors = run.read_tensors(DATA).tensors
        held_out = run.guarded(
            f"{DATA} holds no text",
            lambda: tensors["held_out"].numpy().tobytes().decode("utf8", "surrogatepass"),
        )
        return TextData(Vocabulary(characters), held_out, fingerprint)

    def _learned(self, data: TextData) -> None:
        self.characters_, self.held_out_ = data.vocabulary.characters, data.held_out

    def _figures(self) -> dict[str, Any]:
        return {"held_out_bits_per_character": self.evaluate()}

    def _held_out_figures(self) -> HeldOut:
        words = f"the last {len(self.held_out_):,} characters of the text, which training has not seen"
        return HeldOut(self.measure(self.held_out_), words, True)

    def _one_prediction(self) -> tuple[str, Callable[[], object]]:
        before = self.held_out_[: self.length]
        return f"the character after {len(before)} others", lambda: self.logits(before)

    def predict(self, text: str) -> dict[str, float]:
        """The probability of each character after a text, the most likely first. Raises DataError for an empty text."""
        logits = self.logits(text)[-1]
        order = logits.argsort(descending=True).tolist()
        chances = logits.double().softmax(0).tolist()
        return {self.characters_[i]: chances[i] for i in order}

    def logits(self, text: str) -> Tensor:
        """Logits of the next character after each character of a text, float32 (T, V)."""
        self._check_fitted()
        if not text:
            raise DataError("a prediction needs at least one character to go on from; the text is empty")
        with torch.no_grad(), torch_threads(1):
            return self.network_(self._encode(text)[:, None])[0][:, 0]

    def evaluate(self, text: str | Iterable[str] | None = None) -> float:
        """Bits per character on a text; without one, on what `fit` never saw. Lower is better."""
        self._check_fitted()
        text = self.held_out_ if text is None else joined(text)
        if len(text) < 2:
            raise DataError(f"measuring needs at least two characters; the text has {len(text)}")
        return bits_per_character(self.network_, self._encode(text))

    def measure(self, data: Any, target: None = None) -> dict[str, float]:
        """Bits per character and perplexity on a text, or on a list of texts."""
        bits = self.evaluate(data)
        return {"bits_per_character": bits, "perplexity": 2**bits}

    def generate(self, length: int = 200, start: str = "\n", temperature: float = 0.7, seed: int = 0) -> str:
        """`length` characters after `start`, sampled one by one; `temperature` 0 always takes the most likely."""
        self._check_fitted()
        if not start or length < 0 or temperature < 0:
            raise OptionError(
                f"generate needs a start of at least one character, a length of at least 0 (got {length}) and a "
                f"temperature of at least 0 (got {temperature:g})"
            )
        generator = torch.Generator().manual_seed(seed)
        ids, state, written = self._encode(start)[:, None], None, []
        with torch.no_grad(), torch_threads(1):
            for _ in range(length):
                logits, state = self.network_(ids, state)
                drawn = _draw(logits[-1, 0].double(), temperature, generator)
                written.append(self.characters_[drawn])
                ids = torch.tensor([[drawn]])
        return "".join(written)

    def unknown(self, text: str) -> dict[str, int]:
        """The characters of a text that the model does not know, with their counts, the most frequent first."""
        self._check_fitted()
        return self._data.vocabulary.unknown(text)

    def _encode(self, text: str) -> Tensor:
        return self._data.vocabulary.encode(text)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """An id sampled from the softmax of the logits; never that of the unknown character, which nobody can read."""
    logits = logits.clone()
    logits[0] = -math.inf
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))


def _to_bytes(text: str) -> bytes:
    return text.encode("utf8", "surrogatepass")


def _fingerprint(text: str) -> str:
    return hashlib.sha256(_to_bytes(text)).hexdigest()
