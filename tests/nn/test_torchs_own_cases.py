"""PyTorch's own cases for its recurrent modules, run against ours, and its errors beside ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import cellwise

OURS = {
    nn.RNN: cellwise.RNN,
    nn.LSTM: cellwise.LSTM,
    nn.GRU: cellwise.GRU,
    nn.RNNCell: cellwise.RNNCell,
    nn.LSTMCell: cellwise.LSTMCell,
    nn.GRUCell: cellwise.GRUCell,
}
INFOS = [info for info in module_db if info.module_cls in OURS]
BACKENDS = ("auto", "native", "reference")


def samples(info: Any, training: bool, errors: bool = False) -> list[Any]:
    make = info.module_error_inputs_func if errors else info.module_inputs_func
    torch.manual_seed(0)
    return make(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)


CASES = [
    pytest.param(
        info, training, place, id=f"{info.module_cls.__name__}-{'train' if training else 'eval'}-{place}"
    )
    for info in INFOS
    for training in (True, False)
    for place in range(len(samples(info, training)))
]
ERRORS = [
    pytest.param(info, place, id=f"{info.module_cls.__name__}-{place}")
    for info in INFOS
    if info.module_error_inputs_func is not None
    for place in range(len(samples(info, True, errors=True)))
]


def test_torch_still_ships_its_cases() -> None:
    assert {info.module_cls for info in INFOS} == set(OURS)
    assert len(CASES) >= 170
    assert len(ERRORS) >= 30


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, (tuple, list)):
        return [each for item in value for each in tensors(item)]
    return []


def run(module: nn.Module, sample: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The results of a call, and the gradient of every input and parameter."""
    args, kwargs = sample.forward_input.args, sample.forward_input.kwargs
    outputs = tensors(module(*args, **kwargs))
    sources = [each for each in (*tensors(args), *tensors(tuple(kwargs.values()))) if each.requires_grad]
    sources += list(module.parameters())
    total = sum(((i + 1) * output).sin().sum() for i, output in enumerate(outputs))
    return outputs, list(torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("info", "training", "place"), CASES)
def test_a_case_of_torch(info: Any, training: bool, place: int, backend: str) -> None:
    sample = samples(info, training)[place]
    arguments = sample.constructor_input
    theirs = info.module_cls(*arguments.args, **arguments.kwargs).double().train(training)
    ours = (
        OURS[info.module_cls](*arguments.args, **arguments.kwargs, backend=backend).double().train(training)
    )
    ours.load_state_dict(theirs.state_dict())
    (found, found_gradients), (wanted, wanted_gradients) = run(ours, sample), run(theirs, sample)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found_gradients, wanted_gradients, rtol=1e-10, atol=1e-13)
    if sample.reference_fn is not None and not isinstance(sample.forward_input.args[0], PackedSequence):
        output = ours(*sample.forward_input.args, **sample.forward_input.kwargs)
        said = sample.reference_fn(ours, *sample.forward_input.args, **sample.forward_input.kwargs)
        torch.testing.assert_close(tensors(output), tensors(said), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("info", "place"), ERRORS)
def test_an_error_case_of_torch(info: Any, place: int, backend: str) -> None:
    case = samples(info, True, errors=True)[place]
    sample, make = case.module_error_input, OURS[info.module_cls]
    arguments = sample.constructor_input
    if case.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(case.error_type, match=case.error_regex):
            make(*arguments.args, **arguments.kwargs, backend=backend)
        return
    module = make(*arguments.args, **arguments.kwargs, backend=backend)
    with pytest.raises(case.error_type, match=case.error_regex):
        module(*sample.forward_input.args, **sample.forward_input.kwargs)


# --- more errors, each made once with torch's class and once with ours --------------------------------------

x = torch.zeros(4, 2, 3)
CONSTRUCTIONS: dict[str, Any] = {
    "hidden-size-zero": lambda make: make(3, 0),
    "hidden-size-negative": lambda make: make(3, -1),
    "hidden-size-a-float": lambda make: make(3, 4.0),
    "no-layers": lambda make: make(3, 4, num_layers=0),
    "dropout-above-one": lambda make: make(3, 4, num_layers=2, dropout=1.5),
    "dropout-a-bool": lambda make: make(3, 4, num_layers=2, dropout=True),
    "dropout-a-string": lambda make: make(3, 4, num_layers=2, dropout="much"),
    "negative-projection": lambda make: make(3, 4, proj_size=-1),
    "projection-too-large": lambda make: make(3, 4, proj_size=4),
    "unknown-argument": lambda make: make(3, 4, layers=2),
    "no-arguments": lambda make: make(),
}
CALLS: dict[str, Any] = {
    "input-1d": lambda layer: layer(x[0, 0]),
    "input-4d": lambda layer: layer(x.unsqueeze(0)),
    "input-of-another-size": lambda layer: layer(torch.zeros(4, 2, 5)),
    "input-of-another-dtype": lambda layer: layer(x.double()),
    "no-steps": lambda layer: layer(torch.zeros(0, 2, 3)),
    "state-of-another-batch": lambda layer: layer(x, state_for(layer, 1, 5, 4)),
    "state-of-another-size": lambda layer: layer(x, state_for(layer, 1, 2, 5)),
    "state-of-too-many-layers": lambda layer: layer(x, state_for(layer, 2, 2, 4)),
    "state-2d-for-batched": lambda layer: layer(x, state_for(layer, 1, 4)),
    "state-3d-for-unbatched": lambda layer: layer(x[:, 0], state_for(layer, 1, 1, 4)),
}


def state_for(layer: nn.Module, *shape: int) -> Any:
    return (torch.zeros(shape), torch.zeros(shape)) if isinstance(layer, nn.LSTM) else torch.zeros(shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
def test_a_packed_input_of_another_size_is_refused(kind: type[nn.Module], backend: str) -> None:
    """Also by the LSTM, whose torch class reads on (torch 2.13)."""
    with pytest.raises(RuntimeError, match="Expected 3, got 5"):
        OURS[kind](3, 4, backend=backend)(pack_sequence([torch.zeros(4, 5)]))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_wrong_construction_raises_what_torch_raises(name: str, kind: type[nn.Module]) -> None:
    with pytest.raises(Exception) as theirs:
        CONSTRUCTIONS[name](kind)
    with pytest.raises(theirs.type):
        CONSTRUCTIONS[name](OURS[kind])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_raises_what_torch_raises(name: str, kind: type[nn.Module], backend: str) -> None:
    with pytest.raises(Exception) as theirs:
        CALLS[name](kind(3, 4))
    with pytest.raises(theirs.type):
        CALLS[name](OURS[kind](3, 4, backend=backend))


@pytest.mark.parametrize("name", [name for name in CONSTRUCTIONS if "projection" not in name])
def test_recurrent_raises_the_same(name: str) -> None:
    with pytest.raises(Exception) as theirs:
        CONSTRUCTIONS[name](nn.GRU)
    with pytest.raises(theirs.type):
        CONSTRUCTIONS[name](lambda *args, **kwargs: cellwise.Recurrent("gru", *args, **kwargs))


@pytest.mark.parametrize("name", CALLS)
def test_recurrent_refuses_the_same_calls(name: str) -> None:
    with pytest.raises(Exception) as theirs:
        CALLS[name](nn.GRU(3, 4))
    with pytest.raises(theirs.type):
        CALLS[name](cellwise.Recurrent("gru", 3, 4))
