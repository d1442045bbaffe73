"""Several outputs of a step: by name, in every form of a batch, with gradients through each."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import cellwise
from cellwise import Cell, Initial, amax, exp, sigmoid, tanh
from cellwise.cells.stored import restore_cell, store_cell
from cellwise.errors import CellDefinitionError, InputError, ReturnError
from cellwise.graph.stored import restore, store
from cellwise.nn.layer import RecurrentLayer
from cellwise.plan.cost import cost_of
from cellwise.testing import check_cell
from cellwise.understand import view

T, B, D, H = 6, 4, 3, 5


class Watched(Cell):
    """A GRU that shows its gates."""

    gates = ("r", "z", "n")
    outputs = ("h", "z", "reset")
    h0 = Initial((-1.0, 1.0))

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + r * h.n)
        return z, r, (1 - z) * n + z * h


class Attentive(Cell):
    """A memory of H slots that is read by attention over them; its weights are an output, and the memory is one."""

    gates = ("q", "w", "f", "y")
    states = ("m",)
    outputs = ("y", "weight", "m")

    def step(self, x, m):
        score = x.q * m
        grown = exp(score - amax(score))
        weight = grown / cellwise.sum(grown)
        f = sigmoid(x.f)
        m = f * m + (1 - f) * tanh(x.w)
        return tanh(x.y + (weight * m).y), weight, m


def _layer(cell: Any = Watched, backend: str = "cpu", **options: Any) -> cellwise.Recurrent:
    torch.manual_seed(0)
    return cellwise.Recurrent(cell, D, H, backend=backend, **{"dtype": torch.float64, **options})


def _x(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (T, B, D), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("cell", [Watched, Attentive])
def test_every_check_of_a_cell(cell: type[Cell]) -> None:
    """Gradients by finite differences; lengths, resets, layers and directions; streams; against one row at a time."""
    report = check_cell(cell, "cpu")
    assert {check for _, check in report.done} == {"gradients", "agreement", "stream", "ragged", "resets"}


def test_the_gates_of_a_gru_by_its_equations() -> None:
    layer, plain = _layer(learned_initial=False), _layer("gru")
    plain.load_state_dict({name: each for name, each in layer.state_dict().items() if "h0" not in name})
    x = _x()
    output, h = layer(x)
    assert output._fields == Watched.outputs
    torch.testing.assert_close(output.h, plain(x, layer.h0_l0.expand(1, B, H))[0])
    past = torch.cat([layer.h0_l0.expand(1, B, H), output.h[:-1]])
    w_r, w_z, _ = (x @ layer.weight_ih_l0.T + layer.bias_ih_l0).chunk(3, -1)
    u_r, u_z, _ = (past @ layer.weight_hh_l0.T + layer.bias_hh_l0).chunk(3, -1)
    torch.testing.assert_close(output.reset, torch.sigmoid(w_r + u_r))
    torch.testing.assert_close(output.z, torch.sigmoid(w_z + u_z))
    assert torch.equal(h[0], output.h[-1])
    # As a plain tuple, and each by itself: the loss may read any of them alone.
    first, second, third = output
    assert second is output.z
    for one in (first, second, third):
        assert torch.autograd.grad(one.sum(), x, retain_graph=True)[0].any()


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True, "num_layers": 2}])
def test_forms_of_a_batch(options: dict[str, Any]) -> None:
    layer = _layer(Attentive, **options)
    batch_first = layer.batch_first
    x, lengths = _x(*((B, T, D) if batch_first else (T, B, D))), torch.tensor([2, 6, 0, 4])
    width = H * (2 if layer.bidirectional else 1)
    output, _ = layer(x, lengths=lengths)
    for each in output:
        assert each.shape == (*x.shape[:2], width)
        assert not (each if batch_first else each.transpose(0, 1))[0, 2:].any()
    some = x[torch.tensor([0, 1, 3])] if batch_first else x[:, torch.tensor([0, 1, 3])]
    packed, _ = layer(pack_padded_sequence(some, [2, 6, 4], batch_first=batch_first, enforce_sorted=False))
    for name in output._fields:
        padded, _ = torch.nn.utils.rnn.pad_packed_sequence(getattr(packed, name), batch_first=batch_first)
        rows = getattr(output, name)
        torch.testing.assert_close(padded, rows[[0, 1, 3]] if batch_first else rows[:, [0, 1, 3]])
    alone, _ = layer(x[0] if batch_first else x[:, 0])
    whole, _ = layer(x)
    torch.testing.assert_close(alone.weight, whole.weight[0] if batch_first else whole.weight[:, 0])


def test_the_next_layer_is_given_the_first() -> None:
    two = _layer(num_layers=2, bidirectional=True)
    below = _layer(bidirectional=True)
    below.load_state_dict({name: each for name, each in two.state_dict().items() if "_l1" not in name})
    above = cellwise.Recurrent(Watched, 2 * H, H, bidirectional=True, backend="cpu", dtype=torch.float64)
    upper = {n.replace("_l1", "_l0"): each for n, each in two.state_dict().items() if "_l1" in n}
    above.load_state_dict(upper)
    x = _x()
    for one, other in zip(two(x)[0], above(below(x)[0].h)[0], strict=True):
        torch.testing.assert_close(one, other)


def test_derivatives_of_derivatives_and_recomputation() -> None:
    layer = cellwise.Recurrent(Watched, 2, 2, backend="cpu", dtype=torch.float64)
    x = _x(2, 2, 2)
    assert torch.autograd.gradgradcheck(lambda x: tuple(layer(x)[0]), (x,))
    sources = (x, *layer.parameters())

    def gradients() -> tuple[Tensor, ...]:
        h, z, r = layer(x)[0]
        return torch.autograd.grad((h * z + r.sin()).sum(), sources)

    kept = gradients()
    layer.recompute = True
    assert all(map(torch.equal, kept, gradients()))


def test_in_place_changes_of_an_output() -> None:
    layer, x = _layer(), _x()
    truth = torch.autograd.grad(2 * layer(x)[0].z.sum(), x)[0]
    z = layer(x)[0].z
    z.mul_(2)
    assert torch.equal(torch.autograd.grad(z.sum(), x)[0], truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes(dtype: torch.dtype) -> None:
    layer, other = _layer(dtype=dtype), _layer(backend="reference")
    other.load_state_dict(layer.state_dict())
    x = _x(dtype=dtype)
    wide = x.detach().double().requires_grad_()
    found, truth = layer(x)[0], other(wide)[0]
    room = 1e-5 if dtype is torch.float32 else 3e-2
    sums = [sum(each.double().sin().sum() for each in out) for out in (found, truth)]
    pairs = [
        *zip(found, truth, strict=True),
        (torch.autograd.grad(sums[0], x)[0], torch.autograd.grad(sums[1], wide)[0]),
    ]
    for one, two in pairs:
        assert one.dtype is dtype
        assert float((one.double() - two).detach().abs().max() / two.detach().abs().max()) < room


def test_compiled_and_exported() -> None:
    layer, x = _layer(dtype=torch.float32), torch.randn(T, B, D)
    compiled = torch.compile(layer, backend="aot_eager")
    one, two = layer(x)[0], compiled(x)[0]
    assert two._fields == Watched.outputs
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)
    program = torch.export.export(layer, (x,))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    (h, z, _), _ = torch.export.load(saved).module()(x)
    torch.testing.assert_close((h, z), (one.h, one.z))


@pytest.mark.parametrize("batch", [1, B])
def test_streams(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By compiled steps, whose rows have padding between the outputs, and which see a weight that was written to."""
    monkeypatch.setattr(RecurrentLayer, "_stream_step", None)
    for cell in (Watched, Attentive):
        layer, x = _layer(cell, num_layers=2), torch.randn(T, batch, D, dtype=torch.float64)
        stream = layer.stream(batch)
        for _ in range(2):
            with torch.no_grad():
                whole, _ = layer(x)
            for t, now in enumerate(x):
                step = stream(now)
                for name in step._fields:
                    assert torch.equal(getattr(step, name), getattr(whole, name)[t])
            stream.reset()
            layer.weight_hh_l1.data.mul_(0.5)
    if batch == 1:
        assert stream.follower(torch.zeros(5, D).double(), torch.zeros(3 * H, 5).double(), 4) is None
    out = torch.empty(2, batch, 3 * H, dtype=torch.float64)[1]  # a part of another tensor
    step = stream(x[0], out)
    assert step.y.data_ptr() == out.data_ptr()
    assert torch.equal(torch.cat(list(step), -1), out)
    step.y.zero_()
    assert not out[:, :H].any() and out[:, H:].all()


def test_as_values() -> None:
    layer, x = _layer(), _x()
    output = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0].z, output.z)
    again = pickle.loads(pickle.dumps(type(output)(*(each.detach() for each in output))))
    assert type(again) is type(output) and torch.equal(again.reset, output.reset)
    leaves, spec = torch.utils._pytree.tree_flatten(output)
    assert torch.utils._pytree.tree_unflatten(leaves, spec).z is output.z


def test_what_is_said_of_a_cell() -> None:
    cell = Watched()
    assert "outputs h', z, reset" in cell.equations and "reset = r" in cell.equations
    assert r"&\text{outputs } h_t, z_t, \mathit{reset}_t" in view(cell, "latex")
    assert "δz = Δz + " in view(cell, "gradient") and "Δy_h at the output" in view(cell, "gradient")
    assert 'output0["z (t)"]' in view(cell, "mermaid")
    assert "output z = " in view(cell, "graph")
    assert "h, z, reset" in view(cell, "mermaid", unrolled=2)
    gru = cost_of(cellwise.cells.get("gru").graph)
    assert (
        str(cost_of(cell.graph).inference_traffic.written)
        == "3bth + bh"
        != str(gru.inference_traffic.written)
    )
    again = restore(store(cell.graph))
    assert (again.outputs, again.fingerprint) == (Watched.outputs, cell.graph.fingerprint)
    assert again.fingerprint != cellwise.cells.get("gru").graph.fingerprint
    x = _x()
    one, two = (_layer(each)(x)[0] for each in (cell, restore_cell(store_cell(cell))))
    assert two._fields == one._fields and all(map(torch.equal, one, two))
    said = cellwise.explain(_layer(cell), x)
    assert said.chosen == "cpu" and "no operator" in str(dict(said.reasons)["native"])


def test_mistakes() -> None:
    def made(**body: Any) -> Cell:
        given: dict[str, Any] = {"gates": ("n",), "step": lambda self, x, h: (x.n, tanh(x.n + h.n)), **body}
        return type("Wrong", (Cell,), given)()  # type: ignore[no-any-return]

    with pytest.raises(CellDefinitionError, match="outputs names all of them; leave out output"):
        made(output="y", outputs=("y", "h"))
    with pytest.raises(CellDefinitionError, match="names one of its outputs twice"):
        made(outputs=("y", "y"))
    with pytest.raises(CellDefinitionError, match="calls an output 'count', which is taken"):
        made(outputs=("count", "h"))
    with pytest.raises(ReturnError, match=r"3 values \(a, b, h\)"):
        _ = made(outputs=("a", "b")).graph
    with pytest.raises(ReturnError, match=r"One number of a row is given to all units: a \+ 0 \* h"):
        _ = made(outputs=("h", "a"), step=lambda self, x, h: (cellwise.mean(x.n), tanh(x.n + h.n))).graph
    layer = _layer(made(outputs=("h", "a")))
    with pytest.raises(InputError, match="out takes this step's result, contiguous, of shape"):
        layer.stream(B)(torch.zeros(B, D, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64))


def test_one_output_that_is_the_second_state() -> None:
    class Inner(Cell):
        gates = ("a", "b")
        states = ("h", "c")
        outputs = ("c",)

        def step(self, x, h, c):
            c = tanh(x.a + h.a + 0.5 * c)
            return tanh(x.b + c.b), c

    layer, x = _layer(Inner), _x()
    output, (_, c) = layer(x)
    assert torch.equal(output[-1], c[0])
    assert Inner().graph.outputs == ()


def test_hooks_on_gradients_of_outputs() -> None:
    layer, seen = _layer(), []
    layer.register_full_backward_hook(lambda *_: seen.append("module"))
    output, _ = layer(torch.randn(T, B, D, dtype=torch.float64))
    output.z.register_hook(lambda gradient: seen.append(gradient.shape))
    output.z.sum().backward()
    assert seen == [(T, B, H)], "as documents say: hooks of a tensor are called, those of the module are not"
