"""The estimator: `CharacterModel(cell="gru").fit(text).predict("Call me Ish")`."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cellwise import cells
from cellwise.cells import Cell
from cellwise.cells.stored import known_cell, store_cell
from cellwise.tasks.errors import DataError, NotFittedError, OptionError, RunFolderError
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.ranges import TRAINING_REAL, TRAINING_WHOLE, check_ranges
from cellwise.tasks.text.corpus import UNKNOWN, Alphabet, split_text
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.objective import CharacterLearning, bits_per_character
from cellwise.tasks.training.history import History
from cellwise.tasks.training.loading import cell_of_run, check_loaded, load_network
from cellwise.tasks.training.loop import TrainSettings, threads, train
from cellwise.tasks.training.progress import Progress, choose_progress
from cellwise.tasks.training.run_folder import BEST, DATA, Checkpoint, RunFolder, own_run

__all__ = ["TASK", "CharacterModel"]

TASK = "characters"
# name -> least and greatest value
WHOLE = {**TRAINING_WHOLE, "embedding_size": (1, 65_536), "length": (2, 1_000_000)}


class CharacterModel(Estimator):
    """A small recurrent network that reads a text character by character and says what comes next.

    Args: cell: the recurrent cell: a name (see `cellwise.cells.names()`), a class or an instance. embedding_size,
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
        shows a bar on a terminal. Raises DataError if the text is too short."""
        self.check_options()
        start = time.perf_counter()
        parts = split_text(text)
        alphabet = Alphabet.of(parts.training)
        network = self._new_network(self._cell, len(alphabet))
        learning = CharacterLearning(
            network,
            alphabet.encode(parts.training),
            alphabet.encode(parts.validation),
            length=self.length,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        data = _fingerprint(text)
        with self._opened(folder, data, alphabet, parts.held_out, overwrite) as run, threads(self.threads):
            self.trained_: History | None = train(
                network, learning, TrainSettings.of(self), run, choose_progress(progress)
            )
            self._take(network, alphabet, parts.held_out, data)
            self.seconds_ = time.perf_counter() - start
            if run is not None:
                run.finish(self.summary())
        return self

    def predict(self, text: str) -> dict[str, float]:
        """The probability of each character after a text, the likeliest first. An empty text raises
        DataError."""
        logits = self.logits(text)[-1]
        order = logits.argsort(descending=True).tolist()
        chances = logits.double().softmax(0).tolist()
        return {self.characters_[place]: chances[place] for place in order}

    def logits(self, text: str) -> Tensor:
        """Scores of the character after each character of a text, float32 (T, V); softmax makes them chances."""
        self._check_trained()
        if not text:
            raise DataError("a prediction needs at least one character to go on from; the text is empty")
        with torch.no_grad(), threads(1):
            return self.network_(self._encode(text)[:, None])[0][:, 0]

    def evaluate(self, text: str | None = None) -> float:
        """Bits per character on a text; without one, on what `fit` never saw. Lower is better."""
        self._check_trained()
        text = self.held_out_ if text is None else text
        if len(text) < 2:
            raise DataError(f"measuring needs at least two characters; the text has {len(text)}")
        return bits_per_character(self.network_, self._encode(text))

    def generate(self, length: int = 200, start: str = "\n", temperature: float = 0.7, seed: int = 0) -> str:
        """So many characters after `start`, drawn one by one; `temperature` 0 always takes the likeliest."""
        self._check_trained()
        if not start or length < 0 or temperature < 0:
            raise OptionError(
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
        if path.is_dir() and not RunFolder(path).is_empty:
            raise RunFolderError(f"{path} is not empty; save into a new folder")
        with self._opened(path, self._fingerprint, self._alphabet, self.held_out_, overwrite=False) as run:
            assert run is not None
            run.write_tensors(BEST, Checkpoint(self.network_.state_dict(), {}))
            run.finish(self.summary())

    @classmethod
    def load(cls, folder: str | Path, *, unfinished: bool = False) -> Self:
        """The model of a finished run folder, whole or not at all: every file is compared with its checksum.

        A cell whose class is not known here is taken from the equations in the folder; no code is read from it.
        unfinished: take the best weights so far of a run that is not finished; it may be training meanwhile.
        Raises RunFolderError if it is damaged, unfinished or something else."""
        run = RunFolder(Path(folder))
        config = run.config(TASK)
        if not run.is_finished and not (unfinished and (run / BEST).is_file()):
            raise run.unfinished()
        return run.guarded("config.json lacks settings", lambda: cls._loaded(run, config))

    @classmethod
    def _loaded(cls, run: RunFolder, config: dict[str, Any]) -> Self:
        given = dict(config["settings"])
        cell = cell_of_run(run, config, given["cell"])
        made = cls(**given | {"cell": given["cell"] if known_cell(given["cell"]) == cell else cell})
        check_loaded(run, made.check_options)
        characters, data = config["characters"], config["data"]
        if not isinstance(characters, str) or not isinstance(data, str):
            raise run.damaged("config.json lacks its characters or data")
        alphabet = Alphabet(characters)
        if characters[:1] != UNKNOWN or len(set(characters)) != len(characters):
            raise run.damaged("config.json names a character twice, or not the sign for unknown ones")
        if run.is_finished:
            run.summary()
        held_out, weights = _read_held_out(run), run.read_tensors(BEST).tensors
        network = load_network(run, lambda: made._new_network(cell, len(alphabet)), made.num_layers, weights)
        made._take(network, alphabet, held_out, data)
        made.trained_, made.seconds_ = None, float("nan")
        return made

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, JSON-able."""
        trained = self.trained_
        epochs = {} if trained is None else {"epochs": len(trained.epochs), "best_epoch": trained.best.epoch}
        return {"model": self._cell.name, **epochs, "held_out_bits_per_character": self.evaluate()}

    def strange(self, text: str) -> dict[str, int]:
        """The characters of a text that the model does not know and reads as one and the same, and how often
        they occur."""
        self._check_trained()
        return self._alphabet.strange(text)

    def _encode(self, text: str) -> Tensor:
        return self._alphabet.encode(text)

    def _take(self, network: CharacterNetwork, alphabet: Alphabet, held_out: str, data: str) -> None:
        self.network_, self._alphabet, self.characters_ = network.eval(), alphabet, alphabet.characters
        self.held_out_, self._fingerprint = held_out, data

    @property
    def _cell(self) -> Cell:
        return cells.get(self.cell)

    def _new_network(self, cell: Cell, characters: int) -> CharacterNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return CharacterNetwork(
                cell, characters, self.embedding_size, self.hidden_size, self.num_layers, self.dropout
            )

    @contextmanager
    def _opened(
        self, folder: str | Path | None, data: str, alphabet: Alphabet, held_out: str, overwrite: bool
    ) -> Iterator[RunFolder | None]:
        """The run folder, which is this process's own inside the block; None without one."""
        if folder is None:
            yield None
            return
        settings = self.get_params() | {"cell": self._cell.name}
        cell, extra = store_cell(self._cell), {"characters": alphabet.characters}
        with own_run(folder, TASK, settings, data, cell=cell, extra=extra, overwrite=overwrite) as run:
            _write_held_out(run, held_out)
            yield run

    def check_options(self) -> None:
        """Raise OptionError, UnknownCellError or CellError for the first setting that cannot be."""
        _ = self._cell.graph  # an error in the equations is said here, with its line
        check_ranges(self.get_params(), WHOLE, TRAINING_REAL, OptionError)

    def _check_trained(self) -> None:
        if not hasattr(self, "network_"):
            raise NotFittedError("this CharacterModel has not learned anything yet; call fit first")


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """A place drawn by its chance; never the one of unknown characters, which nobody can read."""
    logits = logits.clone()
    logits[0] = -math.inf
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()


def _write_held_out(run: RunFolder, held_out: str) -> None:
    data = torch.frombuffer(bytearray(held_out.encode("utf8", "surrogatepass")), dtype=torch.uint8)
    run.write_tensors(DATA, Checkpoint({"held_out": data}, {"encoding": "utf8"}))


def _read_held_out(run: RunFolder) -> str:
    data = run.read_tensors(DATA).tensors
    return run.guarded(
        f"{DATA} holds no text", lambda: data["held_out"].numpy().tobytes().decode("utf8", "surrogatepass")
    )
