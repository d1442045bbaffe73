"""A cell is read back from its equations alone, and what is no cell is refused."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import torch

from cellwise import Cell, Recurrent, Scalar, Vector, cells, sigmoid, tanh
from cellwise.cells.stored import StoredCell, StoredCellError, restore_cell, store_cell
from cellwise.graph.stored import MOST_NODES


class Own(Cell):
    """A cell of one's own.

    With options, parameters of every kind, and an output that is no state.
    """

    gates = ("f", "n")
    states = ("h", "c")
    output = "y"
    drawn = Vector((-0.5, 0.5))
    usual = Vector()
    fixed = Scalar(0.7)
    rate: float = 0.3

    def step(self, x, h, c):
        f = sigmoid(x.f + h.f + self.drawn * h + self.usual)
        c = (1 - f) * c + self.rate * f * tanh(x.n + (f * h).n)
        return c * self.fixed, tanh(c), c


def stored(cell: Cell) -> dict[str, Any]:
    return json.loads(json.dumps(store_cell(cell)))


@pytest.mark.parametrize("cell", [Own(), Own(rate=0.5), cells.RNN(nonlinearity="relu")])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_it_computes_and_begins_as_the_cell_it_was(cell: Cell, backend: str) -> None:
    again = restore_cell(stored(cell))
    assert isinstance(again, StoredCell)
    assert again.equations == cell.equations and again.name == cell.name and again.output == cell.output
    layers = []
    for each in (cell, again):
        torch.manual_seed(3)
        layers.append(Recurrent(each, 3, 5, backend=backend))
    x = torch.randn(6, 2, 3)
    outputs = [layer(x)[0] for layer in layers]
    assert torch.equal(*outputs)
    for output in outputs:
        output.sum().backward()
    for (name, one), (same, other) in zip(*(layer.named_parameters() for layer in layers), strict=True):
        assert name == same and torch.equal(one, other) and torch.equal(one.grad, other.grad)


def test_equal_texts_are_equal_cells() -> None:
    one, other = restore_cell(stored(Own())), restore_cell(stored(Own()))
    assert one == other == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(other)
    assert one != restore_cell(stored(Own(rate=0.5)))
    assert stored(one) == stored(Own())


@pytest.mark.parametrize("name", cells.names())
def test_known_cells_stay_themselves(name: str) -> None:
    assert restore_cell(stored(cells.get(name))) == cells.get(name)


def test_another_cell_of_a_known_name_is_not_that_one() -> None:
    false = stored(Own()) | {"name": "gru"}
    assert restore_cell(false) != cells.get("gru")
    assert "drawn" in restore_cell(false).equations


def graph_with(**changes: Any) -> str:
    return json.dumps(json.loads(store_cell(Own())["graph"]) | changes)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "{}"},
        {"graph": "[" * 100_000},
        {"graph": 5},
        {"graph": graph_with(name="a\nb")},
        {"graph": graph_with(vectors=["drawn", "__init__"])},
        {"graph": graph_with(vectors=["weight_ih_l0", "usual"])},
        {"graph": graph_with(states=["h", "import"])},
        {"graph": graph_with(gates=["f", "f"])},
        {"name": "a\x1b[31m"},
        {"name": ""},
        {"name": "x" * 201},
        {"about": "\u2028"},
        {"output": [1]},
        {"output": "a b"},
        {"output": "h"},
        {"initial": None},
        {"initial": {}},
        {"initial": {"drawn": "x", "usual": None, "fixed": 0.7}},
        {"initial": {"drawn": [1], "usual": None, "fixed": 0.7}},
        {"initial": {"drawn": float("nan"), "usual": None, "fixed": 0.7}},
        {"initial": {"drawn": None, "usual": None, "fixed": 0.7, "step": 1.0}},
    ],
)
def test_what_is_no_cell_is_one_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(StoredCellError, match=r"^the stored cell cannot be read: .+$"):
        restore_cell(stored(Own()) | change)
    for missing in ("name", "about", "output", "initial", "graph"):
        with pytest.raises(StoredCellError):
            restore_cell({key: value for key, value in stored(Own()).items() if key != missing})


def test_a_cell_that_could_not_be_read_back_is_refused_before_it_is_trained() -> None:
    class Endless(Cell):
        """Longer than any cell."""

        gates = ("n",)

        def step(self, x, h):
            for _ in range(MOST_NODES // 2 + 1):
                h = tanh(h + x.n)
            return h

    with pytest.raises(StoredCellError, match="nodes"):
        store_cell(Endless())
