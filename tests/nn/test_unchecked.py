"""Nothing reaches a kernel unchecked: weights, states, inputs and results of other dtypes, shapes, devices, kinds."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.two_tensor import TwoTensor

import cellwise
from cellwise import Recurrent
from cellwise.backends.cpu.target import host
from cellwise.errors import InputError
from cellwise.runtime.stream import Stream

BACKENDS = ("auto", "cpu", "native", "reference")
X = torch.linspace(-1, 1, 30).reshape(5, 2, 3)


# --- weights ------------------------------------------------------------------------------------------------------

PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hh_l1", "bias_hh_l1")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_weight_of_another_shape_is_named(name: str, backend: str) -> None:
    layer = cellwise.GRU(3, 4, num_layers=2, backend=backend)
    shape = layer.get_parameter(name).shape
    for wrong in ((shape[0] - 1, *shape[1:]), (*shape, 1), (shape[0] * 2, *shape[1:]), ()):
        with pytest.raises(InputError, match=rf"{name} of this GRU must have shape"):
            functional_call(layer, {name: torch.ones(wrong)}, (X,))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["p_i_l0", "p_o_l1", "weight_hh_l0", "bias_ih_l1"])
def test_a_parameter_of_another_dtype_is_named(name: str, backend: str) -> None:
    layer = Recurrent("lstm-peephole", 3, 4, num_layers=2)
    if backend != "native":
        layer.backend = backend
    weights = {k: v.double() if k == name else v for k, v in layer.state_dict().items()}
    layer.load_state_dict(weights, assign=True)
    with pytest.raises(InputError, match=f"{name} has torch.float64, the input torch.float32"):
        layer(X)


def test_a_weight_on_another_device_has_torchs_words() -> None:
    layer = cellwise.LSTM(3, 4)
    with pytest.raises(InputError, match="Input and parameter tensors are not at the same device"):
        functional_call(layer, {"weight_hh_l0": torch.ones(16, 4, device="meta")}, (X,))


SURGERY: dict[str, Callable[[nn.Parameter], Any]] = {
    "shorter": lambda p: setattr(p, "data", p.data[:8]),
    "narrower-at-the-same-address": lambda p: setattr(p, "data", p.data[:, :2]),
    "double": lambda p: setattr(p, "data", p.data.double()),
    "set": lambda p: _set(p, torch.ones(3)),
}


def _set(parameter: Tensor, source: Tensor) -> None:
    with torch.no_grad():
        parameter.set_(source)


@pytest.mark.parametrize("name", SURGERY)
def test_data_that_was_exchanged_is_found_in_a_layer_and_a_stream(name: str) -> None:
    layer = cellwise.GRU(3, 4)
    stream = layer.stream()
    stream(X[0, 0])
    before = stream.state
    SURGERY[name](layer.weight_hh_l0)
    for _ in range(2):  # a refusal leaves a stream as it was
        with pytest.raises(RuntimeError, match="weight_hh_l0"):
            stream(X[0, 0])
    assert torch.equal(stream.state, before)
    with pytest.raises(RuntimeError, match="weight_hh_l0"):
        layer(X)


def test_data_exchanged_before_the_backward_pass_is_found() -> None:
    layer = cellwise.GRU(3, 4, backend="cpu")
    total = layer(X)[0].sum()
    layer.weight_hh_l0.data = torch.zeros(3, 4)
    with pytest.raises(RuntimeError, match="given other data"):
        total.backward()


def test_hooks_that_bring_back_something_else_are_found() -> None:
    layer = cellwise.GRU(3, 4, backend="cpu")
    for unpack in (lambda t: t[:1] if t.dtype == torch.float32 else t, lambda t: t[: len(t) // 2]):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            total = layer(X)[0].sum()
        with pytest.raises(RuntimeError):
            total.backward()


def test_weights_that_lie_otherwise_give_the_same() -> None:
    layer = cellwise.GRU(3, 4, backend="cpu")
    wanted = layer(X)[0]
    spread = {k: torch.stack([v, v], -1)[..., 0] for k, v in layer.state_dict().items()}
    assert not spread["weight_hh_l0"].is_contiguous()
    assert torch.equal(functional_call(layer, spread, (X,))[0], wanted)
    own = {k: type("Own", (nn.Parameter,), {})(v) for k, v in layer.state_dict().items()}
    layer.load_state_dict(own, assign=True)
    assert torch.equal(layer(X)[0], wanted)


def test_tensors_without_numbers_at_their_address() -> None:
    layer = cellwise.GRU(3, 4, backend="cpu")
    wanted = layer(X)[0].detach()
    twice = {k: TwoTensor(v.detach(), v.detach()) for k, v in layer.named_parameters()}
    found = functional_call(layer, twice, (X,))[0]
    assert torch.equal(found.a, wanted)
    one = Recurrent("indrnn", 1, 1, backend="cpu")
    negated = torch.tensor([[[1 + 2j]]]).conj().imag
    assert negated.is_neg()
    assert torch.equal(one(negated)[0], one(torch.tensor([[[-2.0]]]))[0])
    assert torch.equal(one.stream()(negated[0, 0]), one(torch.tensor([[[-2.0]]]))[0][0, 0].detach())


# --- states -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64], ids=str)
def test_a_state_of_another_dtype_is_refused(backend: str, dtype: torch.dtype) -> None:
    layer = cellwise.LSTM(3, 4, backend=backend)
    right = torch.zeros(1, 2, 4)
    for state in ((right.to(dtype), right), (right, right.to(dtype))):
        with pytest.raises(RuntimeError, match="Input and hidden tensors are not the same dtype"):
            layer(X, state)
    with pytest.raises(RuntimeError, match="not at the same device"):
        layer(X, (right, right.to("meta")))


def test_under_autocast_dtypes_may_differ() -> None:
    torch.manual_seed(0)
    layer = Recurrent("lstm-peephole", 3, 4)
    wanted = layer(X, (torch.ones(1, 2, 4), torch.ones(1, 2, 4)))[0]
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(X, (torch.ones(1, 2, 4).bfloat16(), torch.ones(1, 2, 4)))[0]
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)


# --- default device and dtype -------------------------------------------------------------------------------------

CALLS = {
    "plain": lambda layer, x: layer(x)[0],
    "lengths": lambda layer, x: layer(x, lengths=[5, 2])[0],
    "lengths-tensor": lambda layer, x: layer(x, lengths=torch.tensor([5, 0], device="cpu"))[0],
    "resets": lambda layer, x: layer(x, resets=torch.ones(5, 2, dtype=torch.bool, device="cpu"))[0],
    "unbatched": lambda layer, x: layer(x[:, 0], lengths=3)[0],
    "packed": lambda layer, x: layer(nn.utils.rnn.pack_padded_sequence(x, [5, 2]))[0].data,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_device_and_dtype_change_nothing(call: str, backend: str) -> None:
    if backend == "native" and call == "resets":
        return
    layer = cellwise.GRU(3, 4, bidirectional=True, backend=backend)
    results = []
    for device, dtype in (("cpu", torch.float32), ("meta", torch.float64)):
        layer.zero_grad()
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        try:
            output = CALLS[call](layer, X)
            output.sum().backward()
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
        results.append([output, *[each.grad.clone() for each in layer.parameters()]])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_stream_made_and_run_with_another_default_device() -> None:
    layer = Recurrent("lstm-peephole", 3, 4, num_layers=2)
    wanted = layer(X[:, 0])[0].detach()
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        stream = layer.stream()
        found = torch.stack([stream(x) for x in X[:, 0]])
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, wanted)


# --- streams: what they are given ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_step_of_another_dtype_or_device_is_refused_and_harms_nothing(backend: str) -> None:
    layer = cellwise.GRU(3, 4, backend=backend)
    stream, x = layer.stream(), X[0, 0]
    first = stream(x)
    for wrong in (x.double(), x.half(), x.long(), x.bool(), x.cfloat()):
        with pytest.raises(InputError, match="does not match weight dtype"):
            stream(wrong)
    with pytest.raises(RuntimeError, match="same device"):
        stream(x.to("meta"))
    second = stream(x)
    stream.reset()
    assert torch.equal(stream(x), first)
    assert torch.equal(stream(x), second)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_state_that_does_not_fit_is_refused_when_it_is_set(backend: str) -> None:
    stream = cellwise.LSTM(3, 4, backend=backend).stream(batch_size=2)
    right = torch.ones(1, 2, 4)
    wrong: Any
    for wrong in (
        right,
        (right, right.double()),
        (right[:, :1], right),
        (right, right[..., :1]),
        (right[0], right[0]),
        (right, right.to("meta")),
    ):
        with pytest.raises(InputError):
            stream.state = wrong
    assert not any(each.any() for each in stream.state)
    stream.state = (right, right)
    right.zero_()
    assert all((each == 1).all() for each in stream.state)


def test_a_result_may_lie_over_the_input() -> None:
    layer = Recurrent("lstm", 40, 40)
    stream, other = layer.stream(), layer.stream()
    memory = torch.randn(60)
    x, out = memory[:40], memory[20:]
    wanted = other(x.clone())
    assert torch.equal(stream(x, out=out), wanted)


def test_a_result_that_was_saved_for_a_backward_pass_is_not_overwritten_in_silence() -> None:
    stream, scale, out = cellwise.GRU(3, 4).stream(), torch.ones(4, requires_grad=True), torch.ones(4)
    product = (scale * out).sum()
    stream(X[0, 0], out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inputs_of_unusual_kinds_are_taken() -> None:
    layer = cellwise.GRU(3, 4)
    wanted = layer.stream()(X[0, 0])
    for x in (nn.Parameter(X[0, 0]), torch.stack([X[0, 0]] * 2, 1)[:, 0], X[0, 0].clone().requires_grad_()):
        assert torch.equal(layer.stream()(x), wanted)


# --- streams: weights that changed --------------------------------------------------------------------------------


def _fused(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(layer.parameters(), lr=0.3, fused=True).step()


def _scaled(change: Callable[[Tensor], Any]) -> Callable[[nn.Module], None]:
    def run(layer: nn.Module) -> None:
        for parameter in layer.parameters():
            change(parameter)

    return run


def _negated_in_place(parameter: Tensor) -> None:
    parameter.detach().numpy()[...] *= -1


def _loaded(layer: nn.Module) -> None:
    layer.load_state_dict({k: v * 2 for k, v in layer.state_dict().items()}, assign=True)


CHANGES: dict[str, Callable[[Any], None]] = {
    "fused": _fused,
    "data": _scaled(lambda p: p.data.mul_(2)),
    "numpy": _scaled(_negated_in_place),
    "one-number": lambda layer: layer.weight_hh_l0.data[-1, -1].add_(0.5),
    "two-exchanged": lambda layer: layer.bias_ih_l0.data.copy_(layer.bias_ih_l0.data.flip(0)),
    "data-set": _scaled(lambda p: setattr(p, "data", p.data * 2)),
    "loaded": _loaded,
    "moved": lambda layer: layer.to(torch.float64).to(torch.float32).weight_hh_l0.data.neg_(),
}


# Four units are packed; of a vector of units and more weights are read where they lie.
@pytest.mark.parametrize("hidden", [4, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_a_stream_sees_weights_changed_in_any_way(name: str, dtype: torch.dtype, hidden: int) -> None:
    if name == "moved" and dtype != torch.float32:
        return
    layer = cellwise.GRU(3, hidden, dtype=dtype)
    stream, x = layer.stream(), X[:, 0].to(dtype)
    before = stream(x[0])
    CHANGES[name](layer)
    state = stream.state
    found = stream(x[1])
    wanted = layer(x[1:2], state[:, 0])[0][0].detach()
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(before, found)


def test_a_stream_of_a_large_layer_sees_all_changes_in_time() -> None:
    layer = Recurrent("rnn", 8, 200, backend="cpu")
    assert layer.weight_hh_l0.numel() * 4 > 2 * 2**16
    x = torch.randn(3, 8)  # so many rows read packed weights
    for wait in (False, True):
        stream = layer.stream(3)
        layer.weight_hh_l0.data[150:] += 1
        if wait:
            for _ in range(4):
                stream(x)
        else:
            stream.refresh()
        stream.state = torch.zeros(1, 3, 200)
        first = stream(x)
        torch.testing.assert_close(stream(x), layer(torch.stack([x, x]))[0][1].detach())
        assert torch.isfinite(first).all()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru-reset-before"])
def test_one_and_two_rows_see_all_changes_of_a_large_layer_at_once(cell: str, rows: int) -> None:
    if host().vector_bytes < 32:
        pytest.skip("narrow vectors pack")
    layer = Recurrent(cell, 8, 120, num_layers=2, backend="cpu")
    assert sum(each.nbytes for each in layer.parameters()) > 2 * 2**16
    stream, x = layer.stream(rows), torch.randn(5, rows, 8)
    for step in x:
        with torch.no_grad():
            for number in (0, 1):
                getattr(layer, f"weight_hh_l{number}").data[-30:] *= -1.5
            state = stream.state
            wanted = layer(step[None], state)[0][0]
        assert torch.equal(stream(step), wanted)


def test_a_stream_sees_what_another_process_writes() -> None:
    layer = cellwise.GRU(3, 4).share_memory()
    stream, x = layer.stream(), X[0, 0]
    stream(x)
    context = torch.multiprocessing.get_context("fork")
    child = context.Process(target=_write, args=(layer.weight_ih_l0,))
    child.start()
    child.join()
    stream.reset()
    torch.testing.assert_close(stream(x), layer(x[None])[0][0].detach())
    assert (layer.weight_ih_l0 == 0.5).all()


def _write(weight: Tensor) -> None:
    weight.detach().fill_(0.5)


def test_a_layer_that_moves_takes_its_stream_along() -> None:
    layer = cellwise.GRU(3, 4)
    stream = layer.stream()
    stream(X[0, 0])
    layer.double()
    state = stream.state
    found = stream(X[1, 0].double())
    torch.testing.assert_close(found, layer(X[1:2, 0].double(), state.double()[:, 0])[0][0].detach())
    with pytest.raises(InputError, match="does not match weight dtype"):
        stream(X[0, 0])


# --- copies -------------------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Stream], Stream]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_goes_its_own_way_from_the_same_state(kind: str, backend: str) -> None:
    layer = cellwise.LSTM(3, 4, num_layers=2, backend=backend)
    stream = layer.stream(batch_size=2)
    stream(X[0])
    other = COPIES[kind](stream)
    wanted = stream(X[1])
    stream(X[2])
    assert torch.equal(other(X[1]), wanted)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
    state = stream.state
    other.state = state
    assert torch.equal(stream(X[3]), other(X[3])) == (kind == "copy")


def test_a_model_with_a_stream_is_copied_as_a_whole() -> None:
    model = nn.Module()
    model.layer = cellwise.GRU(3, 4)
    model.stream = model.layer.stream()
    model.stream(X[0, 0])
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layer.weight_ih_l0.zero_()
    state = other.stream.state
    found = other.stream(X[1, 0])
    torch.testing.assert_close(found, other.layer(X[1:2, 0], state[:, 0])[0][0].detach())


# --- memory -------------------------------------------------------------------------------------------------------

_LARGE = """
import resource, torch, cellwise
layer = cellwise.LSTM(4, 256, backend="cpu")
layer.recompute = {recompute}
x = torch.zeros({steps}, 16, 4)
layer(x[:3])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
try:
    layer(x)
except RuntimeError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited in Linux's way here")
@pytest.mark.parametrize(
    ("recompute", "says"),
    [(False, "Set layer.recompute = True"), (True, "Take shorter sequences or smaller batches")],
)
def test_a_tape_beyond_memory_says_what_to_do(recompute: bool, says: str) -> None:
    script = _LARGE.format(recompute=recompute, steps=200_000 if recompute else 40_000)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert says in done.stdout, done.stdout + done.stderr
    assert "GiB of memory" in done.stdout


# --- packed sequences ---------------------------------------------------------------------------------------------


def hand_made(
    rows: int, sizes: Any, sorted_indices: Any = None, unsorted_indices: Any = None
) -> PackedSequence:
    return PackedSequence(torch.randn(rows, 3), sizes, sorted_indices, unsorted_indices)


def torch_sizes(*sizes: int) -> Tensor:
    return torch.tensor(sizes)


PACKED: dict[str, tuple[Callable[[], PackedSequence], str]] = {
    "more rows than data": (lambda: hand_made(4, torch_sizes(3, 3, 3)), "add up to its 4 rows"),
    "fewer rows than data": (lambda: hand_made(4, torch_sizes(1, 1)), "add up to its 4 rows"),
    "rising": (lambda: hand_made(4, torch_sizes(1, 3)), "never rise"),
    "a step without a row": (lambda: hand_made(4, torch_sizes(2, 2, 0)), "positive"),
    "negative": (lambda: hand_made(4, torch_sizes(9, -5)), "positive"),
    "enormous": (lambda: hand_made(4, torch_sizes(2**62, 2**62)), "add up to its 4 rows"),
    "no step": (lambda: hand_made(0, torch.zeros(0, dtype=torch.int64)), "one for each step"),
    "int32": (lambda: hand_made(4, torch_sizes(2, 2).int()), "int64"),
    "fractions": (lambda: hand_made(4, torch.tensor([2.0, 2.0])), "int64"),
    "too few indices": (lambda: hand_made(4, torch_sizes(2, 2), torch_sizes(0)), "sorted_indices"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_sequence_made_by_hand_is_checked(name: str, backend: str) -> None:
    make, words = PACKED[name]
    for layer in (cellwise.GRU(3, 4, backend=backend), cellwise.LSTM(3, 4, backend=backend)):
        with pytest.raises(InputError, match=words):
            layer(make())


# --- cells of one step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_the_equations_of_a_cell_are_not_broadcast_over_wrong_weights(kind: str) -> None:
    cell = getattr(cellwise, kind)(3, 4, backend="reference")
    x = X[0]
    cell(x)
    for name, shape in (("bias_ih", (1,)), ("bias_hh", ()), ("weight_hh", (1, 4)), ("weight_ih", (4, 2))):
        with pytest.raises(InputError, match=rf"{name} of this {kind} must have shape"):
            functional_call(cell, {name: torch.ones(shape)}, (x,))
    state = torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="hidden tensor"):
        cell(x, (state, state) if kind == "LSTMCell" else state)
