"""Cells whose units fall into heads, which run apart: the numbers, masks and gradients of the whole product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import (
    Cell,
    Initial,
    Recurrent,
    Scalar,
    Vector,
    block_diagonal,
    cells,
    dropout,
    linear,
    low_rank,
    mean,
    ready,
    sigmoid,
    tanh,
    zoneout,
)
from cellwise.backends.cpu import heads
from cellwise.graph.heads import heads_of
from cellwise.testing import check_cell

T, B, D, H = 5, 3, 2, 8


class Headed(Cell):
    """All that must be cut by units: two products of other operands, own parameters, masks, values beside x."""

    gates = ("f", "n", "m")
    states = ("h", "s")
    outputs = ("h", "f")
    inputs = ("dt",)
    rate, scale, h0 = Vector((0.1, 0.9)), Scalar(0.5), Initial((-1.0, 1.0))
    heads: int = 4

    def step(self, x, h, s, dt):
        f = sigmoid(x.f + block_diagonal(linear(h.f), self.heads) * dt)
        n = tanh(low_rank(x.n, 1) + block_diagonal((f * s).n, self.heads) + self.rate * s)
        s = zoneout(f * s + (1 - f) * n, s, 0.2)
        return (
            f,
            tanh(s + block_diagonal(h.m, self.heads)) + self.scale * dropout(h, 0.3, per_sequence=True),
            s,
        )


class Ready(Cell):
    """The gates of the input are ready, so that no product gives a gradient back to it."""

    gates = ("z", "n")

    def step(self, x, h):
        z = sigmoid(ready(x.z) + block_diagonal(h.z, 2))
        return z * h + (1 - z) * tanh(ready(x.n) + block_diagonal(h.n, 2))


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads run apart however narrow they are."""
    monkeypatch.setattr(heads, "FEWEST_UNITS", 1)
    monkeypatch.setattr(heads, "COST_OF_A_PART", 0)


def _layer(cell: Any, width: int = D, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, width, H, **{"dtype": torch.float64, **options})


def _all(layer: Recurrent, *arguments: Any, **options: Any) -> list[Tensor]:
    """What comes out, and the gradients at all that has one."""
    torch.manual_seed(3)
    output, final = layer(*arguments, **options)
    outputs = (output,) if isinstance(output, Tensor) else output
    ends = [*outputs, *(final if isinstance(final, tuple) else (final,))]
    given = [
        each for each in (*arguments, *options.values()) if isinstance(each, Tensor) and each.requires_grad
    ]
    total = sum(end.square().sum() * (1 + place) for place, end in enumerate(ends))
    return [*ends, *torch.autograd.grad(total, [*given, *layer.parameters()])]


def _explained(layer: Recurrent, *arguments: Any, **options: Any) -> str:
    return str(cellwise.explain(layer, *arguments, **options))


def test_every_check_of_a_cell_with_heads(apart: None) -> None:
    report = check_cell(Headed, "cpu")
    assert not report.refused
    assert {"gradients", "agreement", "stream", "ragged", "resets"} <= {check for _, check in report.done}


def _given(cell: Any) -> tuple[Recurrent, Tensor, dict[str, Tensor]]:
    is_ready = cell is Ready
    layer = _layer(
        cell, 2 * H if is_ready else D, **({} if is_ready else {"num_layers": 2, "bidirectional": True})
    )
    x = torch.randn(T, B, layer.input_size, dtype=torch.float64, requires_grad=True)
    dt = torch.rand(T, B, H, dtype=torch.float64, requires_grad=True)
    return layer, x, {} if is_ready else {"dt": dt}


@pytest.mark.parametrize("options", [{}, {"lengths": [5, 0, 2]}, {"resets": torch.rand(T, B) < 0.3}])
@pytest.mark.parametrize("cell", [Headed, Ready])
def test_masks_and_numbers_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, apart: None, cell: Any, options: dict[str, Any]
) -> None:
    layer, x, beside = _given(cell)
    options = options | beside
    found = {}
    for parts in (4, 2, 1) if cell is Headed else (2, 1):
        monkeypatch.setattr(heads, "FEWEST_UNITS", H // parts)
        assert (f"in {parts} parts" in _explained(layer, x, **options)) is (parts > 1)
        found[parts] = _all(layer, x, **options)
    whole = found.pop(1)
    for each in found.values():
        torch.testing.assert_close(each, whole)


@pytest.mark.parametrize("cell", [Headed, Ready])
def test_second_derivatives_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, apart: None, cell: Any
) -> None:
    layer, x, beside = _given(cell)
    found = []
    for fewest in (1, H):
        monkeypatch.setattr(heads, "FEWEST_UNITS", fewest)
        torch.manual_seed(3)
        output = layer(x, **beside)[0]
        sum_of_squares = (output if cell is Ready else output[0]).square().sum()
        inputs = (x, *layer.parameters())
        first = torch.autograd.grad(sum_of_squares, inputs, create_graph=True, allow_unused=True)
        total = sum(each.square().sum() for each in first if each is not None)
        found.append(torch.autograd.grad(total, inputs, allow_unused=True))
    torch.testing.assert_close(*found)


def test_a_compiled_program_runs_them_apart(apart: None) -> None:
    torch.compiler.reset()
    layer, x, options = _given(Ready)
    program = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(_all(program, x, **options), _all(layer, x, **options))


def test_an_exported_program_has_a_call_for_each_head(apart: None) -> None:
    layer = _layer(Headed).eval()
    arguments = {"dt": torch.rand(T, B, dtype=torch.float64)}
    x = torch.randn(T, B, D, dtype=torch.float64)
    program = torch.export.export(layer, (x,), arguments)
    assert program.graph_module.code.count("ops.cellwise.direction.default") == 4
    torch.testing.assert_close(program.module()(x, **arguments)[0], tuple(layer(x, **arguments)[0]))


def test_streams_and_autocast_run_apart_and_dropped_weights_do_not(apart: None) -> None:
    layer = _layer(cells.SLSTM(heads=2), dtype=torch.float32).eval()
    x = torch.randn(T, B, D)
    with torch.no_grad():
        whole = layer(x)[0]
        stream = layer.stream(B)
        torch.testing.assert_close(torch.stack([stream(each) for each in x]), whole)
        with torch.autocast("cpu", torch.bfloat16):
            assert "in 2 parts" in _explained(layer, x)
            torch.testing.assert_close(layer(x)[0].float(), whole, rtol=0, atol=0.05)
    layer.train().weight_dropout = 0.999999
    assert "parts" not in _explained(layer, x)
    state = tuple(torch.ones(1, B, H) for _ in layer.cell.states)
    torch.testing.assert_close(layer(x, state)[0], layer(x, state)[0])


def test_what_falls_into_heads_is_known_by_the_equations() -> None:
    def count(step: Any, states: tuple[str, ...] = ("h",)) -> int:
        # An option, so that a gate may be left out.
        members = {"__annotations__": {"k": int}, "k": 1, "gates": ("a", "b"), "states": states, "step": step}
        return heads_of(type("Mine", (Cell,), members)().graph)

    def blocks(gate: Any, number: int = 3) -> Any:
        return block_diagonal(gate, number)

    assert count(lambda self, x, h: tanh(x.a + blocks(h.a) + blocks((h * x.b).b))) == 3
    assert count(lambda self, x, h, s: (tanh(x.a + blocks(h.a)), s + blocks(s.b)), ("h", "s")) == 3
    assert count(lambda self, x, h: tanh(x.a + blocks(h.a) + h.b)) == 1, "one product of all units"
    assert count(lambda self, x, h: tanh(x.a + blocks(h.a) + blocks(h.b, 2))) == 1, (
        "heads that cut each other"
    )
    assert count(lambda self, x, h: tanh(x.a + blocks(h.a, 4) + blocks(h.b, 6))) == 2
    assert count(lambda self, x, h: tanh(x.a + blocks(h.a) - mean(h))) == 1, "a sum over all units"
    assert count(lambda self, x, h: tanh(blocks(x.a) + low_rank(h.a, 3))) == 1
    assert count(lambda self, x, h: tanh(x.a) + h) == 1, "no product, so nothing to save"


def test_whether_heads_run_apart_follows_from_sizes() -> None:
    graph, many = cells.SLSTM(heads=16).graph, 10**6
    assert heads.parts_for(graph, 512, None) == heads.parts_for(graph, 512, many) == 16
    assert heads.parts_for(graph, 256, many) == 8, "of narrow heads two make a part"
    assert heads.parts_for(graph, 32, many) == heads.parts_for(graph, 32, None) == 1
    assert heads.parts_for(graph, 512, 64) == 4, "fewer calls where there is less to save"
    assert heads.parts_for(graph, 128, 16) == 1
    assert heads.parts_for(cells.SLSTM().graph, 512, None) == 1
