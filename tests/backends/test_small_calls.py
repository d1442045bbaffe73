"""Small calls, on the way for them: the results of the way of all calls, and nothing is written beside."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cellwise
from cellwise import Cell, Initial, cells, ready, sigmoid, tanh
from cellwise.backends.compiled import plain as plain_pass
from cellwise.backends.cpu import small_calls, small_run, small_stack
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.backends.cpu.small_products import small_products
from cellwise.backends.cpu.target import WIDTHS, with_vectors_of
from cellwise.nn import plain

H = 16
PROJECTED: dict[str, dict[str, Any]] = {
    "projected": {"shape": (4, 3), "hidden": 32, "proj_size": 16, "initial": True},
    "projected, no whole vectors": {"shape": (3, 2), "hidden": 16, "proj_size": 5, "bidirectional": True},
    "projected, no bias": {"shape": (1, 2), "hidden": 37, "proj_size": 16, "bias": False, "initial": True},
    "projected, stacked, recomputed": {
        "shape": (3, 2),
        "hidden": 21,
        "proj_size": 3,
        "num_layers": 2,
        "recompute": True,
        "initial": True,
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "one step of one row": {"shape": (1, 1)},
    "one step": {"shape": (1, 5), "initial": True},
    "steps": {"shape": (4, 3), "initial": True},
    "no states, no bias": {"shape": (4, 3), "bias": False},
    "batch first": {"shape": (4, 3), "batch_first": True, "initial": True},
    "batch first, one row": {"shape": (4, 1), "batch_first": True},
    "stacked, both ways": {"shape": (3, 2), "num_layers": 2, "bidirectional": True, "initial": True},
    "recomputed": {"shape": (4, 2), "recompute": True},
    "no whole vectors": {"shape": (4, 3), "hidden": 21, "initial": True},
    "no whole vectors, recomputed": {"shape": (1, 2), "hidden": 37, "recompute": True, "bias": False},
    "less than a vector, both ways": {"shape": (3, 2), "hidden": 3, "num_layers": 2, "bidirectional": True},
    "single numbers": {"shape": (1, 1), "hidden": 1, "initial": True},
}
# What a call gives beside x and states, as names of what `given_to` makes.
GIVEN: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "a time a row": ("time-aware-lstm", "batch first", ("dt",)),
    "a time a unit, resets": ("time-aware-lstm", "stacked, both ways", ("dt of units", "resets")),
    "resets": ("lstm", "steps", ("resets",)),
    "resets, recomputed, no states": ("gru", "recomputed", ("resets",)),
    "resets of one step": ("rnn", "one step", ("resets",)),
    "masks and resets": ("zoneout-lstm", "stacked, both ways", ("resets",)),
    "lengths": ("gru", "stacked, both ways", ("lengths", "resets")),
    "lengths of times": ("time-aware-lstm", "batch first", ("dt", "lengths")),
    "a time a row, no whole vectors": ("time-aware-lstm", "no whole vectors", ("dt",)),
    "a time a unit, resets, no whole vectors": (
        "time-aware-lstm",
        "less than a vector, both ways",
        ("dt of units", "resets"),
    ),
    "a time, of a single unit": ("time-aware-lstm", "single numbers", ("dt of units", "resets")),
    "masks and resets, no whole vectors": ("zoneout-lstm", "no whole vectors", ("resets",)),
    "lengths, no whole vectors": ("gru", "less than a vector, both ways", ("lengths", "resets")),
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    plain._ROUTES.clear()
    plain._RAGGED.clear()
    yield
    plain._ROUTES.clear()
    plain._RAGGED.clear()


class Shown(Cell):
    """A GRU that begins at what is learned, and shows its update gate."""

    gates = ("r", "z", "n")
    outputs = ("h", "z")
    h0 = Initial((-1.0, 1.0))

    def step(self, x, h):
        r, z = sigmoid(x.r + h.r), sigmoid(x.z + h.z)
        return z, (1 - z) * tanh(x.n + r * h.n) + z * h


def flat(result: Any) -> list[Tensor]:
    return [each for part in result for each in (part if isinstance(part, tuple) else (part,))]


class Parts(Cell):
    """Gates whose input arrives ready, moved by a force that has a number where none is given."""

    gates = ("z", "n")
    inputs = {"push": 0.25}  # noqa: RUF012

    def step(self, x, h, push):
        z = sigmoid(ready(x.z) + h.z)
        return (1 - z) * tanh(ready(x.n) + push) + z * h


def given_to(layer: Any, x: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    lead, steps = x.shape[:2], x.shape[1 if layer.batch_first else 0]
    batch = lead.numel() // steps
    made: dict[str, Any] = {}
    for name in names:
        if name == "resets":
            made[name] = torch.rand(lead) < 0.4
        elif name == "lengths":
            made[name] = [steps - row % (steps + 1) for row in range(batch)]
        else:
            units = (layer.hidden_size,) if name.endswith("of units") else ()
            made["dt"] = torch.rand(*lead, *units, dtype=x.dtype, requires_grad=True)
    return made


def everything(layer: Any, x: Tensor, state: Any, given: dict[str, Any] | None = None) -> list[Tensor]:
    """What comes out, without and with a tape, and every gradient; under the same masks each time."""
    torch.manual_seed(1)
    given = given or {}
    sources = [x, *(() if state is None else state if isinstance(state, tuple) else (state,))]
    sources += [given["dt"]] if "dt" in given else []
    with torch.no_grad():
        found = flat(layer(x, state, **given))
    results = flat(layer(x, state, **given))
    seeds = [torch.linspace(-1, 1, each.numel(), dtype=x.dtype).view(each.shape) for each in results]
    rest: dict[str, Any] = {
        "allow_unused": True,
        "materialize_grads": True,
    }  # what is learned, where states are given
    found += torch.autograd.grad(results, [*sources, *layer.parameters()], seeds, retain_graph=True, **rest)
    # The last state alone, as whoever classifies takes it: none arrives at the output.
    found += torch.autograd.grad(results[-1].sum(), list(layer.parameters()), **rest)
    return [*found, *(each.detach().clone() for each in results)]


def drawn(cell: Any, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, Tensor, Any]:
    torch.manual_seed(0)
    given = {**options}
    (steps, batch), initial, recompute = (
        given.pop("shape"),
        given.pop("initial", 0),
        given.pop("recompute", 0),
    )
    hidden = given.pop("hidden", H)
    given |= {"backend": "cpu", "dtype": dtype}
    make = cellwise.LSTM if "proj_size" in given else partial(cellwise.Recurrent, cell)
    layer = make(5, hidden, **given)
    layer.recompute = bool(recompute)
    x = torch.randn((batch, steps, 5) if layer.batch_first else (steps, batch, 5), dtype=dtype)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or hidden, *[hidden] * (len(layer.cell.states) - 1)]
    states = [torch.randn(rows, batch, size, dtype=dtype, requires_grad=True) for size in sizes]
    state: Any = tuple(states) if len(states) > 1 else states[0]
    return layer, x.requires_grad_(), state if initial else None


def compare(cell: Any, dtype: torch.dtype, options: dict[str, Any], patched: pytest.MonkeyPatch) -> int:
    """How many ran as small calls."""
    seen: list[int] = []
    enter, together = small_run.SmallRun.enter, small_stack._Lanes.run
    layer, x, state = drawn(cell, dtype, options)
    with patched.context() as patch:
        patch.setattr(small_run.SmallRun, "enter", lambda *each: seen.append(1) or enter(*each))
        patch.setattr(
            small_stack._Lanes, "run", lambda lanes: seen.extend([1] * len(lanes.runs)) or together(lanes)
        )
        found = everything(layer, x, state)
    plain._ROUTES.clear()
    with patched.context() as patch:
        patch.setattr(LlvmCompiler, "small_pass", lambda *_: None)
        patch.setattr(LlvmCompiler, "small_stack", lambda *_: None)
        wanted = everything(layer, x, state)
    small = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    results = len(layer.cell.graph.outputs or "h") + len(layer.cell.states)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape
        assert one.stride() == other.stride()
        # Gradients come of products that add up in another order.
        near = small if results <= place < len(found) - results else 0
        torch.testing.assert_close(one, other, rtol=near, atol=near)
    return len(seen)


@pytest.mark.parametrize("options", ["steps", "no whole vectors"])
@pytest.mark.parametrize("cell", [*cells.FAMILIAR, "fastrnn", "fastgrnn"])  # which have numbers of their own
def test_every_cell_computes_what_it_computes_in_other_calls(
    cell: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compare(cell, torch.float32, OPTIONS[options], monkeypatch)
    assert ran == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "lstm-peephole"])
def test_every_form_computes_what_it_computes_in_other_calls(
    cell: str, options: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(cell, dtype, OPTIONS[options], monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", PROJECTED)
def test_projected_layers_compute_what_they_compute_in_other_calls(
    options: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare("lstm", dtype, PROJECTED[options], monkeypatch)


SOME = [
    "no states, no bias",
    "batch first",
    "stacked, both ways",
    "recomputed",
    "no whole vectors, recomputed",
    "less than a vector, both ways",
]


@pytest.mark.parametrize("options", SOME)
@pytest.mark.parametrize("cell", ["zoneout-lstm", "variational-lstm", Shown])
def test_cells_with_masks_first_states_and_several_outputs(
    cell: Any, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(cell, torch.float64, OPTIONS[options], monkeypatch)


@pytest.mark.parametrize("cell", ["zoneout-lstm", Shown])
def test_they_compute_what_the_way_of_all_calls_computes(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a backend is asked, too: weights, masks and states in their places."""
    layer, x, _ = drawn(cell, torch.float64, OPTIONS["stacked, both ways"])
    found = everything(layer, x, None)
    assert any(plain._ROUTES.values())
    monkeypatch.setattr(plain, "call", lambda *_: None)
    for one, other in zip(found, everything(layer, x, None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_call_gives_beside_x(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes what the way of all calls computes; gradients come of products that add up in another order."""
    cell, options, names = GIVEN[case]
    layer, x, state = drawn(cell, torch.float64, OPTIONS[options])
    given = given_to(layer, x, names)
    everything(layer, x, state, given)
    general: list[int] = []
    run = type(layer)._run
    monkeypatch.setattr(type(layer), "_run", lambda *each: general.append(1) or run(*each))
    found = everything(layer, x, state, given)
    assert not general
    monkeypatch.setattr(plain, "call", lambda *_: None)
    wanted, results = everything(layer, x, state, given), 1 + len(layer.cell.states)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.stride() == other.stride()
        is_gradient = results <= place < len(found) - results
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 if is_gradient else 0)
    assert general


def test_parts_of_the_input_and_a_value_that_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = cellwise.Recurrent(Parts, 2 * H, H, backend="cpu", dtype=torch.float64)
    x = torch.randn(4, 3, 2 * H, dtype=torch.float64, requires_grad=True)
    found = everything(layer, x, None)
    assert any(plain._ROUTES.values())
    monkeypatch.setattr(plain, "call", lambda *_: None)
    torch.testing.assert_close(found, everything(layer, x, None), rtol=0, atol=1e-12)


def test_marks_and_times_that_a_caller_writes_to_after_the_call() -> None:
    """Marks are copied, as in all calls; of a time autograd says that it was written to."""
    layer, x, state = drawn("time-aware-lstm", torch.float64, OPTIONS["steps"])
    given = given_to(layer, x, ("dt", "resets"))
    given["dt"].requires_grad_(False)
    wanted = torch.autograd.grad(layer(x, state, **given)[0].sum(), [x, *layer.parameters()])
    output = layer(x, state, **given)[0]
    given["resets"].logical_not_()
    found = torch.autograd.grad(output.sum(), [x, *layer.parameters()])
    assert all(map(torch.equal, found, wanted))
    output = layer(x, state, **given)[0]
    given["dt"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_inputs_are_multiplied_for_a_block_of_steps_where_all_calls_do_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long calls of one row: with the kernels, and so the bits, of the way of all calls."""
    torch.manual_seed(0)
    layer = cellwise.Recurrent("lstm", 2 * H, H, backend="cpu", dtype=torch.float64)
    x = torch.randn(12, 1, 2 * H, dtype=torch.float64, requires_grad=True)
    kernels: list[Any] = []
    enter = small_run.SmallRun.enter
    with monkeypatch.context() as patch:
        patch.setattr(
            small_run.SmallRun, "enter", lambda run, *each: kernels.append(run.kernel) or enter(run, *each)
        )
        found = everything(layer, x, None)
    assert kernels
    assert all(kernel.program.before_loop for kernel in kernels[:2])
    monkeypatch.setattr(plain, "call", lambda *_: None)
    for place, (one, other) in enumerate(zip(found, everything(layer, x, None), strict=True)):
        is_gradient = 3 <= place < len(found) - 3
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 if is_gradient else 0)


@pytest.mark.parametrize("hidden", [112, 100])
def test_the_gradient_at_a_large_input_is_that_of_all_calls(
    hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, since the same products make it."""
    torch.manual_seed(0)
    layer, x = cellwise.GRU(64, hidden, backend="cpu"), torch.randn(16, 16, 64, requires_grad=True)
    entered: list[int] = []
    enter = small_run.SmallRun.enter
    with monkeypatch.context() as patch:
        patch.setattr(small_run.SmallRun, "enter", lambda *each: entered.append(1) or enter(*each))
        found = torch.autograd.grad(layer(x)[0].sum(), [x])
    plain._ROUTES.clear()
    monkeypatch.setattr(LlvmCompiler, "small_pass", lambda *_: None)
    assert len(entered) == 2
    assert torch.equal(*found, *torch.autograd.grad(layer(x)[0].sum(), [x]))


@pytest.mark.parametrize("options", ["steps", "no whole vectors"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "zoneout-lstm", "time-aware-lstm", Shown])
def test_nothing_is_written_beside_what_is_given_and_all_of_it_is_written(
    cell: Any, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones, beside = [], 64

    def fenced(like: Tensor) -> Tensor:
        zone = torch.full((like.numel() + 2 * beside,), torch.nan, dtype=like.dtype)
        zones.append(zone)
        return zone[beside:-beside].view(like.shape)

    layer, x, state = drawn(cell, torch.float32, OPTIONS[options])
    given = given_to(layer, x, ("dt of units", "resets")) if cell == "time-aware-lstm" else {}
    wanted = everything(layer, x, state, given)
    monkeypatch.setattr(small_calls.torch, "empty_like", fenced)
    monkeypatch.setattr(small_calls, "_empty_like", fenced)
    for one, other in zip(everything(layer, x, state, given), wanted, strict=True):
        assert torch.equal(one, other)
    assert zones
    for zone in zones:
        outside = torch.cat([zone[:beside], zone[-beside:]])
        assert outside.isnan().all()
        assert not zone[beside:-beside].isnan().any()


def test_what_a_caller_writes_to_an_output_is_not_read_again() -> None:
    layer, x, _ = drawn("gru", torch.float32, OPTIONS["one step"])
    wanted = torch.autograd.grad(layer(x)[0].sum(), layer.parameters())
    output, final = layer(x)
    seed = torch.ones_like(output)
    with torch.no_grad():
        output.detach().zero_()
        final.detach().zero_()
    for one, other in zip(torch.autograd.grad(output, layer.parameters(), seed), wanted, strict=True):
        assert torch.equal(one, other)


def test_gradients_of_all_kinds_go_the_way_that_knows_them() -> None:
    """Second derivatives, many at once, hooks on what is saved, and zeros without memory."""
    layer, x, state = drawn("time-aware-lstm", torch.float64, OPTIONS["steps"])
    given = given_to(layer, x, ("dt", "resets"))
    marks = torch.tensor([[False], [True]])

    def run(x: Tensor, h: Tensor, c: Tensor, dt: Tensor) -> Tensor:
        return layer(x, (h, c), dt=dt, resets=marks)[0]

    sources = (x[:2, :1], *(each[:, :1] for each in state), given["dt"][:2, :1])
    inputs = [each.detach().requires_grad_() for each in sources]
    assert torch.autograd.gradcheck(run, inputs, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    wanted = torch.autograd.grad(layer(x, state, **given)[0].sum(), layer.parameters())
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each.clone(), lambda each: each):
        output = layer(x, state, **given)[0]
    for one, other in zip(torch.autograd.grad(output.sum(), layer.parameters()), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_tensor_that_outlived_its_transform_is_read_where_it_lies() -> None:
    layer, x, _ = drawn("gru", torch.float32, OPTIONS["one step"])
    kept: list[Tensor] = []
    torch.func.grad(lambda each: (kept.append(each * 1), each.sum())[1])(x.detach())
    for recording in (False, True):
        with torch.set_grad_enabled(recording):
            assert torch.equal(layer(kept[0])[0], layer(x)[0])


def test_calls_that_are_not_small_take_the_way_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    run = plain_pass.run_forward
    monkeypatch.setattr(
        "cellwise.backends.compiled.shortcut.run_forward", lambda *each: seen.append(1) or run(*each)
    )
    layer = cellwise.GRU(3, H, backend="cpu")
    with torch.no_grad():
        layer(torch.zeros(256, 1, 3))
        assert not seen
        layer(torch.zeros(257, 1, 3))
        assert len(seen) == 1
        # The gradients at gates are more than `MOST_SMALL_BYTES`.
        cellwise.GRU(3, 342, backend="cpu")(torch.zeros(256, 1, 3))
    assert len(seen) == 2


# --- the products by themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector_bytes", WIDTHS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_products_of_all_sizes(vector_bytes: int, kind: type) -> None:
    generator = np.random.default_rng(0)
    size = np.dtype(kind).itemsize
    function = small_products(size, with_vectors_of(vector_bytes))
    for rows, height, width, add in (
        (1, 1, 1, 0),
        (2, 6, 16, 1),
        (7, 13, 67, 0),
        (7, 13, 67, 1),
        (5, 12, 3, 1),
        (3, 5, 128, 0),
        (40, 13, 131, 1),  # of more bytes than lie near
    ):
        left, right = (generator.standard_normal((rows, each + 3)).astype(kind) for each in (height, width))
        out = generator.standard_normal((height, width + 2)).astype(kind)
        narrowed, sums = generator.standard_normal(9).astype(kind), generator.standard_normal(9)
        moved, total = np.zeros(21, np.int64), np.zeros(2, kind)
        wanted = out.copy()
        wanted[:, :width] = left[:, :height].T @ right[:, :width] + add * out[:, :width]
        wanted_narrow = (sums + add * narrowed).astype(kind)
        product = (left.ctypes.data, height + 3, right.ctypes.data, width + 3, rows)
        table = [1, 1, 1, 1, *product, out.ctypes.data, width + 2, height, width, add]
        table += [narrowed.ctypes.data, sums.ctypes.data, 9, add]
        source = np.arange(1, 20)
        table += [moved.ctypes.data, source.ctypes.data, 19, total.ctypes.data, sums.ctypes.data, 9]
        words = np.array(table, np.int64)
        Chain([(function, words.ctypes.data, 0)]).run()
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5 if size == 4 else 1e-13)
        np.testing.assert_allclose(narrowed, wanted_narrow, rtol=1e-5)
        assert moved.tolist() == [*range(1, 20), 0, 0]
        np.testing.assert_allclose(total, [sums.sum(), 0], rtol=1e-6 if size == 4 else 1e-14)
