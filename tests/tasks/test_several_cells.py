"""A forecaster whose members have different cells: written once, stored whole, loaded without the user's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import rewrite_json
from sklearn.base import clone

from cellwise import Cell, Vector, cells, tanh
from cellwise.cells import GRU, LSTM
from cellwise.errors import CellwiseError, UnknownCellError
from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import OptionError, RunFolderError
from cellwise.tasks.member_cells import cells_of, joined_name
from cellwise.tasks.training.run_check import check_run
from cellwise.understand.trace.forecast import forecast_page

SERIES = [np.sin(np.arange(90.0)) + level for level in (0, 0.5)]  # below zero, so not learned as logarithms


class Mine(Cell):
    """Nobody else's."""

    gates = ("n",)
    weight = Vector((-0.5, 0.5))

    def step(self, x, h):
        return tanh(x.n + self.weight * h)


def fit(cell: Any, folder: Path | None = None, **settings: Any) -> Forecaster:
    options = {"horizon": 3, "hidden_size": 4, "epochs": 1, "validation": 1, "ensemble": False} | settings
    return Forecaster(cell, **options).fit(SERIES, folder=folder)


def cells_in(forecaster: Forecaster) -> list[str]:
    return [member.layer.cell.name for member in forecaster.network_.members]


@pytest.mark.parametrize(
    ("members", "wanted"), [(1, ["gru", "lstm"]), (2, ["gru", "lstm"]), (3, ["gru", "lstm", "gru"])]
)
def test_members_have_the_cells_in_turn_and_each_at_least_once(members: int, wanted: list[str]) -> None:
    made = fit("gru+lstm", members=members)
    assert cells_in(made) == wanted and made.model_name == "GRU+LSTM"
    assert made.get_params()["members"] == members, "what was given stays as it was given"


def test_the_forecast_is_the_mean_of_the_members() -> None:
    made = fit("gru+lstm")
    whole = made.network_.forecast(made.table_.panel, 3)
    parts, members = [], made.network_.members
    for index in range(2):
        made.network_.members = members[index : index + 1]
        parts.append(made.network_.forecast(made.table_.panel, 3))
    np.testing.assert_allclose(whole, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-6)
    assert not np.allclose(parts[0], parts[1], rtol=1e-3)


@pytest.mark.parametrize("how", ["best", "ensemble"])
def test_they_are_blended_under_the_name_of_all(how: str) -> None:
    made = fit("gru+lstm", **{how: True})
    assert made.model_name.startswith(("GRU+LSTM", "best-"))
    assert any("GRU+LSTM" in note for note in made.notes_)
    assert made.predict().columns[2] == ("GRU+LSTM" if how == "ensemble" else made.model_name)


def test_all_ways_to_write_it_are_the_same_network(tmp_path: Path) -> None:
    wanted = fit("gru+lstm").predict()
    for index, cell in enumerate((("gru", "lstm"), [GRU, LSTM], (GRU(), "lstm"), "GRU + lstm")):
        made = fit(cell, tmp_path / str(index))
        assert made.predict().equals(wanted)
        loaded = Forecaster.load(tmp_path / str(index))
        assert loaded.cell == "gru+lstm" and loaded.predict().equals(wanted)
        assert cells_of(clone(made).cell) == cells_of(cell)


def test_a_run_of_several_cells_loads_without_the_code_of_any(tmp_path: Path, caplog) -> None:
    made = fit((Mine, "gru", cells.RNN(nonlinearity="relu")), tmp_path / "run")
    caplog.clear()
    loaded = Forecaster.load(tmp_path / "run")
    assert (
        "'mine' is not registered here" in caplog.text
        and "'rnn' has other equations or options" in caplog.text
    )
    assert "'gru'" not in caplog.text
    assert loaded.model_name == "MINE+GRU+RNN" and loaded.predict().equals(made.predict())
    loaded.save(tmp_path / "again")
    assert Forecaster.load(tmp_path / "again").predict().equals(made.predict())
    assert all(finding.is_whole for finding in check_run(tmp_path / "run"))


def test_an_unfinished_run_goes_on_with_the_same_cells_only(tmp_path: Path) -> None:
    fit("gru+lstm", tmp_path / "run", epochs=2)
    wanted = Forecaster.load(tmp_path / "run").predict()
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RunFolderError, match=r"cell = 'gru\+lstm', not 'lstm\+gru'"):
        fit("lstm+gru", tmp_path / "run", epochs=2)
    assert fit("gru+lstm", tmp_path / "run", epochs=2).predict().equals(wanted)


@pytest.mark.parametrize("stored", [[], [3], 3, "gru", None, [{}], {"name": "gru"}])
def test_cells_that_are_none_are_damage(tmp_path: Path, stored: Any) -> None:
    fit("gru+lstm", tmp_path / "run")
    rewrite_json(tmp_path / "run" / "config.json", {("cell", "cells"): stored})
    with pytest.raises(RunFolderError, match="is damaged"):
        Forecaster.load(tmp_path / "run")


def test_one_of_the_cells_left_out_is_damage(tmp_path: Path) -> None:
    one = fit("gru", tmp_path / "one")
    assert one.model_name == "GRU"
    fit("gru+lstm", tmp_path / "run")
    rewrite_json(tmp_path / "run" / "config.json", {("settings", "cell"): "gru"})
    with pytest.raises(RunFolderError, match="names one cell and holds the equations of another"):
        Forecaster.load(tmp_path / "run")


def test_the_report_and_the_trace_name_them_all(tmp_path: Path) -> None:
    made = fit("gru+lstm", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "GRU+LSTM forecast" in page and "<span>gru+lstm</span>" in page
    trace = forecast_page(made, made.table_)
    assert trace.cell == "GRU+LSTM" and [layer.name for layer in trace.layers] == ["network 1", "network 2"]
    assert all(cells.get(name).equations in trace.equations for name in ("gru", "lstm"))


@pytest.mark.parametrize(
    ("cell", "error", "says"),
    [
        ("gru,lstm", UnknownCellError, "members of several cells are written gru.lstm"),
        ("gru+lstn", UnknownCellError, "No cell is called 'lstn'; did you mean 'lstm'"),
        ("gru+", UnknownCellError, "No cell is called ''"),
        ((), OptionError, "cell is an empty list"),
        ((3,), TypeError, "a cell is a name, a Cell class or an instance"),
    ],
)
def test_what_names_no_cells_is_one_sentence(cell: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as found:
        fit(cell)
    assert "\n" not in str(found.value)


def test_a_network_of_one_cell_takes_one() -> None:
    with pytest.raises(OptionError, match=r"cell must be one cell for a CharacterModel, not gru\+lstm"):
        CharacterModel(cell="gru+lstm").fit("abc " * 500)


def test_a_cell_may_have_a_plus_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Mine):
        """Its name is that of two others."""

        name = "gru+lstm"

    monkeypatch.setattr(cells, "_CELLS", dict(cells._CELLS))
    two = fit(("gru", "lstm"), tmp_path / "two")
    cells.register(Odd)
    assert joined_name(cells_of("gru+lstm")) == "gru+lstm" and len(cells_of("gru+lstm")) == 1
    one = fit("gru+lstm", tmp_path / "one")
    assert cells_in(one) == ["gru+lstm"]
    assert Forecaster.load(tmp_path / "one").predict().equals(one.predict())
    assert Forecaster.load(tmp_path / "two").predict().equals(two.predict())


def test_a_cell_that_must_be_given_values_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    class Timed(Cell):
        """It has to know the time."""

        gates = ("n",)
        inputs = ("dt",)

        def step(self, x, h, dt):
            return tanh(x.n + dt * h)

    with pytest.raises(OptionError, match=r'must be given dt beside x.*: inputs = {"dt": 1.0}'):
        fit(Timed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwise.cli.cell_argument import cell_argument

    monkeypatch.chdir(tmp_path)
    text = "from cellwise import Cell\nclass Only(Cell):\n  gates = ('n',)\n  def step(self, x, h): return x.n + h\n"
    Path("a+b.py").write_text(text)
    Path("mine.py").write_text(text)
    assert cell_argument("GRU+lstm") == "gru+lstm"
    assert [each.name for each in cell_argument("mine.py:Only+gru")] == ["only", "gru"]
    assert [each.name for each in cell_argument("gru + mine.py")] == ["gru", "only"]
    assert cell_argument("a+b.py:Only").name == "only"
    with pytest.raises(CellwiseError, match="No cell is called 'gro'"):
        cell_argument("gro+mine.py:Only")
