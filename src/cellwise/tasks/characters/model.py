"""The estimator: `CharacterModel(cell="gru").fit(text).predict("Call me Ish")`."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cellwise import cells
from cellwise.tasks.base import Estimator, RunFolderError
from cellwise.tasks.characters.errors import CharacterOptionError, NotTrainedError, TextError
from cellwise.tasks.characters.learning import CharacterLearning, bits_per_character
from cellwise.tasks.characters.network import CharacterNetwork
from cellwise.tasks.characters.text import Alphabet, split_text
from cellwise.tasks.progress import Progress, choose_progress
from cellwise.tasks.run_folder import BEST, SUMMARY, Checkpoint, RunFolder, open_run
from cellwise.tasks.train import Trained, TrainSettings, threads, train

__all__ = ["TASK", "CharacterModel"]

TASK = "characters"
DATA = "data.safetensors"

# name -> least and greatest value
WHOLE = {
    "embedding_size": (1, 65_536), "hidden_size": (1, 65_536), "num_layers": (1, 64), "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000), "length": (2, 1_000_000), "patience": (0, 1_000_000), "seed": (0, 2**31 - 1),
    "threads": (1, 1024),
}  # fmt: skip
REAL = {"dropout": (0.0, 0.95), "learning_rate": (1e-8, 10.0), "weight_decay": (0.0, 10.0)}


class CharacterModel(Estimator):
    """A small recurrent network that reads a text character by character and says what comes next.

    Args: cell: the recurrent cell, by name or class (see `cellwise.cells.names()`). embedding_size,
    hidden_size, num_layers, dropout: the network. epochs, batch_size, length (characters of one piece of
    text), learning_rate, weight_decay, patience, seed, threads: the training.

    What `fit` learns ends in an underscore: `network_`, `characters_` (those it knows; the first stands for
    all others), `held_out_` (the end of the text, which training never saw), `trained_` (the epochs)."""

    def __init__(
        self,
        cell: Any = "gru",
        *,
        embedding_size: int = 32,
        hidden_size: int = 160,
        num_layers: int = 1,
        dropout: float = 0.0,
        epochs: int = 12,
        batch_size: int = 16,
        length: int = 128,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-3,
        patience: int = 3,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.cell = cell
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.length = length
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.seed = seed
        self.threads = threads

    def fit(
        self,
        text: str,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
    ) -> Self:
        """Learn from a text: the first nine tenths; half of the rest decides when to stop, the end stays
        unseen.

        folder: a run folder; the same call on an unfinished one resumes it. progress: True or False; None
        shows a bar on a terminal. Raises TextError if the text is too short."""
        self.check_options()
        start = time.perf_counter()
        parts = split_text(text)
        alphabet = Alphabet.of(parts.training)
        network = self._new_network(len(alphabet))
        run = None if folder is None else self._open(folder, text, alphabet, parts.held_out, overwrite)
        learning = CharacterLearning(
            network,
            alphabet.encode(parts.training),
            alphabet.encode(parts.validation),
            length=self.length,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        shown = choose_progress(progress) if progress is None or isinstance(progress, bool) else progress
        with threads(self.threads):
            self.trained_: Trained | None = train(network, learning, self._settings(), run, shown)
        self._take(network, alphabet, parts.held_out)
        self._fingerprint = _fingerprint(text)
        self.seconds_ = time.perf_counter() - start
        if run is not None:
            run.write_json(SUMMARY, self.summary())
        return self

    def predict(self, text: str) -> dict[str, float]:
        """The probability of each character after a text, the likeliest first. An empty text raises
        TextError."""
        logits = self.logits(text)[-1]
        order = logits.argsort(descending=True).tolist()
        chances = logits.double().softmax(0).tolist()
        return {self.characters_[place]: chances[place] for place in order}

    def logits(self, text: str) -> Tensor:
        """Scores of the character after each character of a text, float32 (T, V); softmax makes them chances."""
        self._check_trained()
        if not text:
            raise TextError("a prediction needs at least one character to go on from; the text is empty")
        with torch.no_grad(), threads(1):
            return self.network_(self._encode(text)[:, None])[0][:, 0]

    def evaluate(self, text: str | None = None) -> float:
        """Bits per character on a text; without one, on what `fit` never saw. Lower is better."""
        self._check_trained()
        text = self.held_out_ if text is None else text
        if len(text) < 2:
            raise TextError(f"measuring needs at least two characters; the text has {len(text)}")
        return bits_per_character(self.network_, self._encode(text))

    def generate(self, length: int = 200, start: str = "\n", temperature: float = 0.7, seed: int = 0) -> str:
        """So many characters after `start`, drawn one by one; `temperature` 0 always takes the likeliest."""
        self._check_trained()
        if not start or length < 0 or temperature < 0:
            raise CharacterOptionError(
                f"generate needs a start of at least one character, a length of at least 0 (got {length}) and a "
                f"temperature of at least 0 (got {temperature:g})"
            )
        generator = torch.Generator().manual_seed(seed)
        places, state, written = self._encode(start)[:, None], None, []
        with torch.no_grad(), threads(1):
            for _ in range(length):
                logits, state = self.network_(places, state)
                place = _draw(logits[-1, 0].double(), temperature, generator)
                written.append(self.characters_[place])
                places = torch.tensor([[place]])
        return "".join(written)

    def save(self, folder: str | Path) -> None:
        """Write a run folder from which `load` makes an equal model. It must be new or empty."""
        self._check_trained()
        path = Path(folder)
        if path.is_dir() and any(path.iterdir()):
            raise RunFolderError(f"{path} is not empty; save into a new folder")
        run = open_run(path, TASK, self._stored(), self._fingerprint, extra={"characters": self.characters_})
        _write_held_out(run, self.held_out_)
        run.write_tensors(BEST, Checkpoint(self.network_.state_dict(), {}))
        run.write_json(SUMMARY, self.summary())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model of a finished run folder. Raises RunFolderError if it is damaged, unfinished or something
        else."""
        run = RunFolder(Path(folder))
        config = run.config(TASK)
        if not run.is_finished:
            raise RunFolderError(
                f"the run in {run.path} is not finished; the command that started it goes on with it"
            )
        try:
            made = cls(**config["settings"])
            alphabet = Alphabet(config["characters"])
            made._fingerprint = str(config["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"the run folder {run.path} is damaged: config.json lacks settings ({error})"
            ) from error
        network = made._new_network(len(alphabet))
        run.load_weights(network, run.read_tensors(BEST).tensors, BEST)
        made._take(network, alphabet, _read_held_out(run))
        made.trained_, made.seconds_ = None, float("nan")
        return made

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, JSON-able."""
        trained = self.trained_
        epochs = {} if trained is None else {"epochs": len(trained.epochs), "best_epoch": trained.best.epoch}
        return {"model": cells.get(self.cell).name, **epochs, "held_out_bits_per_character": self.evaluate()}

    def strange(self, text: str) -> dict[str, int]:
        """The characters of a text that the model does not know and reads as one and the same, and how often
        they occur."""
        self._check_trained()
        return self._alphabet.strange(text)

    def _encode(self, text: str) -> Tensor:
        return self._alphabet.encode(text)

    def _take(self, network: CharacterNetwork, alphabet: Alphabet, held_out: str) -> None:
        self.network_, self._alphabet, self.characters_ = network.eval(), alphabet, alphabet.characters
        self.held_out_ = held_out

    def _new_network(self, characters: int) -> CharacterNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return CharacterNetwork(
                self.cell, characters, self.embedding_size, self.hidden_size, self.num_layers, self.dropout
            )

    def _settings(self) -> TrainSettings:
        return TrainSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            seed=self.seed,
        )

    def _stored(self) -> dict[str, Any]:
        return self.get_params() | {"cell": cells.get(self.cell).name}

    def _open(
        self, folder: str | Path, text: str, alphabet: Alphabet, held_out: str, overwrite: bool
    ) -> RunFolder:
        extra = {"characters": alphabet.characters}
        run = open_run(
            Path(folder), TASK, self._stored(), _fingerprint(text), extra=extra, overwrite=overwrite
        )
        _write_held_out(run, held_out)
        return run

    def check_options(self) -> None:
        """Raise CharacterOptionError or UnknownCellError for the first setting that cannot be."""
        cell = cells.get(self.cell)
        # A run is stored by its cell's name, so the name alone must lead back to the cell.
        if cell.name not in cells.names() or cells.get(cell.name) != cell:
            raise CharacterOptionError(
                f"the cell {cell!r} has no known name; make it known first with cellwise.cells.register"
            )
        for name, (low, high) in (WHOLE | REAL).items():
            value, whole = getattr(self, name), name in WHOLE
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise CharacterOptionError(f"{name} must be {kind} from {low} to {high}, not {value!r}")

    def _check_trained(self) -> None:
        if not hasattr(self, "network_"):
            raise NotTrainedError("this CharacterModel has not learned anything yet; call fit first")


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """A place drawn by its chance; never the one of unknown characters, which nobody can read."""
    logits = logits.clone()
    logits[0] = -math.inf
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def _write_held_out(run: RunFolder, held_out: str) -> None:
    data = torch.frombuffer(bytearray(held_out.encode("utf8")), dtype=torch.uint8)
    run.write_tensors(DATA, Checkpoint({"held_out": data}, {"encoding": "utf8"}))


def _read_held_out(run: RunFolder) -> str:
    try:
        return bytes(run.read_tensors(DATA).tensors["held_out"].tolist()).decode("utf8")
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"the run folder {run.path} is damaged: {DATA} holds no text") from error
