"""Where states begin, learned: against the states given by hand, and against pieces of a sequence run apart."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import cellwise
from cellwise import Cell, Initial, Vector, sigmoid, tanh
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import CellDefinitionError, InputError, LayerError
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError
from cellwise.plan.cost import cost_of
from cellwise.testing import check_cell
from cellwise.understand import view

T, B, D, H = 6, 4, 3, 5


class Begun(Cell):
    """An LSTM without an output gate, whose memory begins at what is learned, and its output at zero."""

    gates = ("i", "f", "g")
    states = ("h", "c")
    c0 = Initial((-1.0, 1.0))

    def step(self, x, h, c):
        c = sigmoid(x.f + h.f) * c + sigmoid(x.i + h.i) * tanh(x.g + h.g)
        return tanh(c), c


def _layer(cell: Any = "lstm", backend: str = "cpu", **options: Any) -> cellwise.Recurrent:
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "learned_initial": True, **options}
    layer = cellwise.Recurrent(cell, D, H, backend=backend, **options)
    for state in layer.learned_first:
        for name, value in layer.named_parameters():
            if name.startswith(f"{state}0"):
                torch.nn.init.normal_(value)
    return layer


def _gradients(output: Tensor, layer: torch.nn.Module, *sources: Tensor) -> tuple[Tensor, ...]:
    weights = torch.arange(output.numel(), dtype=output.dtype).view_as(output).sin()
    return torch.autograd.grad((output * weights).sum(), (*sources, *layer.parameters()))


def test_every_check_of_a_cell() -> None:
    report = check_cell(Begun, "cpu")
    assert {check for _, check in report.done} == {"gradients", "agreement", "stream", "ragged", "resets"}


@pytest.mark.parametrize("backend", ["native", "cpu", "reference"])
@pytest.mark.parametrize("form", ["dense", "unbatched", "packed"])
def test_an_lstm_that_begins_at_what_is_learned_is_one_given_it_for_all_rows(backend: str, form: str) -> None:
    layer = _layer(backend=backend, num_layers=2, bidirectional=True, batch_first=form == "dense")
    x = (
        torch.randn(T, D, dtype=torch.float64)
        if form == "unbatched"
        else torch.randn(B, T, D, dtype=torch.float64)
    )
    x.requires_grad_()
    given: Any = x
    if form == "packed":
        given = pack_padded_sequence(x.transpose(0, 1), [2, 6, 1, 6], enforce_sorted=False)
        x = given.data  # both calls read the packed rows, and neither what they were packed from
    places = ("l0", "l0_reverse", "l1", "l1_reverse")
    state = tuple(torch.stack([getattr(layer, f"{s}0_{place}") for place in places]) for s in "hc")
    if form != "unbatched":
        state = tuple(each.unsqueeze(1).expand(-1, B, -1) for each in state)
    found, finals = layer(given)
    truth, others = layer(given, state)
    torch.testing.assert_close(finals, others, rtol=0, atol=0)
    found, truth = (each.data if form == "packed" else each for each in (found, truth))
    torch.testing.assert_close(found, truth, rtol=0, atol=0)
    pairs = zip(_gradients(found, layer, x), _gradients(truth, layer, x), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_derivatives_of_derivatives_where_sequences_begin_anew() -> None:
    torch.manual_seed(0)
    layer = cellwise.Recurrent(Begun, 2, 2, backend="cpu", dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    resets = torch.tensor([[False, True], [False, False], [True, False], [False, True]])

    def run(x: Tensor, c0: Tensor) -> Any:
        return torch.func.functional_call(layer, {"c0_l0": c0}, (x,), {"resets": resets})[0]

    first = layer.c0_l0.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, first))
    assert torch.autograd.gradgradcheck(run, (x, first))
    kept = _gradients(layer(x, resets=resets)[0], layer, x)
    layer.recompute = True
    assert all(map(torch.equal, kept, _gradients(layer(x, resets=resets)[0], layer, x)))


def test_compiled_exported_and_under_vmap() -> None:
    layer = _layer("gru", dtype=torch.float32, bidirectional=True)
    x, lengths, resets = torch.randn(T, B, D), torch.tensor([2, 6, 0, 4]), torch.rand(T, B) < 0.4
    compiled = torch.compile(layer, backend="aot_eager")
    for options in ({}, {"lengths": lengths, "resets": resets}):
        one, two = layer(x, **options)[0], compiled(x, **options)[0]
        torch.testing.assert_close(one, two)
        for a, b in zip(_gradients(one, layer), _gradients(two, layer), strict=True):
            torch.testing.assert_close(a, b)
    program = torch.export.export(layer, (x,), {"resets": resets})
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    loaded = torch.export.load(saved).module()
    torch.testing.assert_close(loaded(x, resets=resets)[0], layer(x, resets=resets)[0])
    layer.backend = "auto"
    several = torch.func.vmap(lambda each: layer(each)[0], in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(several, layer(x)[0])


def test_streams_begin_there_and_again_after_a_reset() -> None:
    layer, x = _layer(num_layers=2), torch.randn(T, B, D, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = layer(x)
        stream = layer.stream(B)
        for _ in range(2):
            torch.testing.assert_close(torch.stack([stream(now) for now in x]), whole)
            stream.reset()
        layer.h0_l0.zero_()
        stream.reset()
        torch.testing.assert_close(torch.stack([stream(now) for now in x]), layer(x)[0])


def test_resets_of_a_cell_that_does_not_read_its_state() -> None:
    class Unread(Cell):
        gates = ("n",)
        inputs = {"d": 0.5}  # noqa: RUF012
        h0 = Initial(0.5)

        def step(self, x, h, d):
            return tanh(x.n) * d

    layer, x = cellwise.Recurrent(Unread, 3, 4, backend="cpu"), torch.randn(5, 2, 3)
    resets = torch.ones(5, 2, dtype=torch.bool)
    assert torch.equal(layer(x, resets=resets)[0], layer(x)[0])


def test_as_a_module() -> None:
    layer, x = _layer("gru", num_layers=2), torch.randn(T, B, D, dtype=torch.float64)
    assert [name for name, _ in layer.named_parameters() if name.startswith("h0")] == ["h0_l0", "h0_l1"]
    assert "learned_initial=True" in repr(layer)
    fresh = cellwise.Recurrent("gru", D, H, 2, backend="cpu", learned_initial=True, dtype=torch.float64)
    assert not fresh.h0_l0.any()  # until it is trained, as without it
    fresh.load_state_dict(layer.state_dict())
    for other in (fresh, copy.deepcopy(layer)):
        assert torch.equal(other(x)[0], layer(x)[0])
    plain = cellwise.Recurrent("gru", D, H, 2)
    with pytest.raises(RuntimeError, match="h0_l0"):
        plain.load_state_dict(layer.state_dict())
    assert cellwise.explain(layer, x, resets=torch.zeros(T, B, dtype=torch.bool)).chosen == "cpu"


def test_what_is_said_of_a_cell() -> None:
    cell = Begun()
    assert cell.equations.endswith("c = c0 before the first step, learned")
    assert r"c_0 &\in \mathbb{R}^H" in view(cell, "latex")
    assert "c (0), learned" in view(cell, "mermaid", unrolled=2)
    assert "learned c0" in view(cell, "graph")
    plain = cost_of(cell.graph.step)
    assert str(cost_of(cell.graph).parameters) == "h(3d + 3h + 7)" != str(plain.parameters)
    assert restore(store(cell.graph)).learned_first == ("c",)
    again = restore_cell(store_cell(cell))
    layer, other = (_layer(each, learned_initial=False) for each in (cell, again))
    x = torch.randn(T, B, D, dtype=torch.float64)
    assert torch.equal(layer(x)[0], other(x)[0])
    with pytest.raises(GraphError, match="a first value is learned of 'q', which is no state"):
        restore(store(cell.graph).replace('"learned_first":["c"]', '"learned_first":["q"]'))


def test_mistakes() -> None:
    with pytest.raises(CellDefinitionError, match=r"(?s)calls an Initial\(\) 'start'.*h0 = Initial\(\)"):

        class Misnamed(Cell):
            gates = ("n",)
            start = Initial()

            def step(self, x, h):
                return tanh(x.n + h.n)

    class Read(Cell):
        gates = ("n",)
        h0 = Initial()

        def step(self, x, h):
            return tanh(x.n + h.n) + self.h0

    with pytest.raises(CellDefinitionError, match="h0 is where h begins, and no value of a step"):
        _ = Read().graph

    class Taken(Cell):
        gates = ("n",)
        h0 = Vector()

        def step(self, x, h):
            return tanh(x.n + self.h0 * h)

    with pytest.raises(LayerError, match="Taken has a h0 of its own"):
        _layer(Taken)
    with pytest.raises(TypeError, match="learned_initial should be of type bool"):
        cellwise.Recurrent("gru", D, H, learned_initial=1)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match=r'cellwise.Recurrent\("lstm", input_size'):
        cellwise.LSTM(D, H, learned_initial=True)
    layer, x = _layer("gru"), torch.randn(T, B, D, dtype=torch.float64)
    layer.h0_l0 = torch.nn.Parameter(torch.zeros(H + 1, dtype=torch.float64))
    with pytest.raises(InputError, match=r"h0_l0 of this Recurrent must have shape \(5,\)"):
        layer(x)
    layer.h0_l0 = torch.nn.Parameter(torch.zeros(H, dtype=torch.float32))
    with pytest.raises(InputError, match="not the same dtype"):
        layer(x)
    for wrong in ("words", torch.zeros(2), torch.zeros(T, B, D + 1, dtype=torch.float64)):
        with pytest.raises(InputError):
            layer(wrong)
