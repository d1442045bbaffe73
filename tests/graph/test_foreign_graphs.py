"""Graphs that a stranger wrote: refused with a GraphError, or harmless; names never become code."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch

from cellwise import Cell, Recurrent, Vector, cells, tanh
from cellwise.backends.compiled.cell_kernels import kernels_of
from cellwise.backends.cpu.code import Code, on_one_line
from cellwise.backends.cpu.kernel import emit
from cellwise.backends.cpu.target import host
from cellwise.graph.stored import MOST_NODES, restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.forward import forward_program

PEEPHOLE = json.loads(store(cells.get("lstm-peephole").graph))
ENDS_A_LINE = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0")
NO_NAMES = (*[f"h{end}ret void" for end in ENDS_A_LINE], "", "a b", "1a", 'h"', "h;", "x.y", "h" * 2000)


def renamed(kind: str, place: int, name: str) -> str:
    """The graph with a gate, state or parameter called otherwise everywhere."""
    graph = copy.deepcopy(PEEPHOLE)
    old, graph[kind][place] = graph[kind][place], name
    ops = {"gates": ("input", "project"), "states": ("state",), "vectors": ("vector",)}[kind]
    for node in graph["nodes"]:
        if node[0] in ops and node[1] == old:
            node[1] = name
    return json.dumps(graph)


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_what_is_no_identifier_names_nothing(name: str) -> None:
    for kind in ("gates", "states", "vectors"):
        with pytest.raises(GraphError, match="no Python identifier"):
            restore(renamed(kind, 0, name))
    graph = copy.deepcopy(PEEPHOLE)
    graph["names"][0][1] = name
    with pytest.raises(GraphError, match="no Python identifier"):
        restore(json.dumps(graph))


@pytest.mark.parametrize("end", ENDS_A_LINE, ids=ascii)
def test_no_text_leaves_its_comment_in_llvms_code(end: str) -> None:
    assert on_one_line(f"a{end}ret void") == f"a{'?' * len(end)}ret void"
    code = Code(f"name{end}ret void", 4, host())
    code.b.comment(f"a{end}ret void")
    code.b.ret_void()
    lines = [line.strip() for line in str(code.module).splitlines()]
    assert lines.count("ret void") == 1
    with pytest.raises(GraphError, match="no line of printable text"):
        restore(json.dumps(PEEPHOLE | {"name": f"a{end}b"}))


def test_a_parameter_cannot_pose_as_a_weight() -> None:
    with pytest.raises(GraphError, match="no parameter of a cell's own"):
        restore(renamed("vectors", 0, "weight_hh"))


def test_one_name_stands_for_one_thing() -> None:
    with pytest.raises(GraphError, match="the same name"):
        restore(renamed("states", 0, "c"))
    graph = json.loads(renamed("states", 0, "own"))
    graph = json.loads(json.dumps(graph).replace('"p_i"', '"before"'))
    with pytest.raises(GraphError, match="buffers have the same name"):
        forward_program(restore(json.dumps(graph)), None)


def _nodes(nodes: list[Any], **more: Any) -> str:
    graph = {"name": "Mine", "gates": ["n"], "states": ["h"], "vectors": [], "scalars": [], "names": []}
    return json.dumps(
        graph | {"nodes": nodes, "output": len(nodes) - 1, "new_states": [len(nodes) - 1]} | more
    )


_X, _H = ["input", "n"], ["state", "h"]
DAMAGED: dict[str, str] = {
    "forward-reference": _nodes([_X, ["tanh", None, 2], ["tanh", None, 1]]),
    "itself": _nodes([_X, ["tanh", None, 1]]),
    "from-the-end": _nodes([_X, _H, ["add", None, -1, -2]]),
    "true-as-number": _nodes([_X, _H, ["add", None, 0, True]]),
    "float-as-number": _nodes([_X, _H, ["add", None, 0, 1.0]]),
    "huge-number": _nodes([_X, _H, ["add", None, 0, 10**400]]),
    "few-operands": _nodes([_X, _H, ["add", None, 0]]),
    "many-operands": _nodes([_X, _H, ["tanh", None, 0, 1]]),
    "duplicate": _nodes([_X, _X, ["add", None, 0, 1]]),
    "mask-as-number": _nodes([_X, _H, ["less", None, 0, 1], ["add", None, 2, 1]]),
    "number-as-mask": _nodes([_X, _H, ["where", None, 0, 0, 1]]),
    "mask-as-state": _nodes([_X, _H, ["less", None, 0, 1]]),
    "whole-constant": _nodes([_X, ["constant", 10**30], ["mul", None, 0, 1]]),
    "text-constant": _nodes([_X, ["constant", "1.0"], ["mul", None, 0, 1]]),
    "text-on-an-op": _nodes([_X, _H, ["add", "a text", 0, 1]]),
    "list-as-attribute": _nodes([["input", ["n"]], _H, ["add", None, 0, 1]]),
    "list-as-op": _nodes([[["input"], "n"]]),
    "states-none": _nodes([_X], states=[], new_states=[]),
    "states-text": _nodes([_X, _H, ["add", None, 0, 1]], states="h"),
    "output-from-the-end": _nodes([_X, _H, ["add", None, 0, 1]], output=-1),
    "new-state-from-the-end": _nodes([_X, _H, ["add", None, 0, 1]], new_states=[-1]),
    "names-none": _nodes([_X, _H, ["add", None, 0, 1]], names=None),
    "name-number": _nodes([_X, _H, ["add", None, 0, 1]], name=1),
    "deep": "[" * 200_000,
    "deep-inside": _nodes([_X]).replace('"n"', "[" * 100_000 + "]" * 100_000),
    "many": _nodes([_X, *[["tanh", None, i] for i in range(MOST_NODES)]]),
    "long": " " * 2**22,
    "surrogate": _nodes([_X, _H, ["add", None, 0, 1]], gates=["\ud800"]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_graph_is_refused(name: str) -> None:
    with pytest.raises(GraphError) as raised:
        restore(DAMAGED[name])
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), 1e308, 5e-324, -0.0])
def test_a_number_of_any_kind_is_a_number(number: float) -> None:
    text = _nodes([_X, _H, ["constant", number], ["minimum", None, 0, 2], ["add", None, 1, 3]])
    engine = kernels_of(f"|{text}", torch.float64, "cpu")
    again = json.loads(store(engine.graph))["nodes"]
    assert repr(next(node[1] for node in again if node[0] == "constant")) == repr(number)
    assert engine.inference.program.stages


@pytest.mark.parametrize("op", ["tanh", "add", "div", "where", "clamp"])
def test_a_deep_graph_is_planned_and_written_without_recursion(op: str) -> None:
    nodes: list[Any] = [_X, _H]
    for _ in range(1200):
        last = len(nodes) - 1
        if op == "where":
            nodes.append(["less", None, last, 0])
            last_and = [last + 1, last, 1]
        else:
            last_and = {"tanh": [last], "add": [last, 0], "div": [last, 0], "clamp": [last, 0, 1]}[op]
        nodes.append([op, None, *last_and])
    engine = kernels_of(f"|{_nodes(nodes)}", torch.float32, "cpu")
    for program in (forward_program(engine.graph, None), engine.plan.program):
        assert len(str(emit(program, 4, host()))) < 20_000_000


# --- names that a cell may well have --------------------------------------------------------------------------------


def _cell(states: tuple[str, ...], name: str = "Mine") -> type[Cell]:
    first, *rest = states
    body = f"def step(self, x, {', '.join(states)}):\n    c = tanh(x.n + {first}.n) + 0.5 * {states[-1]}\n"
    body += f"    return {', '.join(['0.9 * c - 0.1 * self.before * ' + first, *['c'] * len(rest)])}"
    scope: dict[str, Any] = {"tanh": tanh}
    exec(body, scope)
    return type(name, (Cell,), {"gates": ("n",), "states": states, "step": scope["step"], "before": Vector()})


@pytest.mark.parametrize(
    "states", [("tape",), ("output",), ("output", "tape"), ("gates", "sums"), ("größe", "gradient")], ids=str
)
def test_a_state_may_have_the_name_of_an_array(states: tuple[str, ...]) -> None:
    layer = Recurrent(_cell(states), 3, 5, dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("reference", "cpu"):
        layer.backend = backend
        output, _ = layer(x, resets=torch.arange(12).reshape(6, 2) % 5 == 3)
        results.append([output, *torch.autograd.grad(output.sin().sum(), [x, *layer.parameters()])])
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["Größe", 'a "quoted" name', "My Cell[int]"])
def test_a_cell_may_be_called_anything_printable(name: str) -> None:
    layer = Recurrent(_cell(("h",), name), 3, 4, backend="cpu")
    assert layer(torch.ones(2, 1, 3))[0].isfinite().all()
