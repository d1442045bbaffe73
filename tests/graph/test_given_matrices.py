"""Products with a matrix that is given: beside torch's own, what is said of them, what is stored and refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwise import Cell, Recurrent, cells, fixed, linear, sigmoid, tanh
from cellwise.cells.lmu import _discretized
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import ShapeError
from cellwise.graph import listing
from cellwise.graph.forms import rows_of_text, size_of_text, text_of_rows
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.cost import cost_of
from cellwise.testing import check_cell
from cellwise.understand.backward_equations import gradient_text
from cellwise.understand.catalogue import Entry

TURN = ((0.6, -0.8), (0.8, 0.6))
WIDE = np.arange(6.0).reshape(2, 3) / 10


class Turned(Cell):
    """Two units that turn, three that are summed up into them, and a state that reads them."""

    gates = ("n", "w", "k")
    states = ("h", "s")
    widths = {"s": 2}  # noqa: RUF012  (a table)

    def step(self, x: Any, h: Any, s: Any) -> Any:
        three = sigmoid(x.w + h.w)
        s = fixed(TURN, s, name="R") + fixed(WIDE, three, name="P") + fixed(TURN, s * s, name="R")
        return tanh(x.n + h.n + linear(s.k)), s


def test_results_and_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    layer = Recurrent(Turned, 4, 5, backend="cpu", dtype=torch.float64)
    assert {name: tuple(each.shape) for name, each in layer.named_parameters()} == {
        "weight_ih_l0": (8, 4),
        "weight_hh_l0": (8, 5),
        "weight_hh_k_l0": (5, 2),
        "bias_ih_l0": (8,),
        "bias_hh_l0": (8,),
    }
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    first = (torch.randn(1, 3, 5).double().requires_grad_(), torch.randn(1, 3, 2).double().requires_grad_())
    output, final = layer(x, first)
    turn, wide = torch.tensor(TURN, dtype=torch.float64), torch.from_numpy(WIDE)
    (h, s), outputs = (each[0] for each in first), []
    for row in x:
        sums = row @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + h @ layer.weight_hh_l0.t() + layer.bias_hh_l0
        s = (s + s * s) @ turn.t() + sums[:, 5:].sigmoid() @ wide.t()
        h = (sums[:, :5] + s @ layer.weight_hh_k_l0.t()).tanh()
        outputs.append(h)
    found, wanted = (output, *final), (torch.stack(outputs), h[None], s[None])
    torch.testing.assert_close(found, wanted)
    read, arriving = (x, *first, *layer.parameters()), [torch.randn_like(each) for each in wanted]
    torch.testing.assert_close(
        torch.autograd.grad(found, read, arriving), torch.autograd.grad(wanted, read, arriving)
    )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_every_backend_agrees_with_the_loop_that_defines_it(backend: str) -> None:
    check_cell(Turned(), backend=backend)


def test_what_is_shown_and_counted() -> None:
    graph = Turned().graph
    assert graph.gates == ("n", "w", "k", "R", "P") and graph.functions == ("R", "P")
    shown = Turned().equations
    assert "s' = R s + P three + R (s ⊙ s)" in shown
    assert "R = (2 × 2, given)\nP = (2 × 3, given)" in shown
    assert "(fixed, 2 × 3)" in listing(graph) and "0.6" not in listing(graph)
    assert "W_hR = R" in gradient_text(graph) and "δW_hR" not in gradient_text(graph)
    assert Entry(Turned()).matrices == 5
    cost = cost_of(graph)
    # A product of 2 × 2 twice and one of 2 × 3, two operations for each number, and row of the batch.
    h, d = 10, 7
    products = 2 * ((h + 3) * d + (h + 3) * h + h * 2) + 2 * (4 + 4 + 6)
    assert cost.forward.products.at(b=1, t=1, h=h, d=d) == products
    assert cost.parameters.at(b=1, t=1, h=h, d=d) == (h + 3) * (d + h + 2) + 2 * h


def test_a_stored_graph_has_the_numbers_and_no_others() -> None:
    cell = Turned()
    graph = restore(store(cell.graph))
    assert graph.fingerprint == cell.graph.fingerprint
    assert store_cell(restore_cell(store_cell(cell))) == store_cell(cell)
    assert restore_cell(store_cell(cells.LMU())) == cells.LMU()
    text, mark = store(cell.graph), "fixed=0.6,-0.8;0.8,0.6"
    assert text.count(mark) == 2
    for wrong in (
        "0.6,-0.8;0.8",
        "0.60,-0.8;0.8,0.6",
        "nan,0.0;0.0,0.0",
        "1e999,0.0;0.0,0.0",
        "a,b;c,d",
        "",
        ",;",
    ):
        with pytest.raises(GraphError):
            restore(text.replace(mark, f"fixed={wrong}"))
    with pytest.raises(GraphError, match="has not the rows of its matrix"):
        restore(text.replace('"R":"2"', '"k":"H/2"'))
    other = json.loads(text)
    other["nodes"] = [[str(word).replace("linear fixed", "fixed"), *rest] for word, *rest in other["nodes"]]
    with pytest.raises(GraphError, match="no product without a bias"):
        restore(json.dumps(other))


def _cell(step: Any, **words: Any) -> Any:
    return type(
        "Wrong", (Cell,), {"gates": ("n",), "states": ("h", "m"), "widths": {"m": 2}, "step": step} | words
    )


@pytest.mark.parametrize(
    ("matrix", "name", "says"),
    [
        ([[1.0, 2.0], [3.0]], "M", "fixed was given rows of 1 and of 2 numbers."),
        ([1.0, 2.0], "M", "fixed was given a list, which is no matrix of numbers."),
        ([], "M", "no matrix of numbers"),
        ([[]], "M", "no matrix of numbers"),
        ("ab", "M", "fixed was given a str, which is no matrix"),
        ([[math.inf, 0.0]], "M", "a number that is not finite"),
        (np.zeros((400, 200)), "M", "400 × 200 numbers, and takes 65,536 at most"),
        (torch.zeros(2, 2, 2), "M", "no matrix of numbers"),
        (TURN, "a b", "the name 'a b'"),
        (TURN, "m", "calls something of its own m"),
        ([[1.0, 2.0, 3.0]], "A", "What the matrix A takes has 3 units, and m has 2 units."),
        ([[1.0, 2.0]], "A", "1 unit"),
    ],
)
def test_what_is_no_matrix_is_one_sentence_with_its_line(matrix: Any, name: str, says: str) -> None:
    wrong = _cell(lambda self, x, h, m: (tanh(x.n + h.n), m + fixed(matrix, m, name=name)))
    with pytest.raises(ShapeError, match=re.escape(says)) as raised:
        _ = wrong().graph
    assert "test_given_matrices.py" in str(raised.value)


def test_units_that_follow_from_h_meet_no_matrix() -> None:
    with pytest.raises(ShapeError, match="What the matrix M takes has 2 units, and h has H units"):
        _ = _cell(lambda self, x, h, m: (tanh(x.n + fixed(TURN, h)), m))().graph
    with pytest.raises(ShapeError, match=r"fixed was given .*which has no units"):
        _ = _cell(lambda self, x, h, m: (tanh(x.n), m + fixed(TURN, x.n * 0 < 1)))().graph
    with pytest.raises(TypeError, match="outside of one"):
        fixed(TURN, torch.zeros(2))


def test_names_are_numbered_where_another_matrix_has_them() -> None:
    other = ((1.0, 0.0), (0.0, 0.5))

    def step(self: Any, x: Any, h: Any, m: Any) -> Any:
        return tanh(x.n + h.n), fixed(TURN, m) + fixed(other, m) + fixed(TURN, m * m)

    assert _cell(step)().graph.functions == ("M", "M2")


def test_a_layer_casts_moves_and_drops_none_of_it() -> None:
    torch.manual_seed(0)
    layer, x = (
        Recurrent(cells.LMU(order=4, theta=6.0), 2, 3, dtype=torch.float64),
        torch.randn(5, 2, 2).double(),
    )
    before = layer(x)[0]
    assert torch.equal(layer.float().double()(x)[0], before) is False  # the parameters are rounded
    weights = layer.state_dict()
    assert not any(".A" in name or "_A_" in name or "_B_" in name for name in weights)
    half = Recurrent(cells.LMU(order=4, theta=6.0), 2, 3, dtype=torch.float64)
    half.load_state_dict(weights)
    torch.testing.assert_close(half(x)[0], layer(x)[0], rtol=0, atol=0)
    # Weights that are dropped are those that are learned: with none of these a memory still holds what it held.
    still = Recurrent(cells.LMU(order=4, theta=6.0), 2, 3, weight_dropout=0.9, dtype=torch.float64)
    with torch.no_grad():
        for each in still.parameters():
            each.zero_()
    memory = torch.randn(1, 2, 4).double()
    _, (_, after) = still.train()(x[:1], (torch.zeros(1, 2, 3).double(), memory))
    torch.testing.assert_close(
        after[0], memory[0] @ torch.tensor(_discretized(4, 6.0)[0], dtype=torch.float64).t()
    )


def test_a_program_holds_the_numbers() -> None:
    layer, x = Recurrent(cells.LMU(order=4, theta=6.0), 2, 3), torch.randn(5, 2, 2)
    program = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(program(x)[1], layer(x)[1])


rows = st.integers(1, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n), min_size=1
    )
)


@given(rows)
@settings(max_examples=200)
def test_numbers_survive_their_text(matrix: list[list[float]]) -> None:
    text = text_of_rows(matrix)
    assert [list(map(str, row)) for row in rows_of_text(text)] == [list(map(str, row)) for row in matrix]
    assert size_of_text(text) == (len(matrix), len(matrix[0]))


@pytest.mark.parametrize(("order", "theta"), [(1, 1.0), (6, 10.0), (40, 100.0), (128, 784.0)])
def test_the_matrices_of_the_legendre_memory(order: int, theta: float) -> None:
    """Beside torch's exponential; and what they are for: the memory of a wave is the wave, theta steps long."""
    i, j = torch.arange(order).double()[:, None], torch.arange(order).double()
    a = (2 * i + 1) * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1)) / theta
    b = (2 * i + 1) * (-1.0) ** i / theta
    joined = torch.cat([torch.cat([a, b], 1), torch.zeros(1, order + 1).double()])
    wanted = torch.linalg.matrix_exp(joined)
    found = [torch.tensor(each, dtype=torch.float64) for each in _discretized(order, theta)]
    torch.testing.assert_close(found[0], wanted[:order, :order], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1], wanted[:order, order:], rtol=1e-10, atol=1e-12)


def test_the_legendre_memory_has_the_same_numbers_in_lists_and_in_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = _discretized(9, 50.0)
    monkeypatch.setattr("cellwise.cells.lmu._LONGEST_LIST", 4)
    assert _discretized.__wrapped__(9, 50.0) == wanted


def test_the_legendre_memory_holds_its_window() -> None:
    order, theta = 12, 50
    a, b = map(np.array, _discretized(order, float(theta)))
    wave = np.sin(np.arange(200) / 9)
    memory = np.zeros((order, 1))
    for value in wave:
        memory = a @ memory + b * value
    # The window as shifted Legendre polynomials, of which the memory has the factors: u(t - r theta).
    for back in (0, 10, 25, 40, 50):
        r = back / theta
        basis = np.polynomial.legendre.legvander(np.array([2 * r - 1]), order - 1)[0]
        assert abs(float(basis @ memory[:, 0]) - math.sin((199.5 - back) / 9)) < 0.06
