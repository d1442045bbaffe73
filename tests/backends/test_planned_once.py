"""What follows from a cell's equations is worked out once, and only what a call needs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import cellwise
from cellwise import Cell, Recurrent, tanh
from cellwise.backends.compiled import cell_kernels
from cellwise.nn.definition import info_of
from cellwise.nn.recurrent import RecurrentLayer
from cellwise.plan import backward


def new_cell() -> type[Cell]:
    """A cell that nobody has seen."""

    class Fresh(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n)

    return Fresh


def trained(layer: RecurrentLayer, dtype: torch.dtype = torch.float32) -> None:
    layer(torch.ones(3, 2, 4, dtype=dtype))[0].sum().backward()


def test_who_only_infers_does_not_differentiate_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("differentiated")

    monkeypatch.setattr(backward, "differentiate", refuse)
    layer = Recurrent(new_cell(), 4, 5, backend="cpu")
    with torch.no_grad():
        layer(torch.ones(3, 2, 4), lengths=[3, 1])
        layer.stream()(torch.ones(4))
    with pytest.raises(AssertionError, match="differentiated"):
        layer(torch.ones(3, 2, 4))


def test_a_graph_becomes_a_text_only_where_torch_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(cell_kernels, "store", lambda graph: made.append(graph) or "")
    monkeypatch.setattr(cell_kernels, "restore", lambda text: pytest.fail("read"))
    layer = Recurrent(new_cell(), 4, 5, 2, bidirectional=True, backend="cpu")
    trained(layer)
    assert not made
    torch.compile(layer, backend="eager", fullgraph=True)(torch.ones(3, 2, 4))
    assert made


def test_layers_of_a_cell_share_kernels_and_all_share_the_plans() -> None:
    cell = new_cell()
    made: list[cell_kernels.CellKernels] = []
    for dtype, hidden in ((torch.float32, 5), (torch.float32, 9), (torch.float64, 5)):
        layer = Recurrent(cell, 4, hidden, backend="cpu", dtype=dtype)
        trained(layer, dtype)
        stack = info_of(*layer._definition()).stack
        setting = cellwise.runtime.dispatch.context_of(torch.device("cpu"), dtype, False, False)
        number = cellwise.runtime.dispatch.dispatch_id("cpu", stack, setting, None)
        made.append(cellwise.runtime.dispatch.DISPATCHES[number].prepared.kernels)
    found = [each.plan for each in made]
    assert made[0] is made[1]
    assert made[0] is not made[2]
    assert found[0] is found[2]
    assert made[0].inference.program is made[2].inference.program


@pytest.mark.parametrize("size", [5, 16])
def test_what_is_remembered_of_a_call_holds_none_of_its_tensors(size: int) -> None:
    layer, x = Recurrent("lstm-peephole", 4, size, backend="cpu"), torch.ones(3, 2, 4)
    output = layer(x)[0]
    output.sum().backward()
    alive = [weakref.ref(each) for each in (x, output, *layer.parameters())]
    del layer, x, output
    gc.collect()
    assert not any(each() is not None for each in alive)
