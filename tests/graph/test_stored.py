"""Graphs written as text and read again, also from texts that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from cellwise import Cell, cells
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.testing.strategies import cells as drawn_cells


@given(cell=drawn_cells())
def test_any_graph_is_read_as_it_was_written(cell: Cell) -> None:
    graph, again = cell.graph, restore(store(cell.graph))
    assert again.fingerprint == graph.fingerprint
    assert [node.op for node in again.nodes] == [node.op for node in graph.nodes]
    for name in ("gates", "states", "vectors", "scalars", "input_gates", "state_gates", "forms"):
        assert getattr(again, name) == getattr(graph, name)
    assert store(again) == store(graph)


def _changed(change: dict[str, Any]) -> str:
    return json.dumps(json.loads(store(cells.get("gru").graph)) | change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        _changed({"nodes": [["eval", "1"]]}),
        _changed({"nodes": [["state", "h"], ["tanh", None, 1]]}),
        _changed({"nodes": [["state", "h"], ["tanh", None, -1]]}),
        _changed({"nodes": [["state", "h"], ["add", None, 0]], "output": 1, "new_states": [1], "names": []}),
        _changed({"nodes": [["state", "q"]], "output": 0, "new_states": [0], "names": []}),
        _changed({"new_states": []}),
        _changed({"output": 1000}),
        _changed({"gates": ["a"]}),
    ],
)
def test_a_text_that_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        restore(text)
