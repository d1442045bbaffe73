"""convert and revert: in place, whatever the modules are nested in, and models that others wrote."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import cellwise
from cellwise import convert, revert
from cellwise.errors import ConversionWarning, InputError

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def recurrent(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, RECURRENT)]


def ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("cellwise.")


class Tagger(nn.Module):
    """Recurrent modules in a list, in a dict, in a Sequential, inside another module, and as cells."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 3)
        self.stack = nn.ModuleList(
            [nn.LSTM(3, 4, batch_first=True), nn.GRU(4, 4, bidirectional=True, batch_first=True)]
        )
        self.by_name = nn.ModuleDict({"rnn": nn.RNN(8, 3, nonlinearity="relu", batch_first=True)})
        self.cells = nn.Sequential(nn.GRUCell(3, 3), nn.RNNCell(3, 3))
        self.memory = nn.LSTMCell(3, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in (*self.stack, self.by_name["rnn"]):
            x, _ = layer(x)
        return self.memory(self.cells(x[:, -1]))[0]


TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def step(model: nn.Module, *inputs: Any) -> tuple[Tensor, list[Tensor | None]]:
    output = model(*inputs)
    model.zero_grad()
    output.square().sum().backward()
    return output.detach(), [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def test_a_model_is_converted_in_place_and_computes_the_same() -> None:
    model = Tagger()
    before, gradients = step(model, TOKENS)
    parameters, modules, shown = dict(model.named_parameters()), list(model.modules()), repr(model)
    assert convert(model) is model
    assert [ours(module) for module in recurrent(model)] == [True] * 6
    assert list(model.modules()) == modules, "the same objects"
    assert all(value is parameters[name] for name, value in model.named_parameters())
    assert repr(model) == shown
    after, new_gradients = step(model, TOKENS)
    assert torch.equal(after, before)
    torch.testing.assert_close(new_gradients, gradients, rtol=0, atol=0)
    for module in recurrent(model):
        module.backend = "reference"
    torch.testing.assert_close(step(model, TOKENS), (before, gradients))


def test_revert_undoes_it() -> None:
    model = Tagger()
    kinds, state = [type(module) for module in model.modules()], list(model.__dict__)
    before = model(TOKENS)
    convert(model)
    recurrent(model)[0].backend = "reference"
    recurrent(model)[0].recompute = True
    assert revert(model) is model
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.__dict__) == state
    assert all(not {"_backend", "recompute"} & set(vars(module)) for module in model.modules())
    assert torch.equal(model(TOKENS), before)
    assert ours(recurrent(convert(model))[0])
    assert recurrent(model)[0].backend == "auto"


def test_the_model_itself_may_be_the_recurrent_module() -> None:
    layer = nn.LSTM(3, 4, proj_size=2)
    assert type(convert(layer)) is cellwise.LSTM
    assert type(revert(layer)) is nn.LSTM


def test_twice_is_once() -> None:
    model = Tagger()
    convert(convert(model))
    assert all(ours(module) for module in recurrent(model))
    revert(revert(model))
    assert not any(ours(module) for module in recurrent(model))


def test_a_layer_made_as_ours_reverts_to_torchs() -> None:
    layer = revert(cellwise.GRU(3, 4, backend="reference"))
    assert type(layer) is nn.GRU
    assert "backend" not in repr(layer)
    assert layer(torch.zeros(5, 2, 3))[0].shape == (5, 2, 4)


def test_a_shared_module_stays_shared() -> None:
    layer = nn.GRU(3, 3)
    model = nn.ModuleList([layer, nn.Sequential(layer)])
    convert(model)
    assert model[0] is model[1][0] is layer
    assert type(layer) is cellwise.GRU


def test_hooks_are_kept() -> None:
    model = nn.ModuleList([nn.GRU(3, 4)])
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    model[0].weight_hh_l0.register_hook(lambda grad: calls.append("weight"))
    convert(model)
    model[0](torch.zeros(5, 2, 3, requires_grad=True))[0].sum().backward()
    assert sorted(calls) == ["backward", "before", "forward", "weight"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell], ids=lambda kind: kind.__name__)
def test_parametrizations_are_kept(kind: type[nn.Module]) -> None:
    name = "weight_hh_l0" if kind is nn.LSTM else "weight_hh"
    x = torch.randn(5, 3)
    model = nn.ModuleList([kind(3, 4)])
    parametrizations.weight_norm(model[0], name)
    names = [name for name, _ in model.named_parameters()]
    before = model[0](x)
    convert(model)
    assert isinstance(model[0], (cellwise.LSTM, cellwise.GRUCell))
    assert parametrize.is_parametrized(model[0], name)
    assert [name for name, _ in model.named_parameters()] == names
    torch.testing.assert_close(model[0](x), before)  # perhaps by the kernels
    revert(model)
    assert isinstance(model[0], kind) and not isinstance(model[0], (cellwise.LSTM, cellwise.GRUCell))
    torch.testing.assert_close(model[0](x), before, rtol=0, atol=0)
    parametrize.remove_parametrizations(convert(model)[0], name)
    assert ours(model[0])
    torch.testing.assert_close(model[0](x), before)


def test_lengths_work_after_conversion() -> None:
    model = convert(nn.ModuleDict({"encoder": nn.GRU(3, 4)}))
    x = torch.randn(5, 2, 3)
    packed, _ = model["encoder"](pack_padded_sequence(x, torch.tensor([5, 2])))
    output, _ = model["encoder"](x, lengths=[5, 2])
    torch.testing.assert_close(output[:2, 1], packed.data[[1, 3]])


class Attending(nn.GRU):
    """Somebody's own forward."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        return 2 * output, state


class Checked(nn.RNNBase):
    """A mixin before the class of torch.nn, as packages write it."""

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> Any:
        return super().forward(x, hx=hx)


class MixedLSTM(Checked, nn.LSTM):
    def __init__(self, size: int) -> None:
        super().__init__(3, size, batch_first=True)


class AddingCell(nn.GRUCell):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, hx) + 1


SUBCLASSES = [lambda: Attending(3, 4), lambda: MixedLSTM(4), lambda: AddingCell(3, 4)]


@pytest.mark.parametrize("make", SUBCLASSES)
def test_under_a_subclass_whose_own_code_still_runs(make: Any) -> None:
    model, x = nn.Sequential(make()), torch.randn(5, 3)
    kind, before = type(model[0]), model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(model)
    assert isinstance(model[0], kind) and type(model[0]) is not kind
    assert model[0].backend == "auto"
    assert repr(model[0]).startswith(f"{kind.__name__}(3, 4")
    torch.testing.assert_close(model(x), before)
    model[0].backend = "reference"
    torch.testing.assert_close(model(x), before)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again[0]) is type(model[0]) and again[0].backend == "reference"
        torch.testing.assert_close(again(x), before)
    assert type(revert(model)[0]) is kind
    torch.testing.assert_close(model(x), before)


def test_subclasses_are_left_alone_without_a_word_where_asked() -> None:
    model = nn.Sequential(Attending(3, 4), nn.GRU(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(model, subclasses=False)
    assert [type(each) for each in model] == [Attending, cellwise.GRU]


def test_a_parametrized_subclass() -> None:
    model, x = nn.Sequential(Attending(3, 4)), torch.randn(5, 3)
    parametrizations.weight_norm(model[0], "weight_hh_l0")
    before = model(x)[0]
    torch.testing.assert_close(convert(model)(x)[0], before)
    assert isinstance(model[0], (Attending, cellwise.GRU)) and parametrize.is_parametrized(model[0])
    torch.testing.assert_close(revert(model)(x)[0], before)
    assert not isinstance(model[0], cellwise.GRU)


class Dropped(nn.LSTM):
    """Weights changed where torch.nn reads them."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self._flat_weights = [weight * 0 for weight in self._flat_weights]
        return super().forward(input, hx)


class OwnChecks(nn.GRU):
    def check_forward_args(self, *arguments: Any) -> None:
        """Of a call from torch.nn's forward."""


class OwnForward(nn.GRU):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return nn.GRU.forward(self, input, hx)


class WithStream(nn.GRU):
    def __init__(self) -> None:
        super().__init__(3, 4)
        self.stream = 3


class Registered(nn.GRU):
    def __init_subclass__(cls, *, name: str) -> None:
        """Of a package that keeps a table of its classes."""


LEFT_ALONE = {
    "that works on _flat_weights": lambda: Dropped(3, 4),
    "whose own 'check_forward_args' cellwise would not call": lambda: OwnChecks(3, 4),
    "whose own forward does not call super().forward": lambda: OwnForward(3, 4),
    "whose 'stream' would hide that of cellwise": WithStream,
    "__init_subclass__": lambda: Registered(3, 4),
}


@pytest.mark.parametrize("reason", LEFT_ALONE)
def test_a_subclass_whose_code_would_be_lost_is_left_alone(reason: str) -> None:
    model = nn.Sequential(LEFT_ALONE[reason]())
    kind = type(model[0])
    with pytest.warns(ConversionWarning, match=re.escape(reason)):
        convert(model)
    assert type(model[0]) is kind


def test_what_is_left_alone_is_named_with_the_reason() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.GRU(3, 4),
            "inner": nn.Sequential(nn.RNNBase("LSTM", 3, 4)),
            "quantized": torch.ao.nn.quantized.dynamic.LSTM(3, 4),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model["scripted"] = torch.jit.script(nn.GRU(3, 4))
    with pytest.warns(ConversionWarning) as warned:
        convert(model)
    (text,) = [str(each.message) for each in warned if issubclass(each.category, ConversionWarning)]
    assert "left 3 recurrent module(s)" in text
    assert "inner.0 (RNNBase): a recurrent module that is none of torch.nn's" in text
    assert "quantized (LSTM): a quantized module" in text
    assert "scripted (" in text and "TorchScript" in text
    assert type(model["plain"]) is cellwise.GRU
    assert warned[0].filename == __file__, "the warning points at the caller"


def test_what_is_no_model_is_refused() -> None:
    wrong: Any
    for wrong, got in ((nn.LSTM, "the class LSTM"), ({}, "a dict"), (None, "a NoneType")):
        for swap in (convert, revert):
            with pytest.raises(InputError, match=f"{swap.__name__} takes a model.*; got {got}"):
                swap(wrong)


def test_nothing_left_alone_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(Tagger())
        convert(nn.Linear(2, 2))


# --- models that others wrote -------------------------------------------------------------------------------


def attentive_fp() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Xiong et al. 2020: message passing whose node and molecule states are updated by three GRU cells."""
    models = import_module("torch_geometric.nn.models")
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0], [1, 2, 0, 4, 5, 3, 7, 8, 6, 2]])
    rows = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    return models.AttentiveFP(6, 8, 4, 3, 2, 2), (torch.randn(9, 6), edges, torch.randn(10, 3), rows), 3


def jumping_knowledge() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Xu et al. 2018: a bidirectional LSTM over the layers of a graph network."""
    models = import_module("torch_geometric.nn.models")
    return models.JumpingKnowledge("lstm", 6, 3), ([torch.randn(9, 6) for _ in range(3)],), 1


def set2set() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Vinyals et al. 2016: an LSTM that reads a set by attention."""
    layers = import_module("torch_geometric.nn")
    return (
        layers.Set2Set(6, 3, num_layers=2),
        (torch.randn(9, 6), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])),
        1,
    )


def gated_graph() -> tuple[nn.Module, tuple[Any, ...], int]:
    """Li et al. 2016: a GRU cell over messages."""
    layers = import_module("torch_geometric.nn")
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    return layers.GatedGraphConv(8, 3), (torch.randn(4, 6), edges), 1


@pytest.mark.parametrize(
    "make", [attentive_fp, jumping_knowledge, set2set, gated_graph], ids=lambda f: f.__name__
)
def test_a_model_that_someone_else_wrote(make: Any) -> None:
    model, inputs, count = make()
    model.eval()
    before = step(model, *inputs)
    assert len(recurrent(model)) == count
    convert(model)
    assert all(ours(module) for module in recurrent(model))
    for backend in ("native", "reference"):
        for module in recurrent(model):
            module.backend = backend
        found = step(model, *inputs)
        if backend == "native":
            torch.testing.assert_close(found, before, rtol=0, atol=0)
        else:
            torch.testing.assert_close(found, before, rtol=1e-4, atol=1e-5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.step()
    trained = model(*inputs)
    assert not torch.equal(trained, before[0])
    revert(model)
    assert not any(ours(module) for module in recurrent(model))
    torch.testing.assert_close(model(*inputs), trained, rtol=1e-4, atol=1e-5)
