"""Inputs beside x: values, gradients, forms of a batch, streams, compilers, and what is said of what does not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import cellwise
from cellwise import Cell, exp, tanh
from cellwise.errors import CellDefinitionError, InputError, ShapeError
from cellwise.nn.layer import RecurrentLayer
from cellwise.testing import check_cell

T, B, D, H = 6, 4, 3, 19


class Decay(Cell):
    """A state that fades by a time, and is moved by a force: one input has a number where none is given."""

    gates = ("n",)
    inputs = {"dt": 0.5, "push": 0.0}  # noqa: RUF012

    def step(self, x, h, dt, push):
        return tanh(x.n + (h * exp(-dt)).n) + push


class Needed(Cell):
    """As Decay, but the time must be given."""

    gates = ("n",)
    inputs = ("dt",)

    def step(self, x, h, dt):
        return tanh(x.n + h.n) * dt


def _leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, dtype=dtype, requires_grad=True)


def _layer(cell: Any = Needed, backend: str = "cpu", **options: Any) -> cellwise.Recurrent:
    torch.manual_seed(0)
    return cellwise.Recurrent(cell, D, H, backend=backend, **{"dtype": torch.float64, **options})


def _gradients(output: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
    weights = torch.arange(output.numel(), dtype=output.dtype).view_as(output).sin()
    return torch.autograd.grad((output * weights).sum(), sources)


def test_every_check_of_a_cell() -> None:
    """Gradients by finite differences; lengths, resets, layers and directions; streams; against one row at a time."""
    report = check_cell(Decay, "cpu")
    assert {check for _, check in report.done} == {"gradients", "agreement", "stream", "ragged", "resets"}


@pytest.mark.parametrize("per_unit", [False, True])
def test_the_time_aware_lstm_by_its_equations(per_unit: bool) -> None:
    """Baytas et al. 2017, section 3.2, as a loop of plain torch."""
    layer = _layer("time-aware-lstm")
    x, dt = _leaf(T, B, D), _leaf(T, B, *([H] if per_unit else []))
    output, (h, c) = layer(x, dt=dt)
    blocks = {name: each.chunk(len(each) // H) for name, each in layer.named_parameters()}
    w, b, u, v = (blocks[f"{kind}_l0"] for kind in ("weight_ih", "bias_ih", "weight_hh", "bias_hh"))
    past = memory = torch.zeros(B, H, dtype=torch.float64)
    outputs = []
    for now, gap in zip(x, dt if per_unit else dt.unsqueeze(-1), strict=True):
        short = torch.tanh(memory @ u[4].T + v[4])
        discounted = short * (1 / torch.log(math.e + gap))
        adjusted = (memory - short) + discounted
        i, f, g, o = (now @ w[k].T + b[k] + past @ u[k].T + v[k] for k in range(4))
        memory = torch.sigmoid(f) * adjusted + torch.sigmoid(i) * torch.tanh(g)
        past = torch.sigmoid(o) * torch.tanh(memory)
        outputs.append(past)
    truth = torch.stack(outputs)
    torch.testing.assert_close((output, h[0], c[0]), (truth, past, memory), rtol=1e-10, atol=1e-12)
    sources = (x, dt, *layer.parameters())
    torch.testing.assert_close(
        _gradients(output, *sources), _gradients(truth, *sources), rtol=1e-10, atol=1e-12
    )


def test_where_a_call_gives_none_it_is_what_the_cell_says() -> None:
    layer, x = _layer(Decay), _leaf(T, B, D)
    dt = torch.full((T, B, 1), 0.5, dtype=torch.float64)
    assert torch.equal(layer(x)[0], layer(x, dt=dt, push=torch.zeros_like(dt))[0])
    assert not torch.equal(layer(x)[0], layer(x, dt=2 * dt)[0])


def test_packed_as_x_or_padded() -> None:
    layer, x, dt = _layer(bidirectional=True, num_layers=2, batch_first=True), _leaf(B, T, D), _leaf(B, T)
    lengths = torch.tensor([2, 6, 1, 4])
    packed, times = (
        pack_padded_sequence(each, lengths, batch_first=True, enforce_sorted=False) for each in (x, dt)
    )
    output, final = layer(x, dt=dt, lengths=lengths)
    for given in (times, dt):
        found, last = layer(packed, dt=given)
        assert torch.equal(last, final)
        wanted = pack_padded_sequence(output, lengths, batch_first=True, enforce_sorted=False)
        assert torch.equal(found.data, wanted.data)
    other = pack_padded_sequence(dt, torch.tensor([6, 2, 1, 4]), batch_first=True, enforce_sorted=False)
    with pytest.raises(InputError, match="dt is packed otherwise than x"):
        layer(packed, dt=other)
    with pytest.raises(InputError, match="dt is a PackedSequence, and x is none"):
        layer(x, dt=times)


def test_one_sequence_without_a_batch() -> None:
    layer, x, dt = _layer(), _leaf(T, D), _leaf(T)
    whole = layer(x.unsqueeze(1), dt=dt.unsqueeze(1))[0].squeeze(1)
    for given in (dt, dt.unsqueeze(1), dt.unsqueeze(1).expand(-1, H)):
        assert torch.equal(layer(x, dt=given)[0], whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_unit", [False, True])
def test_narrow_dtypes(dtype: torch.dtype, per_unit: bool) -> None:
    layer, other = _layer(Decay, dtype=dtype), _layer(Decay, "reference")
    other.load_state_dict(layer.state_dict())
    given = [_leaf(T, B, D, dtype=dtype), _leaf(T, B, *([H] if per_unit else []), dtype=dtype)]
    wide = [each.detach().double().requires_grad_() for each in given]
    found, truth = layer(given[0], dt=given[1])[0], other(wide[0], dt=wide[1])[0]
    room = 1e-5 if dtype is torch.float32 else 3e-2
    pairs = zip(_gradients(found.double(), *given), _gradients(truth, *wide), strict=True)
    for one, two in ((found, truth), *pairs):
        assert one.dtype is dtype
        assert float((one.double() - two).detach().abs().max() / two.detach().abs().max()) < room


def test_derivatives_of_derivatives_and_recomputation() -> None:
    layer = cellwise.Recurrent(Decay, 2, 3, backend="cpu", dtype=torch.float64)
    x, dt, push = _leaf(2, 2, 2), _leaf(2, 2), _leaf(2, 2, 3)
    assert torch.autograd.gradgradcheck(
        lambda *given: layer(given[0], dt=given[1], push=given[2])[0], (x, dt, push)
    )
    kept = _gradients(layer(x, dt=dt, push=push)[0], x, dt, push)
    layer.recompute = True
    again = _gradients(layer(x, dt=dt, push=push)[0], x, dt, push)
    assert all(map(torch.equal, kept, again))


def test_compiled_and_exported() -> None:
    layer, x, dt = _layer(Decay, dtype=torch.float32), torch.randn(T, B, D), _leaf(T, B, dtype=torch.float32)
    compiled = torch.compile(layer, backend="aot_eager")
    lengths = torch.tensor([2, 6, 0, 4])
    one, two = (each(x, dt=dt, lengths=lengths)[0] for each in (layer, compiled))
    assert torch.equal(one, two)
    assert torch.equal(*(_gradients(each, dt)[0] for each in (one, two)))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, dt: Tensor) -> Tensor:
            found: Tensor = self.layer(x, dt=dt)[0]
            return found

    sizes = {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("B", min=2)}
    program = torch.export.export(Model(), (x, dt.detach()), dynamic_shapes=(sizes, sizes)).module()
    longer, times = torch.randn(9, 2, D), torch.rand(9, 2)
    assert torch.equal(program(longer, times), layer(longer, dt=times)[0])


def test_autocast_takes_any_dtype() -> None:
    layer, x, dt = _layer(dtype=torch.float32), torch.randn(T, B, D), torch.rand(T, B, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x, dt=dt)[0]
    assert float((found - layer(x, dt=dt.float())[0]).detach().abs().max()) < 0.05


def test_a_stream_takes_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By compiled steps; what does not fit is refused by the layer, and the state is as it was."""
    layer, x = _layer(), torch.rand(D, dtype=torch.float64)
    first, second, third = (layer.stream() for _ in range(3))
    general: list[int] = []
    run = RecurrentLayer._stream_step
    monkeypatch.setattr(RecurrentLayer, "_stream_step", lambda *each: general.append(1) or run(*each))
    wanted = first(x, dt=0.25)
    assert torch.equal(second(x, dt=torch.tensor(0.25, dtype=torch.float64)), wanted)
    assert torch.equal(third(x, dt=torch.full((H,), 0.25, dtype=torch.float64)), wanted)
    assert not general
    before = first.state
    for wrong, message in (
        ({}, "Needed takes dt beside x"),
        ({"dt": "soon"}, "dt must be a tensor"),
        ({"dt": torch.rand(H + 1, dtype=torch.float64)}, "dt must have shape"),
        ({"dt": torch.rand(1)}, "dt has torch.float32"),
        ({"dt": 1.0, "gap": 1.0}, "takes no 'gap'"),
    ):
        with pytest.raises(InputError, match=message):
            first(x, **wrong)
    assert torch.equal(first.state, before)
    layer.weight_hh_l0.data.mul_(0.5)  # seen, and the step is made again with the same time
    gap = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    again = first(x, dt=gap)
    # So few rows read weights where they lie, whose products add up in another order.
    torch.testing.assert_close(again, layer(x[None], before[:, 0], dt=gap)[0][0].detach(), rtol=0, atol=1e-14)
    assert not again.requires_grad


def test_a_stream_gives_what_the_cell_says_where_it_is_given_nothing() -> None:
    layer, x = _layer(Decay, num_layers=2), torch.rand(3, B, D, dtype=torch.float64)
    push = torch.rand(3, B, H, dtype=torch.float64)
    stream = layer.stream(B)
    steps = [stream(now, push=each) for now, each in zip(x, push, strict=True)]
    assert torch.equal(torch.stack(steps), layer(x, push=push)[0])
    stream.reset()
    assert torch.equal(stream(x[0]), layer(x)[0][0])


def test_a_stream_of_a_batch_first_layer() -> None:
    layer, x, dt = (
        _layer(batch_first=True),
        torch.rand(B, T, D, dtype=torch.float64),
        torch.rand(B, T).double(),
    )
    stream = layer.stream(B)
    steps = [stream(x[:, t], dt=dt[:, t]) for t in range(T)]
    assert torch.equal(torch.stack(steps, 1), layer(x, dt=dt)[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"Needed takes dt beside x, one number a step for each row or unit: layer\(x, dt=dt\); .*{\"dt\": 1.0}"),
        ({"dt": torch.rand(T, B + 1)}, r"shape \(T, B\) = \(6, 4\), one number a row, or \(T, B, H\) = \(6, 4, 19\)"),
        ({"dt": torch.rand(T, B, 2)}, r"it has shape \(6, 4, 2\)"),
        ({"dt": torch.rand(T, B).double()}, r"dt has torch.float64, and the input torch.float32. Convert it: dt.to"),
        ({"dt": 3.0}, "dt must be a tensor, in the form of x; got a float"),
        ({"dt": torch.rand(T, B), "gap": 1}, "takes no 'gap'; it takes x, dt, state, lengths, resets"),
    ],
)  # fmt: skip
def test_what_does_not_fit(given: dict[str, Any], message: str) -> None:
    layer = _layer(dtype=torch.float32)
    with pytest.raises(InputError, match=message):
        layer(torch.randn(T, B, D), **given)
    with pytest.raises(InputError, match=message):
        cellwise.explain(layer, torch.randn(T, B, D), **given)


def test_a_mistyped_keyword_is_a_type_error_as_ever() -> None:
    with pytest.raises(TypeError, match="did you mean 'lengths'"):
        cellwise.Recurrent("gru", D, H)(torch.randn(T, B, D), length=torch.ones(B))


def test_definitions_that_cannot_be() -> None:
    def define(**body: Any) -> Any:
        return type("Wrong", (Cell,), {"gates": ("n",), **body})().graph

    two: Any = lambda self, x, h, dt: tanh(x.n + h.n) * dt  # noqa: E731
    with pytest.raises(CellDefinitionError, match=r"Write: def step\(self, x, h, dt\)"):
        define(inputs=("dt",), step=lambda self, x, h: tanh(x.n))
    with pytest.raises(CellDefinitionError, match="calls an input beside x 'lengths', which is taken"):
        define(inputs=("lengths",), step=lambda self, x, h, lengths: tanh(x.n) * lengths)
    with pytest.raises(CellDefinitionError, match="has inputs = 'dt'"):
        define(inputs="dt", step=two)
    with pytest.raises(CellDefinitionError, match="'one' as the input 'dt'"):
        define(inputs={"dt": "one"}, step=two)
    with pytest.raises(CellDefinitionError, match="has the input 'dt' beside x, but no equation"):
        define(inputs=("dt",), step=lambda self, x, h, dt: tanh(x.n + h.n))
    with pytest.raises(ShapeError, match="stands beside x"):
        define(inputs=("dt",), step=lambda self, x, h, dt: tanh(x.n + dt.n))
