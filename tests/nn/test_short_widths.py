"""Layers of several widths on the short way and in streams: what the way of all calls gives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_other_widths import Slots
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import cellwise
from cellwise import Cell, Recurrent, linear, tanh
from cellwise.cells import SCRN, FastSlowLSTM
from cellwise.errors import InputError
from cellwise.nn import plain
from cellwise.nn.biases import filled
from cellwise.nn.definition import info_of
from cellwise.nn.row_places import gatherer

T, B, D, H = 5, 3, 4, 16


class Masked(SCRN):
    """Draws masks of both widths, one of them once a sequence."""

    def step(self, x, h, s):
        y, h, s = super().step(x, cellwise.dropout(h, 0.3), s)
        return y, h, cellwise.zoneout(s, cellwise.dropout(s, 0.5, per_sequence=True), 0.5)


class Shown(Cell):
    """Two outputs, the first the narrower one, and a value beside x of its width."""

    gates = ("s", "n", "k")
    states = ("h", "s")
    outputs = ("s", "h")
    inputs = {"push": 0.5}  # noqa: RUF012
    widths = {"s": 5}  # noqa: RUF012
    rate = cellwise.Scalar(0.7)

    def step(self, x, h, s, push):
        s = tanh(x.s + h.s + self.rate * push * s)
        return tanh(x.n + h.n + s.k), s


class Bare(SCRN):
    """No gate has a bias of x's, one weight has another form, and every unit a learned number."""

    decay = cellwise.Vector((0.1, 0.9))

    def step(self, x, h, s):
        s = self.decay * linear(x.s) + (1 - self.decay) * s
        h = tanh(linear(x.n) + h.n + linear(s.m))
        return h.o + linear(s.p) + cellwise.mean(s), h, s


class Narrow(SCRN):
    """Whose output is narrower, or wider, than h; the layer above has a column for each number of it."""

    def step(self, x, h, s):
        _, h, s = super().step(x, h, s)
        return linear(s.p) + s, h, s


# A cell and the options of its layer; H is a whole number of vectors, and some rows are wider than that.
CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fewer slow units": (SCRN(context=6), {}),
    "more slow units": (SCRN(context=19), {"num_layers": 2}),
    "no bias": (SCRN(context=6), {"bias": False}),
    "both ways": (SCRN(context=6), {"num_layers": 2, "bidirectional": True}),
    "slow": (FastSlowLSTM(slow=32), {"num_layers": 2, "batch_first": True}),
    "masks": (Masked(context=6), {"num_layers": 2}),
    "all kinds": (Slots(slots=18), {"bidirectional": True}),
    "no bias of x": (Bare(context=6), {"num_layers": 2, "bidirectional": True}),
    "two outputs": (Shown, {"num_layers": 2}),
}


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    plain._ROUTES.clear()
    plain._RAGGED.clear()
    yield
    plain._ROUTES.clear()
    plain._RAGGED.clear()


def layer_of(cell: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(cell, D, H, dtype=dtype, **{"backend": "cpu", **options})


def x_of(layer: Any, steps: int = T, batch: int = B) -> Tensor:
    shape = (batch, steps, D) if layer.batch_first else (steps, batch, D)
    numbers = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return numbers.to(layer.weight_ih_l0.dtype).requires_grad_()


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, PackedSequence):
        return [result.data]
    return [result] if isinstance(result, Tensor) else [each for part in result for each in flat(part)]


def given_to(layer: Any, x: Tensor, names: str) -> dict[str, Any]:
    """What a call gives by name."""
    torch.manual_seed(2)
    made: dict[str, Any] = {}
    if "dt" in layer.cell.inputs:
        made["dt"] = torch.rand(*x.shape[:2], dtype=x.dtype)
    if "push" in layer.cell.inputs and "push" in names:
        units = 5 if "units" in names else 1
        made["push"] = torch.rand(*x.shape[:2], units, dtype=x.dtype, requires_grad=True)
    if "lengths" in names:
        made["lengths"] = torch.tensor([T, 2, T - 1])
    if "resets" in names:
        made["resets"] = torch.rand(x.shape[:2]) < 0.4
    if "states" in names:
        count = layer.num_layers * (2 if layer.bidirectional else 1)
        sizes = [each.shape[-1] for each in layer(x, **made)[1]]
        made["state"] = tuple(torch.randn(count, B, n, dtype=x.dtype, requires_grad=True) for n in sizes)
    return made


def everything(layer: Any, x: Any, **given: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What comes out, without and with a tape; and every gradient."""
    torch.manual_seed(3)
    with torch.no_grad():
        found = flat(layer(x, **given))
    torch.manual_seed(3)
    results = flat(layer(x, **given))
    seeds = [torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view(each.shape) for each in results]
    read = [*layer.parameters(), *given.get("state", ())]
    read += [x] if isinstance(x, Tensor) else [x.data]
    read += [given["push"]] if "push" in given else []
    gradients = torch.autograd.grad(results, read, seeds, allow_unused=True, materialize_grads=True)
    return [*found, *(each.detach() for each in results)], list(gradients)


def both_ways(layer: Any, x: Any, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """Compare the short way with that of all calls, which compute the same to the last bit but for gradients."""
    everything(layer, x, **given)  # lengths take the short way when they come again
    general: list[int] = []
    run = Recurrent._run
    with monkeypatch.context() as patch:
        patch.setattr(Recurrent, "_run", lambda *each: general.append(1) or run(*each))
        found, gradients = everything(layer, x, **given)
    assert not general
    with monkeypatch.context() as patch:
        patch.setattr(plain, "call", lambda *_: None)
        wanted, theirs = everything(layer, x, **given)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
    for one, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert all(each.is_contiguous() for each, _ in zip(gradients, layer.parameters(), strict=False))


@pytest.mark.parametrize("names", ["", "states", "lengths push of units", "states push"])
@pytest.mark.parametrize("case", CELLS)
def test_a_plain_call_is_what_the_way_of_all_calls_gives(
    case: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, options = CELLS[case]
    layer = layer_of(cell, **options)
    x = x_of(layer)
    both_ways(layer, x, monkeypatch, **given_to(layer, x, names))


@pytest.mark.parametrize("case", ["fewer slow units", "both ways", "slow", "masks", "two outputs"])
def test_resets_packed_and_single_sequences(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, options = CELLS[case]
    layer = layer_of(cell, **options)
    x = x_of(layer)
    both_ways(layer, x, monkeypatch, **given_to(layer, x, "resets states push"))
    both_ways(layer, x.detach()[0].requires_grad_(), monkeypatch)
    packed = pack_padded_sequence(x, torch.tensor([5, 5, 2]), layer.batch_first, enforce_sorted=False)
    both_ways(layer, packed, monkeypatch)


@given(
    cell=st.sampled_from([SCRN, FastSlowLSTM, Bare, Narrow]),
    units=st.integers(1, 9),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 3)),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_rows_are_those_of_the_definition(
    cell: Any, units: int, sizes: tuple[int, int, int], flags: tuple[bool, bool]
) -> None:
    """Weights in rows, and what comes back to parameters if nothing comes to copies."""
    option = "slow" if cell is FastSlowLSTM else "context"
    layer = Recurrent(
        cell(**{option: units}), *sizes, bias=flags[0], bidirectional=flags[1], dtype=torch.float64
    )
    info = info_of(*layer._definition())
    if info.padding is None:
        return  # all are equally wide
    stems = [[stem for stem, _ in each] for each in info.names]
    parameters = list(layer.parameters())
    rows = gatherer(stems, info.shapes, info.padding, torch.float64)(parameters)
    wanted = [
        weight
        for each in filled(layer._weights(info.names), None, info.padding)
        for weight in each.by_stem.values()
    ]
    assert len(rows) == len(wanted) and all(map(torch.equal, rows, wanted))
    assert all(each.is_contiguous() for each in rows)
    numbers = [
        torch.arange(1.0, 1 + each.numel(), dtype=torch.float64).view(each.shape) for each in parameters
    ]
    copies = gatherer(stems, info.shapes, info.padding, torch.float64)(numbers)
    seeds = [_real(each, seed) for each, seed in zip(copies, map(torch.rand_like, rows), strict=True)]
    pairs = [
        (each, other, seed)
        for each, other, seed in zip(rows, wanted, seeds, strict=True)
        if each.requires_grad
    ]
    ours, theirs, given_to_both = map(list, zip(*pairs, strict=True))
    options: Any = {"allow_unused": True, "materialize_grads": True}
    found = torch.autograd.grad(ours, parameters, given_to_both, **options)
    for one, other in zip(
        found, torch.autograd.grad(theirs, parameters, given_to_both, **options), strict=True
    ):
        assert torch.equal(one, other)


def _real(numbers: Tensor, seed: Tensor) -> Tensor:
    """A gradient that is zero at what stands there for the second time, or is zero."""
    met, found = {0.0}, seed.clone().view(-1)
    for place, number in enumerate(numbers.reshape(-1).tolist()):
        if number in met:
            found[place] = 0
        met.add(number)
    return found.view(seed.shape)


def test_second_derivatives_and_parameters_that_are_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(SCRN(context=6), num_layers=2)
    layer.weight_ih_l0.requires_grad_(True)
    layer.weight_hh_m_l1.requires_grad_(False)
    learned = [each for each in layer.parameters() if each.requires_grad]

    def twice() -> list[Tensor]:
        first = torch.autograd.grad(layer(x_of(layer))[0].square().sum(), learned, create_graph=True)
        return list(torch.autograd.grad(sum(each.square().sum() for each in first), learned))

    found = twice()
    monkeypatch.setattr(plain, "call", lambda *_: None)
    for one, other in zip(found, twice(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("change", ["output", "state", "narrow state"])
@pytest.mark.parametrize("shape", [(1, 1), (T, B)])
def test_what_comes_out_may_be_written_to(
    shape: tuple[int, int], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients() -> list[Tensor]:
        layer = layer_of(SCRN(context=6))
        output, (h, s) = layer(x_of(layer, *shape))
        {"output": output, "state": h, "narrow state": s}[change].mul_(2)
        total = output.sin().sum() + h.sin().sum() + s.sin().sum()
        return list(torch.autograd.grad(total, list(layer.parameters())))

    found = gradients()
    monkeypatch.setattr(plain, "call", lambda *_: None)
    torch.testing.assert_close(found, gradients(), rtol=1e-12, atol=1e-12)


# --- weights that change ---------------------------------------------------------------------------------------------


def _assigned(layer: nn.Module) -> None:
    layer.load_state_dict({name: 2 * each for name, each in layer.state_dict().items()}, assign=True)


def _by_numpy(layer: nn.Module) -> None:
    layer.weight_hh_m_l0.detach().numpy()[...] *= -1


def _by_an_optimizer(layer: nn.Module) -> None:
    for each in layer.parameters():
        each.grad = torch.ones_like(each)
    torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda layer: layer.weight_ih_l0.detach().mul_(2),
    "one number": lambda layer: layer.weight_hh_m_l0.data[-1, -1].add_(0.5),
    "data": lambda layer: setattr(layer.bias_hh_l0, "data", layer.bias_hh_l0.data * 3),
    "numpy": _by_numpy,
    "a fused optimizer": _by_an_optimizer,
    "assigned": _assigned,
    "another parameter": lambda layer: setattr(
        layer, "weight_hh_p_l0", nn.Parameter(torch.ones_like(layer.weight_hh_p_l0))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("context", [6, 19])
def test_weights_are_those_of_the_moment(context: int, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(SCRN(context=context))
    stream, x = layer.stream(B), x_of(layer)
    assert stream._stepper is not None
    before = layer(x)[0].detach()
    first = stream(x[0])
    CHANGES[change](layer)
    state = stream.state
    both_ways(layer, x, monkeypatch)
    assert not torch.allclose(layer(x)[0], before)
    wanted = layer(x[1:2], state)[0][0].detach()
    torch.testing.assert_close(stream(x[1].detach()), wanted, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(first, layer(x[:1])[0][0])


def test_weights_of_other_shapes_are_refused_as_ever() -> None:
    layer = layer_of(SCRN(context=6))
    layer(x_of(layer))
    layer.weight_hh_m_l0 = nn.Parameter(torch.zeros(H, 7, dtype=torch.float64))
    with pytest.raises(InputError, match="weight_hh_m_l0"):
        layer(x_of(layer))
    called = torch.func.functional_call(
        layer, {"weight_hh_m_l0": torch.zeros(H, 6, dtype=torch.float64)}, (x_of(layer),)
    )
    assert called[0].shape == (T, B, H)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize("case", [each for each in CELLS if each != "both ways"])
def test_a_stream_steps_by_kernels(case: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, options = CELLS[case]
    layer = layer_of(cell, **{**options, "bidirectional": False, "batch_first": False}).eval()
    x = x_of(layer, T, batch).detach()
    torch.manual_seed(2)
    given: dict[str, Tensor] = {}
    if layer.cell.inputs:
        name = next(iter(layer.cell.inputs))
        given[name] = torch.rand(T, batch, *(5,) * (name == "push"), dtype=torch.float64)
    stream, other = layer.stream(batch), layer.stream(batch)
    monkeypatch.setattr(Recurrent, "_stream_step", None)
    out = torch.empty(batch, layer._stream_sizes()[0], dtype=torch.float64)
    steps, side_by_side = [], []
    for t in range(T):
        beside = {name: value[t] for name, value in given.items()}
        steps.append(flat(stream(x[t], **beside)))
        other(x[t], out, **beside)
        side_by_side.append(out.clone())
    output, finals = layer(x, **given)
    for one, rows in zip(flat(output), zip(*steps, strict=True), strict=True):
        torch.testing.assert_close(torch.stack(rows), one.detach(), rtol=1e-12, atol=1e-13)
    assert torch.equal(torch.stack(side_by_side), torch.stack([torch.cat(each, -1) for each in steps]))
    assert [each.shape for each in stream.state] == [each.shape for each in finals]
    torch.testing.assert_close(stream.state, tuple(each.detach() for each in finals), rtol=1e-12, atol=1e-13)
    # From any state, and by a copy of its own.
    other.state = stream.state
    again = pickle.loads(pickle.dumps(stream))
    beside = {name: value[0] for name, value in given.items()}
    for one, two, three in zip(*(flat(each(x[0], **beside)) for each in (stream, other, again)), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
    stream.reset()
    torch.testing.assert_close(flat(stream(x[0], **beside)), list(steps[0]), rtol=0, atol=0)


def test_a_text_is_written_by_a_cell_of_several_widths() -> None:
    """Where its output has all of a row's units; with a narrower one the steps are made one by one."""
    table, weight = torch.randn(7, D), torch.randn(H, 7)
    stream, other = (layer_of(SCRN(context=6), torch.float32).stream() for _ in range(2))
    follower = stream.follower(table, weight, 4)
    noise = torch.zeros(4, 7)
    assert follower is not None
    found, read = [], torch.zeros(H)
    for _ in range(4):
        found.append(int((read @ weight).argmax()))
        read = other(table[found[-1]])
    assert follower(torch.zeros(H), noise) == found
    torch.testing.assert_close(stream.state, other.state)
    assert layer_of(SCRN(context=19), torch.float32).stream().follower(table, weight, 4) is None
