"""The list of cells: what is read from descriptions and derived from equations, and how the command searches it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import cellwise
from cellwise import Cell, Vector, cells, sigmoid, stop_gradient, where
from cellwise.understand.catalogue import PROPERTIES, Entry, entries


class Affine(Cell):
    """Nothing is bent (Nobody et al. 2026)."""

    gates = ("a", "n")
    states = ("h", "s")
    u = Vector()

    def step(self, x, h, s):
        chosen = where(x.a > 0, h, s / sigmoid(x.a)) - stop_gradient(s)
        return -chosen + x.n, self.u * s + h.n


class Bent(Cell):
    """A product of two states."""

    gates = ("n",)
    states = ("h", "s")

    def step(self, x, h, s):
        return x.n + h, s + 0.1 * h * s


@pytest.mark.parametrize(
    ("cell", "properties"),
    [
        ("lstm", ()),
        ("gru-reset-before", ("chained",)),
        ("mingru", ("elementwise", "affine", "scan")),
        ("indrnn", ("elementwise",)),
        ("lru", ("elementwise", "affine", "scan", "own-output")),
        ("jordan", ("chained",)),
        (Affine, ("affine",)),
        (Bent, ("elementwise",)),
    ],
)
def test_properties_follow_from_the_equations(cell: Any, properties: tuple[str, ...]) -> None:
    assert Entry(cells.get(cell)).properties == properties
    assert set(properties) <= set(PROPERTIES)


def test_every_cell_has_paper_and_year() -> None:
    found = entries()
    assert [each.name for each in found] == list(cells.names())
    assert all(each.paper and 1985 <= (each.year or 0) <= 2026 for each in found)
    assert len(found) >= 45
    entry = Entry(cells.get("mingru"))
    assert (entry.paper, entry.year) == ('Feng et al. 2024, "Were RNNs all we needed?"', 2024)
    assert Entry(Bent()).paper == "" and Entry(Bent()).year is None
    assert Entry(cells.get("lru")).notes.startswith("The state is h + i s.")


def test_sizes_are_those_of_layers() -> None:
    for name in ("gru", "fastrnn", "tgru", "mi-rnn"):
        layer = cellwise.Recurrent(name, 100, 100)
        assert Entry(cells.get(name)).size == sum(each.numel() for each in layer.parameters())


def listed(run: Any, *words: str) -> list[str]:
    return [each["name"] for each in json.loads(run("cells", *words, "--json")[1])]


def test_the_command_searches_and_sorts(run: Any) -> None:
    assert listed(run, "--property", "scan", "--until", "2018") == ["gilr", "trnn"]
    assert listed(run, "heck", "SALEM") == ["mgu1", "mgu2", "mgu3"]
    assert listed(run, "lstm", "--until", "2000", "--sort", "year") == [
        "lstm",
        "lstm-original",
        "lstm-peephole",
    ]
    assert listed(run, "--matrices", "1") == ["indrnn", "unicornn"]
    assert listed(run, "--gates", "1", "--states", "1", "--until", "2007") == ["ctrnn", "leaky-rnn", "rnn"]
    sizes = [Entry(cells.get(name)).size for name in listed(run, "--sort", "parameters")]
    assert sizes == sorted(sizes)
    _, out, _ = run("cells", "no", "such", "words")
    assert out == f"None of the {len(cells.names())} cells fits; leave out a word or an option.\n"
    code, _, error = run("cells", "--property", "bent")
    assert code == 2 and "'bent' is not one of 'elementwise'" in error


def test_cells_are_read_when_they_are_asked_for() -> None:
    code = (
        "import sys, cellwise; from cellwise import cells\n"
        "defined = {f'cellwise.cells.{name}' for name in ('base', 'checks', 'parameters', 'widths')}\n"
        "read = lambda: {m for m in sys.modules if m.startswith('cellwise.cells.')} - defined\n"
        "names = cells.names(); assert len(names) >= 45 and not read(), read()\n"
        "assert cells.PeepholeLSTM.name == 'lstm-peephole' and cells.get('gru') and cells.GRU\n"
        "assert 'cellwise.cells.gru' in read()\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    with pytest.raises(AttributeError, match="no attribute 'NoSuchCell'"):
        _ = cells.NoSuchCell


def test_a_cell_of_ones_own_takes_the_place_of_one_that_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_CELLS", {})
    mine = type("Mine", (Bent,), {"name": "gilr"})
    for _ in range(2):  # before and after its name was asked for
        assert cells.register(mine) is mine and type(cells.get("gilr")) is mine
        monkeypatch.setattr(cells, "_CELLS", {})
        assert type(cells.get("gilr")).__module__ == "cellwise.cells.gilr"
    cells.register(mine)
    with pytest.raises(cellwise.CellwiseError, match="Other is called 'gilr', and so is"):
        cells.register(type("Other", (Bent,), {"name": "gilr", "__module__": "elsewhere"}))
    with pytest.raises(cellwise.CellwiseError, match="is called 'gru', and so is"):
        cells.register(type("Mine", (Bent,), {"name": "gru"}))
