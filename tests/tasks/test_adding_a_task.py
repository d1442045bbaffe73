"""A new task costs its data, its network, its objective and a thin estimator; everything else is there already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.model_selection import GridSearchCV
from sums import SumRegressor

from cellwise.tasks.errors import DataError, NotFittedError, OptionError, RunFolderError
from cellwise.tasks.options import options_of
from cellwise.tasks.training.progress import Silent

OPTIONS = {"epochs": 4, "learning_rate": 0.01, "dropout": 0.1, "num_layers": 2}


def examples(count: int = 96, seed: int = 0) -> tuple[list[np.ndarray], list[float]]:
    generator = np.random.default_rng(seed)
    sequences = [generator.normal(size=generator.integers(1, 9)) for _ in range(count)]
    return sequences, [float(each.sum()) for each in sequences]


class KillAfter(Silent):
    """kill -9 once so many epochs are saved."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, epoch, best) -> None:
        if epoch.epoch == self.epochs:
            os.kill(os.getpid(), signal.SIGKILL)


def test_it_learns() -> None:
    sequences, sums = examples()
    model = SumRegressor("gru", epochs=40, learning_rate=0.01).fit(sequences, sums)
    others, right = examples(seed=1)
    typical = np.abs(np.array(right)).mean()  # the error of always saying 0
    assert model.measure(others, right)["mean_absolute_error"] < 0.3 * typical
    assert model.score(others, right) == -model.measure(others, right)["mean_absolute_error"]
    assert model.predict(others[:2]) == pytest.approx(right[:2], abs=typical)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    code = (
        "from test_adding_a_task import *\n"
        f"SumRegressor(**OPTIONS).fit(*examples(), folder={str(tmp_path / 'killed')!r}, progress=KillAfter(2))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(RunFolderError, match="is not finished"):
        SumRegressor.load(tmp_path / "killed")
    resumed = SumRegressor(**OPTIONS).fit(*examples(), folder=tmp_path / "killed")
    through = SumRegressor(**OPTIONS).fit(*examples(), folder=tmp_path / "through")
    assert (resumed.trained_.resumed_after, through.trained_.resumed_after) == (2, 0)
    for name in ("best.safetensors", "last.safetensors"):
        a, b = (load_file(tmp_path / run / name) for run in ("killed", "through"))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_folder_is_the_model(tmp_path: Path) -> None:
    sequences, sums = examples()
    valid = examples(8, seed=2)
    model = SumRegressor("lstm", epochs=1).fit(sequences, sums, valid=valid, folder=tmp_path / "run")
    for again in (SumRegressor.load(tmp_path / "run"), SumRegressor.load(saved(model, tmp_path / "copy"))):
        assert again.get_params() == model.get_params()
        assert again.predict(sequences) == model.predict(sequences)
    with pytest.raises(RunFolderError, match="is not empty; save into a new folder"):
        model.save(tmp_path / "run")
    with pytest.raises(RunFolderError, match="holds a finished run; give --overwrite"):
        SumRegressor("lstm", epochs=1).fit(sequences, sums, valid=valid, folder=tmp_path / "run")


def saved(model: SumRegressor, folder: Path) -> Path:
    model.save(folder)
    return folder


def test_other_data_or_options_do_not_go_on(tmp_path: Path) -> None:
    sequences, sums = examples()
    SumRegressor(epochs=1).fit(sequences, sums, folder=tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="was started with other data"):
        SumRegressor(epochs=1).fit(sequences, [2 * each for each in sums], folder=tmp_path)
    with pytest.raises(RunFolderError, match=r"was started with held_out = 0.1, not 0.2"):
        SumRegressor(epochs=1, held_out=0.2).fit(sequences, sums, folder=tmp_path)


def test_options_are_its_own_and_those_of_all() -> None:
    options = {each.name: each for each in options_of(SumRegressor)}
    assert list(options)[:2] == ["cell", "held_out"]
    assert options["hidden_size"].default == 16
    assert repr(SumRegressor("lstm", held_out=0.5)) == "SumRegressor(cell='lstm', held_out=0.5)"
    with pytest.raises(OptionError, match=r"held_out must be a number above 0.0 and below 1.0, not 1.0"):
        SumRegressor(held_out=1.0).fit(*examples())


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(
        NotFittedError, match="this SumRegressor has not learned anything yet; call fit first"
    ):
        SumRegressor().predict([[1.0]])
    with pytest.raises(DataError, match="2 sequences have 1 sums; each needs one"):
        SumRegressor().fit([[1.0], [2.0]], [1.0])
    with pytest.raises(TypeError, match=r"SumRegressor.fit needs 'target'"):
        SumRegressor().fit([[1.0]])
    with pytest.raises(TypeError, match=r"SumRegressor.fit takes no 'vaild'"):
        SumRegressor().fit([[1.0]], [1.0], vaild=([[1.0]], [1.0]))


def test_scikit_learn_searches_with_sequences_and_targets() -> None:
    sequences, sums = examples(40)
    found = GridSearchCV(SumRegressor(epochs=2), {"hidden_size": [2, 4]}, cv=2).fit(sequences, sums)
    assert found.score(sequences, sums) == found.best_estimator_.score(sequences, sums)
