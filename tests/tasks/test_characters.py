"""The model of characters: it learns, what it knows survives the disk, and mistakes are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cellwise import Cell, tanh
from cellwise.tasks import CharacterModel
from cellwise.tasks.errors import DataError, NotFittedError, OptionError, RunFolderError
from cellwise.tasks.text.corpus import as_source, bundled_text, split_text
from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.text.objective import TextObjective, bits_per_unit
from cellwise.tasks.text.units import UNKNOWN

ABC = "abcabcabd" * 400  # what follows "ab" is seen only by looking further back than two characters


def small(**options: object) -> CharacterModel:
    settings = {
        "hidden_size": 16,
        "embedding_size": 8,
        "epochs": 15,
        "length": 27,
        "batch_size": 4,
        "dropout": 0.0,
    }
    return CharacterModel(**settings | {"learning_rate": 0.02} | options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> CharacterModel:
    return small().fit(ABC)


def test_it_learns_what_needs_memory(trained: CharacterModel) -> None:
    assert trained.evaluate() < 0.2  # "c" or "d" by chance alone would cost 0.31 bits per character
    assert next(iter(trained.predict("abcabcab"))) == "d"
    assert next(iter(trained.predict("abdabcab"))) == "c"
    assert trained.generate(18, "abcabcab", temperature=0) == "dabcabcabdabcabcab"


def test_chances_add_up_and_come_in_order(trained: CharacterModel) -> None:
    chances = trained.predict("abc")
    assert sum(chances.values()) == pytest.approx(1.0)
    assert list(chances.values()) == sorted(chances.values(), reverse=True)
    assert set(chances) == {UNKNOWN, *"abcd"}


def test_logits_of_a_step_see_nothing_after_it(trained: CharacterModel) -> None:
    torch.testing.assert_close(trained.logits("abcabd")[:3], trained.logits("abc"))


def test_generate_is_drawn_by_its_seed(trained: CharacterModel) -> None:
    first = trained.generate(40, "a", temperature=2.0, seed=1)
    assert first == trained.generate(40, "a", temperature=2.0, seed=1)
    assert first != trained.generate(40, "a", temperature=2.0, seed=2)
    assert UNKNOWN not in first and len(first) == 40


def test_what_is_unknown_is_read_as_one_sign(trained: CharacterModel) -> None:
    assert trained.unknown("abxxé") == {"x": 2, "é": 1}
    torch.testing.assert_close(trained.logits("axb"), trained.logits("aéb"))


@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_a_saved_model_is_the_same_model(cell: str, tmp_path: Path) -> None:
    model = small(cell=cell, epochs=1, num_layers=2).fit(ABC)
    model.save(tmp_path / "run")
    assert not list(tmp_path.glob("**/*.p*kl*"))
    again = CharacterModel.load(tmp_path / "run")
    assert again.get_params() == model.get_params()
    assert torch.equal(again.logits("abcabd"), model.logits("abcabd"))
    assert again.held_out_ == model.held_out_ == split_text(as_source(ABC)).held_out


def test_a_run_folder_resumes_and_then_refuses(tmp_path: Path) -> None:
    through = small(epochs=2).fit(ABC, folder=tmp_path / "through")
    small(epochs=2).fit(ABC, folder=tmp_path / "stopped")
    (tmp_path / "stopped" / "summary.json").unlink()  # as if stopped after the last epoch
    resumed = small(epochs=2).fit(ABC, folder=tmp_path / "stopped")
    assert resumed.trained_ is not None and resumed.trained_.resumed_after == 2
    assert torch.equal(resumed.logits("abc"), through.logits("abc"))
    with pytest.raises(RunFolderError, match="holds a finished run"):
        small(epochs=2).fit(ABC, folder=tmp_path / "through")
    small(epochs=1).fit(ABC, folder=tmp_path / "through", overwrite=True)
    summary = json.loads((tmp_path / "through" / "summary.json").read_text())
    assert summary["held_out_bits_per_character"] > 0


def test_the_parts_of_a_text_do_not_overlap() -> None:
    parts = split_text(as_source(ABC))
    assert parts.training.text() + parts.validation + parts.held_out == ABC
    assert len(parts.held_out) == len(parts.validation) == len(ABC) // 20


def test_an_epoch_walks_over_the_whole_text() -> None:
    network = CharacterNetwork("rnn", 4, 2, 3, 1, 0.0)
    ids = torch.arange(1000)
    objective = TextObjective(network, ids, ids, length=20, batch_size=4, seed=1)
    batches = list(objective.batches(1))
    assert len(batches) == objective.steps == 12
    assert all(
        torch.equal(batch[1:] - batch[:-1], torch.ones(20, batch.shape[1], dtype=torch.long))
        for batch in batches
    )
    assert len(torch.cat([batch[:-1].flatten() for batch in batches]).unique()) > 900
    again = list(objective.batches(1))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(batches[0], next(iter(objective.batches(2))))


def test_bits_of_a_network_that_knows_nothing() -> None:
    network = CharacterNetwork("gru", 8, 2, 3, 1, 0.0)
    torch.nn.init.zeros_(network.decode.weight)
    torch.nn.init.zeros_(network.decode.bias)
    assert bits_per_unit(network, torch.randint(8, (2000,))) == pytest.approx(3.0, abs=1e-5)


def test_the_bundled_text_is_plain() -> None:
    text = bundled_text()
    assert len(text) == 495424 and text.isascii()
    assert text.startswith("CHAPTER 1. Loomings.\nCall me Ishmael.")


class Unnamed(Cell):
    """Known to nobody."""

    gates = ("n",)
    rate: float = 0.5

    def step(self, x, h):
        return self.rate * h + tanh(x.n + h.n)


@pytest.mark.parametrize("cell", [Unnamed, Unnamed(rate=0.25)])
def test_a_cell_of_ones_own_is_read_from_its_equations(cell, tmp_path: Path, caplog) -> None:
    model = small(cell=cell, epochs=1).fit(ABC, folder=tmp_path / "run")
    again = CharacterModel.load(tmp_path / "run")
    assert "'unnamed' is not registered here" in caplog.text
    assert again._cell.equations == model._cell.equations
    assert torch.equal(again.logits("abcabd"), model.logits("abcabd"))
    again.save(tmp_path / "copy")
    assert torch.equal(CharacterModel.load(tmp_path / "copy").logits("abc"), model.logits("abc"))


@pytest.mark.parametrize(
    ("do", "error", "said"),
    [
        (lambda: small().fit("abc"), DataError, "needs a text of at least 1,000 characters; this one has 3"),
        (
            lambda: small(hidden_size=0).fit(ABC),
            OptionError,
            "hidden_size must be a whole number from 1",
        ),
        (
            lambda: small(dropout="x").fit(ABC),
            OptionError,
            "dropout must be a number from 0.0 to 0.95",
        ),
        (lambda: small().predict("abc"), NotFittedError, "call fit first"),
        (lambda: CharacterModel.load("nowhere"), RunFolderError, "there is no run folder nowhere"),
    ],
)
def test_mistakes_are_one_sentence(do, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        do()


def test_mistakes_of_a_trained_model(trained: CharacterModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the text is empty"):
        trained.predict("")
    with pytest.raises(DataError, match="at least two characters; the text has 1"):
        trained.evaluate("a")
    with pytest.raises(OptionError, match="a start of at least one character"):
        trained.generate(5, "")
    (tmp_path / "something").touch()
    with pytest.raises(RunFolderError, match="is not empty"):
        trained.save(tmp_path)
