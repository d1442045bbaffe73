"""States, inputs, outputs and widths that follow from an option of a cell, and steps that take states together."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch

import cellwise
from cellwise import Cell, Initial, Recurrent, cells, linear, tanh
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import CellDefinitionError, CellOptionError
from cellwise.plan.cost import cost_of
from cellwise.testing import check_cell
from cellwise.understand.latex import latex


class Lagged(Cell):
    """States of several steps: how many, which of them are given, and a time beside x are options."""

    lags: int = 2
    timed: bool = False
    narrow: int = 0
    h0 = Initial(0.25)

    @property
    def states(self) -> Any:  # type: ignore[override]
        return ("h", *(f"h{lag}" for lag in range(2, self.lags + 1)))

    @property
    def gates(self) -> Any:  # type: ignore[override]
        return ("n", *(f"n{lag}" for lag in range(2, self.lags + 1)))

    @property
    def inputs(self) -> Any:  # type: ignore[override]
        return {"dt": 0.5} if self.timed else ()

    @property
    def outputs(self) -> Any:  # type: ignore[override]
        return ("h", self.states[-1]) if self.lags > 2 else ()

    @property
    def widths(self) -> Any:  # type: ignore[override]
        return dict.fromkeys(self.states, self.narrow) if self.narrow else {}

    def step(self, x: Any, h: Any, *older: Any, dt: Any = 1.0) -> Any:
        total = x.n + h.n
        for lag, state in enumerate(older, 2):
            total = total + linear(getattr(state, f"n{lag}"))
        return h + dt * (tanh(total) - h), *(h, *older)[: self.lags - 1]


class Together(Cell):
    """Of states that no option decides, too, all may be taken at once."""

    gates = ("n", "m")
    states = ("h", "s")
    inputs = ("dt",)

    def step(self, x: Any, *states: Any, dt: Any) -> Any:
        h, s = states
        return tanh(x.n + h.n + s), s + dt * linear(h.m)


def test_all_that_is_derived_follows_from_the_option() -> None:
    one, four = Lagged(lags=1), Lagged(lags=4)
    assert one.states == one.graph.states == ("h",)
    assert four.graph.states == ("h", "h2", "h3", "h4") and four.graph.outputs == ("h", "h4")
    assert "h4' = h3" in four.equations and "W_hn4 h4" in four.equations
    assert "h_{3,t} &= h_{2,t-1}" in latex(four.graph)
    assert cost_of(four.graph).parameters != cost_of(one.graph).parameters
    layer = Recurrent(four, 3, 5)
    output, final = layer(torch.randn(7, 2, 3))
    assert output._fields == ("h", "h4") and [tuple(each.shape) for each in final] == [(1, 2, 5)] * 4
    torch.testing.assert_close(output.h[:4], output.h4[3:])  # after step t stands what h was after step t - 3
    narrow = Recurrent(Lagged(narrow=3), 3, 5)(torch.randn(7, 2, 3))[1]
    assert [tuple(each.shape) for each in narrow] == [(1, 2, 3)] * 2
    with pytest.raises(cellwise.CellwiseError, match="a tuple of 4 tensors as its state; got 3"):
        layer(torch.randn(7, 2, 3), (torch.zeros(1, 2, 5),) * 3)


@pytest.mark.parametrize("cell", [Lagged(lags=3, timed=True), Lagged(lags=1), Together()], ids=repr)
def test_a_layer_agrees_with_the_loop_that_defines_it(cell: Cell) -> None:
    check_cell(cell, backend="cpu")


def test_first_states_are_learned_of_what_there_is() -> None:
    assert [name for name, _ in Recurrent(Lagged(lags=3), 2, 2).named_parameters()][-1:] == ["h0_l0"]
    layer = Recurrent(Lagged(lags=3), 2, 2, learned_initial=True)
    assert [name for name, _ in layer.named_parameters()][-3:] == ["h0_l0", "h20_l0", "h30_l0"]


def test_a_cell_with_options_is_stored_copied_and_exported() -> None:
    cell = Lagged(lags=3, timed=True)
    stored = restore_cell(store_cell(cell))
    assert (stored.states, stored.inputs, stored.outputs) == (cell.states, cell.inputs, cell.outputs)
    assert stored.graph.fingerprint == cell.graph.fingerprint
    assert pickle.loads(pickle.dumps(cell)) == copy.deepcopy(cell) == cell != Lagged(lags=3)
    layer, x = Recurrent(cells.NARX(delays=4), 2, 3), torch.randn(5, 2, 2)
    program = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(program(x)[1], layer(x)[1])
    stream, outputs = layer.stream(batch_size=2), layer(x)[0]
    torch.testing.assert_close(torch.stack([stream(row) for row in x]), outputs)


def test_as_many_delays_as_one_is_the_plain_network() -> None:
    assert cells.NARX(delays=1).graph.fingerprint == cells.RNN().graph.fingerprint
    for name in ("NARX", "MIST"):
        for delays in (0, 129):
            with pytest.raises(CellOptionError, match=f"delays={delays} .it takes 1 to"):
                getattr(cells, name)(delays=delays)


@pytest.mark.parametrize(
    ("word", "said", "says"),
    [
        ("states", lambda cell: (), "Wrong(lags=2, timed=False, narrow=0) has no states"),
        ("states", lambda cell: ["h"], "states is a tuple of names"),
        ("states", lambda cell: ("h", "h"), "names one of its states twice"),
        ("states", lambda cell: ("s", "h2"), "calls an Initial() 'h0'"),
        ("inputs", lambda cell: ("h2",), "calls an input beside x 'h2'"),
        ("inputs", lambda cell: ("dt", "w"), "but its step takes self, x, h, *older, dt"),
        ("inputs", lambda cell: {"dt": "soon"}, "'soon' as the input 'dt'"),
        ("outputs", lambda cell: ("x",), "calls an output 'x'"),
        ("widths", lambda cell: {"q": 3}, "a width of 'q'"),
        ("widths", lambda cell: {"h": 0}, "says that h has 0 units"),
    ],
)
def test_what_an_option_makes_wrong_is_told_when_the_cell_is_made(word: str, said: Any, says: str) -> None:
    wrong = type("Wrong", (Lagged,), {word: property(said)})
    with pytest.raises(CellDefinitionError, match=re.escape(says)):
        wrong()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"states": ("h", "c"), "step": lambda self, x, c, *rest: x}, "x, h, c)"),
        ({"states": ("h", "c"), "step": lambda self, x, *rest, dt: x}, "*rest, dt."),
        ({"inputs": ("dt",), "step": lambda self, x, *rest: x}, "x, h, dt)"),
        ({"step": lambda self, x, *states, **more: x}, "takes self, x, *states, **more"),
        ({"step": lambda self, x, h, *, scale=1.0: x}, "takes self, x, h, scale"),
    ],
)
def test_a_step_that_takes_others_is_told_when_the_class_is_made(body: dict[str, Any], says: str) -> None:
    with pytest.raises(CellDefinitionError, match=re.escape(says)):
        type("Wrong", (Cell,), {"gates": ("n",), **body})


def test_a_step_that_does_not_take_the_states_of_an_option_says_how_to() -> None:
    class Rigid(Lagged):
        def step(self, x: Any, h: Any, h2: Any) -> Any:
            return tanh(x.n + h.n + linear(h2.n2)), h

    assert Rigid(lags=2).graph.states == ("h", "h2")
    with pytest.raises(
        CellDefinitionError, match=r"has the states h, h2, h3, but its step[\s\S]*step\(self, x, \*states\)"
    ):
        Rigid(lags=3)


def test_one_of_several_kinds_of_an_option() -> None:
    assert cells.HyperLSTM(hyper="H / 4").options["hyper"] == "H / 4"
    assert cells.HyperLSTM(hyper=None).graph.widths != cells.HyperLSTM(hyper=7).graph.widths
    with pytest.raises(CellOptionError, match=r"hyper=2.5 \(it takes an int or a str\)"):
        cells.HyperLSTM(hyper=2.5)
