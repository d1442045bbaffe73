"""Random numbers in a step: which masks there are, that all who compute see the same, and dropped recurrent weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import cellwise
from cellwise import Cell, cells, dropout, sigmoid, tanh, uniform, zoneout
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import CellDefinitionError, ConcreteValueError, LayerError
from cellwise.testing import check_cell

T, B, D, H = 5, 3, 2, 4


class Bare(Cell):
    """The output of a step is what a mask makes of ones."""

    gates = ("n",)
    p: float = 0.25
    per_sequence: bool = False

    def step(self, x, h):
        return dropout(1 + 0 * (x.n + h.n), self.p, self.per_sequence)


class Noisy(Cell):
    """All that draws, and a branch."""

    gates = ("f", "n")

    def step(self, x, h):
        seen = dropout(h, 0.3, per_sequence=True)
        n = tanh(x.n + seen.n) + (0.1 * uniform() if self.training else 0.2)
        f = sigmoid(x.f + dropout(h, 0.2).f)
        return zoneout(f * h + (1 - f) * n, h, 0.1)


def _layer(cell: Any, backend: str = "cpu", **options: Any) -> cellwise.Recurrent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cellwise.Recurrent(cell, D, H, backend=backend, **{"dtype": torch.float64, **options})


def _seeded(call: Callable[[], Any], seed: int = 7) -> Any:
    torch.manual_seed(seed)
    return call()


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("cell", [Noisy, cells.RecurrentDropoutLSTM(p=0.5, per_sequence=True)])
def test_every_check_of_a_cell(cell: Any) -> None:
    """Evaluation in full; and training under the same masks as the reference: layers, directions, lengths, resets."""
    assert ("cpu", "training") in check_cell(cell, "cpu").done


def test_the_zoneout_lstm_by_its_equations() -> None:
    """Krueger et al. 2017, section 3.2, as a loop of plain torch."""
    layer, x = _layer("zoneout-lstm"), _leaf(T, B, D)
    output, (_, c) = _seeded(lambda: layer(x))
    h_stays, c_stays = _seeded(lambda: [torch.rand(T, B, H) < p for p in (0.05, 0.5)])
    w, u, b, v = (parameter for parameter in layer.parameters())
    h = memory = torch.zeros(B, H, dtype=torch.float64)
    outputs = []
    for t in range(T):
        i, f, g, o = (x[t] @ w.T + b + h @ u.T + v).chunk(4, 1)
        made = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        h = torch.where(h_stays[t], h, torch.sigmoid(o) * torch.tanh(made))
        memory = torch.where(c_stays[t], memory, made)
        outputs.append(h)
    truth = torch.stack(outputs)
    torch.testing.assert_close((output, c[0]), (truth, memory), rtol=1e-10, atol=1e-12)
    sources = (x, *layer.parameters())
    found, wanted = (torch.autograd.grad(each.sin().sum(), sources) for each in (output, truth))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_masks_are_of_their_distribution() -> None:
    """Zeros with probability p, the others divided by 1 - p; another mask for each step, row, unit, layer, call."""
    x = torch.zeros(200, 50, D)
    found = _seeded(lambda: _layer(Bare, dtype=torch.float32)(x)[0])
    assert sorted(found.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    room = 5 * (0.25 * 0.75 / found.numel()) ** 0.5
    assert abs(float((found == 0).float().mean()) - 0.25) < room
    for dim in range(3):
        assert not bool((found == found.roll(1, dim)).all())
    assert not torch.equal(found, _layer(Bare, dtype=torch.float32)(x)[0])
    once = _layer(Bare(per_sequence=True), dtype=torch.float32)(x)[0]
    assert torch.equal(once, once[:1].expand_as(once))
    assert 0 < float((once == 0).float().mean()) < 1
    assert not bool(_layer(Bare(p=1.0))(x.double())[0].any())


def test_the_same_masks_whoever_computes() -> None:
    """Backends, recomputation, checkpoints, dtypes, a compiled program: one seed, one result."""
    x, layer = _leaf(T, B, D), _layer(Noisy, num_layers=2, bidirectional=True)
    output = _seeded(lambda: layer(x)[0])
    gradient = torch.autograd.grad(output.sin().sum(), x)[0]
    again = _layer(Noisy, num_layers=2, bidirectional=True)
    again.recompute = True
    reference = _layer(Noisy, "reference", num_layers=2, bidirectional=True)
    ways = (
        lambda: again(x)[0],
        lambda: reference(x)[0],
        lambda: checkpoint(lambda x: layer(x)[0], x, use_reentrant=False),
        lambda: torch.compile(layer, backend="aot_eager")(x)[0],
    )
    for way in ways:
        found = _seeded(way)
        torch.testing.assert_close(found, output, rtol=1e-12, atol=1e-13)
        # What a checkpoint runs again draws from where the generator stood.
        torch.testing.assert_close(
            torch.autograd.grad(found.sin().sum(), x)[0], gradient, rtol=1e-12, atol=1e-13
        )
    narrow = _seeded(lambda: layer.float()(x.float())[0])
    torch.testing.assert_close(narrow.double(), output, rtol=1e-4, atol=1e-5)


def test_derivatives_of_derivatives() -> None:
    layer, x = _layer(Noisy), _leaf(2, 1, D)
    assert torch.autograd.gradgradcheck(lambda x: _seeded(lambda: layer(x)[0]), x)


def test_vmap_draws_as_torch_says() -> None:
    layer, x = _layer(Bare, "reference"), torch.zeros(2, T, B, D, dtype=torch.float64)

    def run(randomness: str) -> Tensor:
        return torch.func.vmap(lambda x: layer(x)[0], randomness=randomness)(x)

    with pytest.raises(RuntimeError, match="randomness error mode"):
        run("error")
    one, two = run("same")
    assert torch.equal(one, two)
    one, two = run("different")
    assert not torch.equal(one, two)


def test_evaluation_draws_nothing() -> None:
    x = torch.randn(T, B, D)
    plain = cellwise.LSTM(D, H)
    before = torch.get_rng_state()
    for name in ("recurrent-dropout-lstm", "variational-lstm"):
        layer = _layer(name, "auto", dtype=torch.float32).eval()
        layer.load_state_dict(plain.state_dict())
        torch.testing.assert_close(layer(x)[0], plain(x)[0])
        assert "torch has no operator" in dict(cellwise.explain(layer.train(), x).reasons)["native"]
        assert dict(cellwise.explain(layer.eval(), x).reasons)["native"] is None
        layer.train().stream(B)(x[0])  # a stream is in evaluation, whatever the layer is in
    _layer(Noisy).eval()(x.double())
    assert torch.equal(torch.get_rng_state(), before)


def test_one_graph_where_nothing_is_asked() -> None:
    assert cells.get("lstm").training_graph is cells.get("lstm").graph
    assert Bare(p=0.0).training_graph is Bare(p=0.0).graph
    graph = Noisy().training_graph
    assert [(draw.name, draw.probability, draw.per_sequence) for draw in graph.asked_draws] == [
        ("m1", 0.7, True),
        ("u1", None, False),
        ("m2", 0.8, False),
        ("z1", 0.1, False),
    ]
    assert not Noisy().graph.draws


def test_a_stored_cell_has_both() -> None:
    cell = Noisy()
    found = restore_cell(store_cell(cell))
    assert found.training_graph.fingerprint == cell.training_graph.fingerprint != found.graph.fingerprint
    x = _leaf(T, B, D)
    assert torch.equal(*(_seeded(lambda each=each: _layer(each)(x)[0]) for each in (cell, found)))
    stored = store_cell(cell) | {"training graph": store_cell(cells.get("rnn"))["graph"]}
    with pytest.raises(cellwise.CellwiseError, match="in training are those of another cell"):
        restore_cell(stored)


def test_mistakes() -> None:
    def define(step: Any) -> Any:
        return type("Wrong", (Cell,), {"gates": ("n", "f"), "step": step})().graph

    with pytest.raises(CellDefinitionError, match="asks for the gate 'f' in training alone"):
        define(lambda self, x, h: tanh(x.n + (x.f if self.training else 0)))
    with pytest.raises(
        ConcreteValueError, match=r"The probability of dropout is a number between 0 and 1; got 1\.5"
    ):
        define(lambda self, x, h: dropout(x.n + x.f, 1.5))
    with pytest.raises(TypeError, match="called outside of one; to compute with tensors"):
        dropout(torch.ones(2), 0.5)
    with pytest.raises(AttributeError, match=r"Noisy.training is known inside step alone"):
        _ = Noisy().training


@pytest.mark.parametrize(
    "make", [cellwise.LSTM, cellwise.GRU, cellwise.RNN, lambda *a, **k: cellwise.Recurrent("mingru", *a, **k)]
)
def test_dropped_weights(make: Any) -> None:
    """DropConnect: a call computes with some recurrent weights zero, the others larger, for all its steps."""
    layer, x = make(D, H, num_layers=2, weight_dropout=0.5), torch.randn(T, B, D)
    recurrent = [name for name in dict(layer.named_parameters()) if name.startswith("weight_hh")]
    found = _seeded(lambda: layer(x)[0])
    assert torch.equal(found, _seeded(lambda: layer(x)[0]))
    found.sum().backward()
    for name in recurrent:
        zeros = getattr(layer, name).grad == 0
        assert 0 < int(zeros.sum()) < zeros.numel()
    with torch.no_grad():
        whole = {name: each.clone() for name, each in layer.named_parameters()}
        torch.manual_seed(7)
        for name in recurrent:
            getattr(layer, name).copy_(torch.nn.functional.dropout(whole[name], 0.5))
        wanted = layer.eval()(x)[0]
        torch.testing.assert_close(found, wanted)
        layer.load_state_dict(whole)
        torch.testing.assert_close(layer(x)[0], layer(x, lengths=[T] * B)[0])
        assert bool(recurrent) != torch.equal(layer(x)[0], wanted)


def test_weight_dropout_is_a_probability() -> None:
    for given in (1.0, -0.1, True, "0.5"):
        with pytest.raises(LayerError, match="weight_dropout should be a number in range"):
            cellwise.LSTM(D, H, weight_dropout=given)
    assert "weight_dropout=0.5" in repr(cellwise.Recurrent("gru", D, H, weight_dropout=0.5))
