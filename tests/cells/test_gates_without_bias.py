"""Gates without a bias: what a layer, its equations and its cost say of them, and that it computes so."""

from __future__ import annotations

import copy

import pytest
import torch

import cellwise
from cellwise import Cell, Recurrent, cells, linear, sigmoid, tanh
from cellwise.errors import CellDefinitionError, ShapeError
from cellwise.experiments.initialization import add_forget_bias
from cellwise.graph import equations
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.cost import cost_of
from cellwise.testing import check_cell
from cellwise.understand.backward_equations import gradient_text


class Mixed(Cell):
    """A gate with both biases, one with that of the input alone, one with none, which multiplies two values."""

    gates = ("i", "f", "n")

    def step(self, x, h):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + linear(h.f))
        return tanh(i * linear(x.n) + linear((f * h).n) + 0.5 * linear((i * h).n)) + f * h


def test_what_has_no_bias_has_none_anywhere() -> None:
    assert Mixed().equations == (
        "i = σ(W_ii x + b_ii + W_hi h + b_hi)\n"
        "f = σ(W_if x + b_if + W_hf h)\n"
        "h' = tanh(i ⊙ W_in x + W_hn (f ⊙ h) + 0.5 · W_hn (i ⊙ h)) + f ⊙ h"
    )
    assert "b_in" not in equations(Mixed().graph, bias=True) and "b_hf" not in gradient_text(Mixed().graph)
    layer = Recurrent(Mixed, 2, 3)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "weight_ih_l0": (9, 2),
        "weight_hh_l0": (9, 3),
        "bias_ih_l0": (6,),
        "bias_hh_l0": (3,),
    }
    cost = cost_of(Mixed().graph)
    assert cost.parameters.at(d=2, h=3) == sum(each.numel() for each in layer.parameters())
    # A bias less is an addition less for each number.
    fewer, more = cost_of(cells.get("mgu2").graph), cost_of(cells.get("mgu1").graph)
    assert str(more.forward.pointwise - fewer.forward.pointwise) == "bth"
    assert str(more.parameters - fewer.parameters) == "h"


def test_a_layer_without_biases_is_the_same() -> None:
    layer = Recurrent(Mixed, 2, 3, bias=False)
    assert [name for name, _ in layer.named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]


def test_it_computes_so_in_every_way() -> None:
    check_cell(Mixed, backend="cpu")


def test_zeros_in_the_place_of_a_bias_change_nothing() -> None:
    class Whole(Cell):
        gates = ("f", "n")

        def step(self, x, h):
            f = sigmoid(h.f)
            return (1 - f) * h + f * tanh(x.n + (f * h).n)

    without = Recurrent("mgu2", 2, 3, num_layers=2, bidirectional=True)
    whole = Recurrent(Whole, 2, 3, num_layers=2, bidirectional=True)
    given = {}
    for name, value in without.state_dict().items():
        given[name] = torch.cat([torch.zeros(3), value]) if name.startswith("bias_hh") else value
    whole.load_state_dict(given)
    x = torch.randn(5, 2, 2)
    torch.testing.assert_close(without(x), whole(x), rtol=0, atol=0)


def test_a_stream_sees_new_biases() -> None:
    layer = Recurrent("mgu2", 2, 3)
    stream = layer.stream()
    x = torch.randn(1, 2)
    before = stream(x).clone()
    with torch.no_grad():
        layer.bias_ih_l0.data.add_(1.0)
    stream.reset()
    assert not torch.allclose(stream(x), before)
    stream.reset()
    assert torch.equal(stream(x), layer(x.unsqueeze(0))[0][0])


def test_a_copy_a_compiled_and_an_exported_layer_agree() -> None:
    layer = Recurrent("mi-gru", 2, 3)
    x = torch.randn(4, 2, 2)
    wanted = layer(x)[0]
    torch.testing.assert_close(copy.deepcopy(layer)(x)[0], wanted, rtol=0, atol=0)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], wanted)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x)[0], wanted)


def test_the_forget_bias_goes_where_there_is_one() -> None:
    layer = Recurrent("ran", 2, 3)
    before = layer.bias_ih_l0.detach().clone()
    assert add_forget_bias(layer, 1.0)
    changed = (layer.bias_ih_l0.detach() - before).chunk(2)
    assert [round(float(each.mean()), 6) for each in changed] == [0.0, 1.0]
    assert not add_forget_bias(Recurrent("lstm-slim2", 2, 3), 1.0)


def test_a_stored_graph_keeps_them() -> None:
    text = store(Mixed().graph)
    assert restore(text).fingerprint == Mixed().graph.fingerprint
    assert restore(text.replace("linear input", "input")).fingerprint != Mixed().graph.fingerprint
    for wrong in (
        text.replace('"linear input"', '"linear add"'),
        text.replace('"sigmoid"', '"linear sigmoid"'),
    ):
        with pytest.raises(GraphError):
            restore(wrong)


@pytest.mark.parametrize(
    ("step", "error", "says"),
    [
        (lambda self, x, h: tanh(x.n + linear(h) + h.n), ShapeError, "linear was given h, which is no gate"),
        (lambda self, x, h: tanh(linear(1.0) + h.n), ShapeError, "linear was given a float"),
        (lambda self, x, h: tanh(x.n + linear(x.n) + h.n), CellDefinitionError, "'n' of the input both"),
        (lambda self, x, h: tanh(x.n + h.n + linear((h * h).n)), CellDefinitionError, "'n' of a state both"),
    ],
)
def test_mistakes(step: object, error: type[Exception], says: str) -> None:
    cell = type("Wrong", (Cell,), {"gates": ("n",), "step": step})
    with pytest.raises(error, match=says):
        _ = cell().graph


def test_outside_of_a_step_it_says_what_it_is_for() -> None:
    with pytest.raises(TypeError, match="writes equations inside a"):
        cellwise.linear(torch.zeros(2))
