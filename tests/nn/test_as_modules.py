"""Layers are torch modules: saved, copied, moved, parametrized, transformed and compiled as those of torch.nn."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch_pairs import CELLS, CLASSES

import cellwise
from cellwise import Recurrent, cells

PAIRS = CLASSES | CELLS
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm-projected": ("LSTM", {"proj_size": 2, "num_layers": 2, "dropout": 0.5}),
    "gru-both-ways": ("GRU", {"bidirectional": True, "batch_first": True, "num_layers": 2}),
    "gru-no-bias": ("GRU", {"bias": False}),
    "rnn-cell-relu": ("RNNCell", {"nonlinearity": "relu", "bias": False}),
    "lstm-cell": ("LSTMCell", {}),
    "gru-cell": ("GRUCell", {"bias": False}),
}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    kind, options = VARIANTS[name]
    return PAIRS[kind][0](3, 4, **options), PAIRS[kind][1](3, 4, **options)


@pytest.mark.parametrize("name", VARIANTS)
def test_repr_is_that_of_torch_and_names_a_backend_that_was_asked_for(name: str) -> None:
    theirs, ours = pair(name)
    assert repr(ours) == repr(theirs)
    ours.backend = "reference"
    assert repr(ours) == repr(theirs)[:-1] + ", backend='reference')"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_state_dict_goes_both_ways(name: str) -> None:
    theirs, ours = pair(name)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_attributes_are_those_of_torch(name: str) -> None:
    theirs, ours = pair(name)
    assert isinstance(ours, type(theirs))
    public = {key for key in vars(theirs) if not key.startswith("_")}
    assert {key: getattr(ours, key) for key in public} == {key: getattr(theirs, key) for key in public}
    if isinstance(theirs, nn.RNNBase):
        assert [[w.shape for w in layer] for layer in ours.all_weights] == [
            [w.shape for w in layer] for layer in theirs.all_weights
        ]
        ours.flatten_parameters()


def test_recurrent_has_the_attributes_too() -> None:
    layer = Recurrent("lstm-peephole", 3, 4, num_layers=2, batch_first=True, dropout=0.25, bias=False)
    assert (
        repr(layer)
        == "Recurrent(lstm-peephole, 3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.25)"
    )
    assert layer.cell == cells.PeepholeLSTM()
    assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.proj_size) == (3, 4, 2, 0)


LAYERS: dict[str, Any] = {
    "GRU": lambda: cellwise.GRU(3, 4, num_layers=2, backend="reference"),
    "LSTM": lambda: cellwise.LSTM(3, 4, proj_size=2, backend="reference"),
    "RNN": lambda: cellwise.RNN(3, 4, nonlinearity="relu", backend="reference"),
    "Recurrent": lambda: Recurrent("lstm-peephole", 3, 4, backend="reference"),
    "Recurrent-option": lambda: Recurrent(cells.RNN(nonlinearity="relu"), 3, 4, backend="reference"),
}


def _through_pickle(layer: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(layer))


def _through_torch_save(layer: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, _through_pickle, _through_torch_save], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", LAYERS)
def test_a_copy_computes_the_same_with_weights_of_its_own(name: str, copied: Any) -> None:
    layer, x = LAYERS[name](), torch.randn(5, 2, 3)
    again = copied(layer)
    assert type(again) is type(layer)
    assert again.backend == "reference"
    torch.testing.assert_close(again(x), layer(x), rtol=0, atol=0)
    with torch.no_grad():
        next(again.parameters()).add_(1)
    assert not torch.equal(again(x)[0], layer(x)[0])


def test_weights_load_without_pickle(tmp_path: Any) -> None:
    layer, other = cellwise.GRU(3, 4), cellwise.GRU(3, 4)
    torch.save(layer.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = torch.randn(5, 2, 3)
    assert torch.equal(layer(x)[0], other(x)[0])


# --- devices and dtypes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("kind", CLASSES)
def test_on_the_meta_device_shapes_alone_are_computed(kind: str, backend: str) -> None:
    layer = CLASSES[kind][1](3, 4, bidirectional=True, device="meta", backend=backend)
    assert all(parameter.is_meta for parameter in layer.parameters())
    output, _ = layer(torch.empty(5, 2, 3, device="meta"), lengths=[5, 2])
    assert output.is_meta
    assert output.shape == (5, 2, 8)
    filled = layer.to_empty(device="cpu")
    filled.reset_parameters()
    assert filled(torch.zeros(5, 2, 3))[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["auto", "native", "reference"])
@pytest.mark.parametrize("kind", CLASSES)
def test_half_precision_is_as_good_as_torchs(kind: str, backend: str, dtype: torch.dtype) -> None:
    from cellwise.testing import Arguments, assert_as_good, results

    theirs, ours = CLASSES[kind][0](8, 16), CLASSES[kind][1](8, 16, backend=backend)
    ours.load_state_dict(theirs.to(dtype).state_dict())
    x = torch.randn(6, 4, 8).to(dtype)
    torchs, found = results(theirs, Arguments(x)), results(ours.to(dtype), Arguments(x))
    truth = results(theirs.double(), Arguments(x.double()))
    assert all(value.dtype == dtype for value in found.values())
    assert_as_good(found, torchs, truth)


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_autocast_gives_the_dtype_that_torch_gives(kind: str) -> None:
    x = torch.randn(5, 2, 3)
    found = []
    for layer in (
        CLASSES[kind][0](3, 4),
        *(CLASSES[kind][1](3, 4, backend=b) for b in ("auto", "native", "reference")),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(layer(x)[0].dtype)
    assert found == [found[0]] * 4


def test_complex_numbers_run_on_the_reference() -> None:
    layer = Recurrent("rnn", 3, 4, dtype=torch.complex128)
    assert layer(torch.randn(5, 2, 3, dtype=torch.complex128))[0].dtype == torch.complex128


# --- parametrize, functional, transforms --------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("norm", ["weight_norm", "orthogonal", "spectral_norm"])
@pytest.mark.parametrize("kind", CLASSES)
def test_parametrized_weights(kind: str, norm: str, backend: str) -> None:
    x = torch.randn(5, 2, 3)
    found = []
    for place in range(2):
        torch.manual_seed(5)
        layer = CLASSES[kind][place](3, 4, num_layers=2)
        getattr(parametrizations, norm)(layer, "weight_hh_l0")
        if place:
            layer.backend = backend
        output, _ = layer.eval()(x)
        gradients = torch.autograd.grad(output.sum(), list(layer.parameters()))
        found.append((output, gradients))
        if (
            place
        ):  # torch's own layer keeps the computed weights and cannot be copied after a call (torch 2.13)
            torch.testing.assert_close(copy.deepcopy(layer)(x)[0], output)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_functional_call_and_hooks_on_weights() -> None:
    layer = Recurrent("gru", 3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    doubled = {name: 2 * value.detach() for name, value in layer.named_parameters()}
    output, _ = torch.func.functional_call(layer, doubled, (x,))
    assert not torch.equal(output, layer(x)[0])
    layer.load_state_dict(doubled)
    assert torch.equal(output, layer(x)[0])


@pytest.fixture(params=["gru", "lstm", "gru-reset-before", "indrnn"])
def layer(request: pytest.FixtureRequest) -> Recurrent:
    return Recurrent(request.param, 2, 3, bidirectional=True, backend="reference", dtype=torch.float64)


X = (4, 2, 2)


def test_vmap_over_inputs_and_over_weights(layer: Recurrent) -> None:
    xs = torch.randn(3, *X, dtype=torch.float64)
    one_by_one = torch.stack([layer(x)[0] for x in xs])
    torch.testing.assert_close(torch.func.vmap(lambda x: layer(x)[0])(xs), one_by_one)
    many = {name: torch.stack([value, 2 * value]) for name, value in layer.state_dict().items()}
    found = torch.func.vmap(lambda weights: torch.func.functional_call(layer, weights, (xs[0],))[0])(many)
    torch.testing.assert_close(found[0], one_by_one[0])
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("name", ["gru", "indrnn"])
def test_auto_finds_a_backend_for_each_transform(name: str) -> None:
    layer = Recurrent(name, 2, 3, dtype=torch.float64)
    xs = torch.randn(3, *X, dtype=torch.float64)
    found = torch.func.vmap(lambda x: layer(x)[0])(xs)
    torch.testing.assert_close(found, torch.stack([layer(x)[0] for x in xs]))
    output, change = torch.func.jvp(lambda x: layer(x)[0], (xs[0],), (xs[1],))
    torch.testing.assert_close(output, found[0])
    numeric = (layer(xs[0] + 1e-6 * xs[1])[0] - layer(xs[0] - 1e-6 * xs[1])[0]) / 2e-6
    torch.testing.assert_close(change, numeric, rtol=1e-6, atol=1e-8)


def test_vmap_with_lengths_and_resets(layer: Recurrent) -> None:
    xs = torch.randn(3, *X, dtype=torch.float64)
    resets = torch.rand(3, 4, 2) < 0.5
    wanted = torch.stack([layer(x, lengths=[4, 1], resets=r)[0] for x, r in zip(xs, resets, strict=True)])
    found = torch.func.vmap(lambda x, r: layer(x, lengths=[4, 1], resets=r)[0])(xs, resets)
    torch.testing.assert_close(found, wanted)


def test_gradients_per_row(layer: Recurrent) -> None:
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    weights = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, weights, (row.unsqueeze(1),))[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    for b in range(3):
        wanted = torch.autograd.grad(layer(x[:, b : b + 1])[0].square().sum(), list(layer.parameters()))
        torch.testing.assert_close([found[name][b] for name in weights], list(wanted))


def test_forward_mode_is_the_transpose_of_backward(layer: Recurrent) -> None:
    x, v = torch.randn(*X, dtype=torch.float64), torch.randn(*X, dtype=torch.float64)

    def run(x: torch.Tensor) -> torch.Tensor:
        return layer(x, lengths=[3, 4])[0]

    output, forward = torch.func.jvp(run, (x,), (v,))
    w = torch.randn_like(output)
    (backward,) = torch.func.vjp(run, x)[1](w)
    torch.testing.assert_close((forward * w).sum(), (backward * v).sum())
    torch.testing.assert_close(torch.func.jacfwd(run)(x), torch.func.jacrev(run)(x))


def test_double_backward(layer: Recurrent) -> None:
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    resets = torch.tensor([[False, False], [True, False]])
    assert torch.autograd.gradgradcheck(lambda x: layer(x, lengths=[2, 1])[0], (x,))
    assert torch.autograd.gradgradcheck(lambda x: layer(x, resets=resets)[0], (x,))


def test_training_lowers_the_loss() -> None:
    layer = Recurrent("lstm-peephole", 2, 8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    x = torch.randn(10, 4, 2)
    losses = []
    for _ in range(40):
        loss = (layer(x)[0][:, :, 0] - x.cumsum(0)[:, :, 0].tanh()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


# --- compile and export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_compile_of_a_model_around_a_layer(backend: str) -> None:
    torch.compiler.reset()
    model = nn.ModuleList([nn.Linear(3, 3), cellwise.RNN(3, 4, backend=backend), nn.Linear(4, 2)])

    def forward(x: torch.Tensor) -> torch.Tensor:
        first, layer, last = model
        return last(layer(first(x).relu())[0])

    x = torch.randn(2, 2, 3)
    compiled = torch.compile(forward, backend="aot_eager")
    torch.testing.assert_close(compiled(x), forward(x))
    wanted = torch.autograd.grad(forward(x).sum(), list(model.parameters()))
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), list(model.parameters())), wanted)


@pytest.mark.parametrize(
    "make", [lambda: cellwise.GRU(3, 4), lambda: Recurrent("indrnn", 3, 4, backend="reference")]
)
def test_export(make: Any) -> None:
    layer, x = make(), torch.randn(4, 2, 3)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))
